"""Recording over live requests, as many at once as the service bears and its headers allow.

    missing ─▶ looked for, if it was announced before ─▶ within the budget? ─▶ announced, flushed ─▶ sent ─▶ recorded, flushed
                          │ found among stored completions: recorded, not paid again               │ no response
                          └──────────────◀─────────────────────────────────────────────────────────┘

A request has no idempotency key, so each is stored at the service (`store`) under its custom_id: after a crash, what was paid
for is found there. The number in flight follows `providers/openai/sampling/patience`; the waits are those of `retry`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from ftbridge.chat_completions import Objections
from ftbridge.errors import FtbridgeError, ModelUnavailable, ServiceUnavailable
from ftbridge.http import sleep
from ftbridge.migrate.completing import MARK, OPTIONAL, body_of, declined, samples_of
from ftbridge.migrate.forecast import expected_size, size_of
from ftbridge.migrate.limits import RateLimits
from ftbridge.migrate.recording import Recording, RecordingRequest, Settings, Usage
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import ServiceFault, fault_of
from ftbridge.providers.openai.retry import LOOKS, read
from ftbridge.providers.openai.sampling.chat import Response, send
from ftbridge.providers.openai.sampling.patience import Limit, Patience

AT_ONCE = 16
"""Requests in flight at most."""
_OF_THE_REQUEST = frozenset({400, 413, 422})
_TRIED_AGAIN = frozenset({"lost", "foreign", "not_ready"})
_AT_WORK = 120.0
"""Seconds that a request may be at work at the service after its process died."""
EMPTY_TRIES = 3
"""Times that a request is asked whose responses hold no choice."""


@dataclass
class _Ask:
    request: RecordingRequest
    body: dict[str, Any]
    tokens: int
    failures: int = 0
    sent_in: int = 0


@dataclass
class Live:
    """Asks live. `afford` is called with the tokens of a request before it is sent, and may raise to stop."""

    at: Connection
    recording: Recording
    settings: Settings
    limits: RateLimits
    store: bool = True
    afford: Callable[[int, int], None] = lambda read, written: None
    on_progress: Callable[[], None] = lambda: None
    _objections: Objections = field(default_factory=lambda: Objections(OPTIONAL))
    _declined: set[str] = field(default_factory=set)

    def ask(self, requests: Sequence[RecordingRequest]) -> None:
        """Ask every request and record what comes of it; called again, only what is missing is asked.

        Raises `ModelUnavailable` when the model stops answering, `ServiceUnavailable` when the service does, `ProviderRefused`
        for a key or a quota; what came before is recorded, and requests in flight are waited for.
        """
        waiting = deque(self._asks(requests))
        limit = Limit(AT_ONCE)
        patience = Patience(self.at.service, f"recording {self.settings.model}")
        flying: dict[Future[Response | ServiceFault], _Ask] = {}
        ended: SimpleQueue[Future[Response | ServiceFault]] = SimpleQueue()
        failure: FtbridgeError | None = None
        with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="record") as pool:
            while waiting or flying:
                if failure is not None and not flying:
                    break
                if waiting and failure is None and len(flying) < limit.now:
                    ask = waiting[0]
                    if ask.request.item.key in self._declined:
                        waiting.popleft()
                        continue
                    if flying and self.limits.wait_seconds(ask.tokens) > 0:
                        pass  # what is in flight is recorded before anything is waited for
                    else:
                        try:
                            self._send(waiting.popleft(), limit, pool, flying, ended)
                        except FtbridgeError as error:
                            failure = error
                        continue
                done = ended.get()
                ask, came = flying.pop(done), done.result()
                try:
                    self._take(ask, came, waiting, limit, patience)
                except FtbridgeError as error:
                    failure = failure or error
        if failure is not None:
            raise failure

    def _asks(self, requests: Sequence[RecordingRequest]) -> list[_Ask]:
        """The requests to send: what was announced before and is found at the service is recorded instead."""
        settled = self._settled([request for request in requests if request.id in self.recording.unsettled])
        return [
            _Ask(request, body_of(request, self.settings, store=self.store), size_of(request) + expected_size(request))
            for request in requests
            if request.id not in settled
        ]

    def _settled(self, requests: Sequence[RecordingRequest]) -> set[str]:
        """The custom_ids of announced requests whose completions the service kept; they are recorded.

        A request that was announced a moment ago may still be at work there, so it is looked for again after longer waits.
        """
        announced = self.recording.unsettled
        settled: set[str] = set()
        left = list(requests)
        for seconds in LOOKS if left else ():
            sleep(seconds)
            settled |= {request.id for request in left if self._found(request)}
            left = [request for request in left if request.id not in settled]
            if not left or all(time.time() - announced[request.id].time > _AT_WORK for request in left):
                break
        return settled

    def _send(
        self,
        ask: _Ask,
        limit: Limit,
        pool: ThreadPoolExecutor,
        flying: dict[Future[Response | ServiceFault], _Ask],
        ended: SimpleQueue[Future[Response | ServiceFault]],
    ) -> None:
        together = [ask.request, *(other.request for other in flying.values())]
        self.afford(sum(map(size_of, together)), sum(map(expected_size, together)))
        self.limits.wait(ask.tokens)
        self.recording.journal.append("announced", request=ask.request.id, samples=ask.request.samples, way="live")
        ask.sent_in = limit.round
        future = pool.submit(self._post, ask)
        flying[future] = ask
        future.add_done_callback(ended.put)

    def _post(self, ask: _Ask) -> Response | ServiceFault:
        """One request; a body that the model objects to is changed and asked again at once."""
        try:
            return send(self.at, ask.body, self._objections)
        except Exception as error:
            return fault_of(error)

    def _take(
        self, ask: _Ask, came: Response | ServiceFault, waiting: deque[_Ask], limit: Limit, patience: Patience
    ) -> None:
        """Record a response, or decide what to do about a request without one. Raises what ends the recording."""
        request = ask.request
        if isinstance(came, Response):
            self.limits.seen(came.headers)
            samples, usage, logprobs = samples_of(request, came.document, seconds=came.seconds)
            if not samples and ask.failures + 1 < EMPTY_TRIES:
                ask.failures += 1
                self.recording.add([], usage, request=request.id, way="live", how="empty")
                waiting.append(ask)
                return
            limit.succeeded()
            patience.over()
            if logprobs is not None:
                self.recording.keep_logprobs(request.item.key, logprobs)
            samples = samples or declined(request, "the response contains no choice")
            self.recording.add(samples, usage, request=request.id, way="live")
            self.on_progress()
            return
        fault = came
        if fault.kind == "refused" and fault.status in _OF_THE_REQUEST:
            reason = f"{fault.status}: {fault.message}"
            self._declined.add(request.item.key)
            self.recording.add(declined(request, reason), Usage(), request=request.id, way="live")
            self.on_progress()
            return
        if fault.kind in ("lost", "foreign"):
            self.recording.journal.append("lost", request=request.id, why=fault.message)
            if self._found(request, look=True):
                self.on_progress()
                return
        else:
            self.recording.journal.append("declined", request=request.id, why=fault.message)
        if fault.kind == "missing":
            raise ModelUnavailable(
                f"{self.settings.model} is no longer available at {self.at.service}: {fault.message}",
                hint="Everything recorded is saved; `ftbridge migrate prove` works with it.",
            )
        if fault.kind != "later" or limit.throttled(ask.sent_in):
            ask.failures = patience.bear(fault, ask.failures, _TRIED_AGAIN)
        waiting.append(ask)

    def _found(self, request: RecordingRequest, look: bool = False) -> bool:
        """Whether the service kept the completion of a request that got no response; it is recorded then.

        With `look`, it is looked for again after ever longer waits, since lists lag behind.
        """
        if not self.store:
            return False
        for seconds in LOOKS[:3] if look else LOOKS[:1]:
            sleep(seconds)
            document = self._stored_one(request)
            if document is not None:
                samples, usage, logprobs = samples_of(request, document)
                if logprobs is not None:
                    self.recording.keep_logprobs(request.item.key, logprobs)
                self.recording.add(samples, usage, request=request.id, way="live", how="found")
                return bool(samples)
        return False

    def _stored_one(self, request: RecordingRequest) -> dict[str, Any] | None:
        """The stored completion of a request, oldest first where there are several; None where none shows."""
        completions = self.at.client.chat.completions

        def listed() -> list[dict[str, Any]]:
            page = completions.with_raw_response.list(metadata={MARK: request.id}, model=self.settings.model, limit=20)
            document = page.http_response.json()
            data = document.get("data") if isinstance(document, dict) else None
            return [one for one in data or [] if isinstance(one, dict)]

        try:
            stored = read(listed, "looking for a stored completion", self.at.service, attempts=3)
        except ServiceUnavailable:
            raise
        except FtbridgeError:
            return None  # a key without that scope: the request is asked again
        mine = [one for one in stored if (one.get("metadata") or {}).get(MARK) == request.id]
        return min(mine, key=lambda one: one.get("created") or 0) if mine else None
