"""The page as one file. Style and script are named by their hashes: a browser uses no other, even if an answer held one."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from importlib.resources import files as packaged

from ftbridge import __version__
from ftbridge.report.html.answers import completions_section
from ftbridge.report.html.contents import Contents
from ftbridge.report.html.curves import loss_curves
from ftbridge.report.html.element import Html, element
from ftbridge.report.html.measures import (
    classification,
    judges,
    perplexity,
    plan_against_actual,
    preference,
    retention,
    slices,
)
from ftbridge.report.html.reproduce import countdown, data, lowering, reproduce
from ftbridge.report.html.rewards import rewards
from ftbridge.report.html.scores import scores, usage, usage_title
from ftbridge.report.html.summary import headline


def page(contents: Contents, *, now: float | None = None, command: str = "") -> str:
    """The whole document as text. `now` is the time in its foot, in seconds since 1970; `command` what makes it again."""
    runs = " ".join(source.run for source in contents.sources)
    sections: list[tuple[str, str, Html | None]] = [
        ("scores", "Scores", scores(contents)),
        ("judges", "Judges", judges(contents)),
        ("slices", "Slices", slices(contents)),
        ("preference", "Preferences", preference(contents)),
        ("retention", "Retention", retention(contents)),
        ("loss", "Loss", loss_curves(contents.curves)),
        ("rewards", "Rewards", rewards(contents.rewards)),
        ("classification", "Labels", classification(contents)),
        ("perplexity", "Perplexity", perplexity(contents)),
        ("usage", usage_title(contents), usage(contents)),
        ("plan", "Planned vs actual", plan_against_actual(contents)),
        ("answers", "Answers", completions_section(contents)),
        ("data", "Data", data(contents.sources) if contents.sources else None),
        ("spec", "Field mapping", lowering(contents.sources) if contents.sources else None),
        ("reproduce", "Reproduce", reproduce(contents.sources, command or f"ftbridge report {runs}")),
    ]
    header = element(
        "header",
        element("h1", contents.title),
        element("p", " · ".join(source.run for source in contents.sources), class_="quiet"),
        headline(contents),
        countdown(contents.sources, now),
    )
    main = element("main", _notes(contents), [section for _, _, section in sections])
    title, body = f"{contents.title}: ftbridge report", [header, _contents_list(sections), main]
    return document(title, body, now=now, script=_packaged("script.js"))


def document(title: str, body: Sequence[Html], *, now: float | None = None, script: Html | None = None) -> str:
    """A page of its own as text: the title, the style, what the body holds, and a foot with the time (seconds since 1970)."""
    style = _packaged("style.css")
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script or Html(""))),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", style),
    )
    foot = element("footer", f"ftbridge {__version__}, {moment}")
    code = element("script", script) if script is not None else None
    html = element("html", head, element("body", list(body), foot, code), lang="en")
    return f"<!doctype html>\n{html}\n"


def _contents_list(sections: Sequence[tuple[str, str, Html | None]]) -> Html:
    """Links to the sections that are there."""
    links = [element("li", element("a", title, href=f"#{name}")) for name, title, section in sections if section]
    return element("nav", element("ul", links), aria_label="Contents")


def _notes(contents: Contents) -> Html | None:
    if not contents.notes:
        return None
    return element("ul", [element("li", note) for note in contents.notes], class_="notes")


def _packaged(name: str) -> Html:
    return Html((packaged("ftbridge.report.html") / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    return f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
