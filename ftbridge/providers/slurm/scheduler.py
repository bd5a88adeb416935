"""Slurm by its commands. Output is parsed from fixed formats alone (`-o`, `--parsable`), never from tables for people.

Facts that the code relies on, measured with Slurm 22.05: `squeue --name=N --states=all` exits with 0 also when there is no such
job, and with 1 when the controller does not answer; a comment lives as long as the job's record; `sbatch --test-only` names an
unknown partition or resource without a job; a job whose output file cannot be opened ends with 0:53; a job that is queued again
waits two minutes.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ftbridge.errors import MissingDependency, ProviderRefused, ServiceUnavailable
from ftbridge.files import write_text
from ftbridge.providers.cluster.scheduler import Ending, Order, View
from ftbridge.spec.sections import SlurmSpec

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "srun")
WARNING_SECONDS = 120
"""How long before the time limit the job gets its signal, in seconds: a step and a checkpoint must fit."""
COMMAND_SECONDS = 120
"""Longest wait for one command; Slurm's own give up on a silent controller after about a minute."""
_SEPARATOR = "\x1f"
_FORMAT = _SEPARATOR.join(("%i", "%T", "%r", "%N", "%k"))
"""Id, state, reason, nodes, comment (man squeue, -o)."""
_QUEUED = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
_ENDINGS: dict[str, Ending] = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "BOOT_FAIL": "node_failed",
    "CANCELLED": "cancelled",
    "DEADLINE": "time_limit",
    "NODE_FAIL": "node_failed",
    "OUT_OF_MEMORY": "out_of_memory",
    "PREEMPTED": "node_failed",
    "REVOKED": "cancelled",
    "TIMEOUT": "time_limit",
}
"""Slurm's final states (man squeue, JOB STATE CODES); every other one is a job at work."""


def absent_commands() -> list[str]:
    """Those of Slurm's commands that are not on PATH."""
    return [command for command in COMMANDS if shutil.which(command) is None]


class Slurm:
    """The Slurm cluster that this machine's commands speak to, with what a spec requests of it."""

    title = "Slurm"

    def __init__(self, settings: SlurmSpec) -> None:
        self.settings = settings

    def check(self, order: Order, progress: Callable[[str], None]) -> None:
        """Have Slurm check the request without a job. Raises `MissingDependency`, `ServiceUnavailable` or `ProviderRefused`."""
        if absent := absent_commands():
            raise MissingDependency(
                f"training on Slurm needs its commands, but {', '.join(absent)} are not on PATH.",
                hint="Run ftbridge on a login node of the cluster, or load the module that has Slurm's client.",
            )
        progress("asking Slurm whether it would take the job")
        script = self._write_script(order)
        try:
            if (refusal := self._refusal(order, script)) is not None:
                raise refusal
        finally:
            script.unlink(missing_ok=True)

    def find(self, order: Order) -> str | None:
        """The id of the job whose comment is this order's name."""
        for job, _, comment in self._jobs(order):
            if comment == order.name:
                return job
        return None

    def submit(self, order: Order) -> str:
        """Submit the job's script. After an answer that was lost the job is looked for by its name."""
        script = self._write_script(order)
        result = _run(["sbatch", "--parsable", *self._options(order), str(script)], lock=order.lock)
        if result.returncode == 0:
            return result.stdout.strip().partition(";")[0]
        if (job := self.find(order)) is not None:
            return job
        raise self._refusal(order, script) or _unavailable(result)

    def look(self, order: Order, job: str) -> View:
        """The job in the queue; one that Slurm has forgotten is lost."""
        # A controller that lost its state counts its jobs from 1 again: an id alone may be another job's.
        jobs = self._jobs(order)
        view = next((view for other, view, comment in jobs if (other, comment) == (job, order.name)), None)
        if view is None:
            return View(state="ended", ending="lost", detail="Slurm has no record of it")
        return view if view.state != "ended" else view.model_copy(update={"detail": self._exit(job) or view.detail})

    def log_tail(self, job: str) -> list[str]:
        """None: Slurm writes all output to the run's worker.log."""
        del job
        return []

    def attached(self, module: str, name: str) -> list[str] | None:
        """By srun, which waits for one node with one GPU, passes input and output on, and ends with its process."""
        if self.settings.evaluation == "here":
            return None
        options = {
            "job-name": name,
            "nodes": "1",
            "ntasks": "1",
            **self._resources(min(1, self.settings.gpus)),
        }
        python = self.settings.python or sys.executable
        setup = "\n".join(["set -e", *(f"{{ {line}\n}} >&2" for line in self.settings.setup), 'exec "$@"'])
        return [
            "srun",
            "--unbuffered",
            *_flags(options),
            *self.settings.options,
            "bash",
            "-c",
            setup,
            "bash",
            python,
            "-m",
            module,
        ]

    def stop(self, job: str) -> None:
        """Cancel the job: SIGTERM, and SIGKILL after Slurm's KillWait."""
        result = _run(["scancel", "--quiet", job])
        if result.returncode != 0:
            self._require_controller()

    def _jobs(self, order: Order) -> list[tuple[str, View, str]]:
        """Id, view and comment of every job of this run that Slurm remembers."""
        result = _run(["squeue", "--noheader", "--states=all", f"--name={order.job_name}", "-o", _FORMAT])
        if result.returncode != 0:
            raise _unavailable(result)
        rows = [line.split(_SEPARATOR) for line in result.stdout.splitlines()]
        return [(row[0], _view(*row[1:4]), row[4]) for row in rows if len(row) == 5]

    def _exit(self, job: str) -> str:
        """The exit code of a job that Slurm still knows, such as "exit code 0:53"."""
        result = _run(["scontrol", "--oneliner", "show", "job", job])
        match = re.search(r"\bExitCode=(\S+)", result.stdout) if result.returncode == 0 else None
        return f"exit code {match[1]}" if match else ""

    def _require_controller(self) -> None:
        result = _run(["squeue", "--noheader", "--name=ftbridge-is-anybody-there", "-o", "%i"])
        if result.returncode != 0:
            raise _unavailable(result)

    def _options(self, order: Order) -> list[str]:
        """Sbatch's options, as one list of arguments: nothing of a spec passes through a shell."""
        settings = self.settings
        options = {
            "job-name": order.job_name,
            "comment": order.name,
            "output": str(order.folder / "worker.log").replace("%", "%%"),
            "open-mode": "append",
            "signal": f"B:USR1@{WARNING_SECONDS}",
            "nodes": str(settings.nodes),
            "ntasks-per-node": "1",
            **self._resources(settings.gpus),
        }
        return [*_flags(options), "--requeue", *settings.options]

    def _resources(self, gpus: int) -> dict[str, str | None]:
        """Options for what a node is asked to give; None leaves one to the cluster."""
        settings = self.settings
        return {
            "partition": settings.partition,
            "gpus-per-node": str(gpus) if gpus else None,
            "cpus-per-task": str(settings.cpus) if settings.cpus else None,
            "mem": settings.memory,
            "time": settings.time,
            "account": settings.account,
            "qos": settings.qos,
        }

    def _write_script(self, order: Order) -> Path:
        path = order.folder / "cluster" / f"{order.name.rpartition('.')[2]}.sh"
        write_text(path, script(self.settings, order))
        return path

    def _refusal(self, order: Order, script: Path) -> ProviderRefused | None:
        """Why Slurm would not take the job, as it says without making one; None where it would."""
        result = _run(["sbatch", "--test-only", *self._options(order), str(script)])
        if result.returncode == 0:
            return None
        self._require_controller()
        return ProviderRefused(
            f"Slurm does not accept the job: {_words(result)}.",
            hint="Change the spec's slurm section. `sinfo` lists the partitions, and whether their nodes are up.",
        )


