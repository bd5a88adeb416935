"""Several workers for one job: torchrun's agent starts them, watches them, and ends all when one ends badly.

    worker RUN                the process that the provider starts: lock, first and last word of the journal
      └─ torchrun's agent     in that process (torch.distributed.launcher); one for each machine of a job
           ├─ worker RUN      rank 0: reports, evaluates, saves
           └─ worker RUN      rank 1 …

A job of one worker needs none of this and trains in the first process. Over several machines `ftbridge worker RUN --rdzv
HOST:PORT --nodes N` runs on each of them, with the run folder on a disk that all see: what schedulers start. Workers that fail
leave their error in the folder (`Job.error_path`); the agent reports the first cause.

Nothing is restarted here: a job that failed is resumed from its checkpoint, with as many workers as there are then.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import psutil

from ftbridge.errors import FtbridgeError, OutOfMemory, UsageError, WorkerDied, from_document
from ftbridge.providers.local.process.job import Job
from ftbridge.providers.local.request import LocalRequest

ANSWER_SECONDS = 15
"""How long a program that has the port already may take to answer as a worker's agent does."""
JOIN_SECONDS = 600
"""How long machines wait for each other at the rendezvous."""
GRACE_SECONDS = 10.0
"""How long workers may go on after one has left its error. torchrun itself waits 30 s between TERM and KILL, which leaves a
stuck job too little of the minute in which it has to end.
"""


@dataclass(frozen=True)
class Rendezvous:
    """Where the machines of a job meet, how many there are, and how many workers run on this one (None: one for each GPU).

    `is_host`: whether the address is this machine's; None looks at the addresses of its interfaces.
    """

    host: str
    port: int
    nodes: int = 1
    workers: int | None = None
    is_host: bool | None = None

    @classmethod
    def parse(cls, address: str, nodes: int, workers: int | None = None) -> Rendezvous:
        """From HOST:PORT. Raises `UsageError`, also for a host that other machines cannot reach."""
        host, colon, port = address.rpartition(":")
        if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
            raise UsageError(
                f"--rdzv is {address!r}; it has to be the address of one machine, HOST:PORT.",
                hint="Name the first machine of the job, such as node1:29400.",
            )
        if nodes > 1 and _is_loopback(host):
            raise UsageError(
                f"--rdzv {address}: {host} is this machine alone, so {nodes} machines cannot meet there.",
                hint="Give the first machine's name or address in the network between them.",
            )
        return cls(host.strip("[]"), int(port), nodes, workers)


def workers_here(request: LocalRequest) -> int:
    """How many workers train on this machine: as the request has it, or one for each GPU. Raises `UsageError` for too many."""
    if request.workers == 1 or (request.workers == "auto" and request.device in ("cpu", "mps")):
        return 1
    import torch

    gpus = torch.cuda.device_count() if request.device in ("auto", "cuda") else 0
    if request.workers == "auto":
        return max(1, gpus)
    if gpus and request.workers > gpus:
        raise UsageError(
            f"local.workers is {request.workers}, but this machine shows {gpus} GPU{'s' * (gpus > 1)}.",
            hint="Set local.workers: auto, or check CUDA_VISIBLE_DEVICES.",
        )
    return request.workers


def launch(job: Job, workers: int, rendezvous: Rendezvous | None = None) -> None:
    """Run `workers` processes of this job on this machine to their end. Raises the first cause when one ends badly."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for path in job.error_paths():
        path.unlink(missing_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    meeting = rendezvous or Rendezvous("localhost", 0)
    config = LaunchConfig(
        min_nodes=meeting.nodes,
        max_nodes=meeting.nodes,
        nproc_per_node=workers,
        run_id=job.submission().token,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{meeting.host}:{meeting.port}",
        rdzv_configs={"join_timeout": JOIN_SECONDS, "read_timeout": 20, "is_host": _hosts(meeting)},
        local_addr=_towards(meeting),
        max_restarts=0,
        monitor_interval=0.2,
        logs_specs=DefaultLogsSpecs(),
    )
    module = "ftbridge.providers.local.process.worker"
    try:
        with _ended_soon(job):
            elastic_launch(config, sys.executable)("-m", module, str(job.folder))
    except ChildFailedError as failure:
        raise first_cause(job, {rank: one.exitcode for rank, one in failure.failures.items()}) from None
    except SignalException as stop:
        raise WorkerDied(f"the training processes were ended by {stop.sigval.name}.") from None
    except RendezvousError as error:
        raise WorkerDied(
            f"the machines of this job did not meet at {meeting.host}:{meeting.port}: {str(error).splitlines()[0]}",
            hint="Another program may listen on that port, or a firewall may block it; name another port or host in --rdzv.",
        ) from error


@contextmanager
def _ended_soon(job: Job) -> Iterator[None]:
    """Kill what is left of this machine's workers `GRACE_SECONDS` after one, on any machine, has left its error."""
    done, agent = threading.Event(), psutil.Process()
    before = set(agent.children())

    def watch() -> None:
        while not done.wait(1.0):
            if job.error_paths() and not done.wait(GRACE_SECONDS):
                for worker in set(agent.children()) - before:
                    with suppress(psutil.Error):
                        worker.kill()
                return

    thread = threading.Thread(target=watch, name="ended-soon", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)


