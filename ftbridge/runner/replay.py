"""Replay in a run: the base model completes the prompts of `data.replay` once, and its completions become training lines.

    data/replay.jsonl ─▶ predictions/base.replay.jsonl ─▶ data/replay_examples.jsonl · data/train_with_replay.jsonl

Before the job is submitted, and after every gate: what a service is paid for these completions is the first thing that a run
pays for. Each is written as it comes, so a run that was killed asks for the missing ones alone. `ftbridge.data.replay` says why
they are the base model's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ftbridge.data.examples import parse_example
from ftbridge.data.replay import EXAMPLES, PROMPTS, WITH_TRAIN, prompts_needed, replay_count, replay_line, with_replay
from ftbridge.data.tokens import count_tokens
from ftbridge.errors import DataError
from ftbridge.evaluation.candidates import Candidate, plain
from ftbridge.evaluation.generate import Prediction, Sampling, generate
from ftbridge.evaluation.items import Item, load_items
from ftbridge.files import sha256_bytes, sha256_file, write_text
from ftbridge.providers.base import Sampler
from ftbridge.runner.observer import Observer
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec

CANDIDATE = Candidate("base.replay", plain)
"""Who completes the prompts: `predictions/base.replay.jsonl`."""


def complete(
    run: Run,
    spec: JobSpec,
    *,
    mixed: bool,
    sampler_of: Callable[[], Sampler],
    watcher: Observer,
    between: Callable[[], None],
) -> None:
    """Complete the prompts that the job needs, write the training lines, and journal them.

    `mixed`: the provider mixes replay into its steps, so that every epoch has prompts of its own while they last; else they are
    written into one file with the training examples. `between` is called after each completion, and may raise to stop.
    Raises `DataError` when no completion can be trained, and whatever `generate` raises.
    """
    settings, train = spec.data.replay, run.state().split("train")
    assert settings is not None
    assert train is not None
    items = load_items(run.data / PROMPTS)
    items = items[: prompts_needed(train.examples, run.planned_epochs, settings.share, len(items), mixed=mixed)]
    run.append("evaluating", candidate=CANDIDATE.name)
    watcher.stage(run, "completing replay prompts with the base model")

    def progress(done: int, total: int) -> None:
        watcher.answered(CANDIDATE.name, done, total)
        between()

    sampler = sampler_of()
    try:
        predictions = generate(
            CANDIDATE,
            items,
            sampler,
            run.predictions(CANDIDATE.name),
            max_tokens=settings.max_completion_tokens,
            batch_size=spec.evaluation.batch_size,
            sampling=Sampling(temperature=settings.temperature, seed=spec.seed),
            on_progress=progress,
        )
    finally:
        sampler.close()
    _write(run, items, predictions, mixed=mixed, share=settings.share)
    run.append("evaluated", candidate=CANDIDATE.name)


def is_written(run: Run) -> bool:
    """Whether the training lines that the journal tells of are still there, unharmed."""
    written, path = run.state().replay, run.data / EXAMPLES
    return written is not None and path.exists() and sha256_file(path) == written.sha256


def _write(run: Run, items: Sequence[Item], predictions: Sequence[Prediction], *, mixed: bool, share: float) -> None:
    """Write the lines. Of a file for a service, completions that were cut are left out: it would train their end."""
    lines = [
        _line(item, prediction, reasoning=mixed)
        for item, prediction in zip(items, predictions, strict=True)
        if _is_usable(prediction) and (mixed or prediction.finish_reason != "length")
    ]
    if not lines:
        raise DataError(
            f"none of the base model's {len(predictions):,} completions of replay prompts can be trained on: they are "
            "empty, or reach the token limit.",
            hint="Raise data.replay.max_completion_tokens, name other prompts, or leave data.replay out.",
        )
    text = "".join(f"{line}\n" for line in lines)
    write_text(run.data / EXAMPLES, text)
    if not mixed:
        train = (run.data / "train.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        count = replay_count(len(train), share)
        write_text(run.data / WITH_TRAIN, "".join(f"{line}\n" for line in with_replay(train, lines[:count])))
    run.append(
        "replay_written",
        examples=len(lines),
        tokens=count_tokens(parse_example(json.loads(line)) for line in lines),
        sha256=sha256_bytes(text.encode()),
        left_out=len(predictions) - len(lines),
    )


def _is_usable(prediction: Prediction) -> bool:
    return prediction.error is None and bool(prediction.output_text.strip())


def _line(item: Item, prediction: Prediction, *, reasoning: bool) -> str:
    prompt: dict[str, Any] = {
        "messages": [message.model_dump(mode="json", exclude_unset=True) for message in item.prompt]
    }
    if item.tools:
        prompt["tools"] = list(item.tools)
    completion: dict[str, Any] = {"content": prediction.output_text}
    if prediction.tool_calls:
        completion = {"tool_calls": prediction.tool_calls}
    if reasoning and prediction.reasoning_content:
        completion["reasoning_content"] = prediction.reasoning_content
    return replay_line(prompt, completion, cut=prediction.finish_reason == "length")
