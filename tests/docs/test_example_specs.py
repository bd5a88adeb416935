"""Every example's spec is one that a run would take: data, graders, baselines and fields."""

from __future__ import annotations

import importlib
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftbridge.evaluation.baselines import retrieval
from ftbridge.evaluation.items import load_items
from ftbridge.runner.start import dry_run
from ftbridge.spec import SpecFile
from support.paths import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/job.yaml")), ids=lambda path: path.parent.name)
def test_an_example_would_run(path: Path) -> None:
    manifest, resolved, lowering = dry_run(SpecFile.of(path), "local")
    assert manifest.splits["train"].examples >= 10
    assert not [field for field in lowering.fields if field.outcome == "refused"]
    assert resolved.spec.evaluation.graders
    assert (path.parent / "README.md").exists()


@pytest.mark.parametrize("provider", ["slurm", "ray"])
def test_a_cluster_s_example_would_run(provider: str) -> None:
    manifest, _, lowering = dry_run(SpecFile.of(EXAMPLES / "cluster" / f"{provider}.yaml"), provider)
    assert manifest.splits["train"].examples >= 10
    assert not [field for field in lowering.fields if field.outcome == "refused"]
    used = [
        field.field for field in lowering.fields if field.outcome == "exact" and field.field.startswith(f"{provider}.")
    ]
    assert len(used) >= 4


def scripts_of(recipe: str) -> list[str]:
    """The shell scripts of a recipe, wherever in its documents they are."""
    documents = yaml.safe_load_all((EXAMPLES / "cluster" / recipe).read_text(encoding="utf-8"))
    texts: list[str] = []
    nodes: list[Any] = list(documents)
    while nodes:
        node = nodes.pop()
        if isinstance(node, str) and "\n" in node:
            texts.append(node)
        nodes += list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    return texts


@pytest.mark.parametrize("recipe", ["skypilot.yaml", "kubeflow.yaml"])
def test_the_scripts_of_a_recipe_are_shell_whose_commands_ftbridge_has(recipe: str) -> None:
    commands = []
    for text in scripts_of(recipe):
        subprocess.run(["bash", "-n", "-c", text], check=True)
        commands += [shlex.split(line) for line in text.splitlines() if line.strip().startswith("ftbridge ")]
    assert [command[1] for command in sorted(commands)] == ["resume", "run"]
    for _, name, *arguments in commands:
        command = importlib.import_module(f"ftbridge.cli.{name}").command
        command.make_context(name, arguments)  # raises where an option or an argument is not one of the command's


def test_the_recipes_have_the_fields_that_their_programs_require() -> None:
    task = yaml.safe_load((EXAMPLES / "cluster" / "skypilot.yaml").read_text(encoding="utf-8"))
    volume = yaml.safe_load((EXAMPLES / "cluster" / "skypilot-volume.yaml").read_text(encoding="utf-8"))
    assert {"name", "workdir", "resources", "volumes", "envs", "setup", "run"} == set(task)
    assert (EXAMPLES.parent / task["workdir"] / "job.yaml").exists()
    assert list(task["volumes"].values()) == [volume["name"]]
    assert task["envs"]["FTBRIDGE_HOME"].startswith(next(iter(task["volumes"])))
    runtime, job = yaml.safe_load_all((EXAMPLES / "cluster" / "kubeflow.yaml").read_text(encoding="utf-8"))
    assert (runtime["kind"], job["kind"]) == ("TrainingRuntime", "TrainJob")
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (replicated["name"], container["name"]) == ("node", "node"), "what a TrainJob's trainer overrides"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_documents_of_the_judging_example_hold_the_facts_that_are_asked_for() -> None:
    folder = EXAMPLES / "judging"
    candidate = retrieval(folder / "documents")
    items = load_items(folder / "test.jsonl")
    result = sum(str(item.fields["fact"]).lower() in candidate.prompt(item).messages[0].text.lower() for item in items)
    assert result >= 0.9 * len(items)
