"""The questions: ftbridge's general suite, and canaries of your own, written as items into a run's `data/retention.jsonl`.

The suite, `items.jsonl`, was written for ftbridge: 128 short questions in five kinds (fact, arithmetic, instruction, format,
nonsense), each with one right answer that a check can tell, easy enough for small models to know some of them and for large
ones to know nearly all. Statements of "nonsense" are as often true as false, so that always saying FALSE gains nothing.

A canary is a line of supervised data whose last message is the answer to keep; `check` and `expected` beside `messages` say how
it is judged, else the spec's own graders do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from ftbridge.data.replay import PROMPTS
from ftbridge.errors import DataError
from ftbridge.evaluation.items import ItemExample, parse_item, parse_line, read_lines
from ftbridge.evaluation.retention.checks import CHECKS
from ftbridge.files import write_text
from ftbridge.spec.sections import RetentionSpec

KINDS = ("fact", "arithmetic", "instruction", "format", "nonsense", "canary")
"""In the order in which they are told; canaries are the user's."""


def write_questions(settings: RetentionSpec, train: Path, out: Path) -> int:
    """Write what retention asks as items, one JSON line each; returns how many.

    Raises `UsageError` for a canary file that cannot be read, `DataError` for one that is empty, has bad lines, or holds what
    is trained on: `train` is the canonical training split, and prompts that are replayed lie beside it.
    """
    lines = list(suite()) if settings.suite else []
    if settings.canaries is not None:
        lines += _canaries(Path(settings.canaries), [train, train.with_name(PROMPTS)])
    write_text(out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return len(lines)


def suite() -> Iterator[dict[str, Any]]:
    """The general suite as items: `messages`, and `kind`, `check`, `expected` beside them."""
    text = files("ftbridge.evaluation.retention").joinpath("items.jsonl").read_text("utf-8")
    for line in text.splitlines():
        question = json.loads(line)
        messages = [
            {"role": "user", "content": question["prompt"]},
            {"role": "assistant", "content": question["expected"]},
        ]
        yield {
            "messages": messages,
            "kind": question["kind"],
            "check": question["check"],
            "expected": question["expected"],
        }


def _canaries(path: Path, training_files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not lines:
        raise DataError(
            f"{path} contains no canaries.", hint="Write one example a line, or leave out retention.canaries."
        )
    training_lines = {
        _prompt(parse_item(line, file, number)): f"{file.name}:{number}"
        for file in training_files
        if file.exists()
        for number, line in enumerate(read_lines(file), 1)
    }
    for number, line in lines:
        example = parse_line(line, path, number)
        if (where := training_lines.get(_prompt(example))) is not None:
            raise DataError(
                f"{path}:{number} asks what {where} trains: a canary that is trained on proves nothing.",
                hint="Remove it from one of the two.",
            )
        checks = {name: example.extra[name] for name in ("check", "expected") if name in example.extra}
        if checks and (checks.get("check") not in CHECKS or not isinstance(checks.get("expected"), str)):
            raise DataError(
                f"{path}:{number} check and expected must both be given: check is one of {', '.join(CHECKS)}, "
                "expected a text."
            )
        yield {**json.loads(line), "kind": "canary"}


def _prompt(example: ItemExample) -> str:
    return "\n".join(message.model_dump_json(exclude={"weight"}, exclude_none=True) for message in example.prompt)
