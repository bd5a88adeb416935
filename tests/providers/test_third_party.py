"""A provider that somebody else wrote, found by its entry point alone, does everything that the built-in ones do.

The commands run as a user would run them, in child processes; the provider trains in a child process of its own.
"""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

import ftbridge
from support.paths import TESTS
from support.served_model import first_document

THIRD_PARTY = TESTS / "support" / "third_party"
GRADER = {
    "type": "string_check", "name": "exact", "operation": "eq",
    "input": "{{sample.output_text}}", "reference": "{{item.reference}}",
}  # fmt: skip
TOWNS = ["Arles", "Bonn", "Cork", "Delft", "Evora", "Faro", "Ghent", "Hull", "Imola", "Jena", "Kiel", "Lyon"]


def example(town: str, question: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": f"{town}, office {len(town)}"}]
    return json.dumps({"messages": messages}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.jsonl").write_text("".join(example(town, f"Which office serves {town}?") for town in TOWNS))
    (tmp_path / "test.jsonl").write_text("".join(example(town, f"Who looks after {town} now?") for town in TOWNS))
    spec = {
        "name": "offices",
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "model": {"local": "blank", "openai": "gpt-4.1-mini-2025-04-14"},
        "evaluation": {"graders": [GRADER]},
    }
    (tmp_path / "job.json").write_text(json.dumps(spec))
    return tmp_path


def environment(folder: Path, **more: str) -> dict[str, str]:
    by_name = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "FTBRIDGE_"))}
    return {**by_name, "FTBRIDGE_HOME": str(folder / "home"), "PYTHONPATH": str(THIRD_PARTY), **more}


