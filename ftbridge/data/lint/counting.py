"""Token counts from outside: a local model's own tokenizer and chat template instead of a hosted model's vocabulary.

Whoever can run the model hands a `ModelCounter` in; the linter reads the lines again and asks it for counts in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ftbridge.data.notation import learns_reasoning

if TYPE_CHECKING:
    from ftbridge.data.lint.dataset import Dataset
    from ftbridge.data.lint.rule import Method

Thinking = Literal["auto", "on", "off"]

BATCH_BYTES = 1 << 19
BATCH_EXAMPLES = 256


class Counted(NamedTuple):
    """One example's counts, in tokens; see `Columns` for their meaning. `problem` says why the model cannot read it.

    `unwritten` is the first field of an answer to learn that the model's template leaves out, such as
    `messages[1].reasoning_content`.
    """

    tokens: int
    loss_tokens: int
    target: int
    problem: str | None = None
    unwritten: str | None = None


@dataclass(frozen=True)
class ModelCounter:
    """A model that counts. `limit` is the most tokens of one example that it reads, if there is such a limit.

    `count` takes parsed lines and gives one `Counted` for each; lines that are not examples have zeros and no problem,
    because the rules of lines tell what is wrong with them. Its third argument says whether answers are trained with reasoning.
    """

    name: str
    limit: int | None
    count: Callable[[Sequence[Any], Method, Thinking], list[Counted]]


def recount(dataset: Dataset, counter: ModelCounter) -> None:
    """Fill a file's token columns by the model's own counts, and note the lines that it cannot read."""
    columns = dataset.columns
    dataset.counted_with = counter.name
    dataset.by_model = True
    thinking = thinking_of(dataset.example(row) for row in range(len(columns.start)))
    for rows in _batches(columns.start.tolist()):
        counts = counter.count([dataset.example(row) for row in rows], dataset.method, thinking)  # type: ignore[arg-type]
        for row, counted in zip(rows, counts, strict=True):
            columns.tokens[row], columns.loss_tokens[row], columns.target[row] = counted[:3]
            if counted.problem:
                dataset.unreadable.append((int(columns.line[row]), counted.problem))
            if counted.unwritten:
                dataset.unwritten.append((int(columns.line[row]), counted.unwritten))


def thinking_of(documents: Iterable[Any]) -> Thinking:
    """How a job on these lines trains with `local.thinking: auto`: on when an answer to learn has reasoning, off otherwise."""
    return "on" if any(map(learns_reasoning, documents)) else "off"


def _batches(starts: Iterable[int]) -> Iterator[list[int]]:
    """Rows in order, in batches of bounded bytes and number."""
    batch: list[int] = []
    first = 0
    for row, start in enumerate(starts):
        if batch and (start - first > BATCH_BYTES or len(batch) == BATCH_EXAMPLES):
            yield batch
            batch = []
        first = first if batch else start
        batch.append(row)
    if batch:
        yield batch
