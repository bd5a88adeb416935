"""What the package promises as a whole: light imports, public names, fresh schemas, import directions."""

from __future__ import annotations

import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

import ftbridge
from ftbridge.cli import COMMANDS
from ftbridge.spec import schemas
from support.paths import REPOSITORY

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "scipy", "openai", "httpx", "jinja2", "yaml")


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(m for m in sys.modules if '.' not in m), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import ftbridge", HEAVY),
        ("from ftbridge.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass", HEAVY),
        ("import ftbridge; ftbridge.run, ftbridge.load_run, ftbridge.JobSpec", HEAVY[:5]),
        ("from ftbridge.cli import main\ntry:\n    main(['list'])\nexcept SystemExit:\n    pass", HEAVY[:5]),
    ],
)
def test_the_light_parts_never_import_torch(code: str, unwanted: tuple[str, ...]) -> None:
    assert modules_after(code) & set(unwanted) == set()


def test_every_public_name_is_there_and_no_other() -> None:
    for name in ftbridge.__all__:
        assert getattr(ftbridge, name) is not None
    assert sorted(ftbridge.__all__) == dir(ftbridge)
    with pytest.raises(AttributeError, match="nonsense"):
        ftbridge.nonsense  # noqa: B018


@pytest.mark.parametrize("name", schemas.NAMES)
def test_schemas_in_the_repository_are_fresh_and_valid(name: str) -> None:
    written = (REPOSITORY / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    assert written == schemas.text(name), "stale: run `make schemas`"
    Draft202012Validator.check_schema(schemas.schema(name))


def test_every_field_of_a_spec_tells_its_meaning_to_the_schema() -> None:
    definitions = schemas.schema("job")["$defs"] | {"JobSpec": schemas.schema("job")}
    silent = [
        f"{model}.{field}"
        for model, definition in definitions.items()
        for field, result in definition.get("properties", {}).items()
        if not result.get("description")
    ]
    assert silent == []


def test_the_example_spec_fits_its_schema() -> None:
    import yaml

    spec = yaml.safe_load((REPOSITORY / "examples" / "support-triage" / "job.yaml").read_text(encoding="utf-8"))
    Draft202012Validator(schemas.schema("job")).validate(spec)


def test_help_lists_every_command() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "ftbridge", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for name, short in COMMANDS.items():
        assert f"{name} " in listed
        assert short in listed
