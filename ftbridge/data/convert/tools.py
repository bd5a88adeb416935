"""Tools as OpenAI writes them, from lists or their JSON, in the ways of OpenAI, Anthropic, Bedrock, Gemini and Responses.

{type: function, function: {name, parameters}}                    OpenAI
{name, parameters}; {type: function, name, parameters}            without the wrapping: TRL, Responses
{name, input_schema}                                              Anthropic
{tools: [{toolSpec: {name, inputSchema: {json}}}]}                Bedrock (toolConfig)
{functionDeclarations: [{name, parameters: {type: OBJECT}}]}      Gemini
"""

from __future__ import annotations

import json
from typing import Any

from ftbridge.data.convert.fields import Document, ShapeError


def read_tools(value: Any, at: str = "tools") -> list[Document]:
    """The tools of a record; none for what is null or empty. Raises `ShapeError`."""
    if value in (None, "", [], {}):
        return []
    try:
        tools = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise ShapeError(f"{at} is not JSON") from None
    if isinstance(tools, dict) and isinstance(tools.get("tools"), list):
        tools = tools["tools"]
    if isinstance(tools, list):
        tools = [_json(tool, f"{at}[{index}]") if isinstance(tool, str) else tool for index, tool in enumerate(tools)]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ShapeError(f"{at} is not a list of objects")
    return [one for tool in tools for one in _tool(tool)]


def _json(text: str, at: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ShapeError(f"{at} is not JSON") from None


def _tool(tool: Document) -> list[Document]:
    declared = tool.get("functionDeclarations", tool.get("function_declarations"))
    if isinstance(declared, list):
        return [_wrapped({**one, "parameters": _small_types(one.get("parameters", {}))}) for one in declared]
    if isinstance(spec := tool.get("toolSpec"), dict):
        schema = spec.get("inputSchema")
        inner = schema.get("json", schema) if isinstance(schema, dict) else {}
        return [_wrapped({**{key: one for key, one in spec.items() if key != "inputSchema"}, "parameters": inner})]
    if "function" in tool:
        return [tool if "type" in tool else {"type": "function", **tool}]
    tool = {key: one for key, one in tool.items() if key != "cache_control"}
    if "input_schema" in tool:
        tool["parameters"] = tool.pop("input_schema")
    if tool.get("type") in ("function", "custom"):
        tool = {key: one for key, one in tool.items() if key != "type"}
    return [_wrapped(tool)]


def _wrapped(function: Document) -> Document:
    return {"type": "function", "function": function}


def _small_types(schema: Any) -> Any:
    """A schema with the types of JSON Schema, where Gemini writes OBJECT and STRING."""
    if isinstance(schema, list):
        return [_small_types(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.lower() if key == "type" and isinstance(value, str) else _small_types(value)
        for key, value in schema.items()
    }
