"""Answers over chat completions: as many at once as the service bears, in any order, each asked until it is answered.

A fresh model that is not loaded yet is waited for; so is a service that stumbles, within bounds (`patience`).

One prompt never holds up the others: what the service refuses, answers without a completion, or fails at again and again
while it completes others, becomes a completion with an `error`.

The model is that of a job, or any at the address of an endpoint (`endpoint_sampler`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ftbridge import http
from ftbridge.chat_completions import Objections
from ftbridge.errors import PromptsRefused
from ftbridge.providers.base import Completion, Prompt, Sampler
from ftbridge.providers.openai.client import TIMEOUT, Connection, checked, http_client
from ftbridge.providers.openai.errors import ServiceFault, error_of, fault_of
from ftbridge.providers.openai.request import OpenAIRequest
from ftbridge.providers.openai.retry import ATTEMPTS
from ftbridge.providers.openai.sampling.chat import NoCompletion, body_of, completion_of, send
from ftbridge.providers.openai.sampling.patience import Limit, Patience
from ftbridge.providers.openai.targets import TARGETS, Target
from ftbridge.redaction import remember

if TYPE_CHECKING:
    from openai import OpenAI

ENDPOINT_KEY = "FTBRIDGE_ENDPOINT_API_KEY"
"""The only key that is sent to an address without a job: a service's own key does not go to an address from a command line."""
FRESH_TRIES = 40
"""Times that a fresh model's absence is waited out, `FRESH_SECONDS` apart or as Retry-After says: ten minutes in all."""
FRESH_SECONDS, LONGEST_FRESH_SECONDS = 15.0, 60.0
EMPTY_TRIES = 3
"""Times that a prompt is asked whose answers hold no completion."""
_OF_THE_PROMPT = frozenset({400, 413, 422})
"""Refusals that can be about one prompt; others (keys, permissions, models) are about all."""
_TRIED_AGAIN = frozenset({"lost", "not_ready"})
_EMPTY = "no_completion"


@dataclass
class _Ask:
    """One prompt on its way to an answer."""

    prompt: Prompt
    body: dict[str, Any]
    failures: int = 0
    empty: int = 0
    sent_in: int = 0
    sent_in_trouble: int = 0
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
        flying: dict[Future[Completion | ServiceFault], _Ask] = {}
        # Not concurrent.futures.wait: it costs time for each of those that fly.
        ended: SimpleQueue[Future[Completion | ServiceFault]] = SimpleQueue()
        trouble = _Trouble(self._at, self._model, fresh=self._fresh)
        refused: list[tuple[_Ask, ServiceFault]] = []
        completed = 0
        try:
            while waiting or flying:
                while waiting and len(flying) < limit.now:
                    ask = waiting.popleft()
                    ask.sent_in, ask.sent_in_trouble = limit.round, trouble.round
                    future = self._pool.submit(self._ask, ask)
                    flying[future] = ask
                    future.add_done_callback(ended.put)
                done = ended.get()
                ask, finished = flying.pop(done), done.result()
                if isinstance(finished, Completion):
                    limit.succeeded()
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
                trouble.bear(ask, finished, completed)
            without = [_unanswered(ask, fault) for ask, fault in refused]
            if refused and not completed:
                error = error_of(refused[0][1], f"generating completions with {self._model}", self._at.service)
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

    def _ask(self, ask: _Ask) -> Completion | ServiceFault:
        """One request; a body that the model objects to is changed and asked again at once."""
        try:
            response = send(self._at, ask.body, self._objections)
            completion = completion_of(ask.prompt.key, response.document)
            return completion.model_copy(update={"seconds": response.seconds})
        except NoCompletion as error:
            return ServiceFault("lost", str(error), code=_EMPTY)
        except Exception as error:
            return fault_of(error)


def _concerns_the_prompt(ask: _Ask, fault: ServiceFault, completed: int) -> bool:
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


def _unanswered(ask: _Ask, fault: ServiceFault) -> Completion:
    error = f"{fault.status}: {fault.message}" if fault.status is not None else fault.message
    return Completion(
        key=ask.prompt.key, text="", finish_reason="error", prompt_tokens=0, completion_tokens=0, error=error
    )


class _Trouble:
    """Failures in a row, those of a model that is not loaded yet among them, and when they are too many."""

    def __init__(self, at: Connection, model: str, *, fresh: bool) -> None:
        self._at, self._model, self._fresh = at, model, fresh
        self._patience = Patience(at.service, f"generating completions with {model}")
        self._absences = 0

    @property
    def round(self) -> int:
        """What an ask notes when it is sent."""
        return self._patience.round

    def over(self) -> None:
        """An answer came."""
        self._patience.over()
        self._absences = 0
        self._fresh = False

    def bear(self, ask: _Ask, fault: ServiceFault, completed: int) -> None:
        """Wait out a failure, or raise when waiting cannot help any more.

        A prompt that has failed while others were completed is under suspicion itself: it proves no outage.
        """
        if not self._fresh or fault.kind not in ("missing", "lost"):
            first = ask.answers_at_first_failure
            ask.failures = self._patience.bear(
                fault, ask.failures, _TRIED_AGAIN, ask.sent_in_trouble, counts=first is None or completed <= first
            )
            return
        self._absences += 1
        if self._absences > FRESH_TRIES or self._patience.waited >= FRESH_TRIES * FRESH_SECONDS:
            raise error_of(fault, f"waiting for {self._model} to be loaded", self._at.service)
        seconds = FRESH_SECONDS if fault.retry_after is None else min(fault.retry_after, LONGEST_FRESH_SECONDS)
        self._patience.waited += seconds
        http.wait_to_retry(f"waiting for {self._model} to be loaded", self._absences, fault.message, seconds)


class _Endpoint(Connection):
    """A connection to an address that needs no key, or has one of its own."""

    @property
    def target(self) -> Target:
        return replace(TARGETS["custom"], title="the endpoint", keys=(ENDPOINT_KEY,))

    @cached_property
    def client(self) -> OpenAI:
        from openai import OpenAI

        key = os.environ.get(ENDPOINT_KEY, "").strip() or "none"
        remember(key)
        http = http_client(self.base_url)
        return OpenAI(base_url=self.base_url, api_key=key, max_retries=0, timeout=TIMEOUT, http_client=http)


def endpoint_sampler(address: str, model: str) -> Sampler:
    """Greedy answers of `model` at `address` (up to and with /v1). Raises `UsageError` for what is not an address."""
    request = OpenAIRequest(
        target="custom", base_url=address, organization=None, project=None, api_version=None, deployment=None,
        batch=False, max_usd=None, n_epochs=1, body={"model": model}, extra={},
    )  # fmt: skip
    return ChatSampler(_Endpoint(request, checked(address)), model, fresh=False)
