"""Documents from jinja2 templates, which are files under `templates/` of the package that owns the page.

    values ─▶ render ─▶ templates/NAME.html.j2 ─▶ document.html.j2 (head, policy, style, foot) ─▶ one self-contained file

Every value is escaped where it is shown; a name that a template does not get is an error. Style and script are named by their
hashes in the content security policy: a browser uses no other, even if a completion holds one. jinja2 is imported with the
first document.
"""

from __future__ import annotations

import base64
import hashlib
import time
from functools import cache
from importlib.resources import files as packaged
from typing import TYPE_CHECKING

from ftbridge import __version__
from ftbridge.evaluation.wording import SHORT
from ftbridge.report.amounts import amount, dollars, planned

if TYPE_CHECKING:
    from jinja2 import Environment

SHARED = "ftbridge.report.html"
"""The package whose templates every document may extend and import from: `document.html.j2`, `macros.html.j2`."""
MAX_CHARACTERS = 20_000
"""Characters of one text in a document; the rest stays in the run folder, and the document says so."""


def render(
    template: str, *, package: str = SHARED, now: float | None = None, script: str = "", **values: object
) -> str:
    """The text of a document: `template` is a file under `templates/` of `package`, shown with `values`.

    `now` is the time in its foot, in seconds since 1970; `script` is JavaScript that the document runs.
    """
    style = packaged_text("style.css")
    return _environment(package).get_template(template).render(
        style=style,
        script=script,
        policy=_policy(style, script),
        version=__version__,
        moment=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now)),
        **values,
    )  # fmt: skip


def packaged_text(name: str) -> str:
    """A file beside this one, such as the style or the script of reports."""
    return (packaged(SHARED) / name).read_text(encoding="utf-8")


def percent(share: float, digits: int = 1) -> str:
    """A share from 0 to 1 as `12.3 %`."""
    return f"{100 * share:.{digits}f} %"


def points(difference: float) -> str:
    """A difference of shares in percentage points with its sign: `+1.2`."""
    return f"{100 * difference:+.1f}"


def shortened(text: str) -> str:
    """The text, up to `MAX_CHARACTERS`, and how much is left out."""
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}… ({len(text) - MAX_CHARACTERS:,} more characters in the run folder)"


@cache
def _environment(package: str) -> Environment:
    import jinja2

    loaders = [jinja2.PackageLoader(name) for name in dict.fromkeys((package, SHARED))]
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.ChoiceLoader(loaders),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "amount": amount,
        "coordinate": lambda value: f"{value:g}",
        "dollars": dollars,
        "percent": percent,
        "planned": planned,
        "points": points,
        "shortened": shortened,
        "thousands": lambda count: f"{count:,}",
    }
    environment.globals["verdict_words"] = SHORT
    return environment


def _policy(style: str, script: str) -> str:
    return f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
