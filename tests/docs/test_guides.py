"""The tutorial and the guides run as written: every command in them, in order, unless the page says why it is not run."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import REPOSITORY

DOCS = REPOSITORY / "docs"
TUTORIAL = REPOSITORY / "examples" / "tutorial"
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+?) -->\n)?```console\n(?P<text>.*?)```", re.DOTALL)
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]
LIGHT = {"check-a-file-in-ci.md", "train-on-your-gpu.md"}
"""Pages whose commands load no model."""
REASONS = {
    "installs packages",
    "needs an account",
    "needs a GPU",
    "needs a cluster",
    "starts a server that runs until it is stopped",
}


def commands(page: Path) -> list[str]:
    """What a reader would type, without installations and blocks that are not run here."""
    typed = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["reason"] is None:
            lines = (line for line in block["text"].splitlines() if line.startswith("$ "))
            typed += [line.removeprefix("$ ").partition("   #")[0] for line in lines if not line.startswith("$ pip ")]
    return typed


def run(page: Path, folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    environment |= {
        "FTBRIDGE_HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for command in commands(page):
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{page.name}: {command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk") / "tutorial"
    shutil.copytree(TUTORIAL, folder)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_has_a_known_reason(page: Path) -> None:
    blocks = list(BLOCK.finditer(page.read_text(encoding="utf-8")))
    assert {block["reason"] for block in blocks} - {None} <= REASONS
    assert page.read_text(encoding="utf-8").count("```console") == len(blocks)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name in LIGHT], ids=lambda page: page.name)
def test_a_guide_without_a_model_runs_as_written(page: Path, desk: Path) -> None:
    assert commands(page)
    run(page, desk)


@pytest.mark.slow
def test_the_tutorial_and_the_guides_about_models_run_as_written(desk: Path) -> None:
    run(DOCS / "tutorial.md", desk)
    for page in PAGES[1:]:
        if page.name not in LIGHT:
            run(page, desk)


@pytest.mark.slow
def test_the_site_is_built_without_a_broken_link_or_anchor(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install 'ftbridge[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in ("index", "tutorial/index", "how-to/compare-two-models/index", "api/index", "commands/index"):
        assert (tmp_path / "site" / f"{page}.html").exists()
    broken = tmp_path / "docs"
    shutil.copytree(DOCS, broken)
    (broken / "glossary.md").write_text("# Glossary\n\n[gone](tutorial.md#no-such-heading)\n")
    config = (REPOSITORY / "mkdocs.yml").read_text().replace("docs/site_links.py", str(DOCS / "site_links.py"))
    (tmp_path / "mkdocs.yml").write_text(config)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "no-such-heading" in done.stderr
