"""How a chat template wants tool calls: found by trying the usual ways in turn, and taking the first that it writes whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

KEY, VALUE, TEXT = "ftb_probe_key", "ftb_probe_value", "ftb_probe_text"
LONG_ID, SHORT_ID = "call_0123456789abcdef", "call00000"
_NO_KEY = object()


@dataclass(frozen=True)
class CallStyle:
    """`arguments` as an object or as JSON text; `empty` is the content of a message that only calls: null, "" or none at all.

    `short_ids`: ids are nine letters and digits, and no others.
    """

    arguments: str
    empty: Any
    short_ids: bool = False

    def content(self, message: dict[str, Any]) -> dict[str, Any]:
        """A message that only calls, with the content that the template wants."""
        if message.get("content"):
            return message
        bare = {key: value for key, value in message.items() if key != "content"}
        return bare if self.empty is _NO_KEY else {**bare, "content": self.empty}


def find_call_style(write: Callable[[list[dict[str, Any]]], str]) -> CallStyle | None:
    """The first way that `write` renders whole; it returns "" for messages that the template refuses.

    The arguments decide: an object that comes out in the template's own notation, or as JSON, is right; text that comes out
    escaped, or an object that comes out as Python writes it, is wrong.
    """
    nothing = re.compile(r"(?<![\w\"'])(?:None|null)(?![\w\"'])")
    usual = len(nothing.findall(write([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])))
    for with_reply, short, form, empty in product(
        (True, False), (False, True), ("object", "string"), (None, "", _NO_KEY)
    ):
        style = CallStyle(form, empty, short)
        written = write(_conversation(style)[: None if with_reply else 2])
        if _is_whole(written, form) and len(nothing.findall(written)) <= usual:
            return style
    return None


def _conversation(style: CallStyle) -> list[dict[str, Any]]:
    arguments: Any = {KEY: VALUE} if style.arguments == "object" else json.dumps({KEY: VALUE})
    call_id = SHORT_ID if style.short_ids else LONG_ID
    call = {"id": call_id, "type": "function", "function": {"name": "probe", "arguments": arguments}}
    asks = style.content({"role": "assistant", "content": "", "tool_calls": [call]})
    result = {"role": "tool", "content": "r", "tool_call_id": call_id, "name": "probe"}
    return [{"role": "user", "content": "a"}, asks, result, {"role": "assistant", "content": "b"}]


def _is_whole(text: str, form: str) -> bool:
    if KEY not in text or VALUE not in text or "probe" not in text:
        return False
    if re.search(rf"'{KEY}'\s*:", text) or re.search(rf'\\+"{KEY}', text):
        return False
    if form == "object":
        return True
    return bool(re.search(rf'(?<!\\)"{KEY}(?<!\\)"', text))
