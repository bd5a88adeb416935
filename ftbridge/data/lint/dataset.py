"""What one file's examples are together: columns of numbers, one row an example, small enough for millions of lines.

A worker makes a `Block` for each piece of a file; `join` puts blocks together into a `Dataset`, which data rules read.
A row takes 92 bytes, of which 36 are the sketch for near duplicates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ftbridge.data.lint.rule import Severity

BANDS = 9
"""Bands of a sketch: two examples that share one are compared."""

LABELS_KEPT = 2_000
"""Distinct short answers that are counted by their text; beyond it the answers are not labels."""

LABEL_LENGTH = 80
"""Characters up to which an answer can be a label."""


class Found(NamedTuple):
    """A finding as it crosses processes; `line` and `start` count from the block's beginning."""

    code: str
    severity: Severity
    line: int
    start: int
    field: str
    message: str
    fix: str | None
    span: tuple[int, int] | None
    secret: bool


@dataclass
class Columns:
    """One row an example. Hashes are 64-bit BLAKE2b; 0 where an example has no such thing. Token counts are exact."""

    line: NDArray[np.int32]
    start: NDArray[np.int64]
    """Where the line begins, in bytes from the file's (in a block: the block's) beginning."""
    content: NDArray[np.uint64]
    """Messages and tools, whatever the order of keys, weights aside."""
    prompt: NDArray[np.uint64]
    """What stands before the last answer."""
    completion: NDArray[np.uint64]
    """The last answer; the preferred one in preference data, the item's fields in reinforcement data."""
    system: NDArray[np.uint64]
    """The system messages."""
    tokens: NDArray[np.int32]
    """All tokens of the example."""
    loss_tokens: NDArray[np.int32]
    """Tokens of the messages that are trained on."""
    target: NDArray[np.int32]
    """Tokens that stand before the last trained message."""
    sketch: NDArray[np.uint32]
    """Shape [rows, BANDS]; a row of zeros for texts too short to compare."""


@dataclass
class Counts:
    """Counts over a file that are not by row."""

    lines: int = 0
    blank: int = 0
    crlf: int = 0
    examples: int = 0
    """Lines that are JSON objects."""
    with_tools: int = 0
    with_images: int = 0
    with_system: int = 0
    unfit: int = 0
    """Lines with an error."""
    methods: Counter[str] = field(default_factory=Counter)
    """What each line looks like: supervised, dpo, reinforcement, another format's name, or unknown."""
    labels: Counter[str] = field(default_factory=Counter)
    """Short answers by text; at most LABELS_KEPT are kept, then the rest is counted under `None` in `other_answers`."""
    other_answers: int = 0
    systems: Counter[str] = field(default_factory=Counter)
    """System prompts, cut to 200 characters; at most 200 are kept."""
    fields: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """The item fields of reinforcement lines, sorted."""
    values: dict[str, Counter[str]] = field(default_factory=dict)
    """For each item field of reinforcement lines its values as JSON, cut to 200 characters; at most 50 a field."""
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Findings by (code, severity), those not kept included."""
    fixable: int = 0

    def add(self, other: Counts) -> None:
        """Add another block's counts, within the bounds of this one."""
        for name in (
            "lines",
            "blank",
            "crlf",
            "examples",
            "with_tools",
            "with_images",
            "with_system",
            "unfit",
            "fixable",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.methods.update(other.methods)
        self.codes.update(other.codes)
        self.other_answers += other.other_answers
        for text, count in other.labels.items():
            self.count_label(text, count)
        _bounded(self.systems, other.systems, 200)
        _bounded(self.fields, other.fields, 200)
        for name, values in other.values.items():
            _bounded(self.values.setdefault(name, Counter()), values, 50)

    def count_label(self, text: str, count: int = 1) -> None:
        """Count a short answer."""
        if text in self.labels or len(self.labels) < LABELS_KEPT:
            self.labels[text] += count
        else:
            self.other_answers += count


@dataclass
class Block:
    """What a worker found in one piece of a file."""

    tally: Counts
    findings: list[Found]
    columns: Columns | None
    """None without examples, or without a rule that needs rows."""
    unfinished: Callable[[], Columns | None] | None = None
    """Makes the columns, where they were put off so that findings can be told before tokens are counted."""

    def finish(self) -> Block:
        """Make the columns, if they are not made."""
        if self.unfinished:
            self.columns, self.unfinished = self.unfinished(), None
        return self


@dataclass
class Dataset:
    """A whole file."""

    path: str
    bytes: int
    role: str
    method: str
    tally: Counts
    columns: Columns
    counted_with: str
    by_model: bool = False
    """Whether a local model's own tokenizer and template counted, instead of a hosted model's vocabulary."""
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    """Lines that this model's template cannot write, each with the reason."""
    unwritten: list[tuple[int, str]] = field(default_factory=list)
    """Lines of which this model's template leaves a field out that is to be learnt, each with the field."""
    read: Callable[[int], Any] = lambda start: None
    """The JSON value of the line that begins at this byte; None if it is not JSON."""

    @property
    def rows(self) -> int:
        """Examples that could be read."""
        return len(self.columns.line)

    def start_of(self, line: int) -> int | None:
        """Where a line begins, in bytes; None if it contains no example."""
        import numpy as np

        row = int(np.searchsorted(self.columns.line, line))
        return int(self.columns.start[row]) if row < self.rows and self.columns.line[row] == line else None

    def example(self, row: int) -> Any:
        """The JSON value of a row's line, read again from the file."""
        return self.read(int(self.columns.start[row]))


@dataclass
class Splits:
    """The files of one job, by their path, in the order given; `whole` when it was said what each of them is."""

    files: list[Dataset]
    is_complete: bool = False

    @property
    def train(self) -> list[Dataset]:
        """The files that are trained on."""
        return [file for file in self.files if file.role == "train"]

    @property
    def held_out(self) -> list[Dataset]:
        """Validation and test files."""
        return [file for file in self.files if file.role != "train"]


def join(pieces: list[Columns]) -> Columns:
    """One table of many, which are used up; they count lines and bytes from the file's beginning already."""
    import numpy as np

    if not pieces:
        return empty()
    joined: dict[str, Any] = {}
    for name in Columns.__dataclass_fields__:
        joined[name] = np.concatenate([getattr(piece, name) for piece in pieces])
        for piece in pieces:
            delattr(piece, name)  # a column that is joined is not kept twice
    pieces.clear()
    return Columns(**joined)


def empty() -> Columns:
    """A table without rows."""
    import numpy as np

    hashes: dict[str, Any] = {name: np.zeros(0, np.uint64) for name in ("content", "prompt", "completion", "system")}
    counts: dict[str, Any] = {name: np.zeros(0, np.int32) for name in ("line", "tokens", "loss_tokens", "target")}
    return Columns(start=np.zeros(0, np.int64), sketch=np.zeros((0, BANDS), np.uint32), **hashes, **counts)


def _bounded(total: Counter, more: Counter, most: int) -> None:  # type: ignore[type-arg]
    for key, count in more.items():
        if key in total or len(total) < most:
            total[key] += count