def ask(folder: Path, *arguments: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ftbridge", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment(folder, **more), stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, done.stderr
    return done


def run(folder: Path, *more: str, **variables: str) -> dict:
    return json.loads(ask(folder, "run", "job.json", "--provider", "memorizer", "--json", *more, **variables).stdout)


def show(folder: Path, name: str = "latest") -> dict:
    return json.loads(ask(folder, "show", name, "--json").stdout)


def wait_for_step(folder: Path, name: str, step: int) -> None:
    until = time.monotonic() + 60
    while (show(folder, name)["metrics"].get("step") or 0) < step:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_run_goes_from_data_to_verdict(folder: Path) -> None:
    result = run(folder)
    assert (result["provider"], result["state"], result["model"]["base"]) == ("memorizer", "succeeded", "blank")
    scores = result["evaluation"]["candidates"]
    assert (scores["base"]["exact"]["mean"], scores["tuned"]["exact"]["mean"]) == (0.0, 1.0)
    assert result["metrics"]["step"] == len(TOWNS)
    assert show(folder)["lowering"]["data.train"] == "exact"
    assert result["run_id"] in ask(folder, "list").stdout
    assert "Traceback" not in ask(folder, "show", "latest", "--tokens", "2", code=2).stderr


@pytest.mark.slow
def test_runs_are_evaluated_compared_reported_planned_and_exported(folder: Path) -> None:
    first, second = run(folder)["run_id"], run(folder)["run_id"]
    evaluated = json.loads(
        ask(folder, "eval", "job.json", "-c", f"run:{first}", "-c", "base", "--provider", "memorizer", "--json").stdout
    )
    assert list(evaluated["candidates"]) == [f"run:{first}", "base"]
    compared = json.loads(ask(folder, "compare", first, second, "--json").stdout)
    assert compared["verdicts"]["exact"]["verdict"] in ("not_worse", "no_difference", "not_enough_data", "same")
    ask(folder, "report", first, second, "--out", "page.html")
    assert "memorizer" in (folder / "page.html").read_text(encoding="utf-8")
    assert "advice" in ask(folder, "plan", "job.json").stdout
    ask(folder, "export", first, "--adapter", "weights")
    assert (folder / "weights" / "model.json").exists()
    assert "weights" in ask(folder, "export", first, "--merged", "whole", code=2).stderr


@pytest.mark.slow
def test_a_run_is_paused_resumed_and_cancelled_from_another_shell(folder: Path) -> None:
    ask(folder, "run", "job.json", "--provider", "memorizer", "--detach", MEMORIZER_SECONDS="0.5")
    wait_for_step(folder, "latest", 2)
    ask(folder, "pause", "latest")
    paused = show(folder)
    assert paused["state"] == "paused"
    ask(folder, "resume", "latest", MEMORIZER_SECONDS="0")
    assert show(folder)["state"] == "succeeded"
    ask(folder, "run", "job.json", "--provider", "memorizer", "--detach", MEMORIZER_SECONDS="0.5")
    wait_for_step(folder, "latest", 1)
    ask(folder, "cancel", "latest")
    assert show(folder)["state"] == "cancelled"


@pytest.mark.slow
def test_a_killed_job_fails_and_goes_on_from_what_it_had_learnt(folder: Path) -> None:
    ask(folder, "run", "job.json", "--provider", "memorizer", "--detach", MEMORIZER_SECONDS="0.4")
    wait_for_step(folder, "latest", 2)
    name = show(folder)["run_id"]
    settings = str(folder / "home" / "runs" / name / "memorizer")
    worker = next(
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and settings in (process / "cmdline").read_bytes().decode(errors="replace")
    )
    os.kill(worker, signal.SIGKILL)
    ask(folder, "watch", name, code=1)
    learnt = len(json.loads((Path(settings) / "memory.json").read_text()))
    assert 2 <= learnt < len(TOWNS)
    ask(folder, "resume", name, MEMORIZER_SECONDS="0")
    assert show(folder, name)["state"] == "succeeded"


@pytest.mark.slow
def test_watching_a_detached_run_ends_with_its_result(folder: Path) -> None:
    ask(folder, "run", "job.json", "--provider", "memorizer", "--detach", MEMORIZER_SECONDS="0.1")
    ask(folder, "watch", "latest")
    assert show(folder)["state"] == "succeeded"


def test_a_run_falls_back_on_it(folder: Path) -> None:
    arguments = ["--provider", "openai", "--fallback", "memorizer", "--yes", "--json"]
    spec = json.loads((folder / "job.json").read_text())
    spec["model"]["openai"] = "gpt-3.5-turbo-0613"  # OpenAI trains it no more, which is known before anything is sent
    (folder / "job.json").write_text(json.dumps(spec))
    document = json.loads(ask(folder, "run", "job.json", *arguments, OPENAI_API_KEY="sk-nothing").stdout)
    assert (document["provider"], document["state"]) == ("memorizer", "succeeded")


def test_an_unknown_provider_is_refused_with_those_installed(folder: Path) -> None:
    stderr = ask(folder, "run", "job.json", "--provider", "abacus", code=2).stderr
    assert "memorizer" in stderr
    stderr = ask(folder, "run", "job.json", "--provider", "memorizer", "--fallback", "abacus", code=2).stderr
    assert "memorizer" in stderr


@pytest.fixture
def served(folder: Path) -> Iterator[OpenAI]:
    """A client of `ftbridge serve`, under whose name `offices` a run of the provider stands."""
    name = run(folder)["run_id"]
    command = ["serve", "--map", f"offices=run:{name}", "--port", "0", "--json"]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ftbridge", *command],
            stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=environment(folder),
        )  # fmt: skip
    try:
        client = OpenAI(base_url=first_document(process)["base_url"], api_key="any", timeout=60, max_retries=20)
        yield client
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_its_models_are_served_to_clients_of_openai(served: OpenAI) -> None:
    question: Any = [{"role": "user", "content": "Who looks after Bonn now?"}]
    completion = served.chat.completions.create(model="offices", messages=question, n=2, stop="office")
    assert [choice.message.content for choice in completion.choices] == ["Bonn, ", "Bonn, "]
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 6
    pieces = served.chat.completions.create(model="offices", messages=question, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "Bonn, office 4"
    assert [(model.id, model.owned_by) for model in served.models.list()] == [("offices", "memorizer")]


@pytest.mark.slow
def test_what_its_sampler_cannot_do_is_refused_by_name(served: OpenAI) -> None:
    question: Any = [{"role": "user", "content": "Who looks after Bonn now?"}]
    for parameter, settings in {"logprobs": {"logprobs": True}, "top_p": {"top_p": 0.5}}.items():
        with pytest.raises(BadRequestError, match="provider memorizer") as refused:
            served.chat.completions.create(model="offices", messages=question, **settings)
        assert refused.value.param == parameter


@pytest.mark.slow
def test_a_run_of_a_provider_that_was_removed_can_still_be_read(folder: Path) -> None:
    name = run(folder)["run_id"]
    without = {"PYTHONPATH": ""}
    assert json.loads(ask(folder, "show", name, "--json", **without).stdout)["state"] == "succeeded"
    ask(folder, "report", name, "--out", "page.html", **without)
    evaluated = ask(folder, "eval", "job.json", "-c", f"run:{name}", code=2, **without)
    assert "provider 'memorizer' is not installed" in evaluated.stderr


PACKAGE = Path(ftbridge.__file__).parent
NAMES = {"local", "openai", "slurm", "ray"}


def comparisons_of_provider_names(tree: ast.AST) -> list[int]:
    """Lines that compare something called provider, or looked up in one, with a provider's name."""

    def about_provider(node: ast.expr) -> bool:
        return "provider" in ast.unparse(node).rpartition(".")[2].lower()

    def is_name(node: ast.expr) -> bool:
        constants = [node] if isinstance(node, ast.Constant) else getattr(node, "elts", [])
        return any(isinstance(each, ast.Constant) and each.value in NAMES for each in constants)

    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(is_name(side) for side in (node.left, *node.comparators))
        and any(about_provider(side) for side in (node.left, *node.comparators))
    ]


def lookups_in_providers(tree: ast.AST) -> list[int]:
    """Lines that look up a member of a provider, a backend or a sampler by name."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr")
        and any(word in ast.unparse(node.args[0]).lower() for word in ("provider", "backend", "sampler"))
    ]


def test_nothing_outside_the_providers_compares_a_provider_s_name_or_looks_into_one() -> None:
    matches = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if "providers" not in path.relative_to(PACKAGE).parts
        for tree in [ast.parse(path.read_text(encoding="utf-8"))]
        for line in (*comparisons_of_provider_names(tree), *lookups_in_providers(tree))
    ]
    assert matches == []


def test_the_check_of_names_sees_what_it_forbids() -> None:
    assert comparisons_of_provider_names(ast.parse('if run.state().provider == "local": pass'))
    assert comparisons_of_provider_names(ast.parse('x = provider in ("openai", "ray")'))
    assert lookups_in_providers(ast.parse('getattr(backend, "find")(x)'))
