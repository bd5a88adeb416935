"""The page as one file. Style and script are named by their hashes: a browser uses no other, even if an answer held one."""

from __future__ import annotations

import base64
import hashlib
import time
from importlib.resources import files as packaged

from ftbridge import __version__
from ftbridge.report.html.answers import answers
from ftbridge.report.html.contents import Contents
from ftbridge.report.html.curves import loss_curves
from ftbridge.report.html.element import Html, element
from ftbridge.report.html.measures import classification, perplexity, plan_against_actual, retention
from ftbridge.report.html.reproduce import countdown, data, lowering, reproduce
from ftbridge.report.html.scores import headline, scores, usage


def page(contents: Contents, *, now: float | None = None, command: str = "") -> str:
    """The whole document as text. `now` is the time in its foot, in seconds since 1970; `command` what makes it again."""
    style, script = _packaged("style.css"), _packaged("script.js")
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    runs = " ".join(source.run for source in contents.sources)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{contents.title}: ftbridge report"),
        element("style", style),
    )
    body = element(
        "body",
        element(
            "header",
            element("h1", contents.title),
            element("p", " · ".join(source.run for source in contents.sources), class_="quiet"),
            headline(contents),
            countdown(contents.sources, now),
        ),
        element(
            "main",
            _notes(contents),
            scores(contents),
            retention(contents),
            loss_curves(contents.curves),
            classification(contents),
            perplexity(contents),
            usage(contents),
            plan_against_actual(contents),
            answers(contents),
            [data(contents.sources), lowering(contents.sources)] if contents.sources else None,
            reproduce(contents.sources, command or f"ftbridge report {runs}"),
        ),
        element("footer", f"ftbridge {__version__}, {moment}"),
        element("script", script),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


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
