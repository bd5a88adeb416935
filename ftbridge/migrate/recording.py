"""What a tuned model returned, while it still answered: one folder a model, and all that `prove` needs after the shutdown.

    MIGRATION/recordings/MODEL/
      items.jsonl        the requests, each with its key; written once
      journal.jsonl      settings · announced {request} · recorded {samples} · declined · lost; authoritative
      logprobs/KEY.json  log-probabilities of the greedy completion, top 20 for each token
      openai/            the ledger of its batches

A request is named KEY-N: the item's key and the number of its first sample. Sample 0 is greedy, 1 to `samples` are drawn at
the production temperature. What is recorded is never asked again, and stays when fewer items or samples are wanted later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge import files
from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.migrate.folder import Migration, safe_name
from ftbridge.migrate.items import RecordedItem
from ftbridge.runs.journal import Event, Journal
from ftbridge.spec.problems import first_problem

GREEDY = 0
Outcome = Literal["completion", "refusal", "no_content", "declined"]
"""completion: text or calls. refusal: the model's own. no_content: neither, such as what a filter emptied.
declined: the service refused the request itself."""


class Settings(BaseModel):
    """How a model is recorded; fixed for a recording but for how much is wanted of it: `samples` and `limit`."""

    model_config = ConfigDict(frozen=True)

    model: str
    samples: int = Field(ge=0, description="Completions at the production temperature, beside the greedy one.")
    temperature: float = Field(ge=0, le=2, description="The production temperature, for items that name none.")
    top_logprobs: int = Field(default=20, ge=0, le=20)
    max_completion_tokens: int | None = None
    takes_n: bool = Field(default=True, description="Whether one request can have several completions.")
    limit: int | None = Field(
        default=None, ge=1, description="Only so many of the items, from the first; null for all."
    )

    def wanted(self, items: Sequence[RecordedItem]) -> Sequence[RecordedItem]:
        """The items that are to be recorded."""
        return items if self.limit is None else items[: self.limit]


class Sample(BaseModel):
    """One completion of one item. `seconds` is how long the request took, where it was asked by itself."""

    model_config = ConfigDict(frozen=True)

    key: str
    sample: int
    outcome: Outcome
    text: str = ""
    tool_calls: list[dict[str, Any]] | None = None
    refusal: str | None = None
    reason: str | None = Field(default=None, description="Why there is no completion, in the service's words.")
    finish_reason: str | None = None
    system_fingerprint: str | None = None
    completion_id: str | None = None
    created: float | None = None
    seconds: float | None = None


class Usage(BaseModel):
    """Tokens of one request, as the service counted them."""

    model_config = ConfigDict(frozen=True)

    read: int = 0
    written: int = 0


class RecordedSoFar(BaseModel):
    """How far a recording is. `items` are those wanted; `complete` ones have all of their completions, or a refusal."""

    model_config = ConfigDict(frozen=True)

    items: int
    complete: int
    refused: int
    usd: float | None
    finished: bool


class RecordingRequest(BaseModel):
    """One request to make: the samples of an item that it asks for, greedy or drawn, never both."""

    model_config = ConfigDict(frozen=True)

    item: RecordedItem
    samples: tuple[int, ...]

    @property
    def id(self) -> str:
        """Its custom_id: the item's key and the first sample."""
        return f"{self.item.key}-{self.samples[0]}"


def requests_of(
    items: Sequence[RecordedItem], settings: Settings, recorded: Mapping[tuple[str, int], Sample]
) -> list[RecordingRequest]:
    """The requests that wanted items still need, the greedy ones first: they are what a replacement is compared with."""
    declined = {key for (key, _), sample in recorded.items() if sample.outcome == "declined"}
    open_items = [item for item in settings.wanted(items) if item.key not in declined]
    greedy = [
        RecordingRequest(item=item, samples=(GREEDY,)) for item in open_items if (item.key, GREEDY) not in recorded
    ]
    drawn = []
    for item in open_items:
        numbers = tuple(n for n in range(1, settings.samples + 1) if (item.key, n) not in recorded)
        if numbers and settings.takes_n:
            drawn.append(RecordingRequest(item=item, samples=numbers))
        else:
            drawn += [RecordingRequest(item=item, samples=(number,)) for number in numbers]
    return greedy + drawn


