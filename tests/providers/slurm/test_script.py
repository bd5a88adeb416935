"""What the Slurm provider sends to sbatch and reads from squeue, and how the spec's section is mapped. No cluster is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftbridge import providers
from ftbridge.errors import MissingDependency, SpecError
from ftbridge.providers.cluster.scheduler import Order
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.slurm.scheduler import Slurm, _view, script
from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import Lowering
from ftbridge.spec.sections import SlurmSpec
from support.cluster_jobs import submission_of
from support.jobs import ftbridge, write_job

SPEC: dict[str, Any] = {"name": "a", "data": {"train": "t.jsonl"}, "model": {"local": "m"}}


def lowered(**changes: Any) -> Lowering:
    spec = JobSpec.from_dict({**SPEC, **changes})
    return providers.load("slurm").lower(providers.resolve(spec, 400, "slurm"))


def test_the_section_becomes_options_of_sbatch_without_a_shell() -> None:
    settings = SlurmSpec(
        partition="a b;c", gpus=2, cpus=8, memory="64G", time="2-00:00:00", account="team", qos="high",
        options=["--constraint=a100&nvlink"],
    )  # fmt: skip
    options = Slurm(settings)._options(Order("token.1", Path("/shared/100%/run"), "run"))
    expected = ["--partition=a b;c", "--gpus-per-node=2", "--cpus-per-task=8", "--mem=64G", "--time=2-00:00:00"]
    expected += ["--account=team", "--qos=high", "--constraint=a100&nvlink", "--comment=token.1", "--requeue"]
    expected += ["--signal=B:USR1@120", "--open-mode=append", "--output=/shared/100%%/run/worker.log"]
    assert set(expected) <= set(options)
    assert not [
        option for option in Slurm(SlurmSpec(gpus=0))._options(Order("n.1", Path("/f"), "run")) if "gpus" in option
    ]


def test_the_script_runs_the_setup_and_hands_paths_over_as_they_are(tmp_path: Path) -> None:
    python = tmp_path / "my python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$SETUP" "$@"\n')
    python.chmod(0o755)
    settings = SlurmSpec(setup=["export SETUP='module loaded'"], python=str(python))
    text = script(settings, Order("token.1", Path("/shared/it's here/run $HOME"), "run"))
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, env={"SLURM_JOB_ID": "7"}, check=True)
    assert done.stdout.splitlines() == [
        "module loaded", "-m", "ftbridge.providers.cluster.node", "run", "--requeue", "scontrol requeue",
        "/shared/it's here/run $HOME", "token.1", "7", "0",
    ]  # fmt: skip
    assert sys.executable in script(SlurmSpec(), Order("n.1", Path("/f"), "run"))


@pytest.mark.parametrize(
    ("word", "state", "ending"),
    [
        ("PENDING", "queued", None), ("REQUEUED", "queued", None), ("RUNNING", "running", None), ("COMPLETING", "running", None),
        ("SUSPENDED", "running", None), ("TIMEOUT", "ended", "time_limit"), ("NODE_FAIL", "ended", "node_failed"),
        ("OUT_OF_MEMORY", "ended", "out_of_memory"), ("CANCELLED", "ended", "cancelled"), ("SOMETHING_NEW", "running", None),
    ],
)  # fmt: skip
def test_slurm_s_states_are_queued_running_or_an_ending(word: str, state: str, ending: str | None) -> None:
    view = _view(word, "None", "node[1-2]")
    assert (view.state, view.ending, view.word) == (state, ending, word)


@pytest.mark.parametrize(
    ("slurm", "problem"),
    [
        ({"time": "tomorrow"}, "slurm.time"),
        ({"gpus": -1}, "slurm.gpus"),
        ({"memory": "lots"}, "slurm.memory"),
        ({"options": ["--output=x"]}, "--output"),
        ({"options": ["rm -rf"]}, "slurm.options"),
        ({"partion": "x"}, "partition"),
    ],
)
def test_a_section_that_slurm_could_not_take_is_refused_by_field(slurm: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        JobSpec.from_dict({**SPEC, "slurm": slurm})


@pytest.mark.parametrize("time", ["90", "90:30", "12:00:00", "2-12", "2-00:00:00", "UNLIMITED"])
def test_every_way_to_write_a_time_limit_is_taken(time: str) -> None:
    assert JobSpec.from_dict({**SPEC, "slurm": {"time": time}}).slurm.time == time


def test_the_section_is_mapped_here_and_unused_elsewhere() -> None:
    slurm = {"partition": "gpu", "time": "60"}
    reports = {report.field: report for report in lowered(slurm=slurm, fallback="local").fields}
    assert (reports["slurm.partition"].outcome, reports["slurm.partition"].sent) == ("exact", "gpu")
    assert "queued again" in reports["slurm.time"].how
    assert reports["slurm.qos"].outcome == "unused"
    assert reports["ray.address"].how == "for --provider ray"
    assert reports["fallback"].outcome == "exact"
    assert reports["hyperparameters.n_epochs"].outcome == "exact"
    spec = JobSpec.from_dict({**SPEC, "slurm": slurm})
    local = {
        report.field: report for report in providers.load("local").lower(providers.resolve(spec, 400, "local")).fields
    }
    assert local["slurm.partition"].outcome == "unused"


def test_a_request_holds_the_section_and_is_the_local_provider_s_otherwise() -> None:
    request = LocalRequest.model_validate(lowered(slurm={"partition": "gpu"}).request)
    assert SlurmSpec.model_validate(request.launch) == SlurmSpec(partition="gpu")
    spec = JobSpec.from_dict(SPEC)
    local = providers.load("local").lower(providers.resolve(spec, 400, "local"))
    assert request.model_copy(update={"launch": {}}) == LocalRequest.model_validate(local.request)


def test_without_slurm_on_the_path_nothing_is_prepared_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = submission_of(tmp_path, "slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="sbatch, squeue, scontrol, scancel, srun are not on PATH") as error:
        providers.load("slurm").preflight(submission, lambda _: None)
    assert "login node" in str(error.value)


def test_the_command_says_so_too(tmp_path: Path) -> None:
    spec = write_job(tmp_path)
    done = ftbridge("run", str(spec), "--provider", "slurm", cwd=tmp_path, PATH=str(tmp_path))
    assert done.returncode == 2
    assert "not on PATH" in done.stderr
    assert "Traceback" not in done.stderr


def test_completions_are_computed_by_srun_on_one_gpu_of_one_node(tmp_path: Path) -> None:
    python = tmp_path / "my python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$SETUP" "$@"\n')
    python.chmod(0o755)
    setup = ["export SETUP='module loaded'", "echo what a site prints is no reply"]
    settings = SlurmSpec(gpus=4, nodes=2, partition="gpu", time="10", memory="8G", setup=setup, python=str(python))
    command = Slurm(settings).attached("some.module", "run-completions")
    assert command is not None
    wanted = {"srun", "--gpus-per-node=1", "--nodes=1", "--partition=gpu", "--mem=8G", "--job-name=run-completions"}
    assert wanted <= set(command)
    done = subprocess.run(command[command.index("bash") :], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["module loaded", "-m", "some.module"]
    assert done.stderr.strip() == "what a site prints is no reply"
    failing = Slurm(SlurmSpec(setup=["false", "echo on it goes"])).attached("some.module", "n")
    assert failing is not None
    assert subprocess.run(failing[failing.index("bash") :], capture_output=True, check=False).returncode == 1
    assert Slurm(SlurmSpec(evaluation="here")).attached("some.module", "n") is None
    cpus = Slurm(SlurmSpec(gpus=0)).attached("some.module", "n")
    assert cpus is not None
    assert not [option for option in cpus if "gpus" in option]
