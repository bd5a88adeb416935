"""Answering: a candidate answers items into a file that can be taken up again.

    answer(candidate, items, sampler, path)  one JSON line for each answer, as it comes
    read_predictions(path)                   what is there

An answer stands for an item while the prompt made from it is the same. With several samples of each item, each is a prompt of
its own, with a seed and a line; in memory the first of an item holds the `others`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ftbridge.data.notation import split_reasoning
from ftbridge.errors import ModelUnavailable, PromptsRefused
from ftbridge.evaluation.candidates import Candidate
from ftbridge.evaluation.items import Item
from ftbridge.files import disk_full_is_an_error, sha256_bytes
from ftbridge.providers.base import Completion, Prompt, Sampler
from ftbridge.redaction import whole_characters
from ftbridge.spec import JobSpec


class Prediction(BaseModel):
    """One answer, a line of `predictions/CANDIDATE.jsonl`. It stands for an item while its prompt is the same.

    `output_text` is without reasoning, which `reasoning_content` holds; of an answer that calls tools it is the JSON of
    `tool_calls`, as references have them. `seconds` is how long the answer took, where the sampler told. With an `error` there
    is not a completion: it has no score, and is asked again the next time. `sample` counts from 0 where an item has several
    completions; in memory the first holds the others, in a file each is a line.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    index: int
    prompt_sha256: str
    output_text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float | None = None
    error: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    sample: int | None = None
    others: tuple[Prediction, ...] = ()

    @property
    def samples(self) -> tuple[Prediction, ...]:
        """Every completion of the item: this one, and the others where there are several."""
        return (self, *self.others)


@dataclass(frozen=True)
class Sampling:
    """How many completions each item gets, and how they are drawn: at a temperature, by seeds that begin at `seed`."""

    samples: int = 1
    temperature: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, spec: JobSpec) -> Sampling:
        """As a spec's evaluation has it."""
        return cls(spec.evaluation.samples, spec.evaluation.sampling_temperature, spec.seed)