def first_cause(job: Job, exits: dict[int, int]) -> FtbridgeError:
    """Why a job ended: the earliest error that a worker left, else the signal that killed one; `exits` by rank.

    The agent ends the others by TERM, and by KILL where that does not help, so a signal is a cause only where no error is left.
    """
    for path in sorted(job.error_paths(), key=lambda path: path.stat().st_mtime_ns):
        error = from_document(json.loads(path.read_text(encoding="utf-8")))
        rank = int(path.name.removeprefix("rank-").removesuffix(".error.json"))
        if rank or isinstance(error, OutOfMemory):
            error.message = f"worker {rank}: {error.message}"
        return error
    hint = f"Resume continues from the last checkpoint. Log: {job.log_path}"
    killed = {rank: -status for rank, status in exits.items() if status < 0 and -status != signal.SIGTERM}
    if killed:
        rank, number = min(killed.items())
        short = "Signal 9 often means that the system ran out of memory; see `dmesg | tail`. " if number == 9 else ""
        return WorkerDied(f"worker {rank} was killed by signal {number}, and the others were ended.", hint=short + hint)
    ranks = ", ".join(str(rank) for rank in sorted(exits))
    return WorkerDied(f"worker {ranks} ended without a message, or lost contact with the others.", hint=hint)


def require_reachable(nodes: int) -> None:
    """Raise `UsageError` where this machine's own name is that of its loopback: others could not reach its workers.

    gloo and NCCL take the address that the machine's name stands for; Debian's /etc/hosts has 127.0.1.1 there.
    """
    if nodes == 1 or os.environ.get("GLOO_SOCKET_IFNAME"):
        return
    name = socket.gethostname()
    if _is_loopback(name):
        raise UsageError(
            (
                f"this machine's name, {name}, resolves to its loopback address, so workers on other machines cannot "
                "reach it."
            ),
            hint="Set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the network interface, such as eth0, or correct /etc/hosts.",
        )


def _hosts(meeting: Rendezvous) -> bool:
    """Whether the machines meet at this one: as the rendezvous says, or where one of its interfaces has that address.

    torch looks behind this machine's own name alone, where Debian has a loopback address. A port that is in use is that of
    another worker of the job on this machine, or of another program, which does not answer as one.
    """
    if meeting.is_host is not None:
        return meeting.is_host
    interfaces = {one.address.partition("%")[0] for several in psutil.net_if_addrs().values() for one in several}
    mine = _addresses(meeting.host) & interfaces
    if not mine:
        return False
    address = min(mine)
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, meeting.port))
        except OSError:
            _require_store(meeting)
            return False
    return True


def _require_store(meeting: Rendezvous) -> None:
    """Raise `UsageError` where what listens at the meeting point does not answer as torch's store.

    In a thread: a program that accepts a connection and says nothing holds the client for good.
    """
    from torch.distributed import TCPStore

    replied = threading.Event()

    def ask() -> None:
        with suppress(RuntimeError):
            TCPStore(meeting.host, meeting.port, is_master=False, timeout=timedelta(seconds=ANSWER_SECONDS))
            replied.set()

    threading.Thread(target=ask, daemon=True).start()
    if not replied.wait(ANSWER_SECONDS):
        raise UsageError(
            f"port {meeting.port} of {meeting.host} is used by a program that is not a worker of this job.",
            hint="Name another port in --rdzv, the same on every machine.",
        )


def _towards(meeting: Rendezvous) -> str:
    """This machine's address in the network that leads to the meeting point. Nothing is sent."""
    if meeting.nodes == 1:
        return "localhost"
    try:
        family, kind, _, _, address = socket.getaddrinfo(meeting.host, meeting.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise UsageError(
            f"--rdzv {meeting.host}:{meeting.port} cannot be reached from {socket.gethostname()}: {error.strerror}.",
            hint="Give the first machine's name or address as this one knows it.",
        ) from None


def _addresses(host: str) -> set[str]:
    """What a name stands for; empty where it stands for nothing."""
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError:
        return set()


def _is_loopback(host: str) -> bool:
    addresses = _addresses(host)
    return bool(addresses) and all(address.startswith("127.") or address == "::1" for address in addresses)