def _flags(options: Mapping[str, str | None]) -> list[str]:
    """Options as arguments; one that is None is left out."""
    return [f"--{name}={value}" for name, value in options.items() if value is not None]


def script(settings: SlurmSpec, order: Order) -> str:
    """The batch script of a job: the site's own set-up, then the node's part of ftbridge in place of the shell.

    The shell is replaced (`exec`), so that the signals which Slurm sends to the batch shell reach Python. SIGUSR1 is ignored
    until Python listens.
    """
    python = settings.python or sys.executable
    node = [python, "-m", "ftbridge.providers.cluster.node", "run", "--requeue", "scontrol requeue"]
    if settings.nodes > 1:
        across = f"srun --nodes={settings.nodes} --ntasks={settings.nodes} --ntasks-per-node=1 --kill-on-bad-exit=1"
        node += ["--nodes", str(settings.nodes), "--across", across, "--rank-variable", "SLURM_NODEID"]
    node += [str(order.folder), order.name]
    return "\n".join(
        [
            "#!/bin/bash",
            f"# {order.name}: written by ftbridge for sbatch",
            "set -e",
            "trap '' USR1",
            "export PYTHONUNBUFFERED=1",
            *settings.setup,
            *([f"export SRUN_CPUS_PER_TASK={settings.cpus}"] if settings.cpus else []),
            f'exec {shlex.join(node)} "$SLURM_JOB_ID" "${{SLURM_RESTART_COUNT:-0}}"',
            "",
        ]
    )


def _view(state: str, reason: str, nodes: str) -> View:
    """Slurm's state as a view. COMPLETING is a job whose processes are being ended: it counts as running until they are."""
    detail = "" if reason in ("None", "") else reason
    if state in _QUEUED:
        return View(state="queued", word=state, detail=detail)
    ending = _ENDINGS.get(state)
    return View(state="running" if ending is None else "ended", ending=ending, word=state, detail=detail, node=nodes)


def _run(command: Sequence[str], lock: int | None = None) -> subprocess.CompletedProcess[str]:
    """One command of Slurm, its output captured. Raises `MissingDependency` and, when it does not end, `ServiceUnavailable`."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
            pass_fds=() if lock is None else (lock,),
            check=False,
        )
    except FileNotFoundError:
        raise MissingDependency(
            f"{command[0]} is not on PATH.", hint="Run ftbridge on a login node of the cluster."
        ) from None
    except subprocess.TimeoutExpired:
        raise ServiceUnavailable(
            f"{command[0]} did not end within {COMMAND_SECONDS} s: Slurm's controller does not respond.", hint=_RESUME
        ) from None


def _unavailable(result: subprocess.CompletedProcess[str]) -> ServiceUnavailable:
    return ServiceUnavailable(f"Slurm's controller does not respond ({_words(result)}).", hint=_RESUME)


def _words(result: subprocess.CompletedProcess[str]) -> str:
    """What a command wrote on standard error, on one line, without its own name before each part."""
    lines = [re.sub(r"^\w+: (error: |fatal: )?", "", line).strip().rstrip(".") for line in result.stderr.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line)) or f"exit status {result.returncode}"


_RESUME = "A running job continues without it. Resume the run when the controller responds again."
