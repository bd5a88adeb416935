"""HTML from function calls: text is escaped unless it is markup already."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_VOID = frozenset({"meta", "input"})


class Html(str):
    """Markup. Only `element` and `joined` make it, and files of this package."""

    __slots__ = ()


Child = str | Iterable["Child"] | None


def element(tag: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """`<tag …>children</tag>`. Attributes: a trailing _ is cut, other _ become -; None and False leave one out, True bares."""
    attribute_text = "".join(_attribute(name, value) for name, value in attributes.items())
    inner = joined(children)
    return Html(f"<{tag}{attribute_text}>" if tag in _VOID and not inner else f"<{tag}{attribute_text}>{inner}</{tag}>")


def table(
    words: Sequence[str],
    numbers: Sequence[str],
    rows: Sequence[Sequence[Html]],
    rest: Sequence[str] = (),
    *,
    kind: str | None = None,
    label: str | None = None,
) -> Html:
    """A table that scrolls where it is too wide: headings of words, of numbers (set to the right), of more words.

    `label` is its name for those who do not see it, where its headings are those of another.
    """
    heads = [(words, None), (numbers, "number"), (rest, None)]
    head = [element("th", text, scope="col", class_=style) for texts, style in heads for text in texts]
    body = element("tbody", [element("tr", list(row)) for row in rows])
    table_element = element("table", element("thead", element("tr", head)), body, class_=kind)
    name = label or ", ".join(filter(None, [*words, *numbers, *rest]))
    return element("div", table_element, class_="wide", tabindex="0", role="region", aria_label=name)


def joined(child: Child) -> Html:
    """Children in a row: text escaped, markup as it is, None as nothing."""
    if child is None:
        return Html("")
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return Html(html.escape(child, quote=False))
    return Html("".join(joined(inner) for inner in child))


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.removesuffix("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f' {name}="{html.escape(text)}"'
