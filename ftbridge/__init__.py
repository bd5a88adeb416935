"""ftbridge: one job spec that fine-tunes a language model on OpenAI's API or on your own GPU, with one shared evaluator.

import ftbridge

run = ftbridge.run("job.yaml", provider="local")
run.evaluation.candidates["tuned"]["exact"].mean
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ftbridge import migrate as migrate
    from ftbridge.api import Run as Run
    from ftbridge.api import compare as compare
    from ftbridge.api import convert as convert
    from ftbridge.api import evaluate as evaluate
    from ftbridge.api import lint as lint
    from ftbridge.api import list_runs as list_runs
    from ftbridge.api import load_run as load_run
    from ftbridge.api import plan as plan
    from ftbridge.api import run as run
    from ftbridge.data.lint.findings import LintReport as LintReport
    from ftbridge.errors import FtbridgeError as FtbridgeError
    from ftbridge.spec import JobSpec as JobSpec

_WHERE = {
    "FtbridgeError": "ftbridge.errors",
    "JobSpec": "ftbridge.spec",
    "LintReport": "ftbridge.data.lint.findings",
    "Run": "ftbridge.api",
    "compare": "ftbridge.api",
    "convert": "ftbridge.api",
    "evaluate": "ftbridge.api",
    "lint": "ftbridge.api",
    "list_runs": "ftbridge.api",
    "load_run": "ftbridge.api",
    "migrate": "ftbridge.migrate",
    "plan": "ftbridge.api",
    "run": "ftbridge.api",
}
__all__ = [
    "FtbridgeError",
    "JobSpec",
    "LintReport",
    "Run",
    "__version__",
    "compare",
    "convert",
    "evaluate",
    "lint",
    "list_runs",
    "load_run",
    "migrate",
    "plan",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import ftbridge` stays light."""
    if name not in _WHERE:
        raise AttributeError(f"module 'ftbridge' has no attribute {name!r}")
    module = importlib.import_module(_WHERE[name])
    value = module if module.__name__ == f"ftbridge.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
