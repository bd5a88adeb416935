"""A hook of mkdocs: links from a page to files outside docs/ become plain text, since the site does not hold those files."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(?!how-to/)((?:README|CHANGELOG|CONTRIBUTING|benchmarks|examples|schemas|tests)[^)]*)\)"
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with `[text](../benchmarks/x.py)` written as text and path: "text (`benchmarks/x.py`)"."""
    return _OUTSIDE.sub(lambda link: f"{link[1]} (`{link[2].partition('#')[0]}`)", markdown)
