"""A model that answers many at once, as an asynchronous server sees it: start it, ask it, stop it.

The model lives in a child process; torch never enters this one. If the child dies, every open answer fails with the
reason, and the next ask starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from ftbridge.errors import FtbridgeError, WorkerDied, from_document
from ftbridge.providers.local.inference.requests import (
    EVENT_KINDS,
    GenerationRequest,
    StreamEnd,
    StreamEvent,
)
from ftbridge.providers.local.process.child import child_environment
from ftbridge.providers.local.request import SampleRequest

_LONGEST_LINE = 1 << 26


log = logging.getLogger("ftbridge.server")


def _event(kind: str, fields: dict[str, Any]) -> StreamEvent | FtbridgeError:
    """An event that the process sent; an error, for its request alone, where it cannot be read."""
    try:
        return EVENT_KINDS[kind](**fields)
    except ValueError as error:
        log.error("the model's output cannot be passed on: %s", error)
        return WorkerDied("the model's output cannot be passed on.")


class Host:
    """One model in one child process. Use within one event loop."""

    def __init__(self, model: SampleRequest, log: Path) -> None:
        """Nothing is started yet. `log` gets what libraries print."""
        self._model, self._log = model, log
        self._process: asyncio.subprocess.Process | None = None
        self._open: dict[str, asyncio.Queue[StreamEvent | FtbridgeError]] = {}
        self._starting = asyncio.Lock()
        self._reader: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self.notes: list[str] = []
        self.context = 0

    async def start(self) -> None:
        """Load the model, if it is not loaded. Raises what keeps it from being loaded.

        Whoever waits may leave: the model goes on loading for the others.
        """
        if self._reader is not None and not self._reader.done():
            return
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        async with self._starting:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "ftbridge.providers.local.inference.process",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    env=child_environment(),
                    limit=_LONGEST_LINE,
                    start_new_session=True,
                )
            await self._send(self._model.model_dump(mode="json"))
            message = await self._hear()
            if message is None:
                raise await self._died()
            if "dead" in message:
                raise from_document(message["dead"])
            self.notes, self.context = message["notes"], message["context"]
            self._reader = asyncio.create_task(self._read())

    async def generate(self, ask: GenerationRequest) -> AsyncIterator[StreamEvent]:
        """The prompt's size, then every piece of every answer as it comes, and the end of each.

        Closing the iterator early cancels the answers. Raises `UsageError` for what the model cannot answer
        (`ContextTooLong` if it is too long), `WorkerDied` when the process is gone.
        """
        await self.start()
        inbox: asyncio.Queue[StreamEvent | FtbridgeError] = asyncio.Queue()
        self._open[ask.id] = inbox
        left = ask.n
        try:
            await self._send({"ask": ask.model_dump(mode="json", exclude_unset=True)})
            while left:
                event = await inbox.get()
                if isinstance(event, FtbridgeError):
                    left = 0
                    raise event
                left -= isinstance(event, StreamEnd)
                yield event
        finally:
            del self._open[ask.id]
            if left:
                with contextlib.suppress(FtbridgeError):
                    await self._send({"cancel": ask.id})

    async def close(self) -> None:
        """End the process and give back its memory."""
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), timeout=5)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader

    async def _read(self) -> None:
        try:
            while (message := await self._hear()) is not None:
                if "failed" in message:
                    name, error = message["failed"]
                    self._tell(name, from_document(error))
                for name, kind, fields in message.get("events", ()):
                    self._tell(name, _event(kind, fields))
        except (
            Exception
        ):  # a line that cannot be read leaves nobody waiting: the process ends, and the next ask starts another
            log.exception("the output of the process that runs the model cannot be read; the process is ended")
            if self._process is not None:
                self._process.kill()
        if self._open:
            error = await self._died()
            for name in list(self._open):
                self._tell(name, error)

    def _tell(self, name: str, event: StreamEvent | FtbridgeError) -> None:
        if name in self._open:
            self._open[name].put_nowait(event)

    async def _send(self, message: dict[str, Any]) -> None:
        stdin = self._process.stdin if self._process else None
        if stdin is None:
            raise WorkerDied("the process that runs the model was closed.")
        try:
            stdin.write(json.dumps(message, ensure_ascii=True).encode() + b"\n")
            await stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise await self._died() from None

    async def _hear(self) -> dict[str, Any] | None:
        stdout = self._process.stdout if self._process else None
        line = await stdout.readline() if stdout else b""
        return json.loads(line) if line else None

    async def _died(self) -> WorkerDied:
        status = await self._process.wait() if self._process else 0
        reason = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        hint = "Signal 9 often means that the system ran out of memory. " if status == -9 else ""
        return WorkerDied(f"the process that runs the model {reason}.", hint=f"{hint}Its log: {self._log}")
