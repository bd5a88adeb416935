"""Settings of the linter in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftbridge.data.lint.config import LintConfig, find_config
from ftbridge.errors import UsageError


def test_the_nearest_table_counts(tmp_path: Path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.ftbridge.lint]\ntarget = "azure"\nmax-findings = 5\n')
    (tmp_path / "a" / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert find_config(inner) == LintConfig(target="azure", **{"max-findings": 5})


def test_codes_are_ignored_for_some_files_only(tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text('[tool.ftbridge.lint.per-file-ignores]\n"test*.jsonl" = ["FTB210"]\n')
    config = find_config(tmp_path)
    assert config.ignored_for("data/test_small.jsonl") == ("FTB210",)
    assert config.ignored_for("data/train.jsonl") == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[tool.ftbridge.lint]\ntargets = "azure"', "Did you mean target"),
        ('[tool.ftbridge.lint]\ntarget = "aws"', "tool.ftbridge.lint.target"),
        ("[tool.ftbridge.lint]\nmax-findings = -1", "max-findings"),
        ("[tool.ftbridge.lint\n", "cannot be read"),
    ],
)
def test_settings_that_are_none_are_refused_with_file_and_key(tmp_path: Path, text: str, problem: str):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=problem) as error:
        find_config(tmp_path)
    assert "pyproject.toml" in str(error.value)