class Recording:
    """One model's recording. State is derived from its journal and read again only as far as it grew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl")
        self._items: list[RecordedItem] | None = None
        self._samples: dict[tuple[str, int], Sample] = {}
        self._usage: list[tuple[Usage, str]] = []
        self._settings: Settings | None = None
        self._most_samples = 0
        self._open: dict[str, Event] = {}

    @classmethod
    def of(cls, migration: Migration, model: str) -> Recording:
        """The recording of a model in a migration, begun or not."""
        return cls(migration.path / "recordings" / safe_name(model))

    @property
    def begun(self) -> bool:
        """Whether its items were chosen."""
        return (self.path / "items.jsonl").exists() and self.settings is not None

    @property
    def settings(self) -> Settings | None:
        """How it is recorded; None before it was begun."""
        self._refresh()
        return self._settings

    @property
    def items(self) -> list[RecordedItem]:
        """The items, in their order. Raises `UsageError` for a file that was damaged."""
        if self._items is None:
            path = self.path / "items.jsonl"
            try:
                lines = path.read_bytes().split(b"\n") if path.exists() else []
                self._items = [RecordedItem.model_validate_json(line) for line in lines if line]
            except ValidationError as error:
                raise UsageError(f"{path} is damaged: {first_problem(error)}.", hint="Restore it.") from None
        return self._items

    @property
    def samples(self) -> dict[tuple[str, int], Sample]:
        """What is recorded, by item key and sample number."""
        self._refresh()
        return self._samples

    @property
    def drawn(self) -> int:
        """The most completions at the production temperature that any item has, which may be more than are wanted now."""
        return max((number for _, number in self.samples), default=GREEDY)

    @property
    def most_samples(self) -> int:
        """The most further completions of an item that any command wanted, which batches may hold."""
        self._refresh()
        return self._most_samples

    @property
    def unsettled(self) -> dict[str, Event]:
        """Requests that were announced and have no result: a process died, or no response came. By custom_id."""
        self._refresh()
        return self._open

    def begin(self, items: Sequence[RecordedItem], settings: Settings) -> None:
        """Write the items and the settings; a recording that was begun keeps its items."""
        files.make_folder(self.path)
        if not (self.path / "items.jsonl").exists():
            files.write_text(self.path / "items.jsonl", "".join(f"{item.model_dump_json()}\n" for item in items))
            self._items = None
        if self.settings != settings:
            self.journal.append("settings", **settings.model_dump())

    def add(self, samples: Sequence[Sample], usage: Usage, *, request: str, way: str, how: str = "answered") -> None:
        """Write the samples of one request, flushed; log-probabilities are written before, by `keep_logprobs`."""
        documents = [sample.model_dump(exclude_none=True) for sample in samples]
        self.journal.append("recorded", request=request, way=way, how=how, usage=usage.model_dump(), samples=documents)

    def keep_logprobs(self, key: str, logprobs: Any) -> None:
        """Write the log-probabilities of an item's greedy completion, whole or not at all."""
        files.write_bytes(
            self.path / "logprobs" / f"{key}.json", json.dumps(logprobs, ensure_ascii=False).encode("utf-8", "replace")
        )

    def logprobs(self, key: str) -> Any:
        """The log-probabilities of an item's greedy completion; None where there are none."""
        path = self.path / "logprobs" / f"{key}.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def of_item(self, key: str) -> list[Sample]:
        """What is recorded of an item, by sample number."""
        return [sample for (item, _), sample in sorted(self.samples.items()) if item == key]

    def missing(self) -> list[RecordingRequest]:
        """The requests that are still to make."""
        settings = self.settings
        return [] if settings is None else requests_of(self.items, settings, self.samples)

    def usage(self) -> list[tuple[Usage, str]]:
        """The tokens of every request, and the way it went: live or batch."""
        self._refresh()
        return self._usage

    def so_far(self, usd: float | None = None) -> RecordedSoFar:
        """How far it is."""
        waiting = {request.item.key for request in self.missing()}
        refused = {key for (key, _), sample in self.samples.items() if sample.outcome in ("refusal", "declined")}
        total = len(self.items if self.settings is None else self.settings.wanted(self.items))
        return RecordedSoFar(
            items=total,
            complete=total - len(waiting),
            refused=len(refused),
            usd=usd,
            finished=bool(total) and not waiting,
        )

    def _refresh(self) -> None:
        for event in self.journal.refresh():
            self._apply(event)

    def _apply(self, event: Event) -> None:
        data = event.data
        match event.type:
            case "settings":
                self._settings = Settings.model_validate(data)
                self._most_samples = max(self._most_samples, self._settings.samples)
            case "announced":
                self._open[data["request"]] = event
            case "declined":
                self._open.pop(data["request"], None)
            case "recorded":
                self._open.pop(data["request"], None)
                self._usage.append((Usage.model_validate(data["usage"]), data["way"]))
                for document in data["samples"]:
                    sample = Sample.model_validate(document)
                    self._samples.setdefault((sample.key, sample.sample), sample)


def require_recording(migration: Migration, model: str) -> Recording:
    """The recording of a model. Raises `UsageError` where nothing is recorded."""
    recording = Recording.of(migration, model)
    if not recording.begun or not recording.samples:
        raise UsageError(f"no completions of {model} are recorded.", hint=f"ftbridge migrate record {model}")
    return recording


def progress_of(migration: Migration, model: str) -> RecordedSoFar | None:
    """How far the recording of a model is; None where it was not begun. Never raises for a damaged recording."""
    recording = Recording.of(migration, model)
    try:
        if not recording.begun:
            return None
        event = migration.last("recorded", model=model)
        return recording.so_far(event.data.get("usd") if event is not None else None)
    except FtbridgeError:
        return None
