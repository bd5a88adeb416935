"""Several workers as one: what training needs of the others, and nothing at all where there is one.

    one step, every worker        cut the whole batch alike ─▶ deal the micro-batches ─▶ run its own ─▶ add up
    what only the main one does   read the control file, grade, write files, report: `from_main`

Every worker knows the whole batch, so what the loss is divided by is the same number on each of them, and gradients are added,
never averaged: a step's loss is the sum over all trained tokens divided by their number, with any number of workers.
`torch.nn.parallel.DistributedDataParallel` does not fit here: it averages, and wants every worker to run the same number of
forward passes through one module. What it does beside that, reducing gradients in buckets, is one function (`add_gradients`).

Objects (figures, errors, completions) travel over gloo, on CPUs; gradients over the devices' own backend, NCCL on CUDA.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ftbridge.providers.local.data.batches import dealt
from ftbridge.providers.local.models.footprint import ring_bytes
from ftbridge.providers.local.process.activity import ACTIVITY

T = TypeVar("T")
U = TypeVar("U", bound=Sized)
TIMEOUT = timedelta(hours=1)
"""How long a worker waits for the others in one exchange: they may be loading, or the main one grading. A worker that is gone,
stopped or stuck is noticed within half a minute (`process/heartbeat.py`); this ends one that computes without end."""
BUCKET = 1 << 25
"""Most numbers of gradients that are added up in one exchange, 128 MiB in float32: few exchanges, little memory beside."""


class StoppedElsewhere(Exception):
    """Another worker stopped the job, and says why; this one has nothing to add."""


class Turn(NamedTuple, Generic[T]):
    """A micro-batch of this worker, and its number in the step. An `idle` one keeps sharded workers in line."""

    number: int
    part: Sequence[T]
    idle: bool = False


@dataclass(frozen=True)
class Parallel:
    """This worker among `world` of them. `sharded`: weights are gathered on the way, so all must run as many micro-batches."""

    rank: int = 0
    world: int = 1
    on_this_machine: int = 1
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this worker reports, and writes what is written once."""
        return self.rank == 0

    # What is shared out

    def budget(self, batch: Sequence[Any], budget: int) -> int:
        """Tokens of a micro-batch: at most `budget`, and few enough for every worker to get one."""
        if self.world == 1:
            return budget
        return max(1, min(budget, math.ceil(sum(len(unit) for unit in batch) / self.world)))

    def deal(self, parts: Sequence[Sequence[U]]) -> list[Turn[U]]:
        """This worker's micro-batches of those of a step, dealt by their lengths."""
        if self.world == 1:
            return [Turn(number, part) for number, part in enumerate(parts)]
        lengths = [sum(len(unit) for unit in part) for part in parts]
        hands = dealt(lengths, self.world)
        turns = [Turn(number, parts[number]) for number in hands[self.rank]]
        if self.sharded:
            shortest = min(range(len(parts)), key=lengths.__getitem__)
            turns += [Turn(shortest, parts[shortest], idle=True)] * (max(map(len, hands)) - len(turns))
        return turns

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This worker's items of many: as many neighbours as the others get, one more or less."""
        return items[self.rank * len(items) // self.world : (self.rank + 1) * len(items) // self.world]

    # What is agreed

    def everyone(self, value: T) -> list[T]:
        """The value of every worker, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with ACTIVITY.exchange():
            dist.all_gather_object(values, value, group=_control())
        return values

    def together(self, work: Callable[[], T]) -> list[T]:
        """What `work` returns on every worker, by rank. Where it fails anywhere, all stop, with their own error or none."""
        if self.world == 1:
            return [work()]
        error, value = None, None
        try:
            value = work()
        except Exception as caught:
            error = caught
        outcomes = self.everyone((error is None, value))
        if error is not None:
            raise error
        if not all(done for done, _ in outcomes):
            raise StoppedElsewhere
        return [result for _, result in outcomes]  # type: ignore[misc]

    def from_main(self, work: Callable[[], T]) -> T:
        """What `work` returns on the main worker, which alone runs it. Where it fails there, all stop."""
        return self.together(lambda: work() if self.is_main else None)[0]  # type: ignore[return-value]

    def first_on_main(self, work: Callable[[], T]) -> T:
        """What `work` returns on each worker. The main one runs it first: the others find what it fetched."""
        if self.world == 1:
            return work()
        done: list[T] = []
        self.from_main(lambda: done.append(work()))
        self.together(lambda: None if self.is_main else done.append(work()))
        return done[0]

    def in_turn(self, work: Callable[[], T]) -> T:
        """What `work` returns, run by one worker of this machine at a time, for what takes memory that there is only once."""
        if self.world == 1:
            return work()
        local_rank, results = int(os.environ["LOCAL_RANK"]), list[T]()
        for turn in range(max(self.everyone(self.on_this_machine))):
            self.together(lambda turn=turn: results.append(work()) if turn == local_rank else None)  # type: ignore[misc]
        return results[0]

    # What is added up

    def add(self, figures: dict[str, float]) -> dict[str, float]:
        """Figures added over the workers by name, in the order of ranks, so that each gets the same numbers."""
        if self.world == 1:
            return figures
        total: dict[str, float] = {}
        for one in self.everyone(figures):
            for name, value in one.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> int:
        """Add up the gradients of all workers, in place; returns the bytes that were exchanged, as one worker sends them.

        A parameter that has a gradient on some workers counts as zero on the others; one without any keeps none. Sharded
        gradients have been added in the backward pass.
        """
        if self.world == 1 or self.sharded:
            return 0
        present = [
            any(flags) for flags in zip(*self.everyone([one.grad is not None for one in parameters]), strict=True)
        ]
        bucket: list[Tensor] = []
        total = 0
        for parameter, is_present in zip(parameters, present, strict=True):
            if not is_present:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if bucket and sum(one.numel() for one in bucket) + parameter.numel() > BUCKET:
                total += _add(bucket)
                bucket = []
            bucket.append(parameter.grad)
        if bucket:
            total += _add(bucket)
        return ring_bytes(total, self.world)


ALONE = Parallel()
"""One worker, no other."""


def _add(gradients: Sequence[Tensor]) -> int:
    """Add up tensors over the workers in one exchange, in place; returns their bytes."""
    flat = torch.cat([one.reshape(-1).float() for one in gradients])
    with ACTIVITY.exchange():
        dist.all_reduce(flat)
    start = 0
    for one in gradients:
        one.copy_(flat[start : start + one.numel()].view_as(one))
        start += one.numel()
    return flat.numel() * flat.element_size()


_groups: dict[str, Any] = {}


def _control() -> Any:
    return _groups["control"]


@contextmanager
def joined() -> Iterator[Parallel]:
    """This process among those that torchrun started, by its variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR …)."""
    local = int(os.environ["LOCAL_RANK"])
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
    _groups["control"] = dist.new_group(backend="gloo", timeout=TIMEOUT) if cuda else None
    try:
        yield Parallel(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_WORLD_SIZE"]))
    finally:
        dist.destroy_process_group()
        _groups.clear()
