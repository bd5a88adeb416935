"""A real Slurm cluster of two nodes on this machine: the daemons of Debian's packages, started without systemd, cgroups or munge."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

COMMANDS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ReturnToService=2
MessageTimeout=5
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
KillWait=10
JobRequeue=1
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={port1} CPUs={cpus} RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={port2} CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None where one can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [command for command in COMMANDS if shutil.which(command, path=path) is None]
    return f"Slurm is not installed here ({', '.join(absent)})" if absent else None


class SlurmCluster:
    """The daemons, with files in `folder`. `hidden` is a folder that the nodes do not see, where the system allows that."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.hidden = folder, folder / "hidden"
        for path in (folder / "state", folder / "spool-n1", folder / "spool-n2", self.hidden):
            path.mkdir(parents=True)
        ports = {name: _free_port() for name in ("controller_port", "port1", "port2")}
        values = {**ports, "user": getpass.getuser(), "cpus": os.cpu_count() or 1}
        config = CONFIG.format(folder=folder, host=socket.gethostname().partition(".")[0], **values)
        (folder / "slurm.conf").write_text(config)
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "FTBRIDGE_WAIT_SCALE": "0.05"}
        self.hides = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
        self._controller: subprocess.Popen[bytes] | None = None
        self._nodes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the controller and both nodes, and wait until they are idle."""
        self.start_controller()
        for name in ("n1", "n2"):
            command = [_daemon("slurmd"), "-D", "-N", name, "-f", str(self.folder / "slurm.conf")]
            if self.hides:
                script = 'mount -t tmpfs tmpfs "$1"; shift; exec "$@"'
                command = ["unshare", "-m", "sh", "-c", script, "sh", str(self.hidden), *command]
            self._nodes.append(self._spawn(command, f"slurmd-{name}.out"))
        self._wait_until("sinfo", "-h", "-o", "%D %T", shows="2 idle")

    def start_controller(self, *, forget: bool = False) -> None:
        """Start the controller; `forget` lets it begin without the jobs that it knew."""
        command = [_daemon("slurmctld"), "-D", "-f", str(self.folder / "slurm.conf"), *(["-c"] if forget else [])]
        self._controller = self._spawn(command, "slurmctld.out")
        self._wait_until("scontrol", "ping", shows="is UP")

    def stop_controller(self) -> None:
        """End the controller; jobs on the node go on."""
        assert self._controller is not None
        self._controller.send_signal(signal.SIGTERM)
        self._controller.wait(30)

    def stop(self) -> None:
        """End every job and all daemons."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.slurm("scancel", f"--user={getpass.getuser()}")
            self._wait_until("squeue", "-h", shows=None)
        for process in (*self._nodes, self._controller):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(30)

    def slurm(self, *command: str) -> str:
        """What a command of Slurm prints; it must succeed."""
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **self.environment}, timeout=60, check=True
        )
        return done.stdout

    def jobs(self, comment: str) -> list[str]:
        """Ids of all jobs that Slurm remembers whose comment begins so."""
        rows = self.slurm("squeue", "-h", "--states=all", "-o", "%i|%k").splitlines()
        return [row.partition("|")[0] for row in rows if row.partition("|")[2].startswith(comment)]

    def _spawn(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as stream:
            return subprocess.Popen(
                command, stdout=stream, stderr=stream, env={**os.environ, **self.environment}, start_new_session=True
            )

    def _wait_until(self, *command: str, shows: str | None, seconds: float = 30) -> None:
        """Wait until a command prints this, or nothing."""
        give_up = time.monotonic() + seconds
        text = ""
        while time.monotonic() < give_up:
            with contextlib.suppress(subprocess.SubprocessError):
                text = self.slurm(*command)
                if (shows in text) if shows else not text.strip():
                    return
            time.sleep(0.1)
        raise AssertionError(f"{' '.join(command)} shows {text!r}, not {shows!r}")


def _daemon(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or name


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
