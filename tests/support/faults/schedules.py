"""Seeded fault schedules for the OpenAI provider: never twice, never lost.

    cd tests && python -m support.faults.schedules --schedules 200

Each seed draws a service (which may drop metadata, lag, speak base64, use words nobody knows), an end for the job, faults on
any route, and a place in the journal where the process dies. The run is submitted and followed, taken up after every failure,
and then everything is counted at the service.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftbridge import http
from ftbridge.errors import FtbridgeError, ProviderRefused
from ftbridge.providers.base import JobEvent
from ftbridge.providers.openai.provider import OpenAIProvider
from ftbridge.runs.journal import Journal
from ftbridge.server import simulating
from support.openai_jobs import submission
from support.service_faults import fault, lagging, telling
from support.simulated_service import SCENARIO, Service

ROUTES = (
    "POST /files", "GET /files", "GET /files/{id}", "POST /fine_tuning/jobs", "GET /fine_tuning/jobs",
    "GET /fine_tuning/jobs/{id}", "GET /fine_tuning/jobs/{id}/events", "GET /fine_tuning/jobs/{id}/checkpoints", "GET /files/{id}/content",
)  # fmt: skip
KINDS = ("reset_before", "reset_after", "cut_after", "html_after", "408", "409", "429", "500", "502", "503", "504")
ENDS = ("succeeded", "succeeded", "succeeded", "failed", "cancelled", "refused")
RESUMES = 60
"""Times that a run is taken up again before it counts as lost."""


@dataclass(frozen=True)
class Schedule:
    """What one seed stands for."""

    seed: int
    end: str
    keeps_metadata: bool
    neighbour: bool
    dies_at: int | None
    dies_after_writing: bool
    jobs: dict[str, Any] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)


class Killed(BaseException):
    """The process died here: nothing catches it, nothing is tidied up."""


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    dice = random.Random(seed)
    end = dice.choice(ENDS)
    statuses = ["validating_files", *dice.sample(["queued", "running", "pausing", "evaluating"], dice.randint(0, 3))]
    faults = []
    for _ in range(dice.randint(1, 8)):
        first, length = dice.randint(1, 4), dice.choice([1, 1, 1, 2, 9])
        route, kind = dice.choice(ROUTES), dice.choice(KINDS)
        faults.append(fault(route, kind, range(first, first + length)))
    if end == "refused":
        faults.append(fault("POST /fine_tuning/jobs", "closed", None))
    if lag := dice.choice([0, 0, 1, 3]):
        faults += lagging(lag)
    if (status := dice.choice(["processed", "processed", "uploaded", None])) != "processed":
        faults += telling(status)
    return Schedule(
        seed=seed,
        end=end,
        keeps_metadata=dice.random() < 0.6,
        neighbour=dice.random() < 0.3,
        dies_at=dice.choice([None, dice.randint(1, 25)]),
        dies_after_writing=dice.random() < 0.5,
        jobs={
            "walk": [*statuses, end if end != "refused" else "succeeded"],
            "base64_results": dice.random() < 0.5,
            "metrics": dice.random() < 0.7,
        },
        faults=faults,
    )


def play(schedule: Schedule, folder: Path, service: Service) -> list[str]:
    """Run one schedule at a service to its end; returns what was wrong, in sentences. The service is reset before."""
    service.reset(jobs={"keeps_metadata": schedule.keeps_metadata})
    os.environ.update({"OPENAI_API_KEY": "sk-fault-schedules", "FTBRIDGE_HOME": str(folder / "home")})
    target = "openai" if schedule.keeps_metadata else "custom"
    openai = {"target": target, "base_url": service.base_url}
    http.wait_scale(0)
    if schedule.neighbour:  # another run of the account, same data and model
        OpenAIProvider().submit(submission(folder / "neighbour", token="neighbour", openai=openai))
    before, names = set(service.jobs), set(service.files)
    service.change(jobs=schedule.jobs, faults=schedule.faults)
    request = submission(folder / "run", token=f"run-{schedule.seed}", openai=openai)
    with dying(schedule):
        ended, result = _driven(request)
    return list(_wrong(schedule, service, ended, result, before, names))


def _driven(submitted: Any) -> tuple[str, list[JobEvent]]:
    """Submit and follow, as the bridge does, and take it up again whenever it breaks off."""
    lines: list[JobEvent] = []
    for _ in range(RESUMES):
        provider = OpenAIProvider()
        try:
            handle = provider.submit(submitted)
            for _ in range(100):
                status = provider.poll(handle)
                for event in provider.events(handle, lines[-1].id if lines else None):
                    lines.append(event)
                if status.state in ("succeeded", "failed", "cancelled"):
                    if status.state == "succeeded":
                        assert provider.result(handle).id.startswith("ft:gpt-test")
                    return status.state, lines
        except Killed:
            continue
        except ProviderRefused:
            return "refused", lines
        except FtbridgeError as error:
            if error.exit_code != 1:
                raise
    return "lost", lines


def _wrong(
    schedule: Schedule,
    service: Service,
    ended: str,
    job_events: list[JobEvent],
    before: set[str],
    files_before: set[str],
) -> Iterator[str]:
    if ended != schedule.end:
        yield f"it ended as {ended}, not {schedule.end}"
    jobs = [created for created in service.jobs if created not in before]
    if len(jobs) != (schedule.end != "refused"):
        yield f"{len(jobs)} jobs were created"
    contents = service.uploads()
    copies = [contents.count(content) for content in contents]
    if any(count > 1 for count in copies):
        yield f"files were uploaded more than once: {copies}"
    if schedule.end == "refused" and set(service.files) != files_before:
        yield f"{len(set(service.files) - files_before)} files were left behind"
    messages = [event.message for event in job_events if "respond" not in event.message and "read" not in event.message]
    if len(messages) != len(set(messages)):
        yield f"events were told twice: {messages}"
    if schedule.end == "succeeded":
        steps = [event.metrics.step for event in job_events if event.metrics is not None]
        blind = any(fault["on"].endswith(("/events", "/content", "jobs/{id}")) for fault in schedule.faults)
        if steps != [1, 2] and not (blind and set(steps) <= {1, 2}):
            yield f"figures of steps {steps} were told"


@contextmanager
def dying(schedule: Schedule) -> Iterator[None]:
    """Let the process die, once, at a certain write to a journal."""
    if schedule.dies_at is None:
        yield
        return
    real, left = Journal.append, [schedule.dies_at]

    def append(self: Journal, type: str, /, **data: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and not schedule.dies_after_writing:
            raise Killed
        written = real(self, type, **data)
        if left[0] == 0:
            raise Killed
        return written

    Journal.append = append  # type: ignore[method-assign]
    try:
        yield
    finally:
        Journal.append = real  # type: ignore[method-assign]


def main() -> int:
    """Play schedules 0 to N-1 and print how they ended."""
    parser = argparse.ArgumentParser(description="Seeded fault schedules for the OpenAI provider.")
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args()
    ends: dict[str, int] = {}
    bad = 0
    with simulating(SCENARIO) as simulator:
        service = Service(simulator)
        for seed in range(args.first, args.first + args.schedules):
            with tempfile.TemporaryDirectory() as folder:
                schedule = draw(seed)
                wrong = play(schedule, Path(folder), service)
            ends[schedule.end] = ends.get(schedule.end, 0) + 1
            if wrong:
                bad += 1
                print(f"seed {seed}: {'; '.join(wrong)}", flush=True)
    result = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    print(
        f"{args.schedules - bad} of {args.schedules} schedules ended right ({result}); one job each, one copy of each file"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
