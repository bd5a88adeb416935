"""The base install: what it can do without an extra, and the one error that names the command where it cannot."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ftbridge.errors import MissingDependency
from ftbridge.extras import EXTRAS, load, require
from ftbridge.planning.doctor import examine
from support.paths import REPOSITORY

tomllib = pytest.importorskip("tomllib")  # Python 3.11 on

WITHOUT = """
import importlib.util, sys
absent = {absent!r}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in absent:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Absent())
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.partition('.')[0] in absent else find_spec(name, *rest)
from ftbridge.cli import main
main({arguments!r})
"""
"""The command line as it runs where some packages are not installed."""


def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run_without(absent: list[str], arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    code = WITHOUT.format(absent=set(absent), arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)


HEAVY = ["scipy", "bpe_openai", "torch", "transformers", "pyarrow", "starlette", "jsonschema", "rapidfuzz"]
SPEC = """
name: small
data: {train: train.jsonl, test: test.jsonl}
model: {openai: gpt-4.1-mini-2025-04-14}
evaluation:
  graders: [{type: string_check, name: exact, operation: eq, input: "{{sample.output_text}}", reference: "{{item.reference}}"}]
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    def line(number: int) -> str:
        return (
            f'{{"messages": [{{"role": "user", "content": "What is {number} plus one?"}},'
            f' {{"role": "assistant", "content": "It is {number + 1}."}}]}}\n'
        )

    (tmp_path / "train.jsonl").write_text("".join(map(line, range(20))))
    (tmp_path / "test.jsonl").write_text("".join(map(line, range(50, 60))))
    (tmp_path / "job.yaml").write_text(SPEC)
    return tmp_path


@pytest.mark.parametrize(
    "command", [["lint", "train.jsonl"], ["plan", "job.yaml"], ["convert", "train.jsonl", "out.jsonl"]]
)
def test_lint_plan_and_convert_need_no_extra(command: list[str], job: Path) -> None:
    done = run_without(HEAVY, command, job)
    assert done.returncode == 0, done.stderr


def test_a_run_that_will_be_evaluated_is_refused_without_scipy_before_anything_is_made(job: Path) -> None:
    done = run_without(["scipy"], ["run", "job.yaml", "--provider", "openai", "--yes"], job)
    assert done.returncode == 2
    assert "needs scipy" in done.stderr
    assert "pip install 'ftbridge[eval]'" in done.stderr
    assert not list((job / ".ftbridge").glob("runs/*"))


def test_an_evaluation_without_scipy_names_the_extra(job: Path) -> None:
    done = run_without(["scipy"], ["eval", "job.yaml", "--candidate", "base"], job)
    assert (done.returncode, "ftbridge[eval]" in done.stderr) == (2, True)


def test_a_missing_package_is_one_error_that_names_the_command() -> None:
    with pytest.raises(MissingDependency, match=r"Painting needs no_such_module and nor_this\.") as raised:
        require("eval", "Painting", "json", "no_such_module", "nor_this")
    assert raised.value.hint == "pip install 'ftbridge[eval]'"
    with pytest.raises(MissingDependency, match=r"Painting needs no_such_module\."):
        load("serve", "Painting", "no_such_module.brush")
    assert load("serve", "reading", "json").loads("1") == 1


def test_every_extra_is_declared_and_the_doctor_looks_at_each() -> None:
    declared = project()["optional-dependencies"]
    assert set(EXTRAS) <= set(declared)
    assert {f"extra {name}" for name in EXTRAS} <= {finding.name for finding in examine()}
    assert declared["judge"] == ["ftbridge[eval]"]
    assert "ftbridge[eval]" in declared["local"]


def test_the_base_install_has_nothing_that_an_extra_is_for() -> None:
    base = {
        re.split(r"[<>=;\[ ]", each)[0].lower() for each in project()["dependencies"] if "python_version <" not in each
    }
    assert base & {"scipy", "bpe-openai", "torch", "pyarrow", "starlette", "nltk"} == set()
