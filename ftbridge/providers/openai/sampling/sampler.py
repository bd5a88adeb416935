"""Answers over chat completions: as many at once as the service bears, in any order, each asked until it is answered.

The number in flight follows additive increase, multiplicative decrease (Chiu and Jain 1989): it starts at the most allowed,
is halved when the service says 429 (once for all requests that were under way then), and grows by one for each round of
answers. A fresh model that is not loaded yet is waited for; so is a service that stumbles, within bounds.

One prompt never holds up the others: what the service refuses, answers without a completion, or fails at again and again
while it completes others, becomes a completion with an `error`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from ftbridge import http
from ftbridge.chat_completions import Objections
from ftbridge.errors import PromptsRefused
from ftbridge.providers.base import Completion, Prompt
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import Fault, error_of, fault_of
from ftbridge.providers.openai.retry import ATTEMPTS, wait_to_retry
from ftbridge.providers.openai.sampling.chat import NoCompletion, body_of, completion_of, send

FRESH_TRIES = 40
"""Times that a fresh model's absence is waited out, `FRESH_SECONDS` apart or as Retry-After says: ten minutes in all."""
FRESH_SECONDS, LONGEST_FRESH_SECONDS = 15.0, 60.0
EMPTY_TRIES = 3
"""Times that a prompt is asked whose answers hold no completion."""
_OF_THE_PROMPT = frozenset({400, 413, 422})
"""Refusals that can be about one prompt; others (keys, permissions, models) are about all."""
THROTTLED_TRIES, THROTTLED_SECONDS = 60, 3600.0
"""Rounds of 429 without a single answer in between, and seconds of waiting in them, before giving up."""
_EMPTY = "no_completion"


class Limit:
    """How many requests may be in flight. Pure: no clock, no threads."""

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.value = float(self.most)
        self._round = 0

    @property
    def now(self) -> int:
        """Requests that may be in flight."""
        return max(1, int(self.value))

    @property
    def round(self) -> int:
        """What a request notes when it is sent, for `throttled`."""
        return self._round

    def answered(self) -> None:
        """One more for each round of answers."""
        self.value = min(float(self.most), self.value + 1 / self.value)

    def throttled(self, sent_in: int) -> bool:
        """Halve, unless the request was sent before the last halving; returns whether it did."""
        if sent_in != self._round:
            return False
        self._round += 1
        self.value = max(1.0, self.value / 2)
        return True


@dataclass
class _Ask:
    """One prompt on its way to an answer."""

    prompt: Prompt
    body: dict[str, Any]
    failures: int = 0
    empty: int = 0
    sent_in: int = 0
    answers_at_first_failure: int | None = None


