"""Forms whose calls are JSON, with or without a mark before it."""

from __future__ import annotations

import json
import re
from typing import Any

from ftbridge.data.call_forms.calls import Call, NotACall, Tools, calls_in, leading_calls
from ftbridge.data.call_forms.python_forms import python_calls


def json_block(text: str, tools: Tools) -> list[Call]:
    return calls_in(text)


def bare_json(text: str, tools: Tools) -> tuple[str, list[Call]]:
    """The whole completion is calls, perhaps within a fence of code."""
    fence = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", text, re.DOTALL)
    return "", calls_in(fence[1] if fence else text)


# Mistral: a list of calls after the mark, or the mark, a name and its arguments for each call


def mistral(text: str, tools: Tools) -> tuple[str, list[Call]]:
    before, *parts = text.split("[TOOL_CALLS]")
    if not parts:
        raise NotACall
    calls: list[Call] = []
    for part in parts:
        named = re.match(r"\s*([\w.\-]+)(?:\[CALL_ID\]([\w\-]+))?(?:\[ARGS\])?\s*(?=[{\[])", part)
        if named:
            arguments, rest = _leading_json(part[named.end() :])
            calls.append(Call(named[1], arguments, named[2]))
        else:
            calls_in_part, rest = leading_calls(part)
            calls += calls_in_part
        if rest.strip():
            raise NotACall
    return before, calls


def _json_at_the_end(text: str, tools: Tools) -> tuple[str, list[Call]]:
    """The whole completion is calls; where tools are offered, text may stand before calls of these."""
    names = {str((tool.get("function") or tool).get("name", "")) for tool in tools}
    starts = [match.start() for match in re.finditer(r"[{\[]", text)] if names else []
    for start in starts:
        try:
            calls = calls_in(text[start:])
        except NotACall:
            continue
        if all(call.name in names for call in calls):
            return text[:start], calls
    return bare_json(text, tools)


def _leading_json(text: str) -> tuple[Any, str]:
    try:
        document, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        raise NotACall from None
    return document, text[end:]


# Llama: python_tag before JSON, JSON alone, or calls of built-in tools as Python


def llama(text: str, tools: Tools) -> tuple[str, list[Call]]:
    before, separator, after = text.partition("<|python_tag|>")
    if not separator:
        return _json_at_the_end(text, tools)
    builtin = re.fullmatch(r"\s*([\w.]+)\.call\((.*)\)\s*", after, re.DOTALL)
    if builtin:
        return before, python_calls(f"{builtin[1]}({builtin[2]})")
    try:
        return before, calls_in(after)
    except NotACall:
        return before, [Call("code_interpreter", {"code": after.strip()})]


# Tags: Qwen3-coder, Nemotron, Seed, MiniMax, GLM
