"""The evaluator's side of this machine's models: one process for each GPU, and the prompts shared out among them.

    LocalSampler ──▶ completions process, GPU 0      starts on the first use; says how many more there may be
                 ├─▶ completions process, GPU 1      started where there are prompts for it
                 └─▶ …                               all reply at once, in whatever order they end

`local.workers` says how many, as in training: `auto` is every GPU that is visible and one process on a CPU. What is completed
does not depend on it: a prompt's completion follows from the prompt, its key and its seed. Nothing here imports torch.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ftbridge.providers.base import Completion, Prompt, Scored
from ftbridge.providers.local.data.batches import dealt
from ftbridge.providers.local.process.child import Child
from ftbridge.providers.local.request import SampleRequest

MODULE = "ftbridge.providers.local.inference.completions"
Reply = dict[str, Any]


class LocalSampler:
    """A `Sampler` of one model. Each process loads it once, and holds it until `close`."""

    def __init__(self, model: SampleRequest, log: Path, command: Sequence[str] | None = None) -> None:
        """Nothing is started yet. `log` gets what libraries print; those of further processes go to NAME-1.log and so on.
        `command` runs the module `MODULE` on another machine.
        """
        self._model, self._log, self._command = model, log, command
        self._children: list[Child] = []
        self._unread = False

    def generate(self, prompts: Sequence[Prompt], *, max_tokens: int, batch_size: int) -> Iterator[Completion]:
        """Yield one completion for each prompt as it ends; `batch_size` is the most that one process computes at once."""
        documents = [prompt.model_dump(mode="json", exclude_unset=True) for prompt in prompts]
        rows = [{"prompts": document} for document in documents]
        for reply in self._replies(rows, max_tokens=max_tokens, batch_size=batch_size):
            yield Completion(**{name: reply.get(name) for name in Completion.model_fields})

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str], *, batch_size: int) -> Iterator[Scored]:
        """Yield the log-likelihood of each reference, rendered as in training."""
        documents = [prompt.model_dump(mode="json", exclude_unset=True) for prompt in prompts]
        rows = [{"prompts": document, "answers": text} for document, text in zip(documents, completions, strict=True)]
        for reply in self._replies(rows, batch_size=batch_size):
            yield Scored(**{name: reply[name] for name in Scored.model_fields})

    def close(self) -> None:
        """End the processes; their memory goes with them."""
        children, self._children, self._unread = self._children, [], False
        for child in children:
            child.close()

    def _replies(self, rows: list[dict[str, Any]], **settings: Any) -> Iterator[Reply]:
        """What the processes say to `rows`, whose values are lists in the request of each."""
        if self._unread:  # whoever asked before left early: what is still to come is for nobody
            self.close()
        if not rows:
            return
        children = self._started(len(rows))
        self._unread = True
        for child, part in zip(children, dealt([len(str(row)) for row in rows], len(children)), strict=True):
            columns = {name: [rows[number][name] for number in part] for name in rows[0]}
            child.ask({"model": self._model.model_dump(mode="json"), **columns, **settings})
        yield from children[0].replies() if len(children) == 1 else _merged(children)
        self._unread = False

    def _started(self, rows: int) -> list[Child]:
        """The processes for so many rows: all that there may be, but none without a row."""
        if not self._children:
            self._children.append(self._start(0))
        most = self._most()
        while len(self._children) < min(most, rows):
            self._children.append(self._start(len(self._children)))
        return self._children[: min(most, rows)]

    def _most(self) -> int:
        """How many processes there may be. Only the first, which has torch, can see the GPUs."""
        request = self._model.request
        if self._command is not None or request.workers == 1:
            return 1
        if request.workers == "auto" and request.device in ("cpu", "mps"):
            return 1
        self._children[0].ask({"count": {"device": request.device, "workers": request.workers}})
        (reply,) = self._children[0].replies()
        return int(reply["processes"])

    def _start(self, number: int) -> Child:
        log = self._log if not number else self._log.with_name(f"{self._log.stem}-{number}{self._log.suffix}")
        if self._command is not None:
            return Child(MODULE, log, command=self._command)
        return Child(MODULE, log, _environment(number, self._model.request.workers))


def _environment(number: int, workers: int | str) -> dict[str, str]:
    """The variables that process `number` needs: its GPU, and its share of the processors where several share these."""
    environment: dict[str, str] = {}
    if number:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        environment["CUDA_VISIBLE_DEVICES"] = visible[number] if number < len(visible) else str(number)
    if isinstance(workers, int) and workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    return environment


def _merged(children: Sequence[Child]) -> Iterator[Reply]:
    """The replies of several processes as they come. The first error ends it."""
    inbox: queue.SimpleQueue[Reply | BaseException | None] = queue.SimpleQueue()

    def read(child: Child) -> None:
        try:
            for reply in child.replies():
                inbox.put(reply)
            inbox.put(None)
        except BaseException as error:
            inbox.put(error)

    for child in children:
        threading.Thread(target=read, args=(child,), daemon=True).start()
    left = len(children)
    while left:
        reply = inbox.get()
        if reply is None:
            left -= 1
        elif isinstance(reply, BaseException):
            raise reply
        else:
            yield reply
