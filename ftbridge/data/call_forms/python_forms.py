"""Forms that read as Python calls, and Gemma's, which reads like them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

from ftbridge.data.call_forms.calls import Call, NotACall, Tools
from ftbridge.data.call_forms.tag_forms import typed_value


def pythonic(text: str, tools: Tools) -> tuple[str, list[Call]]:
    """The whole completion is a list of Python calls: `[look_up(city="Lima")]`."""
    return "", python_calls(text)


def python_calls(text: str) -> list[Call]:
    for source in (text.strip(), text.strip().replace("\n", "\\n")):  # templates write strings with breaks as they are
        try:
            tree = ast.parse(source, mode="exec")
            break
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
    else:
        raise NotACall
    return [call for statement in tree.body for call in _python_statement(statement)]


def _python_statement(statement: ast.stmt) -> Iterator[Call]:
    if not isinstance(statement, ast.Expr):
        raise NotACall
    value = statement.value
    for node in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
        if not isinstance(node, ast.Call) or node.args:
            raise NotACall
        arguments = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise NotACall
            arguments[keyword.arg] = _literal(keyword.value)
        yield Call(ast.unparse(node.func), arguments)


def _literal(node: ast.expr) -> Any:
    """A Python literal, or one of JSON's words."""
    if isinstance(node, ast.Name) and node.id in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[node.id]
    if isinstance(node, ast.List):
        return [_literal(one) for one in node.elts]
    if isinstance(node, ast.Dict):
        return {
            _literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True) if key is not None
        }
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise NotACall from None


# Gemma: call:name{key:<escape>text<escape>,other:3}


def gemma(quote: str) -> Callable[[str, Tools], list[Call]]:
    def read(text: str, tools: Tools) -> list[Call]:
        named = re.fullmatch(r"\s*call:([\w.\-]+)(\{.*\})\s*", text, re.DOTALL)
        if not named:
            raise NotACall
        value, end = _gemma_value(named[2], 0, quote)
        if end != len(named[2]):
            raise NotACall
        return [Call(named[1], value)]

    return read


def _gemma_value(text: str, position: int, quote: str) -> tuple[Any, int]:
    if text.startswith(quote, position):
        end = text.find(quote, position + len(quote))
        if end < 0:
            raise NotACall
        return text[position + len(quote) : end], end + len(quote)
    if text[position : position + 1] in ("{", "["):
        return _gemma_group(text, position, quote)
    scalar = re.compile(r"[^,{}\[\]]+").match(text, position)
    if not scalar:
        raise NotACall
    return typed_value(scalar.group(), None), scalar.end()


def _gemma_group(text: str, position: int, quote: str) -> tuple[Any, int]:
    is_object = text[position] == "{"
    closing, position = "}" if is_object else "]", position + 1
    members: dict[str, Any] = {}
    items: list[Any] = []
    while not text.startswith(closing, position):
        key = ""
        if is_object:
            if text.startswith(quote, position):
                key, position = _gemma_value(text, position, quote)
                named = re.compile(r"\s*:").match(text, position)
            else:
                named = re.compile(r"\s*([^:,{}\[\]]+?)\s*:").match(text, position)
                key = named[1] if named else ""
            if not named:
                raise NotACall
            position = named.end()
        value, position = _gemma_value(text, position, quote)
        members[key] = value
        items.append(value)
        if text.startswith(",", position):
            position += 1
        elif not text.startswith(closing, position):
            raise NotACall
    return (members if is_object else items), position + 1
