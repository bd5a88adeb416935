"""`tools` and `tool_choice`: which functions are offered, and whether one has to be called. Also in the deprecated words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftbridge.server.http.errors import ApiError, invalid

if TYPE_CHECKING:
    from ftbridge.server.requests.chat import CreateChat

MOST_TOOLS = 128


@dataclass(frozen=True)
class ToolChoice:
    """The tools that the model is offered, and of which it must call one (None: it may)."""

    tools: list[dict[str, Any]]
    must_call: list[str] | None = None


def chosen_tools(chat: CreateChat) -> ToolChoice:
    """What `tools` with `tool_choice`, or `functions` with `function_call`, come to. Raises `ApiError` 400."""
    if chat.functions is not None:
        if chat.tools is not None:
            raise invalid("'functions' is the old name of 'tools'; give one of them.", "functions", "invalid_value")
        tools = [{"type": "function", "function": function} for function in chat.functions]
        return choose(tools, _new_words(chat.function_call), "functions", "function_call")
    if chat.function_call not in (None, "none"):
        raise invalid(
            "'function_call' is only allowed when 'functions' are specified.", "function_call", "invalid_value"
        )
    return choose(chat.tools or [], chat.tool_choice, "tools", "tool_choice")


def choose(tools: list[dict[str, Any]], choice: Any, where: str = "tools", param: str = "tool_choice") -> ToolChoice:
    """The tools of `tools`, checked, under a `tool_choice`: auto, none, required, a named function, or allowed tools."""
    checked = [_checked(tool, f"{where}[{index}]") for index, tool in enumerate(tools)]
    names = [tool["function"]["name"] for tool in checked]
    if len(names) > MOST_TOOLS:
        raise invalid(f"'{where}' holds {len(names)} tools; {MOST_TOOLS} are allowed.", where, "invalid_value")
    if len(set(names)) < len(names):
        raise invalid(f"'{where}' offers a function twice.", where, "invalid_value")
    if choice is None or choice == "auto":
        return ToolChoice(checked)
    if choice == "none":
        return ToolChoice([])
    if not checked:
        raise invalid(f"'{param}' is only allowed when '{where}' are specified.", param, "invalid_value")
    if choice == "required":
        return ToolChoice(checked, names)
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return _allowed(checked, choice, param)
    name = _name_of(choice)
    if name is None:
        raise invalid(f"'{param}' must be auto, none, required, or name a function.", param, "invalid_value")
    if name not in names:
        raise invalid(f"'{param}' names {name[:64]!r}, which is not among '{where}'.", param, "invalid_value")
    return ToolChoice(checked, [name])


def _allowed(tools: list[dict[str, Any]], choice: dict[str, Any], param: str) -> ToolChoice:
    """`{"type": "allowed_tools", "allowed_tools": {"mode", "tools"}}`; the Responses API has mode and tools beside the type."""
    allowed = choice.get("allowed_tools", choice)
    listed = allowed.get("tools") if isinstance(allowed, dict) else None
    wanted = [_name_of(tool) for tool in listed] if isinstance(listed, list) else []
    offered = [tool for tool in tools if tool["function"]["name"] in wanted]
    if not offered or len(offered) < len(set(wanted)):
        raise invalid(f"'{param}' allows tools that are not offered, or none.", param, "invalid_value")
    mode = allowed.get("mode", "auto")
    if mode not in ("auto", "required"):
        raise invalid(f"'{param}.mode' must be auto or required.", param, "invalid_value")
    return ToolChoice(offered, [tool["function"]["name"] for tool in offered] if mode == "required" else None)


def _checked(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        kind = tool.get("type") if isinstance(tool, dict) else tool
        raise _wrong(where, f"is of the type {str(kind)[:40]!r}; only functions can be called here")
    function = tool.get("function")
    if not isinstance(function, dict):
        raise _wrong(f"{where}.function", "is missing")
    name = function.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", name):
        raise _wrong(f"{where}.function.name", "must be 1 to 64 letters, digits, dots, dashes and underscores")
    if not isinstance(function.get("parameters") or {}, dict):
        raise _wrong(f"{where}.function.parameters", "must be a JSON Schema object")
    if not isinstance(function.get("strict") or False, bool):
        raise _wrong(f"{where}.function.strict", "must be true or false")
    present = {key: value for key, value in function.items() if value is not None}
    return {"type": "function", "function": present}


def _name_of(choice: Any) -> str | None:
    """`{"type": "function", "function": {"name"}}`, or `{"type": "function", "name"}` as the Responses API writes it."""
    if not isinstance(choice, dict) or choice.get("type", "function") != "function":
        return None
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _new_words(choice: str | dict[str, Any] | None) -> Any:
    return {"type": "function", "function": choice} if isinstance(choice, dict) else choice


def _wrong(param: str, what: str) -> ApiError:
    return invalid(f"'{param}' {what}.", param, "invalid_value")
