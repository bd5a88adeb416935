"""/metrics: what the server has done and holds, in Prometheus' text format 0.0.4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from ftbridge.server.service import Service

SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the histogram of durations."""


MOST_MODELS = 1_000
"""Models whose tokens are counted apart."""


class ServerMetrics:
    """Counts since the start of the server."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._durations: dict[str, list[int]] = {}
        self._sums: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self.tokens: Counter[tuple[str, str]] = Counter()
        self.open = 0

    def took(self, route: str, status: int, key: str, seconds: float) -> None:
        """A request was answered (`status` 0: it broke off)."""
        self._requests[route, str(status or "cut"), key] += 1
        buckets = self._durations.setdefault(route, [0] * len(SECONDS))
        for index, bound in enumerate(SECONDS):
            buckets[index] += seconds <= bound
        self._sums[route] += 1
        self._seconds[route] = self._seconds.get(route, 0.0) + seconds

    def count_tokens(self, model: str, prompt: int, completion: int) -> None:
        """An answer was made. Clients choose names where patterns are served: beyond `MOST_MODELS` they are one."""
        if (model, "prompt") not in self.tokens and len(self.tokens) >= 2 * MOST_MODELS:
            model = "other"
        self.tokens[model, "prompt"] += prompt
        self.tokens[model, "completion"] += completion

    def text(self, service: Service) -> str:
        """All of it."""
        lines: list[str] = []
        requests = [
            ({"route": route, "status": status, "key": key}, count)
            for (route, status, key), count in sorted(self._requests.items())
        ]
        _add(lines, "ftbridge_requests_total", "counter", "Requests answered.", requests)
        lines += [
            "# HELP ftbridge_request_seconds Time to the end of the answer.",
            "# TYPE ftbridge_request_seconds histogram",
        ]
        for route, buckets in sorted(self._durations.items()):
            name = _labels({"route": route})[1:-1]
            for bound, count in zip(SECONDS, buckets, strict=True):
                lines.append(f'ftbridge_request_seconds_bucket{{{name},le="{bound:g}"}} {count}')
            lines.append(f'ftbridge_request_seconds_bucket{{{name},le="+Inf"}} {self._sums[route]}')
            lines.append(f"ftbridge_request_seconds_sum{{{name}}} {self._seconds[route]:.6f}")
            lines.append(f"ftbridge_request_seconds_count{{{name}}} {self._sums[route]}")
        _add(lines, "ftbridge_requests_open", "gauge", "Requests being answered now.", [({}, self.open)])
        tokens = [({"model": model, "kind": kind}, count) for (model, kind), count in sorted(self.tokens.items())]
        _add(lines, "ftbridge_tokens_total", "counter", "Tokens read (prompt) and written (completion).", tokens)
        states = [({"status": status}, count) for status, count in sorted(service.store.statuses("job").items())]
        _add(lines, "ftbridge_jobs", "gauge", "Fine-tuning jobs by status.", states)
        if (size := resident_bytes()) is not None:
            _add(lines, "process_resident_memory_bytes", "gauge", "Memory of the server's own process.", [({}, size)])
        return "\n".join(lines) + "\n"


async def show(request: Request) -> Response:
    """GET /metrics."""
    text = request.app.state.metrics.text(request.app.state.service)
    return Response(text, media_type="text/plain; version=0.0.4")


def resident_bytes() -> int | None:
    """Memory of this process, where the system tells it."""
    try:
        with Path("/proc/self/status").open(encoding="ascii") as stream:
            for line in stream:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def _add(lines: list[str], name: str, kind: str, about: str, values: Iterable[tuple[Mapping[str, str], float]]) -> None:
    lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {value}" for labels, value in values]


def _labels(labels: Mapping[str, str]) -> str:
    def escaped(text: str) -> str:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    inner = ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""
