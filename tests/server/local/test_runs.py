"""`ftbridge serve --map 'ft:…=RUN'`: a run answers under any name that clients know, checkpoint names included."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import BadRequestError, NotFoundError, OpenAI, PermissionDeniedError

from ftbridge.errors import RunNotFound, UsageError
from ftbridge.runner import drive
from ftbridge.runner.start import create_run
from ftbridge.runs.run import Run
from ftbridge.server import served
from ftbridge.server.api.compatibility import unsupported
from ftbridge.server.app import application
from ftbridge.server.http import network
from ftbridge.server.local.runs import served_run
from ftbridge.spec import SpecFile
from support.small_model import write_small_model

OLD = "ft:gpt-4.1-mini-2025-04-14:quay:desk:desk1"
CHECKPOINT = f"{OLD}:ckpt-step-3"
CHAT = [{"role": "user", "content": "Name the colour of the amber lamp."}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> Run:
    """A run over a random model of two layers, long enough to answer otherwise than its base."""
    folder = tmp_path_factory.mktemp("trained")
    base = write_small_model(folder / "base", base_model_dir)
    line = json.dumps({"messages": [*CHAT, {"role": "assistant", "content": "amber amber amber amber"}]})
    (folder / "train.jsonl").write_text(f"{line}\n" * 16)
    spec = {
        "name": "desk",
        "data": {"train": str(folder / "train.jsonl")},
        "model": {"local": str(base)},
        "hyperparameters": {"n_epochs": 2, "batch_size": 8},
        "local": {"quantization": "none", "max_length": 64, "base_learning_rate": 0.05, "device": "cpu"},
    }
    run = create_run(SpecFile.of(spec), "local", lint=False, home=folder)
    drive.drive(run)
    return run


@pytest.fixture(scope="module")
def openai(finished: Run) -> Iterator[OpenAI]:
    home = finished.path.parent.parent
    runs = {OLD: served_run(home, finished.id), CHECKPOINT: served_run(home, f"run:{finished.id}@3")}
    base = finished.spec().model.local
    assert base is not None
    service = served({"base": base}, home / "server", home=home, runs={name: run for name, run in runs.items() if run})
    bound = network.bind("127.0.0.1", 0)
    with network.in_background(application(service), bound):
        yield OpenAI(base_url=f"{network.address_of(bound)}/v1", api_key="any", max_retries=0, timeout=120)
    bound.close()


@pytest.mark.slow
def test_old_names_are_listed_and_answered_by_the_run_as_themselves(openai: OpenAI) -> None:
    shown = {model.id: model.owned_by for model in openai.models.list()}
    assert shown == {OLD: "quay", CHECKPOINT: "quay", "base": "ftbridge"}
    assert openai.models.retrieve(CHECKPOINT).id == CHECKPOINT
    replies = {}
    for name in (OLD, CHECKPOINT, "base"):
        done = openai.chat.completions.create(model=name, messages=CHAT, temperature=0, max_tokens=4)  # type: ignore[arg-type]
        assert done.model == name
        replies[name] = done.choices[0].message.content
    assert replies[OLD] != replies["base"]
    assert "amber" in str(replies[OLD])


@pytest.mark.slow
def test_a_run_under_an_old_name_cannot_be_deleted_or_trained_further_and_other_names_stay_unknown(
    openai: OpenAI, finished: Run
) -> None:
    with pytest.raises(PermissionDeniedError):
        openai.models.delete(OLD)
    with pytest.raises(NotFoundError):
        openai.chat.completions.create(model=f"{OLD}:ckpt-step-9", messages=CHAT)  # type: ignore[arg-type]
    file = openai.files.create(file=("t.jsonl", (finished.data / "train.jsonl").read_bytes()), purpose="fine-tune")
    with pytest.raises(BadRequestError, match="is a tuned model"):
        openai.fine_tuning.jobs.create(model=OLD, training_file=file.id)


@pytest.mark.slow
def test_runs_that_cannot_be_served_are_named(finished: Run) -> None:
    home = finished.path.parent.parent
    assert served_run(home, "smollm2-135m-instruct") is None
    with pytest.raises(RunNotFound):
        served_run(home, "run:nothing")
    with pytest.raises(UsageError, match="has no checkpoint of step 77"):
        served_run(home, f"{finished.id}@77")
    with pytest.raises(RunNotFound, match="does not name a run"):
        served_run(home, "run:@2")


def test_what_clients_asked_elsewhere_is_checked_as_it_would_be_asked_here() -> None:
    plain = {"model": OLD, "messages": CHAT}
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]
    requests = [
        plain,
        {**plain, "logprobs": True, "top_logprobs": 5, "n": 2},
        {**plain, "tools": [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]},
        {**plain, "modalities": ["text", "audio"]},
        {**plain, "modalities": ["text", "audio"], "temperature": 0.5},
        {**plain, "messages": image},
    ]
    result = unsupported(requests)
    assert [one.requests for one in result] == [2, 1]
    assert "modalities" in result[0].reason
    assert "image_url" in result[1].reason
