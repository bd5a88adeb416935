"""The test items that several runs share, with each run's completions of them. Items are the same where their lines are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ftbridge.evaluation.generate import Prediction, read_predictions
from ftbridge.evaluation.items import Item, load_items
from ftbridge.runs.run import Run


@dataclass(frozen=True)
class SharedItems:
    """What several runs were all tested on.

    `items` are the first run's, in its order; `keys` are their names in each run; `tested` is how many items each run has.
    """

    runs: tuple[Run, ...]
    items: list[Item]
    keys: tuple[list[str], ...]
    tested: tuple[int, ...]

    @property
    def others(self) -> list[int]:
        """For each run, how many of its items some other run lacks."""
        return [tested - len(self.items) for tested in self.tested]

    def completions(self, run: Run, candidate: str) -> list[Prediction | None]:
        """A candidate's completions in the order of `items`, under the first run's keys; None for an item without one."""
        by_key = {prediction.key: prediction for prediction in read_predictions(run.predictions(candidate))}
        keys = self.keys[[one.id for one in self.runs].index(run.id)]
        return [
            by_key[key].model_copy(update={"key": item.key}) if key in by_key else None
            for item, key in zip(self.items, keys, strict=True)
        ]


def shared_items(runs: Sequence[Run]) -> SharedItems:
    """The items that all of these runs were tested on; none where one has no test split."""
    tests = [load_items(path) if (path := run.data / "test.jsonl").exists() else [] for run in runs]
    key_of = [{item.content: item.key for item in items} for items in tests]
    items = [item for item in tests[0] if all(item.content in keys for keys in key_of)]
    return SharedItems(
        tuple(runs),
        items,
        tuple([keys[item.content] for item in items] for keys in key_of),
        tuple(len(items) for items in tests),
    )
