"""What a tuned model is recorded on: requests as its clients send them, chosen before anything is spent.

    the job's validation file ─▶ stored production prompts, newest first ─▶ each prompt once ─▶ the first `limit`
                                                    or: a file of your own

Lines that the model was trained on say how well it remembers, not how well it works, so they are left out; where nothing else
is there, recording stops. An item is named by the SHA-256 of its request: the same request in another file is the same item.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ftbridge.errors import UsageError
from ftbridge.files import sha256_bytes
from ftbridge.migrate.objects import number_in
from ftbridge.migrate.stored import StoredCompletion

REQUEST_FIELDS = (
    "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "functions", "function_call",
    "presence_penalty", "frequency_penalty", "logit_bias", "stop", "reasoning_effort", "max_completion_tokens", "max_tokens",
)  # fmt: skip
"""Fields of a client's request that bear on the completion; temperature and top_p are kept beside the request."""
_OF_TRAINING = ("weight",)
_KEY_DIGITS = 24


class RecordedItem(BaseModel):
    """One request to record. `expected` is the message that a validation line ends with, `fields` its other keys."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(description="24 hex digits of the SHA-256 of the request.")
    source: Literal["validation", "stored", "file"]
    origin: str = Field(description="Where it comes from: a file and line, or a stored completion's id.")
    request: dict[str, Any] = Field(description="Messages and settings as clients send them, without the model.")
    expected: dict[str, Any] | None = None
    fields: dict[str, Any] = {}
    production: dict[str, Any] | None = Field(default=None, description="What the model returned in production.")
    temperature: float | None = None
    top_p: float | None = None

    @property
    def prompt(self) -> str:
        """A name for its messages alone."""
        return _digest(self.request.get("messages"))


class Chosen(BaseModel):
    """The items to record, and what was left out and why."""

    model_config = ConfigDict(frozen=True)

    items: list[RecordedItem]
    notes: list[str]

    @property
    def temperature(self) -> float:
        """The temperature of most stored requests; 1, the service's default, where none is known."""
        seen = Counter(item.temperature for item in self.items if item.temperature is not None)
        return seen.most_common(1)[0][0] if seen else 1.0


def choose(
    *,
    validation: Path | None,
    stored: Iterable[StoredCompletion] = (),
    training: Iterable[Path] = (),
    file: Path | None = None,
    limit: int = 2000,
) -> Chosen:
    """The items to record: those of `file` alone if it is given, else of the validation file and then stored prompts.

    Raises `UsageError` for a file that cannot be read, and when nothing but training lines would be left.
    """
    notes: list[str] = []
    training_prompts = trained_prompts(training)
    if file is not None:
        candidates: Iterator[RecordedItem] = items_of(file, "file")
    else:
        candidates = _found(validation, stored, notes)
    chosen: dict[str, RecordedItem] = {}
    left_out: Counter[str] = Counter()
    for item in candidates:
        if len(chosen) >= limit:
            notes.append(f"The first {limit} items are recorded; --limit changes that.")
            break
        if item.prompt in training_prompts:
            left_out["are training lines"] += 1
        elif item.key in chosen:
            left_out["repeat an earlier prompt"] += 1
        else:
            chosen[item.key] = item
    notes += [
        f"{count} {'item' if count == 1 else 'items'} left out that {reason}." for reason, count in left_out.items()
    ]
    if not chosen:
        why = "only training lines" if left_out["are training lines"] else "no prompts"
        raise UsageError(
            f"there are {why} to record this model on, and completions of training prompts prove nothing.",
            hint="Save production prompts with `ftbridge migrate download --stored`, or name a file: --items FILE.",
        )
    return Chosen(items=list(chosen.values()), notes=notes)


