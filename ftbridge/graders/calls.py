"""Questions to judges, each paid once: every reply is on disk before it is read, and counted before the next is asked.

    question ─▶ on disk already? ──yes──▶ the reply
                     │no
                     ▼
                room in the budget? ──▶ POST ──▶ one line of judge_calls.jsonl ──▶ read ──▶ a reward, or "unreadable"

A process that is killed at any arrow asks nothing again that was answered. Replies that could not be read stay in the file,
since they were paid; the next time, that question is asked again.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftbridge.files import disk_full_is_an_error, sha256_bytes
from ftbridge.graders.chat import Endpoint, JudgeResponse, ask

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


class Calls:
    """The questions of one evaluation. Without a path nothing is kept; without a meter nothing is limited."""

    def __init__(self, path: Path | None = None, meter: Meter | None = None) -> None:
        self._path, self._meter = path, meter
        self._lock = threading.Lock()
        self._replies: dict[str, JudgeResponse] = {}
        for record in read_calls(path) if path is not None else []:
            if record.unreadable is not None:
                self._replies.pop(record.question, None)
            elif record.reply is not None:
                self._replies[record.question] = record.reply

    def ask(self, where: Endpoint, body: dict[str, Any], seconds: float | None = None) -> JudgeResponse:
        """The reply to a question, from disk or from the judge. Raises `JudgeFailed` as `chat.ask`, and `GateNotMet`."""
        question = question_of(where, body)
        with self._lock:
            cached = self._replies.get(question)
        if cached is not None:
            return cached
        if self._meter is not None:
            self._meter.before()
        record = None
        try:
            reply = ask(where, body, seconds)
            record = CallRecord(question=question, model=str(body["model"]), endpoint=where.base_url, reply=reply)
            self._write(record)
            with self._lock:
                self._replies[question] = reply
        finally:
            if self._meter is not None:
                self._meter.after(record)
        return reply

    def unreadable(self, where: Endpoint, body: dict[str, Any], why: str) -> None:
        """Note that a reply gave no reward: it counts as paid, and another evaluation asks again."""
        self._write(CallRecord(question=question_of(where, body), unreadable=why))

    def _write(self, record: CallRecord) -> None:
        if self._path is None:
            return
        line = record.model_dump_json(exclude_none=True).encode() + b"\n"
        with disk_full_is_an_error(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                with self._lock:
                    size = os.fstat(descriptor).st_size
                    torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
                    os.write(descriptor, b"\n" + line if torn else line)
                os.fsync(descriptor)  # the line outlives this process already; this is for a loss of power
            finally:
                os.close(descriptor)


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
