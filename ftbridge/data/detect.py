"""Which format data is in, by many of its records: its name, what tells it, and the options with which `convert` reads it.

known_formats   the table of formats, the first that a record is of     field_names   columns of other names, for `--map`
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ftbridge.data.field_names import meaning_of
from ftbridge.data.known_formats import Document, Format, Shape, format_of


@dataclass(frozen=True)
class Detection:
    """What most of some records are.

    `name` is the format's, `reason` what tells it ("contents with parts"), `columns` the pairs for `--map NAME=COLUMN`,
    `others` the fields that no name is known for. `advice` is a sentence where no option helps.
    """

    name: str
    shape: Shape | None
    reason: str
    columns: tuple[tuple[str, str], ...] = ()
    others: tuple[str, ...] = ()
    advice: str = ""

    @property
    def options(self) -> str:
        """The options that `ftbridge convert` needs, as a shell takes them: `--map prompt=Question`; may be empty."""
        return " ".join(f"--map {shlex.quote(f'{name}={column}')}" for name, column in self.columns)

    def command(self, path: str, out: str = "out.jsonl") -> str:
        """The command that converts `path`; empty where `convert` cannot read it."""
        if self.shape is None:
            return ""
        return " ".join(filter(None, ["ftbridge convert", shlex.quote(path), shlex.quote(out), self.options]))

    def hint(self, path: str) -> str:
        """One sentence on what to do with a file in this format."""
        return f"`{self.command(path)}` reads it." if self.shape else self.advice


def detect_records(records: Iterable[object]) -> Detection | None:
    """The format of most records, or None if they are of no format that is known. Give it some hundreds at most."""
    votes: Counter[str] = Counter()
    detections: dict[str, Detection] = {}
    for record in records:
        detection = detect_record(record)
        key = f"{detection.name} {detection.options}" if detection else ""
        votes[key] += 1
        if detection:
            detections.setdefault(key, detection)
    best = max(votes, key=lambda key: votes[key], default="")
    return detections.get(best)


def detect_record(record: object) -> Detection | None:
    """The format of one record."""
    if isinstance(record, list):
        if record and all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in record):
            return Detection("a list of turns", "chat", "each record is a list of messages")
        return None
    if not isinstance(record, dict):
        return None
    matched = format_of(record)
    if matched is None or (matched.shape in _NAMED_FIELDS and not record.keys() >= _NAMED_FIELDS[matched.shape]):
        named = _by_names(record)
        if named or matched is None:
            return named
    return Detection(matched.name, matched.shape, _reason(matched, record), advice=matched.advice)


def _reason(matched: Format, record: Document) -> str:
    """The fields that tell a format: those of its sample that the record has."""
    names = [name for name in record if f'"{name}"' in matched.sample] or list(record)[:4]
    return "its fields are " + ", ".join(names[:6])


_NAMED_FIELDS: dict[Shape | None, set[str]] = {
    "prompt_completion": {"prompt", "completion"},
    "alpaca": {"instruction", "input", "output"},
    "chosen_rejected": {"chosen", "rejected"},
}
"""Formats whose fields go by many names: without these, the names are looked at."""


def _by_names(record: Document) -> Detection | None:
    columns: dict[str, str] = {}
    for name, value in record.items():
        if (meaning := meaning_of(name)) and value not in (None, ""):
            columns.setdefault(meaning, name)
    turns = columns.pop("messages", None)
    if turns is not None and isinstance(record[turns], list) and turns != "messages":
        columns = {"messages": turns} | {key: name for key, name in columns.items() if key == "system"}
        return _named("chats", "chat", columns, record)
    if "prompt" not in columns or not {"completion", "chosen"} & columns.keys():
        return None
    if "chosen" in columns and "rejected" in columns:
        for name in ("completion", "input"):
            columns.pop(name, None)
        return _named("preferences", "chosen_rejected", columns, record)
    for name in ("chosen", "rejected"):
        columns.pop(name, None)
    if "completion" not in columns:
        return None
    if "input" not in columns:
        return _named("questions and answers", "prompt_completion", columns, record)
    columns["instruction"], columns["output"] = columns.pop("prompt"), columns.pop("completion")
    return _named("questions with material, and answers", "alpaca", columns, record)


def _named(name: str, shape: Shape, columns: dict[str, str], record: Document) -> Detection:
    order = ("messages", "instruction", "prompt", "input", "completion", "output", "chosen", "rejected", "system")
    pairs = tuple((key, columns[key]) for key in order if key in columns and columns[key] != key)
    others = tuple(field for field in record if field not in columns.values())
    reason = "its fields are " + ", ".join(columns[key] for key in order if key in columns)
    return Detection(name, shape, reason, pairs, others)