def items_of(path: Path, source: Literal["validation", "file"]) -> Iterator[RecordedItem]:
    """The items of a JSONL file: supervised, preference or reinforcement lines, requests, or lines of a batch.

    Raises `UsageError` naming the first line that is none of these.
    """
    for number, line in _lines(path):
        where = f"{path.name}, line {number}"
        try:
            document = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number} is not valid JSON: {error}.") from None
        if isinstance(document, dict) and isinstance(document.get("body"), dict):
            document = document["body"]  # a batch's input line
        request, expected, fields = _parts(document)
        if not request.get("messages"):
            raise UsageError(
                f"{path}:{number} contains no messages.",
                hint="A line is {messages: […]}, {input: {messages: […]}, …}, or a request of the chat completions API.",
            )
        yield RecordedItem(
            key=_digest(request)[:_KEY_DIGITS],
            source=source,
            origin=where,
            request=request,
            expected=expected,
            fields=fields,
            temperature=number_in(document.get("temperature")),
            top_p=number_in(document.get("top_p")),
        )


def _found(validation: Path | None, stored: Iterable[StoredCompletion], notes: list[str]) -> Iterator[RecordedItem]:
    if validation is not None:
        yield from items_of(validation, "validation")
    without: Counter[str] = Counter()
    for completion in stored:
        if completion.messages is None:
            without["its input was not downloaded"] += 1
        elif completion.missing is not None:
            without[completion.missing] += 1
        else:
            yield _stored(completion)
    for reason, count in without.items():
        notes.append(f"{count} stored {'completion' if count == 1 else 'completions'} cannot be used: {reason}.")


def _stored(completion: StoredCompletion) -> RecordedItem:
    settings = {name: value for name, value in completion.request.items() if name in REQUEST_FIELDS}
    request = {"messages": [_plain(message) for message in completion.messages or ()], **settings}
    return RecordedItem(
        key=_digest(request)[:_KEY_DIGITS],
        source="stored",
        origin=completion.id,
        request=request,
        production=completion.completion or None,
        temperature=number_in(completion.request.get("temperature")),
        top_p=number_in(completion.request.get("top_p")),
    )


def _parts(document: Any) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]:
    """The request, the expected message, and the fields that graders see, of one line of any kind."""
    if not isinstance(document, dict):
        return {}, None, {}
    inner = document.get("input")
    holder: dict[str, Any] = inner if isinstance(inner, dict) else document
    messages = holder.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return {}, None, {}
    expected = None
    if holder is not document:
        preferred = document.get("preferred_output")
        expected = preferred[0] if isinstance(preferred, list) and preferred else None
    elif messages and messages[-1].get("role") == "assistant":
        *messages, expected = messages
    settings = {name: holder[name] for name in REQUEST_FIELDS if name in holder and name != "messages"}
    plain = [_plain(message) for message in messages]
    known_fields = {
        *REQUEST_FIELDS,
        "input",
        "preferred_output",
        "non_preferred_output",
        "model",
        "temperature",
        "top_p",
        "n",
        "seed",
    }
    fields = {name: value for name, value in document.items() if name not in known_fields}
    return ({"messages": plain, **settings} if plain else {}), _plain(expected) if expected else None, fields


def trained_prompts(files: Iterable[Path]) -> set[str]:
    """The prompts of the training lines, by the name that items have."""
    prompts: set[str] = set()
    for path in files:
        for _, line in _lines(path):
            try:
                request, _, _ = _parts(json.loads(line))
            except ValueError:
                continue  # what cannot be read is not an item either
            prompts.add(_digest(request.get("messages")))
    return prompts


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, read as they are needed; a byte order mark is not part of the first."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if text := line.removeprefix(b"\xef\xbb\xbf").strip():
                    yield number, text
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from None


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as a request may hold it: without what concerns training, and without keys that hold nothing."""
    return {
        name: value
        for name, value in message.items()
        if name not in _OF_TRAINING and (value is not None or name == "content")
    }


def _digest(document: Any) -> str:
    return sha256_bytes(
        json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    )
