"""Rewards of a step's completions, while others of the step are still drawn.

    drawn ──▶ seen before? ──yes──▶ the same reward            one answer to one item is graded once
                  │ no
                  ▼
              at most 8 at once: grader, or judge (its reply is on disk before it is read; the budget is asked first)
                  │
                  ▼
              no reward? ──▶ again, after a wait ──▶ again ──▶ the completion leaves its group

Where more than a fifth of a step's completions are left without a reward, the step is not applied: the run pauses and says
why.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

from ftbridge.errors import FtbridgeError, GraderError, ServiceUnavailable
from ftbridge.graders import grade, judges_of
from ftbridge.graders.calls import Calls, Unpaid
from ftbridge.graders.python import PythonPolicy
from ftbridge.graders.rewards import Reward, reward
from ftbridge.http import wait_to_retry
from ftbridge.providers.local.process.activity import ACTIVITY
from ftbridge.providers.local.process.job import Halted, JobInterrupted
from ftbridge.spec.graders import Grader, PairwiseGrader

AT_ONCE = 8
"""Completions that are graded at once. A judge's endpoint gets no more questions than this at a time."""
MOST_WITHOUT = 0.2
"""Share of a step's completions that may stay without a reward."""
WAITS = (2.0, 30.0)
"""Seconds before completions without a reward are graded again; each question was tried several times by then."""


class RewardGrading:
    """Grades completions of one step after the other."""

    def __init__(self, grader: Grader, calls: Calls, policy: PythonPolicy | None = None) -> None:
        self.grader, self._calls = grader, calls
        self._policy = policy or PythonPolicy.from_environment()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="grading")
        self._futures: dict[str, Future[Reward]] = {}

    @property
    def questions(self) -> int:
        """Questions to judges that one completion costs."""
        return sum(2 if isinstance(judge, PairwiseGrader) else 1 for judge in judges_of([self.grader]))

    def unpaid(self, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> int:
        """Questions to judges that these (item, sample) pairs still cost: those whose replies are not here yet."""
        calls = Unpaid(self._calls)
        for item, sample in pairs:
            for judge in judges_of([self.grader]):
                grade(judge, item, sample, calls=calls)
        return len(calls.questions)

    def begin(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> None:
        """Grade a completion in the background; one that was seen before is not graded again."""
        name = _name(item, sample)
        if name not in self._futures:
            self._futures[name] = self._pool.submit(self._reward, item, sample)

    def end(
        self,
        pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
        requested: Callable[[], Literal["pause", "cancel"] | None] = lambda: None,
    ) -> list[Reward]:
        """As `settled`; raises `Halted` where too many completions have no reward."""
        rewards = self.settled(pairs, requested)
        without = [one for one in rewards if one.value is None]
        if len(without) > MOST_WITHOUT * len(rewards):
            raise Halted(_reason(self.grader, without, len(rewards)))
        return rewards

    def settled(
        self,
        pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
        requested: Callable[[], Literal["pause", "cancel"] | None] = lambda: None,
    ) -> list[Reward]:
        """The rewards of (item, sample) pairs, in order, once all are there and another try gives no more.

        Raises `GateNotMet` when the budget is used up, `GraderError` for a grader that can grade nothing, `JobInterrupted`.
        """
        for item, sample in pairs:
            self.begin(item, sample)
        with ACTIVITY.outside():
            return self._settled(pairs, requested)

    def _settled(
        self,
        pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
        requested: Callable[[], Literal["pause", "cancel"] | None],
    ) -> list[Reward]:
        for attempt, wait in enumerate((*WAITS, None), start=1):
            rewards = [self._wait(_name(*pair), requested) for pair in pairs]
            again = {_name(*pair): pair for pair, one in zip(pairs, rewards, strict=True) if one.is_worth_another_try}
            if not again or wait is None:
                break
            why = f"{len(again)} completions have no reward"
            wait_to_retry("grading", attempt, why, wait, lambda seconds: _listen(requested, seconds))
            self._calls.ask_again()
            for name, (item, sample) in again.items():
                self._futures[name] = self._pool.submit(self._reward, item, sample)
        for name in {_name(*pair) for pair, one in zip(pairs, rewards, strict=True) if one.value is None}:
            del self._futures[name]
        self._calls.ask_again()  # another step does
        return rewards

    def stop(self) -> None:
        """Begin nothing more, and wait for the judges that were asked: they are paid, and their replies are written."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with ACTIVITY.outside():
            self._calls.stop()

    def forget(self) -> None:
        """Let go of what was graded; judges' replies stay on disk."""
        self._futures.clear()

    def _reward(self, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Reward:
        return reward(self.grader, item, sample, policy=self._policy, calls=self._calls)

    def _wait(self, name: str, requested: Callable[[], Literal["pause", "cancel"] | None]) -> Reward:
        future = self._futures[name]
        while not future.done():
            _listen(requested, 0.002)
        return future.result()


def _listen(requested: Callable[[], Literal["pause", "cancel"] | None], seconds: float) -> None:
    """Wait so long. Raises `JobInterrupted` as soon as a pause or a cancel is requested."""
    end = time.monotonic() + seconds
    while True:
        if (request := requested()) is not None:
            raise JobInterrupted(request)
        if (left := end - time.monotonic()) <= 0:
            return
        time.sleep(min(left, 0.1))


def _name(item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    return json.dumps([item, sample], sort_keys=True, default=str)


def _reason(grader: Grader, without: Sequence[Reward], total: int) -> FtbridgeError:
    """The error to pause with: which fault is the most frequent, and what to do about it."""
    counts = Counter(name for one in without for name in one.errors)
    name = counts.most_common(1)[0][0]
    text = next(one.errors[name] for one in without if name in one.errors)
    message = (
        f"grader {grader.name} gave {len(without)} of {total} completions no reward ({name}: {text}); this step was "
        "not learnt from, and training is paused."
    )
    if name == "python_grader_runtime_error":
        hint = (
            "Make grade() return a low reward for completions that it does not understand. A changed grader needs a "
            "new run."
        )
        return GraderError(message, hint=hint)
    if name.startswith("model_grader"):
        return ServiceUnavailable(
            message, hint="Resume the run when the judge is available again: its replies so far are saved."
        )
    return GraderError(message, hint="Look at rollouts/ in the run folder; resuming grades these completions again.")
