"""Recording through the Batch API: `providers/openai/sampling/batch_requests.py`, with a sample for each line.

    missing ─▶ groups that fit the queue and the budget ─▶ batches ─▶ output and error files ─▶ recorded, by custom_id

A batch that is under way when a process is killed is paid for: the next one waits for it before anything else is asked, live or
not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ftbridge.errors import GateNotMet
from ftbridge.migrate.completing import body_of, declined, samples_of
from ftbridge.migrate.forecast import expected_size, size_of
from ftbridge.migrate.recording import Recording, RecordingRequest, Sample, Settings, Usage
from ftbridge.providers.openai.client import Connection
from ftbridge.providers.openai.errors import clean
from ftbridge.providers.openai.jobs.ledger import Ledger
from ftbridge.providers.openai.sampling.batch import OF_THE_PROMPT, line_of
from ftbridge.providers.openai.sampling.batch_requests import Batches, BatchLine

AGAIN = "Run the same command again: it requests only what is missing, in a new batch."


@dataclass(frozen=True)
class _Result:
    request: RecordingRequest
    samples: list[Sample]
    usage: Usage
    logprobs: Any


@dataclass
class Batched:
    """Asks through batches. `queue` is how many input tokens the account may have waiting, None where that is not known."""

    at: Connection
    recording: Recording
    settings: Settings
    queue: int | None = None
    afford: Callable[[int, int], None] = lambda read, written: None
    on_progress: Callable[[], None] = lambda: None
    tell: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        self._batches = Batches(self.at, Ledger(self.recording.path), again=AGAIN, looked=self._looked)
        self._told = ""

    def _looked(self, batch: Any) -> None:
        """Say how far a batch is, each time that it is further."""
        counts = getattr(batch, "request_counts", None)
        done, total = getattr(counts, "completed", None) or 0, getattr(counts, "total", None) or 0
        progress = f": {done:,} of {total:,} requests are done" if total else ""
        if (text := f"batch {batch.id} is {batch.status}{progress}") != self._told:
            self._told = text
            self.tell(text)

    def collect(self, requests: Sequence[RecordingRequest]) -> int:
        """Record what earlier batches hold of these requests, and return how many of them that were."""
        return self._record(requests, self._batches.collect)

    def ask(self, requests: Sequence[RecordingRequest]) -> None:
        """Ask every request in as few batches as fit. Raises `ModelUnavailable` for one that is refused as a whole."""
        for group in self._groups(requests):
            self._record(group, self._batches.send)

    def _groups(self, requests: Sequence[RecordingRequest]) -> Iterator[list[RecordingRequest]]:
        """The requests in groups that fit the queue; each is checked against the budget when its turn comes."""
        group: list[RecordingRequest] = []
        read = written = 0
        for request in requests:
            size, more = size_of(request), expected_size(request)
            if group and self.queue is not None and read + size > self.queue:
                yield group
                group, read, written = [], 0, 0
            read, written = read + size, written + more
            try:
                self.afford(read, written)
            except GateNotMet:
                if group:
                    yield group  # what can be paid for is sent before the budget stops the rest
                raise
            group.append(request)
        if group:
            yield group

    def _record(self, requests: Sequence[RecordingRequest], way: Callable[..., Iterator[_Result]]) -> int:
        by_id = {request.id: request for request in requests}
        lines = {name: line_of(name, body_of(one, self.settings, store=False)) for name, one in by_id.items()}

        def understand(line: BatchLine) -> _Result | None:
            return _result(by_id[line.key], line)

        count = 0
        for result in way(lines, understand):
            if result.logprobs is not None:
                self.recording.keep_logprobs(result.request.item.key, result.logprobs)
            self.recording.add(result.samples, result.usage, request=result.request.id, way="batch")
            count += 1
            self.on_progress()
        return count


def _result(request: RecordingRequest, line: BatchLine) -> _Result | None:
    """What a line says of its request; None where sending it again may help."""
    if line.status in OF_THE_PROMPT:
        reason = f"{line.status}: {clean(line.error.get('message') or 'no reason given')}"
        return _Result(request, declined(request, reason), Usage(), None)
    if line.status != 200:
        return None
    samples, usage, logprobs = samples_of(request, line.body)
    return _Result(request, samples or declined(request, "the response contains no choice"), usage, logprobs)
