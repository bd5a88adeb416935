"""How fast this machine's processor multiplies matrices, in about a second: what `ftbridge plan` computes a CPU's hours from.

    python -m ftbridge.providers.local.process.products PRECISION    prints a JSON document, `planning.processor.Products`

PRECISION is that of the spec (`local.precision`); auto is the type that training computes in here. Run as a process of its
own, so that a plan never holds torch. The figures are those of a machine with nothing else to do, whatever others do
meanwhile: each is the best of several tries by the processor time of all threads, divided by their number. Threads that wait
soon sleep (`child_environment`), so they take little. On macOS, whose library computes outside of these threads, by the clock.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from ftbridge.providers.local.models.device import pick
from ftbridge.providers.local.models.threads import allowed_cores
from ftbridge.providers.local.process.child import end_process

WIDTHS = (256, 512, 1024, 2048, 4096)
ROWS = 512
"""Tokens of a product."""
ELEMENTS = 1 << 20
"""Numbers of an elementwise operation: more than fit the caches next to the processor."""
_TRIES, _TRY = 3, 0.04
"""Tries for one figure, and seconds of one, of every thread: the kernel counts the time of threads on other processors at its
ticks, up to 10 ms late, so a product alone would be counted for as little as half.
"""
_SLOWEST = 0.2
"""Seconds of a product after which wider ones are left out: from there on the rate hardly changes."""


def measure(precision: Literal["auto", "bf16", "fp16", "fp32"]) -> dict[str, object]:
    """The document that is printed: the compute type, products by width in flops a second, elementwise operations a second."""
    compute = pick("cpu", precision).compute
    threads = max(1, min(torch.get_num_threads(), math.ceil(allowed_cores())))
    torch.set_num_threads(threads)
    rates: dict[str, float] = {}
    for width in WIDTHS:
        rows, weight = torch.randn(ROWS, width).to(compute), torch.randn(width, width).to(compute)
        seconds = _seconds(partial(torch.nn.functional.linear, rows, weight), threads)
        rates[str(width)] = 2 * ROWS * width * width / seconds
        if seconds > _SLOWEST:
            break
    gate, up = (torch.randn(ELEMENTS) for _ in range(2))  # norms and attention compute in float32 whatever the type
    return {
        "compute": str(compute).removeprefix("torch."),
        "threads": threads,
        "torch": torch.__version__,
        "flops": rates,
        "elements": ELEMENTS / _seconds(partial(torch.mul, gate, up), threads),
    }


def _seconds(act: Callable[[], object], threads: int) -> float:
    """Seconds of the fastest try, as if every thread had a processor to itself."""
    clock, parts = (time.perf_counter, 1) if sys.platform == "darwin" else (time.process_time, threads)

    def spent(count: int) -> float:
        start = clock()
        for _ in range(count):
            act()
        return clock() - start

    act()
    count, used = 1, spent(1)
    while used < _TRY * parts:
        count = math.ceil(count * min(8.0, 1.2 * _TRY * parts / max(used, 1e-6)))
        used = spent(count)
    best = min(used, *(spent(count) for _ in range(_TRIES - 1)))
    return max(best / count / parts, 1e-9)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))  # type: ignore[arg-type]
    end_process()
