"""Questions to judges, each paid once: every reply is on disk before it is read, and counted before the next is asked.

    question ─▶ on disk already? ──yes──▶ the reply
                     │no
                     ▼
                asked at this moment? ──yes──▶ that reply, when it comes
                     │no
                     ▼
                room in the budget? ──▶ POST ──▶ one line of judge_calls.jsonl ──▶ read ──▶ a reward, or "unreadable"

A process that is killed at any arrow asks nothing again that was answered, and one that ends by itself (`Calls.stop`) waits for
what a judge is answering. Replies that could not be read stay in the file, since they were paid; the next evaluation asks that
question again, and so does this one after `ask_again`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge.files import disk_full_is_an_error, sha256_bytes
from ftbridge.graders.chat import REPLY_SECONDS, Endpoint, JudgeFailed, JudgeResponse, ask

FILE = "judge_calls.jsonl"


class CallRecord(BaseModel):
    """One line of `judge_calls.jsonl`: a question that a judge was paid for, or that its reply could not be read."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    question: str = Field(description="SHA-256 of address, model, messages and sampling.")
    model: str = Field(default="", description="The model that was asked.")
    endpoint: str = Field(default="", description="The address that was asked.")
    reply: JudgeResponse | None = Field(
        default=None, description="What came back; null in a line that only marks a reply as unreadable."
    )
    unreadable: str | None = Field(
        default=None, description="Why the reply gave no reward; it is asked again the next time."
    )


class Meter(Protocol):
    """What watches the spending while judges are asked, from several threads at once."""

    def before(self) -> None:
        """Wait until one more question may be asked. Raises `GateNotMet` when none may."""
        ...

    def after(self, call: CallRecord | None) -> None:
        """Hear that a question was answered, or, with None, that it was not."""
        ...


class Stopped(Exception):
    """No question is asked any more, since this process ends."""


class Calls:
    """The questions of one evaluation. Without a path nothing is stored; without a meter nothing is limited."""

    def __init__(self, path: Path | None = None, meter: Meter | None = None) -> None:
        self._path, self._meter = path, meter
        self._changed = threading.Condition()
        self._replies: dict[str, JudgeResponse] = {}
        self._unreadable: set[str] = set()
        self._under_way: dict[str, Future[JudgeResponse]] = {}
        self._answering: dict[str, float] = {}
        """Questions that a judge has been sent and has not answered, and when (monotonic) its time is over."""
        self._stopped = False
        self._writing = threading.Lock()
        for record in read_calls(path) if path is not None else []:
            if record.unreadable is not None:
                self._replies.pop(record.question, None)
            elif record.reply is not None:
                self._replies[record.question] = record.reply

    def ask(self, where: Endpoint, body: dict[str, Any], seconds: float | None = None) -> JudgeResponse:
        """The reply to a question, from disk or from the judge, which may take `seconds` (`chat.REPLY_SECONDS` by default).

        The same question asked by several threads at once is asked and paid once. Raises `JudgeFailed` as `chat.ask`,
        `GateNotMet`, and `Stopped`.
        """
        question = question_of(where, body)
        with self._changed:
            if (reply := self._replies.get(question)) is not None:
                return reply
            earlier = self._under_way.get(question)
            if earlier is None:
                future = self._under_way[question] = Future()
        if earlier is not None:
            return earlier.result()
        try:
            reply = self._paid(question, where, body, seconds)
        except BaseException as error:
            future.set_exception(error)
            raise
        else:
            future.set_result(reply)
            return reply
        finally:
            with self._changed:
                del self._under_way[question]
                self._answering.pop(question, None)
                self._changed.notify_all()

    def has(self, where: Endpoint, body: dict[str, Any]) -> bool:
        """Whether the reply to a question is here already, and would be read."""
        question = question_of(where, body)
        with self._changed:
            return question in self._replies and question not in self._unreadable

    def unreadable(self, where: Endpoint, body: dict[str, Any], why: str) -> None:
        """Note that a reply gave no reward: it counts as paid, and another evaluation asks again."""
        question = question_of(where, body)
        with self._changed:
            if question in self._unreadable:
                return
            self._unreadable.add(question)
        self._write(CallRecord(question=question, unreadable=why))

    def ask_again(self) -> None:
        """Forget the replies that gave no reward: whoever needs one asks, and pays, again."""
        with self._changed:
            for question in self._unreadable:
                self._replies.pop(question, None)
            self._unreadable.clear()

    def stop(self) -> None:
        """Ask nothing more, and wait until each question that a judge is answering has its reply on disk, or its time is over.

        A question that waits for another try is given up: nothing was paid for it.
        """
        with self._changed:
            self._stopped = True
            while self._answering:
                left = max(self._answering.values()) - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)

    def _paid(self, question: str, where: Endpoint, body: dict[str, Any], seconds: float | None) -> JudgeResponse:
        if self._meter is not None:
            self._meter.before()
        record = None
        try:
            reply = ask(where, body, seconds, lambda: self._sending(question, seconds or REPLY_SECONDS))
            record = CallRecord(question=question, model=str(body["model"]), endpoint=where.base_url, reply=reply)
            self._write(record)
            with self._changed:
                self._replies[question] = reply
        finally:
            if self._meter is not None:
                self._meter.after(record)
        return reply

    @contextmanager
    def _sending(self, question: str, seconds: float) -> Iterator[None]:
        """One request for a question: from here on a judge may be answering it, until it failed or `ask` has its reply."""
        with self._changed:
            if self._stopped:
                raise Stopped
            self._answering[question] = time.monotonic() + seconds
        try:
            yield
        except BaseException:
            with self._changed:
                self._answering.pop(question, None)
                self._changed.notify_all()
            raise

    def _write(self, record: CallRecord) -> None:
        if self._path is None:
            return
        line = record.model_dump_json(exclude_none=True).encode() + b"\n"
        with disk_full_is_an_error(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                with self._writing:
                    size = os.fstat(descriptor).st_size
                    torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
                    os.write(descriptor, b"\n" + line if torn else line)
                os.fsync(descriptor)  # the line outlives this process already; this is for a loss of power
            finally:
                os.close(descriptor)


class Unpaid(Calls):
    """The same questions without asking any: `questions` names those that have no reply yet. Each of these fails."""

    def __init__(self, calls: Calls) -> None:
        super().__init__()
        self.questions: set[str] = set()
        self._calls = calls

    def ask(self, where: Endpoint, body: dict[str, Any], seconds: float | None = None) -> JudgeResponse:
        """The reply that is here. Raises `JudgeFailed` where there is none."""
        if self._calls.has(where, body):
            return self._calls.ask(where, body)
        self.questions.add(question_of(where, body))
        raise JudgeFailed("this question has no reply yet")


def read_calls(path: Path) -> list[CallRecord]:
    """The lines of a file of calls; a file that is not there, and lines that cannot be read, hold none."""
    records = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            records.append(CallRecord.model_validate_json(line))
        except ValidationError:
            continue
    return records


def question_of(where: Endpoint, body: dict[str, Any]) -> str:
    """What names a question: everything that the reply depends on."""
    return sha256_bytes(json.dumps([where.base_url, body], sort_keys=True).encode())
