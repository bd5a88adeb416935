"""Pieces of a file checked side by side: this process works too, and blocks come out in the order of the file.

    pieces ─▶ taken in order by ┬ this process          ─▶ ready, by number ─▶ given in order
                                └ a thread for each child

Nobody takes a piece that is far ahead of what was given, so that memory stays bounded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ftbridge.data.lint.dataset import Block, Counts, Found
from ftbridge.data.lint.source import Chunk
from ftbridge.data.lint.worker import Checkers, FileJob, Task, Worker

_TOLD = 3
"""Pieces that a child knows of: it works on one while the answer to another is read."""

_AHEAD = 2 * _TOLD
"""Pieces for each process that may be taken before they are given."""


class WorkerPool:
    """The processes that check a set of files: `jobs` of them, this one included."""

    def __init__(self, subjects: Sequence[FileJob], jobs: int) -> None:
        self._subjects, self._jobs = subjects, jobs
        self._own = Checkers(subjects)
        self._workers: list[Worker] = []
        self._shift: _OrderedResults | None = None

    def blocks(self, file: int, pieces: Iterator[Chunk], *, size: int, alone: bool) -> Iterator[tuple[Chunk, Block]]:
        """Each piece of a file with its block, in order. `alone` leaves the work to this process.

        Raises `FtbridgeError` when a child dies or the file becomes shorter.
        """
        if alone or self._jobs < 2:
            yield from ((piece, self._check(file, piece, size)) for piece in pieces)
            return
        while len(self._workers) < self._jobs - 1:
            self._workers.append(Worker(self._subjects, self._workers))
        shift = self._shift = _OrderedResults(pieces, _AHEAD * self._jobs)
        threads = [threading.Thread(target=self._run, args=(shift, file, size, worker)) for worker in self._workers]
        try:
            due = shift.next()  # the first piece is checked here: its findings are told before its tokens are counted
            for thread in threads:
                thread.start()
            while due:
                index, piece, block = due
                if block:
                    yield piece, block
                else:
                    shift.done(index, piece, self._check(file, piece, size))
                due = shift.next()
        except BaseException:
            self.close()
            raise
        finally:
            shift.stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def close(self) -> None:
        """End the children, whatever they are doing."""
        if self._shift:
            self._shift.stop()
        while self._workers:
            self._workers.pop().close()

    def _run(self, shift: _OrderedResults, file: int, size: int, worker: Worker) -> None:
        """One child's thread."""
        in_flight: deque[tuple[int, Chunk]] = deque()
        index, piece = -1, None
        try:
            while True:
                while len(in_flight) < _TOLD and (taken := shift.take(wait=not in_flight)):
                    index, piece = taken
                    if piece.too_long:
                        shift.done(index, piece, self._check(file, piece, size))
                    else:
                        in_flight.append(taken)
                        worker.send(_task(file, piece, size))
                if not in_flight:
                    return
                index, piece = in_flight[0]
                shift.done(index, piece, worker.receive(_task(file, piece, size)))
                in_flight.popleft()
        except BaseException as error:
            shift.fail(error)

    def _check(self, file: int, piece: Chunk, size: int) -> Block:
        if piece.too_long:
            return _too_long(piece, "FTB010" in self._subjects[file].plan.rules)
        return self._own.check(_task(file, piece, size), finish=piece.start > 0)


def _task(file: int, piece: Chunk, size: int) -> Task:
    return Task(file, piece.start, piece.length, first=piece.start == 0, last=piece.start + piece.length == size)


@dataclass
class _OrderedResults:
    """The work on one file: which pieces are taken, done and given."""

    pieces: Iterator[Chunk]
    ahead: int
    taken: int = 0
    delivered: int = 0
    over: bool = False
    """Whether there is no piece left to take."""
    ready: dict[int, tuple[Chunk, Block]] = field(default_factory=dict)
    error: BaseException | None = None
    """What ended the work."""
    change: threading.Condition = field(default_factory=threading.Condition)

    def take(self, *, wait: bool) -> tuple[int, Chunk] | None:
        """A piece to check; None when there are no more, or too much is ahead and it is not to be waited for."""
        with self.change:
            while wait and not self.over and self.taken >= self.delivered + self.ahead:
                self.change.wait()
            return self._take() if self.taken < self.delivered + self.ahead else None

    def next(self) -> tuple[int, Chunk, Block | None] | None:
        """For the process that gives: the block that is due, or else a piece to check meanwhile; None at the end."""
        with self.change:
            while True:
                if self.delivered in self.ready:
                    piece, block = self.ready.pop(self.delivered)
                    self.delivered += 1
                    self.change.notify_all()
                    return self.delivered - 1, piece, block
                if self.error:
                    raise self.error
                if self.taken < self.delivered + self.ahead and (mine := self._take()):
                    return *mine, None
                if self.over and self.delivered >= self.taken:
                    return None
                self.change.wait()

    def done(self, index: int, piece: Chunk, block: Block) -> None:
        """Put a block where it is given from."""
        with self.change:
            self.ready[index] = piece, block
            self.change.notify_all()

    def fail(self, error: BaseException) -> None:
        """End the work, with an error for whoever is given blocks."""
        with self.change:
            self.error = self.error or error
            self.over = True
            self.change.notify_all()

    def stop(self) -> None:
        """Nobody takes anything more."""
        with self.change:
            self.over = True
            self.change.notify_all()

    def _take(self) -> tuple[int, Chunk] | None:
        if self.over:
            return None
        try:
            piece = next(self.pieces, None)
        except BaseException:
            self.over = True
            raise
        if piece is None:
            self.over = True
            self.change.notify_all()
            return None
        self.taken += 1
        return self.taken - 1, piece


def _too_long(piece: Chunk, was_reported: bool) -> Block:
    """A line no one can read."""
    tally = Counts(lines=1, unfit=1)
    tally.methods["unknown"] += 1
    if not was_reported:
        return Block(tally, [], None)
    tally.codes["FTB010", "error"] += 1
    message = f"is {piece.length:,} bytes long, more than any service accepts and more than ftbridge checks."
    return Block(tally, [Found("FTB010", "error", 1, 0, "", message, None, None, False)], None)