def generate(
    candidate: Candidate,
    items: Sequence[Item],
    sampler: Sampler,
    path: Path,
    *,
    max_tokens: int,
    batch_size: int,
    sampling: Sampling | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """Let a candidate answer the items into `path`; returns the predictions in the order of the items.

    Every answer is written as it comes. Called again, it asks only what has no answer yet: items whose prompt changed count as
    unanswered, as do those that ended in an error, and a line torn by a crash is cut off. An answer to the same prompt, with
    the same temperature and seed, stands for an item wherever it is in its file. A candidate that shares another's answers
    copies them from the file beside `path`. `on_progress` hears (answered, total), first of what is there already.
    Raises `ModelUnavailable` when the sampler ends without answering all, `DiskFull`, and whatever the sampler raises;
    in every case the answers so far are kept.
    """
    requests = _Requests(candidate, items, sampling or Sampling())
    tell = on_progress or (lambda done, total: None)
    _mend(path)
    earlier = [prediction for prediction in _read(path) if prediction.error is None]
    done = {
        name: prediction
        for prediction in earlier
        if requests.hashes.get(name := _name(prediction.key, prediction.sample)) == prediction.prompt_sha256
    }
    by_prompt = {one.prompt_sha256: one for one in (*earlier, *_shared(candidate, path)) if one.error is None}
    with disk_full_is_an_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a", encoding="utf-8", newline="\n")

    def write(prediction: Prediction) -> None:
        with disk_full_is_an_error(path):
            stream.write(_line(prediction))
            stream.flush()
        done[_name(prediction.key, prediction.sample)] = prediction
        tell(len(done), len(requests.prompts))

    with stream:
        if done:
            tell(len(done), len(requests.prompts))
        for name, digest in requests.hashes.items():
            if name not in done and digest in by_prompt:
                write(requests.copied(name, by_prompt[digest]))
        if waiting := [prompt for name, prompt in requests.prompts.items() if name not in done]:
            for completion in _completions(sampler, waiting, max_tokens, batch_size, complete=bool(earlier)):
                write(requests.prediction(completion))
        with disk_full_is_an_error(path):
            os.fsync(stream.fileno())
    if missing := len(requests.prompts) - len(done):
        what = "items" if requests.sampling.samples == 1 else "prompts"
        raise ModelUnavailable(
            f"{candidate.name} answered {len(done)} of {len(requests.prompts)} {what} and stopped.",
            hint=f"Resume the run: only the {missing} missing ones are requested again.",
        )
    return _together(done[name] for name in requests.prompts)


class _Requests:
    """What a candidate's model is asked for: a prompt for each sample of each item, by a name that completions carry too."""

    def __init__(self, candidate: Candidate, items: Sequence[Item], sampling: Sampling) -> None:
        self.sampling = sampling
        plain = {item.key: candidate.prompt(item) for item in items}
        self._units = {_name(key, sample): (key, sample) for key in plain for sample in _sample_numbers(sampling)}
        self._index = {item.key: item.index for item in items}
        self.prompts = {name: _sampled(plain[key], sample, sampling) for name, (key, sample) in self._units.items()}
        self.hashes = {name: _hash(prompt) for name, prompt in self.prompts.items()}

    def copied(self, name: str, prediction: Prediction) -> Prediction:
        """The completion of an equal prompt, under the name of this one."""
        key, sample = self._units[name]
        return prediction.model_copy(update={"key": key, "index": self._index[key], "sample": sample})

    def prediction(self, completion: Completion) -> Prediction:
        """A completion as it is written. Raises `RuntimeError` for one that was not requested."""
        if completion.key not in self.prompts:
            raise RuntimeError(f"the sampler returned {completion.key!r}, which was not requested")
        reasoning, text = split_reasoning(completion.text)
        key, sample = self._units[completion.key]
        return Prediction(
            key=key,
            index=self._index[key],
            sample=sample,
            prompt_sha256=self.hashes[completion.key],
            output_text=whole_characters(text),
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            seconds=completion.seconds,
            error=completion.error,
            reasoning_content=completion.reasoning_content or (reasoning or "").strip() or None,
            tool_calls=completion.tool_calls,
        )


def _sample_numbers(sampling: Sampling) -> Sequence[int | None]:
    return [None] if sampling.samples == 1 else range(sampling.samples)


def _name(key: str, sample: int | None) -> str:
    """What a prompt is called while it is asked: its item's key, and the number of its sample."""
    return key if sample is None else f"{key}#{sample}"


def _sampled(prompt: Prompt, sample: int | None, sampling: Sampling) -> Prompt:
    """The prompt as it is asked for one sample; a greedy one stays as it is, so that answers from before still stand."""
    if not sampling.temperature:
        return prompt
    drawn = {"temperature": sampling.temperature, "seed": sampling.seed + (sample or 0)}
    return prompt.model_copy(update={"key": _name(prompt.key, sample), **drawn})


def _together(predictions: Iterable[Prediction]) -> list[Prediction]:
    """One prediction for each item, in the order in which the items come: the first sample, with the others."""
    by_item: dict[str, list[Prediction]] = {}
    for one in predictions:
        by_item.setdefault(one.key, []).append(one)
    return [first.model_copy(update={"others": tuple(rest)}) if rest else first for first, *rest in by_item.values()]


def _completions(
    sampler: Sampler, waiting: Sequence[Prompt], max_tokens: int, batch_size: int, *, complete: bool
) -> Iterator[Completion]:
    """What the sampler generates. Prompts that it refuses, of a model that `answered` others before, are completions with an
    error: asked again and again, they would keep the evaluation from ever ending.
    """
    try:
        yield from sampler.generate(waiting, max_tokens=max_tokens, batch_size=batch_size)
    except PromptsRefused as error:
        if not complete:
            raise
        for key, reason in error.reasons.items():
            yield Completion(
                key=key, text="", finish_reason="error", prompt_tokens=0, completion_tokens=0, error=reason
            )


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions in a file, one for each item; of several lines for one sample, the last. Empty without a file.

    A damaged line is not a completion: it is passed over here, and its item is asked again by `answer`. Where an item was
    completed once and, at another time, several times, what was done last counts.
    """
    lines = {(prediction.key, prediction.sample): prediction for prediction in _read(path)}
    several = {prediction.key: prediction.sample is not None for prediction in lines.values()}
    ordered = sorted(lines.values(), key=lambda prediction: prediction.sample or 0)
    together = {
        prediction.key: prediction
        for prediction in _together(one for one in ordered if (one.sample is not None) == several[one.key])
    }
    return [together[key] for key in several]


def _read(path: Path) -> list[Prediction]:
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return [prediction for line in lines if (prediction := _parse(line)) is not None]


def _shared(candidate: Candidate, path: Path) -> list[Prediction]:
    return read_predictions(path.with_name(f"{candidate.shares}.jsonl")) if candidate.shares else []


def _hash(prompt: Prompt) -> str:
    document = prompt.model_dump(mode="json", exclude={"key"}, exclude_none=True)
    return sha256_bytes(json.dumps(document, sort_keys=True).encode())


def _line(prediction: Prediction) -> str:
    return json.dumps(prediction.model_dump(exclude_none=True, exclude={"others"}), ensure_ascii=False) + "\n"


def _parse(line: bytes) -> Prediction | None:
    try:
        return Prediction.model_validate_json(line)
    except ValidationError:
        return None


def _mend(path: Path) -> None:
    """End the last line, or cut it off when it is torn, so that what is appended begins a line of its own."""
    if not path.exists():
        return
    content = path.read_bytes()
    tail = content[content.rfind(b"\n") + 1 :]
    if not tail:
        return
    with disk_full_is_an_error(path), path.open("r+b") as stream:
        if _parse(tail) is not None:
            stream.seek(0, os.SEEK_END)
            stream.write(b"\n")
        else:
            stream.truncate(len(content) - len(tail))
