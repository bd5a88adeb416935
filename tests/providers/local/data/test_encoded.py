"""A job's splits are rendered once; every later process reads the same tokens, and only where they are the job's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ftbridge.data.manifest import load_manifest
from ftbridge.data.prepare import prepare
from ftbridge.planning.local_tokens import local_tokens, renderer_of
from ftbridge.providers.base import Submission
from ftbridge.providers.local.data.encoded import EncodedSplit, encode_once, stored_counts
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.models.load import load_tokenizer
from ftbridge.providers.local.process import check
from ftbridge.providers.local.process.job import encoded_folder
from ftbridge.providers.local.process.run_training import make_ready
from ftbridge.providers.local.request import DpoRequest, LocalRequest, ReinforcementRequest
from ftbridge.providers.local.training.methods import METHODS
from ftbridge.spec import JobSpec
from ftbridge.spec.graders import StringCheckGrader
from ftbridge.spec.sections import LocalSpec
from support.training_requests import request

GRADER = StringCheckGrader(
    type="string_check", name="exact", operation="eq", input="{{sample.output_text}}", reference="{{item.reference}}"
)
LINES: dict[str, Any] = {
    "supervised": lambda i: {"messages": [user(i), assistant(f"Queue {i}" + " again" * (40 if i == 3 else i))]},
    "dpo": lambda i: {
        "input": {"messages": [user(i)], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [assistant(f"Queue {i}")],
        "non_preferred_output": [assistant(f"I do not know {i}")],
    },
    "reinforcement": lambda i: {"messages": [user(i)], "reference": f"Queue {i}"},
}
SECTIONS: dict[str, dict[str, Any]] = {
    "supervised": {},
    "dpo": {"dpo": DpoRequest()},
    "reinforcement": {"reinforcement": ReinforcementRequest(grader=GRADER, max_completion_tokens=16)},
}


def user(index: int) -> dict[str, str]:
    return {"role": "user", "content": f"Which queue takes ticket {index}?"}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def prepared(folder: Path, method: str, **data: Any) -> dict[str, Path]:
    (folder / "lines.jsonl").write_text("\n".join(json.dumps(LINES[method](i)) for i in range(12)))
    document = {
        "name": "t",
        "method": method,
        "data": {"train": "lines.jsonl", "validation": 0.25, **data},
        "model": {"local": "m"},
    }
    prepare(JobSpec.from_dict(document), base=folder, out=folder / "data")
    return {name: folder / "data" / f"{name}.jsonl" for name in ("train", "validation")}


def renderer(model: Path) -> Renderer:
    return Renderer(load_tokenizer(model), "off")


def encode(
    folder: Path, model: Path, splits: dict[str, Path], settings: LocalRequest, *, again: bool
) -> dict[str, EncodedSplit[Any]]:
    """The splits of a job; without `again`, encoding fails the test."""

    def refuse(*_: object) -> EncodedSplit[Any]:
        raise AssertionError("the data were rendered again")

    method = METHODS[settings.method]
    method = method if again else replace(method, encode=refuse)
    return encode_once(method, splits, renderer(model), settings, model, folder / "encoded")


@pytest.mark.parametrize("method", list(METHODS))
def test_what_was_encoded_once_is_read_again_as_it_was(tmp_path: Path, base_model_dir: Path, method: str) -> None:
    splits, settings = prepared(tmp_path, method), request(method=method, thinking="off", **SECTIONS[method])
    first = encode(tmp_path, base_model_dir, splits, settings, again=True)
    assert encode(tmp_path, base_model_dir, splits, settings, again=False) == first
    assert len(first["train"].examples) == 9


@pytest.mark.parametrize("change", ["data", "max_length", "thinking", "tokenizer", "damage", "one is missing"])
def test_tokens_of_another_job_are_not_used(tmp_path: Path, tiny_model_dir: Path, change: str) -> None:
    model, settings = tmp_path / "model", request(thinking="off", overlength="truncate")
    model.mkdir()
    for path in tiny_model_dir.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    splits = prepared(tmp_path, "supervised")
    encode(tmp_path, model, splits, settings, again=True)
    stored = tmp_path / "encoded" / "train.npz"
    match change:
        case "data":
            lines = splits["train"].read_text().replace("Queue", "Lane")
            splits["train"].write_text(lines)
        case "max_length":
            settings = settings.model_copy(update={"max_length": 64})
        case "thinking":
            settings = settings.model_copy(update={"thinking": "on"})
        case "tokenizer":
            (model / "chat_template.jinja").write_text((model / "chat_template.jinja").read_text() + " ")
        case "damage":
            stored.write_bytes(stored.read_bytes()[:-400])
        case _:
            stored.unlink()
    with pytest.raises(AssertionError, match="rendered again"):
        encode(tmp_path, model, splits, settings, again=False)
    current = encode(tmp_path, model, splits, settings, again=True)
    assert encode(tmp_path, model, splits, settings, again=False) == current


def test_what_the_length_policy_and_the_template_did_is_noted_by_every_process(
    tmp_path: Path, base_model_dir: Path
) -> None:
    splits = prepared(tmp_path, "supervised")
    settings = request(model=str(base_model_dir), thinking="off", max_length=48, overlength="drop")
    first, second = (
        make_ready(settings, splits["train"], splits["validation"], lambda *_: None, tmp_path / "encoded")
        for _ in range(2)
    )
    assert any("dropped: lines.jsonl:4" in note for note in first.notes)
    assert second.notes == first.notes
    assert second.train == first.train


def test_a_plan_counts_stored_tokens_as_it_would_render_them(tmp_path: Path, base_model_dir: Path) -> None:
    splits = prepared(tmp_path, "supervised")
    settings = request(thinking="off", max_length=48, overlength="truncate")
    encode(tmp_path, base_model_dir, splits, settings, again=True)
    sha256 = load_manifest(tmp_path / "data").splits["train"].sha256
    counts = stored_counts(tmp_path / "encoded", "train", sha256)
    rendered = local_tokens(
        splits["train"], renderer_of(base_model_dir, "off"), LocalSpec(max_length=48, overlength="truncate")
    )
    assert counts is not None
    assert (counts.tokens, counts.num_loss_tokens) == (rendered.tokens, rendered.trained)
    assert (counts.longest, counts.too_long) == (rendered.longest, rendered.too_long)
    assert stored_counts(tmp_path / "encoded", "train", "0" * 64) is None


def test_the_worker_reads_what_preflight_wrote(tmp_path: Path, tiny_model_dir: Path) -> None:
    splits = prepared(tmp_path, "supervised")
    settings = request(model=str(tiny_model_dir), thinking="off")
    submission = Submission(
        token="t",
        folder=tmp_path,
        request=settings,
        train=splits["train"],
        validation=splits["validation"],
    )
    replies: list[dict[str, Any]] = []
    check.respond(submission.model_dump(mode="json"), lambda kind, **fields: replies.append({"kind": kind, **fields}))
    stored = {path.name: path.stat().st_ino for path in encoded_folder(tmp_path).iterdir()}
    assert sorted(stored) == ["train.npz", "validation.npz"]
    ready = make_ready(settings, splits["train"], splits["validation"], lambda *_: None, encoded_folder(tmp_path))
    assert {path.name: path.stat().st_ino for path in encoded_folder(tmp_path).iterdir()} == stored
    assert replies[-1]["tokens"] == {"train": ready.train.tokens, "validation": ready.validation.tokens}
