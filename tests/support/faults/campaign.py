"""Runs of the real command through random weather, killed with SIGKILL at random moments, held against the service's ledger.

    cd tests && python -m support.faults.campaign --runs 500              seeds 0 to 499
    cd tests && python -m support.faults.campaign --first 17 --runs 1     one of them again

The service (`account.py`) and the wire before it (`proxy.py`) are a process of their own. Each life of the command is a process
that is forked from this one, so that imports are paid once. A seed draws the service's manners, faults on the wire, moments of
death, and what the user asks for: a cancel, a fallback. When the run has come to its end, everything is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.faults.proxy import KINDS
from support.paths import TESTS

KEY = "sk-campaign-5b1f0c9e7a"
SCALE = "0.01"
"""Waits are a hundredth of what they are: a list that lags for 0.2 s stands for one that lags for 20."""
LIVES = 14
ROUTES = (
    "POST /files", "GET /files", "GET /files/ID", "POST /fine_tuning/jobs", "POST /fine_tuning/jobs", "POST /fine_tuning/jobs",
    "GET /fine_tuning/jobs", "GET /fine_tuning/jobs/ID", "GET /fine_tuning/jobs/ID/events", "POST /chat/completions",
    "POST /fine_tuning/jobs/ID/cancel", "GET /models/ID",
)  # fmt: skip


@dataclass
class Plan:
    """What one seed stands for."""

    seed: int
    manners: dict[str, Any]
    faults: list[dict[str, Any]]
    kills: list[tuple[str, float]]
    target: str
    cancel_in_life: int | None
    falls_back: bool


@dataclass
class Played:
    """What became of it."""

    wrong: list[str]
    jobs: int = 0
    kills: int = 0
    faults: int = 0
    requests: int = 0
    ends: Counter[str] = field(default_factory=Counter)


class House:
    """The process with the service and the wire."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.faults.account"], stdout=subprocess.PIPE, text=True, cwd=TESTS
        )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self._service = f"http://127.0.0.1:{ports['service']}"
        self.base_url = f"http://127.0.0.1:{ports['wire']}/v1"

    def reset(self, plan: Plan) -> None:
        self._call("/_reset", {"manners": plan.manners, "faults": plan.faults})

    def ledger(self) -> dict[str, Any]:
        return dict(self._call("/_ledger"))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _call(self, path: str, body: object = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(self._service + path, data) as response:
            return json.load(response)


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    dice = random.Random(seed)
    running = dice.choice([0.1, 0.4, 1.0])
    end = dice.choice(["succeeded"] * 5 + ["failed", "cancelled"])
    metadata = dice.choice(["kept", "kept", "dropped", "not in lists"])
    faults = [
        {
            "route": dice.choice(ROUTES),
            "kind": dice.choice(KINDS),
            "after": dice.randint(0, 3),
            "times": dice.choice([1, 1, 1, 2, 4]),
        }
        for _ in range(dice.randint(0, 5))
    ]
    kills = [
        dice.choice(
            [
                ("seconds", round(dice.uniform(0.0, 1.2), 3)),
                ("ledger", dice.randint(1, 12)),
                ("journal", dice.randint(3, 22)),
            ]
        )
        for _ in range(dice.choice([0, 1, 1, 1, 2, 3]))
    ]
    return Plan(
        seed=seed,
        manners={
            "metadata": metadata,
            "list_lag": dice.choice([0.0, 0.0, 0.1, 0.25]),
            "get_lag": dice.choice([0.0, 0.0, 0.2]),
            "walk": [["validating_files", 0.05], ["running", running], [end, 0.0]],
            "closed": dice.random() < 0.1,
            "page": dice.choice([50, 2]),
            "named_after": dice.choice([0.0, 0.0, 0.3]),
            "cancel": dice.choice(["ok"] * 4 + ["refused"]),
            "alias": dice.random() < 0.2,
        },
        faults=faults,
        kills=kills,
        target="openai" if metadata == "kept" else "custom",
        cancel_in_life=dice.choice([None, None, None, 0, 1]),
        falls_back=dice.random() < 0.25,
    )


def play(house: House, plan: Plan, folder: Path) -> Played:
    """One run to its end; what was wrong, in sentences."""
    house.reset(plan)
    played = Played([])
    spec = written(plan, folder, house.base_url)
    outputs: list[str] = []
    args = ["run", str(spec), "--provider", "openai", "--yes"]
    rc: int | None = None
    for life in range(LIVES):
        kill = plan.kills[life] if life < len(plan.kills) else None
        rc, output = live(folder, house.base_url, args, kill, asks=plan.cancel_in_life == life)
        outputs.append(output)
        played.kills += rc == -signal.SIGKILL
        run = newest(folder)
        if run is not None and "continued_by" in types(run):
            break
        if run is not None and rc in (0, 3, 5) and state_of(run) != "running":
            break
        if run is not None and ended(run) in ("failed", "cancelled", "succeeded") and rc != -signal.SIGKILL:
            break
        args = ["resume", str(run)] if run is not None else args
        if life > len(plan.kills):
            time.sleep(0.05)
    time.sleep(0.1)
    ledger = house.ledger()
    played.jobs, played.faults, played.requests = len(ledger["jobs"]), ledger["hits"], ledger["requests"]
    run = newest(folder)
    played.ends[ended(run) if run is not None else "no run"] += 1
    played.wrong = list(wrong(plan, ledger, folder, run, rc, outputs))
    return played


def live(
    folder: Path, base_url: str, args: list[str], kill: tuple[str, float] | None, *, asks: bool
) -> tuple[int, str]:
    """One life of the command, in a process of its own; returns its exit status (-9 when it was killed) and its output."""
    log = folder / "output.log"
    child = fork(folder, base_url, args, log)
    began, request = time.monotonic(), None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        run = newest(folder)
        if (
            time.monotonic() - began > 60
            or (run is not None and "continued_by" in types(run))
            or (kill is not None and reached(kill, began, run))
        ):
            os.kill(child, signal.SIGKILL)
        elif (
            asks and request is None and run is not None and "lowered" in types(run) and time.monotonic() - began > 0.4
        ):
            request = fork(folder, base_url, ["cancel", str(run)], folder / "cancel.log")
        time.sleep(0.003)
    if request is not None:
        finish(request, 30)
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")


def fork(folder: Path, base_url: str, args: list[str], log: Path) -> int:
    """Start one command in a forked process; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        os.chdir(folder)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.environ.update(
            FTBRIDGE_HOME=str(folder / "home"),
            OPENAI_API_KEY=KEY,
            OPENAI_BASE_URL=base_url,
            FTBRIDGE_WAIT_SCALE=SCALE,
            NO_PROXY="127.0.0.1",
        )
        from ftbridge.cli import main
        from ftbridge.runner import drive

        drive.POLL_SECONDS = 0.02
        main(args)
    except SystemExit as left:
        sys.stdout.flush()
        os._exit(left.code if isinstance(left.code, int) else 1)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    os._exit(99)


def finish(child: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def reached(kill: tuple[str, float], began: float, run: Path | None) -> bool:
    kind, value = kill
    if kind == "seconds":
        return time.monotonic() - began >= value
    path = None if run is None else run / ("journal.jsonl" if kind == "journal" else "openai/journal.jsonl")
    return path is not None and path.exists() and path.read_bytes().count(b"\n") >= value


def newest(folder: Path) -> Path | None:
    """The run at the service: the one that was prepared whole, where a kill left another."""
    runs = sorted((folder / "home" / "runs").glob("*-openai-*/journal.jsonl"))
    items = [path for path in runs if b'"lowered"' in path.read_bytes()]
    return (items or runs)[-1].parent if items else None


def lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole_lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in whole_lines]


def types(run: Path) -> list[str]:
    return [line["type"] for line in lines(run / "journal.jsonl")]


def ended(run: Path | None) -> str:
    ends = [
        t
        for t in (types(run) if run is not None else [])
        if t in ("succeeded", "failed", "cancelled", "paused", "stopped", "resume_requested")
    ]
    return ends[-1] if ends else "open"


def state_of(run: Path) -> str:
    return "running" if ended(run) in ("open", "stopped", "resume_requested", "paused") else ended(run)


def wrong(
    plan: Plan, ledger: dict[str, Any], folder: Path, run: Path | None, rc: int | None, outputs: list[str]
) -> Any:
    """Everything in which the ledger and the run folder are not as they should be."""
    jobs = ledger["jobs"]
    paid = [name for name, job in jobs.items() if job["status"] not in ("cancelled", "failed")]
    if run is None:
        if jobs:
            yield f"{len(jobs)} jobs and no run"
        return
    end, events = ended(run), lines(run / "journal.jsonl")
    notes = " ".join(
        str(line["data"].get("message")) for line in lines(run / "openai" / "journal.jsonl") if line["type"] == "note"
    )
    twins_told = [name for name in jobs if name in notes]
    if len([name for name in paid if name not in twins_told]) > 1:
        yield f"{len(paid)} jobs are paid: {paid}"
    if plan.manners["cancel"] == "ok" and len(paid) > 1 and plan.manners["list_lag"] < plan.manners["walk"][1][1]:
        yield f"twins ran on: {paid}"
    tokens = {job["_token"] for job in jobs.values()}
    if len(tokens) > 1:
        yield f"jobs of {len(tokens)} submissions: something was tried again that nobody asked for"
    if end == "cancelled" and any(job["status"] not in ("succeeded", "failed", "cancelled") for job in jobs.values()):
        yield "the run says cancelled, and a job goes on"
    if end == "failed" and any(job["status"] not in ("succeeded", "failed", "cancelled") for job in jobs.values()):
        yield "the run says failed, and a job goes on"
    if "continued_by" in types(run) and paid:
        yield f"it fell back while {paid} is paid"
    items = [line["data"]["handle"]["id"] for line in events if line["type"] == "submitted"]
    if end in ("open", "stopped", "resume_requested") and "continued_by" not in types(run):
        yield f"after {LIVES} lives it is {end} (exit {rc}): {outputs[-1].strip()[-300:]}"
    if end == "succeeded":
        if not items or jobs[items[-1]]["status"] != "succeeded":
            yield f"the run succeeded with {items}"
        yield from told_events(ledger["events"][items[-1]], events)
        yield from predictions(run)
    if end == "succeeded" and len([file for file in ledger["files"].values() if "train" in file["filename"]]) > 1:
        yield "the training file is there twice"
    if not jobs and end in ("failed", "cancelled") and ledger["files"] and "could not be removed" not in notes:
        yield f"files are left of a run without a job ({end}): {list(ledger['files'])}"
    if any(job["training_file"] not in ledger["files"] for job in jobs.values()):
        yield "the file of a job was removed"
    yield from left_over(folder, outputs)


def told_events(journal: list[dict[str, Any]], events: list[dict[str, Any]]) -> Any:
    items = [line["data"]["message"] for line in events if line["type"] == "job_event"]
    blind = any("could not be read" in message for message in items)
    items = [message for message in items if re.match(r"ftjob-\S+: ", message)]
    wanted = [event["message"] for event in journal]
    if items != wanted and not (blind and set(items) <= set(wanted)):
        yield f"events: said {wanted}, heard {items}"


def predictions(run: Path) -> Any:
    for name in ("base", "tuned"):
        items = lines(run / "predictions" / f"{name}.jsonl")
        keys = {item["key"] for item in items}
        if len(keys) != 2 or len(items) != 2:
            yield f"{name} has {len(items)} predictions of {len(keys)} items"


def left_over(folder: Path, outputs: list[str]) -> Any:
    left = [
        str(path.relative_to(folder))
        for path in (folder / "home").rglob("*")
        if re.search(r"\.tmp$|/\.scratch-|requests-\w+\.jsonl$", str(path)) and "-local-" not in str(path)
    ]
    if left:
        yield f"left over: {left}"
    leaks = [
        str(path.name) for path in (folder / "home").rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]
    if leaks or any(KEY in output for output in outputs):
        yield f"the key is in {leaks or 'the output'}"
    if traces := [output for output in outputs if "Traceback (most recent call last)" in output]:
        yield f"a traceback: {traces[0].strip().splitlines()[-1][:300]}"


def written(plan: Plan, folder: Path, base_url: str) -> Path:
    for name, first, count in (("train", 0, 10), ("test", 50, 2)):
        (folder / f"{name}.jsonl").write_text(
            "".join(
                json.dumps(
                    {
                        "messages": [
                            {"role": "user", "content": f"{plan.seed}/{n}?"},
                            {"role": "assistant", "content": "yes"},
                        ]
                    }
                )
                + "\n"
                for n in range(first, first + count)
            )
        )
    document: dict[str, Any] = {
        "name": "weather",
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "model": {
            "openai": "gpt-4.1-mini" if plan.manners["alias"] else "gpt-4.1-mini-2025-04-14",
            "local": "nobody/nothing",
        },
        "hyperparameters": {"n_epochs": 2},
        "openai": {"target": plan.target, "base_url": base_url},
    }
    if plan.falls_back:
        document["fallback"] = "local"
    path = folder / "job.json"
    path.write_text(json.dumps(document))
    return path


def preload() -> None:
    """Import now what every life would import."""
    import openai
    import openai.resources.chat
    import openai.resources.files
    import openai.resources.fine_tuning.jobs  # noqa: F401

    from ftbridge import api  # noqa: F401
    from ftbridge.cli import cancel, resume, run  # noqa: F401
    from ftbridge.planning import evidence  # noqa: F401
    from ftbridge.providers.local.process import provider as _  # noqa: F401
    from ftbridge.providers.openai.sampling import sampler  # noqa: F401
    from ftbridge.report.terminal import tables  # noqa: F401


def campaign(first: int, count: int, *, show: bool = False) -> tuple[Played, dict[int, list[str]]]:
    """Play seeds `first` to `first + count - 1`; returns the sums, and what was wrong by seed."""
    preload()
    house, total, bad = House(), Played([]), {}
    try:
        for seed in range(first, first + count):
            folder = Path(tempfile.mkdtemp(prefix="weather-"))
            try:
                played = play(house, draw(seed), folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            for name in ("jobs", "kills", "faults", "requests"):
                setattr(total, name, getattr(total, name) + getattr(played, name))
            total.ends += played.ends
            if played.wrong:
                bad[seed] = played.wrong
                if show:
                    print(f"seed {seed}: {'; '.join(played.wrong)}", flush=True)
    finally:
        house.close()
    return total, bad


def main() -> int:
    """Play many seeds and print what they came to."""
    parser = argparse.ArgumentParser(description="Runs of the real command through random weather.")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args()
    total, bad = campaign(args.first, args.runs, show=True)
    ends = ", ".join(f"{count} {end}" for end, count in sorted(total.ends.items()))
    print(
        f"{args.runs} runs ({ends}): {total.jobs} jobs made, {total.kills} kills, {total.faults} faults, {total.requests} requests; {len(bad)} runs with violations"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
