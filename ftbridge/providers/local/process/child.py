"""Short-lived child processes that answer over a pipe: model checks and sampling, so that torch never enters the caller.

Each line of the child's standard output is one JSON message: {"type": "progress" | "result" | "error", …}. Whatever
libraries print goes to the log on standard error instead.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from ftbridge.errors import WorkerDied, document, from_document


class Child:
    """The caller's end: a process of `module`, asked by JSON lines, answering by JSON lines."""

    def __init__(
        self,
        module: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """Start the process, with `environment` added to `child_environment`; by `command` where it runs elsewhere."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_path = log
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command or [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                encoding="utf-8",
                start_new_session=True,
                env={**child_environment(), **(environment or {})},
            )

    def ask(self, document: dict[str, Any]) -> None:
        """Send one request. `replies` says when the child has died."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(document, ensure_ascii=True) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass

    def replies(self, progress: Callable[[str], None] = lambda _: None) -> Iterator[dict[str, Any]]:
        """Yield results until the child says it is done. Raises its error as ours, or `WorkerDied`."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if message["type"] == "progress":
                progress(message["text"])
            elif message["type"] == "error":
                raise from_document(message["error"])
            elif message["type"] == "done":
                return
            else:
                yield message
        status = self._process.wait()
        reason = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        hint = "Signal 9 often means that the system ran out of memory. " if status == -9 else ""
        raise WorkerDied(f"the process that ran the model {reason}.", hint=f"{hint}Its log: {self._log_path}")

    def close(self) -> None:
        """End the child and wait until its memory is given back."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it died with a request unread
                self._process.stdin.close()
        for signal in (self._process.terminate, self._process.kill, None):
            try:
                self._process.wait(timeout=5 if signal else None)
                break
            except subprocess.TimeoutExpired:
                assert signal is not None
                signal()  # a command that runs it on a cluster gives back what it was granted when it is terminated
        if self._process.stdout is not None:
            self._process.stdout.close()


def child_environment() -> dict[str, str]:
    """The environment of a process that computes: this one's, with settings that OpenMP and oneDNN read when they start.

    Threads sleep while they wait for each other, after a short while. OpenMP's spin at the end of each operation by default:
    when other processes use the cores, the thread that they wait for is not running, and the spinning keeps it from running.
    On two cores training ran at 602 tokens/s without spinning, 715 with 10,000 rounds of it and 709 by default; beside two busy
    processes at 291, 265 and 166. OMP_WAIT_POLICY and GOMP_SPINCOUNT are read by libgomp (torch on Linux), KMP_BLOCKTIME by
    LLVM's and Intel's runtimes.

    oneDNN keeps few of the kernels that it makes, each with the memory it works in. Micro-batches rarely have the same number
    of tokens twice, so what it keeps by default (1,024) is hardly used again: training grew from 3.9 to 5.9 GB in 57 steps,
    with 16 it stays at 3.8 GB and is a twentieth faster (`benchmarks/memory_by_step.py`). LRU_CACHE_CAPACITY is torch's own.

    What is set already stays.
    """
    waiting = {} if "OMP_WAIT_POLICY" in os.environ else {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
    return {
        **waiting,
        "KMP_BLOCKTIME": "0",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16",
        "LRU_CACHE_CAPACITY": "16",
        **os.environ,
    }


def end_process(status: int = 0) -> NoReturn:
    """End this process at once, with everything written that it has printed or logged.

    torch and transformers take 1.0 to 1.6 s of a processor to be torn down at the end of Python; the system takes a process's
    memory back in a tenth of that.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads it any more
            pass
    os._exit(status)


def serve(respond: Callable[[dict[str, Any], Callable[..., None]], None]) -> NoReturn:
    """The child's end: call `respond(request, tell)` for each line of standard input until it closes; then the process ends.

    `tell(type, **fields)` sends one message. An error is sent as such and ends the child.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(kind: str, **fields: Any) -> None:
        out.write(json.dumps({"type": kind, **fields}, ensure_ascii=True) + "\n")
        out.flush()

    stdin: IO[str] = sys.stdin
    try:
        for line in stdin:
            respond(json.loads(line), tell)
            tell("done")
    except BrokenPipeError:
        pass
    except BaseException as error:
        import traceback

        traceback.print_exc()
        from ftbridge.providers.local.process.worker import as_known_error

        tell("error", error=document(as_known_error(error)))
    end_process()
