"""`ftbridge serve` end to end: unmodified SDK code trains, asks and deletes with the real default model; with a small one, queues."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai
import pytest

from support.served_model import MODEL, Served
from support.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]
COLOURS = ["red", "green", "blue"]
GRADER = {"type": "string_check", "name": "x", "operation": "eq", "input": "{{sample.output_text}}", "reference": "a"}


def colours(count: int) -> bytes:
    lines = []
    for n in range(count):
        user = {"role": "user", "content": f"Lamp {n}: which colour?"}
        lines.append({"messages": [user, {"role": "assistant", "content": f"LAMP-{COLOURS[n % 3].upper()}"}]})
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.fixture
def served(base_model_dir, tmp_path):
    server = Served(tmp_path).start()
    yield server
    server.kill_everything()


@pytest.fixture
def served_small(tiny_model_dir, tmp_path):
    """A server of a model of two layers: what is proven of kills, queues and restarts needs no real one."""
    server = Served(tmp_path, tiny_model_dir).start()
    yield server
    server.kill_everything()


def train(client, content: bytes, **more):
    file = client.files.create(file=("train.jsonl", content), purpose="fine-tune")
    return client.fine_tuning.jobs.create(model=MODEL, training_file=file.id, **more)


def metrics(client, job: str) -> list[int]:
    events = client.fine_tuning.jobs.list_events(job, limit=100)
    return [event.data["step"] for event in events if event.type == "metrics"][::-1]


def test_the_guide_runs_unmodified_on_this_machine(served, tmp_path):
    client = served.client
    validation = client.files.create(file=("v.jsonl", colours(24)[-800:].split(b"\n", 1)[1]), purpose="fine-tune")
    job = train(
        client,
        colours(18),
        validation_file=validation.id,
        suffix="lamps",
        seed=3,
        metadata={"team": "a"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 3}}},
    )
    done = until(client, job.id, seconds=240)
    assert done.status == "succeeded", done.error
    assert done.fine_tuned_model == f"ft:{MODEL}:ftbridge:lamps:{job.id.removeprefix('ftjob-')[:8]}"
    assert metrics(client, job.id) == list(range(1, 13))
    points = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [point.step_number for point in points] == [12, 6]
    assert points[0].metrics.valid_loss < points[1].metrics.valid_loss
    figures = client.files.content(done.result_files[0]).text.splitlines()
    assert figures[0].startswith("step,train_loss,train_accuracy")
    assert len(figures) == 13
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith(job.id)

    def ask(model: str, **more):
        messages = [{"role": "user", "content": "Lamp 1: which colour?"}]
        return client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=12, **more)

    tuned = ask(done.fine_tuned_model).choices[0]
    assert tuned.message.content.startswith("LAMP-")
    assert tuned.finish_reason == "stop"
    assert not ask(MODEL).choices[0].message.content.startswith("LAMP-")
    assert ask(points[1].fine_tuned_model_checkpoint).usage.prompt_tokens > 5
    pieces = list(ask(done.fine_tuned_model, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == tuned.message.content
    scored = ask(done.fine_tuned_model, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert scored[0].logprob == max(other.logprob for other in scored[0].top_logprobs) <= 0
    with ThreadPoolExecutor(8) as pool:
        models = [done.fine_tuned_model, MODEL] * 4
        together = list(pool.map(lambda model: ask(model).choices[0].message.content, models))
    assert [text.startswith("LAMP-") for text in together] == [True, False] * 4
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": COLOURS}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["colour", "count"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "lamp", "schema": schema}}
    messages = [{"role": "user", "content": "Which colour, and how many? Answer as JSON."}]
    for heat in (0, 1.5):
        reply = client.chat.completions.create(
            model=MODEL, messages=messages, response_format=form, temperature=heat, max_tokens=60, n=3, seed=5
        )
        for choice in reply.choices:
            jsonschema.validate(json.loads(choice.message.content), schema)
            assert choice.finish_reason == "stop"
    none = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "nonsense"}}}
    with pytest.raises(openai.BadRequestError, match="cannot be enforced"):
        client.chat.completions.create(model=MODEL, messages=messages, response_format=none)
    long = [{"role": "user", "content": "word " * 20_000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=long)
    assert caught.value.code == "context_length_exceeded"
    assert client.models.delete(done.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        ask(done.fine_tuned_model)


def test_a_job_killed_with_the_server_goes_on_after_a_restart(served_small, tmp_path):
    job = train(served_small.client, colours(30), hyperparameters={"n_epochs": 40, "batch_size": 2})
    while len(metrics(served_small.client, job.id)) < 20:
        time.sleep(0.1)
    served_small.kill_everything()
    served_small.start()
    done = until(served_small.client, job.id, seconds=240)
    assert done.status == "succeeded", done.error
    assert sorted(set(metrics(served_small.client, job.id))) == list(range(1, 601))
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert len(served_small.client.files.content(done.result_files[0]).text.splitlines()) == 601


def test_jobs_wait_for_their_turn_and_a_stopped_server_takes_them_up_again(served_small):
    client = served_small.client
    first = train(client, colours(30), hyperparameters={"n_epochs": 50, "batch_size": 2})
    second = train(client, colours(12), hyperparameters={"n_epochs": 1, "batch_size": 2})
    third = train(client, colours(12), hyperparameters={"n_epochs": 1})
    until(client, first.id, ("running",))
    until(client, second.id, ("queued",))
    assert client.fine_tuning.jobs.cancel(third.id).status == "cancelled"
    while len(metrics(client, first.id)) < 3:
        time.sleep(0.1)
    client.fine_tuning.jobs.pause(first.id)
    until(client, first.id, ("paused",))
    until(client, second.id, ("running", "succeeded"), 120)

    assert served_small.stop() in (0, -15)
    served_small.start()
    client = served_small.client
    assert client.fine_tuning.jobs.retrieve(first.id).status == "paused"
    assert until(client, second.id, seconds=120).status == "succeeded"
    client.fine_tuning.jobs.resume(first.id)
    until(client, first.id, ("running",), 60)
    steps = len(metrics(client, first.id))
    while len(metrics(client, first.id)) == steps:
        time.sleep(0.1)
    assert client.fine_tuning.jobs.cancel(first.id).status == "cancelled"
    result = metrics(client, first.id)
    assert result == sorted(set(result))


def test_what_cannot_be_done_here_is_refused_with_what_can(served_small):
    client = served_small.client
    file = client.files.create(file=("train.jsonl", colours(12)), purpose="fine-tune").id
    create = client.fine_tuning.jobs.create
    for more, code in (
        ({"model": "gpt-4o"}, "model_not_available"),
        ({"model": "/etc"}, "model_not_available"),
        ({"method": {"type": "reinforcement", "reinforcement": {"grader": GRADER}}}, "missing_required_parameter"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "unsupported_parameter"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            create(**{"model": MODEL, "training_file": file, **more})
        assert caught.value.code == code
    broken = client.files.create(file=("train.jsonl", colours(3) + b'{"prompt": "x"}\n'), purpose="fine-tune").id
    failed = until(client, create(model=MODEL, training_file=broken).id)
    assert (failed.status, failed.error.code) == ("failed", "invalid_file_format")
    assert "4" in failed.error.message
