"""What a terminal may be sent: words of models, services and files are shown, never obeyed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 but for tab and line feed (ECMA-48), marks that turn the direction of what follows (UAX 9), half characters."""


def printable(text: str) -> str:
    """The text with each control character as its picture (␛ for escape), or as U+ and its number; lines stay lines."""
    return _CONTROLS.sub(lambda match: _picture(match.group()), text)


def _picture(character: str) -> str:
    number = ord(character)
    if number < 0x20:
        return chr(0x2400 + number)
    return "\u2421" if number == 0x7F else "\ufffd" if 0xD800 <= number < 0xE000 else f"<U+{number:04X}>"


class SafeConsole(Console):
    """A console that prints nothing but text and the styles of this program, whatever the text holds."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control is None and _CONTROLS.search(segment.text):
                yield Segment(printable(segment.text), segment.style)
            else:
                yield segment