class ChatSampler:
    """Answers prompts with one model. `fresh` says that it was tuned a moment ago and may not be loaded yet.

    A prompt that the service refuses while it takes others (a content filter, a context that is too long) becomes a completion
    with an `error`; when it takes none, `PromptsRefused` is raised.
    """

    def __init__(self, at: Connection, model: str, *, fresh: bool) -> None:
        self._at, self._model, self._fresh = at, model, fresh
        self._pool: ThreadPoolExecutor | None = None
        self._objections = Objections()

    def generate(self, prompts: Sequence[Prompt], *, max_tokens: int, batch_size: int) -> Iterator[Completion]:
        """Yield one completion for each prompt as it comes; at most `batch_size` are asked at once.

        Raises `ServiceUnavailable` when the service gives no more answers, `ModelUnavailable` for a model that does not
        come, `PromptsRefused` when it completes none of the prompts. Answers so far are the caller's.
        """
        bodies = (body_of(prompt, self._model, self._at.target, max_tokens) for prompt in prompts)
        waiting = deque(_Ask(prompt, body) for prompt, body in zip(prompts, bodies, strict=True))
        limit = Limit(batch_size)
        self._pool = self._pool or ThreadPoolExecutor(max_workers=limit.most, thread_name_prefix="ask")
        flying: dict[Future[Completion | Fault], _Ask] = {}
        # Not concurrent.futures.wait: it costs time for each of those that fly.
        ended: SimpleQueue[Future[Completion | Fault]] = SimpleQueue()
        trouble = _Trouble(self._at, self._model, fresh=self._fresh)
        refused: list[tuple[_Ask, Fault]] = []
        completed = 0
        try:
            while waiting or flying:
                while waiting and len(flying) < limit.now:
                    ask = waiting.popleft()
                    ask.sent_in = limit.round
                    future = self._pool.submit(self._ask, ask)
                    flying[future] = ask
                    future.add_done_callback(ended.put)
                done = ended.get()
                ask, finished = flying.pop(done), done.result()
                if isinstance(finished, Completion):
                    limit.answered()
                    trouble.over()
                    self._fresh = False
                    completed += 1
                    yield finished
                    continue
                if _concerns_the_prompt(ask, finished, completed):
                    refused.append((ask, finished))
                    continue
                waiting.append(ask)
                if finished.code == _EMPTY:
                    continue
                if finished.kind == "later" and not limit.throttled(ask.sent_in):
                    continue
                trouble.bear(ask, finished)
            without = [_unanswered(ask, fault) for ask, fault in refused]
            if refused and not completed:
                error = error_of(refused[0][1], f"answering with {self._model}", self._at.service)
                reasons = {completion.key: completion.error or "" for completion in without}
                raise PromptsRefused(error.message, reasons=reasons, hint=error.hint)
            yield from without
        finally:
            for future in flying:
                future.cancel()

    def close(self) -> None:
        """Let go of threads; connections close with the client."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _ask(self, ask: _Ask) -> Completion | Fault:
        """One request; a body that the model objects to is changed and asked again at once."""
        try:
            response = send(self._at, ask.body, self._objections)
            completion = completion_of(ask.prompt.key, response.document)
            return completion.model_copy(update={"seconds": response.seconds})
        except NoCompletion as error:
            return Fault("lost", str(error), code=_EMPTY)
        except Exception as error:
            return fault_of(error)


def _concerns_the_prompt(ask: _Ask, fault: Fault, completed: int) -> bool:
    """Whether this prompt is given up, and not the service: it is refused, stays empty, or fails while others succeed."""
    if fault.kind == "refused" and fault.status in _OF_THE_PROMPT:
        return True
    if fault.code == _EMPTY:
        ask.empty += 1
        return ask.empty >= EMPTY_TRIES
    if fault.kind != "lost":
        return False
    if ask.answers_at_first_failure is None:
        ask.answers_at_first_failure = completed
    return ask.failures + 1 >= ATTEMPTS and completed > ask.answers_at_first_failure


def _unanswered(ask: _Ask, fault: Fault) -> Completion:
    error = f"{fault.status}: {fault.message}" if fault.status is not None else fault.message
    return Completion(
        key=ask.prompt.key, text="", finish_reason="error", prompt_tokens=0, completion_tokens=0, error=error
    )


class _Trouble:
    """Failures in a row, and when they are too many."""

    def __init__(self, at: Connection, model: str, *, fresh: bool) -> None:
        self._at, self._model, self._fresh = at, model, fresh
        self._absences = self._throttles = 0
        self._waited = 0.0

    def over(self) -> None:
        """An answer came."""
        self._absences = self._throttles = 0
        self._waited = 0.0
        self._fresh = False

    def bear(self, ask: _Ask, fault: Fault) -> None:
        """Wait out a failure, or raise when waiting cannot help any more."""
        doing = f"answering with {self._model}"
        if self._fresh and fault.kind in ("missing", "lost"):
            self._absences += 1
            if self._absences > FRESH_TRIES or self._waited >= FRESH_TRIES * FRESH_SECONDS:
                raise error_of(fault, f"waiting for {self._model} to be loaded", self._at.service)
            seconds = FRESH_SECONDS if fault.retry_after is None else min(fault.retry_after, LONGEST_FRESH_SECONDS)
            self._waited += seconds
            http.wait_to_retry(f"waiting for {self._model} to be loaded", self._absences, fault.message, seconds)
            return
        if fault.kind == "later":
            self._throttles += 1
            if self._throttles > THROTTLED_TRIES or self._waited >= THROTTLED_SECONDS:
                raise error_of(fault, doing, self._at.service)
            self._waited += wait_to_retry(doing, min(self._throttles, 6), fault)
            return
        ask.failures += 1
        if fault.kind not in ("lost", "not_ready") or ask.failures >= ATTEMPTS:
            raise error_of(fault, doing, self._at.service)
        wait_to_retry(doing, ask.failures, fault)
