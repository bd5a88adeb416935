"""The documentation says what the code does: generated parts are fresh, examples in it load."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

from ftbridge.spec import JobSpec
from ftbridge.spec.lowering import fields
from support.paths import REPOSITORY

DOCS = REPOSITORY / "docs"


@pytest.fixture(scope="module")
def generate():
    specification = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_generated_parts_are_fresh(generate):
    assert [page.name for page in generate.stale()] == [], f"run {Path(sys.executable).name} docs/generate.py"


def test_a_page_that_was_edited_by_hand_is_stale(generate):
    page = (DOCS / "spec.md").read_text("utf-8")
    edited = page.replace("| `seed` |", "| `sead` |")
    assert edited != page
    assert generate.filled(edited) == page


def test_every_field_of_a_spec_is_in_the_table(generate):
    table = generate.render_spec_table()
    spec = JobSpec.from_dict(
        {
            "name": "t",
            "data": {"train": "t.jsonl", "validation": 0.1},
            "model": {"local": "m"},
            "local": {"early_stopping": {"patience": 2}},
        }
    )
    missing = [field for field, _ in fields(spec) if f"| `{field}` |" not in table]
    assert missing == []
    assert "| `evaluation.graders[].operation` |" in table


@pytest.mark.parametrize(
    "row",
    [
        "| `hyperparameters.n_epochs` | `auto` or whole number ≥ 1, ≤ 50 | `auto` | Passes over the data, 1 to 50. |",
        "| `data.train` | text not empty or list of text, at least 1 | **required** | Training examples: a path, a glob, an https URL, ",
        "| `local.early_stopping.min_delta` | number ≥ 0 | `0.0` | ",
        "| `suffix` | text 1 to 64 characters | absent | ",
        "| `data.validation` | text or number > 0, < 1 | absent | ",
        "| `local.packing` | `true`, `false` | `true` | ",
    ],
)
def test_a_row_tells_value_bounds_default_and_meaning(generate, row):
    assert row in generate.render_spec_table()


def test_the_specs_shown_in_the_documentation_load():
    shown = re.findall(r"```yaml\n(.*?)```", (DOCS / "spec.md").read_text("utf-8"), re.DOTALL)
    assert shown
    for text in shown:
        assert JobSpec.from_dict(yaml.safe_load(text)).seed == 7
