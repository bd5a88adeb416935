"""Lines with their verdict for OpenAI, each judged alone: `(name, method, line, verdict, code)`.

A verdict is the worst severity of the findings about the line: "error", "warning", or "ok" for advice at most. The code is
that of a rule which must be among them; None where nothing is to be found.
"""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

from ftbridge.data.lint.rules.specimens import (
    assistant,
    call,
    calling,
    chat,
    image,
    preference,
    result,
    system,
    text,
    tool,
    user,
)


class Case(NamedTuple):
    name: str
    method: str
    line: str
    verdict: str
    code: str | None


def data_url(kind: str, begins: bytes, length: int = 60) -> str:
    return f"data:{kind};base64,{base64.b64encode(begins.ljust(length, bytes([7]))).decode()}"


PNG, JPEG, WEBP, GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\x10\x00\x00\x00WEBPVP8 ", b"GIF89a"
ASK = user("Is it raining in Oslo?")
DONE = assistant("Yes, lightly.")
TOOLS = [tool()]
REFUSAL = {"type": "refusal", "refusal": "I can't help with that."}


def _function(**changed: Any) -> dict[str, Any]:
    return {**tool()["function"], **changed}


def _tool(**changed: Any) -> dict[str, Any]:
    return {"type": "function", "function": _function(**changed)}


def _called(*messages: Any, **more: Any) -> str:
    return chat(ASK, *messages, **{"tools": TOOLS, **more})


def _call(**changed: Any) -> dict[str, Any]:
    return {"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}, **changed}


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


_SUPERVISED: list[tuple[str, str, str, str | None]] = [
    # Lines that are well
    ("one question and its answer", chat(ASK, DONE), "ok", None),
    ("a system message first", chat(system(), ASK, DONE), "ok", None),
    ("several turns", chat(ASK, DONE, user("And in Bergen?"), assistant("Heavily.")), "ok", None),
    ("several turns, only the last trained", chat(ASK, assistant("No.", weight=0), user("Sure?"), assistant("Yes.", weight=1)), "ok", None),
    ("names of people", chat(user("Hi", name="ann"), assistant("Hello", name="helper-2")), "ok", None),
    ("content as text parts", chat(user([text("Is it"), text(" raining?")]), assistant([text("Yes.")])), "ok", None),
    ("a refusal part", chat(ASK, assistant([REFUSAL])), "ok", None),
    ("a refusal beside null content", chat(ASK, {"role": "assistant", "content": None, "refusal": "No."}), "ok", None),
    ("a null refusal, as replies have it", chat(ASK, assistant("Yes.", refusal=None)), "ok", None),
    ("a null function_call, as replies had it", chat(ASK, assistant("Yes.", function_call=None)), "ok", None),
    ("a call as the answer", _called(calling(), **{}), "ok", None),
    ("a call with null content", _called(calling(content=None)), "ok", None),
    ("a call with empty content", _called(calling(content="")), "ok", None),
    ("a call with something said", _called(calling(content="Let me look.")), "ok", None),
    ("a call, its result and the answer", _called(calling(), result(), DONE), "ok", None),
    ("two calls at once, answered in another order", _called(calling(call("a"), call("b")), result(id="b"), result(id="a"), DONE), "ok", None),
    ("the same id again in a later turn", _called(calling(), result(), DONE, ASK, calling(), result(), DONE), "ok", None),
    ("a call without arguments", _called(calling(call(name="now", arguments="{}")), tools=[{"type": "function", "function": {"name": "now"}}]), "ok", None),
    ("parallel calls forbidden, one call", _called(calling(), parallel_tool_calls=False), "ok", None),
    ("parallel_tool_calls without tools", chat(ASK, DONE, parallel_tool_calls=True), "ok", None),
    ("tools that are not called", chat(ASK, DONE, tools=TOOLS), "ok", None),
    ("a tool without parameters", _called(DONE, tools=[{"type": "function", "function": {"name": "now"}}]), "ok", None),
    ("a tool with empty parameters", _called(DONE, tools=[_tool(parameters={"type": "object", "properties": {}})]), "ok", None),
    ("a strict tool with a nullable property", _called(DONE, tools=[_tool(strict=True, description="Rain", parameters={"type": "object", "properties": {"city": {"type": ["string", "null"]}, "day": {"enum": ["today", "tomorrow"]}}, "required": ["city", "day"], "additionalProperties": False})]), "ok", None),
    ("a schema by reference", _called(DONE, tools=[_tool(parameters={"$ref": "#/$defs/City", "$defs": {"City": {"type": "object"}}})]), "ok", None),
    ("deprecated functions and their call", chat(ASK, assistant(None, function_call={"name": "rain", "arguments": "{}"}), {"role": "function", "name": "rain", "content": "yes"}, DONE, functions=[{"name": "rain", "parameters": {"type": "object", "properties": {}}}]), "ok", "FTB058"),
    ("an image by its address", chat(user([text(), image()]), DONE), "ok", None),
    ("an image alone, in high detail", chat(user([image(detail="high")]), DONE), "ok", None),
    ("a PNG in a data URL", chat(user([image(data_url("image/png", PNG))]), DONE), "ok", None),
    ("a JPEG in a data URL, with its other name", chat(user([image(data_url("image/jpg", JPEG))]), DONE), "ok", None),
    ("a WEBP in a data URL", chat(user([image(data_url("image/webp", WEBP, 300))]), DONE), "ok", None),
    ("ten images", chat(user([image()] * 10), DONE), "ok", None),
    ("an address without an ending", chat(user([image("https://example.com/img?id=7&size=2")]), DONE), "ok", None),
    ("a system message in parts", chat({"role": "system", "content": [text("Be brief.")]}, ASK, DONE), "ok", None),
    ("two users in a row are advice only", chat(ASK, user("Quickly!"), DONE), "ok", "FTB049"),
    ("a late system message is advice only", chat(ASK, system(), DONE), "ok", "FTB048"),
    ("calls without tools are advice only", chat(ASK, calling()), "ok", "FTB067"),
    ("a tool that gave nothing is advice only", _called(calling(), result(""), DONE), "ok", "FTB034"),
    ("letters of all the world", chat(user("東京は雨？ 🌧️"), assistant("Sí, llueve")), "ok", None),
    # The line
    ("a list", json.dumps([ASK, DONE]), "error", "FTB020"),
    ("a number", "3.5", "error", "FTB020"),
    ("null", "null", "error", "FTB020"),
    ("an empty object", "{}", "error", "FTB022"),
    ("messages under another name", json.dumps({"dialogue": [ASK, DONE]}), "error", "FTB022"),
    ("messages in capitals", json.dumps({"Messages": [ASK, DONE]}), "error", "FTB022"),
    ("messages that are null", '{"messages": null}', "error", "FTB022"),
    ("messages that are text", '{"messages": "Hi"}', "error", "FTB022"),
    ("messages that are one object", json.dumps({"messages": ASK}), "error", "FTB022"),
    ("no messages in the list", '{"messages": []}', "error", "FTB022"),
    ("prompt and completion", '{"prompt": "Rain? ->", "completion": " yes"}', "error", "FTB023"),
    ("alpaca", '{"instruction": "Translate", "input": "rain", "output": "regn"}', "error", "FTB023"),
    ("alpaca without input", '{"instruction": "Say rain in Norwegian", "output": "regn"}', "error", "FTB023"),
    ("ShareGPT", '{"id": "1", "conversations": [{"from": "human", "value": "Rain?"}, {"from": "gpt", "value": "Yes"}]}', "error", "FTB023"),
    ("chosen and rejected", '{"prompt": "Rain?", "chosen": "Yes", "rejected": "No"}', "error", "FTB023"),
    ("a batch request", json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [ASK]}}), "error", "FTB023"),
    ("a preference line", preference(), "error", "FTB024"),
    ("an id beside messages", chat(ASK, DONE, id="row-7"), "error", "FTB025"),
    ("a null key beside messages", chat(ASK, DONE, source=None), "error", "FTB025"),
    ("a misspelled key beside messages", chat(ASK, DONE, tool=TOOLS), "error", "FTB025"),
    ("tool_choice beside messages", chat(ASK, DONE, tools=TOOLS, tool_choice="auto"), "error", "FTB025"),
    ("null tools", chat(ASK, DONE, tools=None), "warning", "FTB026"),
    ("null parallel_tool_calls", chat(ASK, DONE, parallel_tool_calls=None), "warning", "FTB026"),
    ("a null name", chat(user("Hi", name=None), DONE), "warning", "FTB026"),
    ("null tool_calls", chat(ASK, assistant("Yes", tool_calls=None)), "warning", "FTB026"),
    ("a null weight", chat(ASK, assistant("Yes", weight=None)), "warning", "FTB026"),
    # Messages and roles
    ("a message that is text", chat("Rain?", DONE), "error", "FTB027"),
    ("a message that is null", chat(ASK, None, DONE), "error", "FTB027"),
    ("a message in a list", chat([ASK], DONE), "error", "FTB027"),
    ("no role", chat({"content": "Rain?"}, DONE), "error", "FTB028"),
    ("a null role", chat({"role": None, "content": "Rain?"}, DONE), "error", "FTB028"),
    ("a role that is a number", chat({"role": 1, "content": "Rain?"}, DONE), "error", "FTB028"),
    ("a capital role", chat({"role": "User", "content": "Rain?"}, DONE), "error", "FTB029"),
    ("a role with a space", chat(ASK, {"role": "assistant ", "content": "Yes"}), "error", "FTB029"),
    ("another name of the role", chat({"role": "human", "content": "Rain?"}, DONE), "error", "FTB029"),
    ("an empty role", chat({"role": "", "content": "Rain?"}, DONE), "error", "FTB029"),
    ("developer in chat lines", chat(system(role="developer"), ASK, DONE), "warning", "FTB030"),
    ("a key of another program", chat(user("Rain?", id=5), DONE), "error", "FTB031"),
    ("reasoning in a message", chat(ASK, assistant("Yes", reasoning_content="Clouds.")), "error", "FTB031"),
    ("annotations of a reply", chat(ASK, assistant("Yes", annotations=[])), "error", "FTB031"),
    ("calls of a user", chat(user("Rain?", tool_calls=[call()]), DONE), "error", "FTB031"),
    ("an id of a call in an assistant message", chat(ASK, assistant("Yes", tool_call_id="a")), "error", "FTB031"),
    ("a name in a tool's result", _called(calling(), result(name="weather"), DONE), "warning", "FTB031"),
    ("a name that is a number", chat(user("Rain?", name=3), DONE), "error", "FTB032"),
    ("a name with a space", chat(user("Rain?", name="Ann Lee"), DONE), "warning", "FTB032"),
    ("an empty name", chat(user("Rain?", name=""), DONE), "warning", "FTB032"),
    # Content
    ("null content of the user", chat(user(None), DONE), "error", "FTB021"),
    ("no content of the user", chat({"role": "user"}, DONE), "error", "FTB021"),
    ("no content and no calls", chat(ASK, {"role": "assistant"}), "error", "FTB021"),
    ("null content and an empty list of calls", chat(ASK, assistant(None, tool_calls=[])), "error", "FTB021"),
    ("null content of a tool", _called(calling(), result(None), DONE), "error", "FTB021"),
    ("content that is an object", chat(user({"text": "Rain?"}), DONE), "error", "FTB033"),
    ("content that is true", chat(ASK, assistant(True)), "error", "FTB033"),
    ("an empty list of parts", chat(user([]), DONE), "error", "FTB033"),
    ("texts in a list", chat(user(["Rain?"]), DONE), "error", "FTB033"),
    ("empty text of the user", chat(user(""), DONE), "warning", "FTB034"),
    ("an empty answer", chat(ASK, assistant("")), "warning", "FTB034"),
    ("an answer of white space", chat(ASK, assistant(" \n\t")), "warning", "FTB034"),
    ("an empty system message", chat(system(""), ASK, DONE), "warning", "FTB034"),
    ("an empty text part alone", chat(user([text("")]), DONE), "warning", "FTB034"),
    ("nobody asks", chat(system(), DONE), "warning", "FTB035"),
    ("a part without a type", chat(user([{"text": "Rain?"}]), DONE), "error", "FTB036"),
    ("a part of an unknown type", chat(user([{"type": "markdown", "text": "Rain?"}]), DONE), "error", "FTB036"),
    ("a part whose type is a number", chat(user([{"type": 4, "text": "Rain?"}]), DONE), "error", "FTB036"),
    ("a part of the Responses API", chat(user([{"type": "input_text", "text": "Rain?"}]), DONE), "error", "FTB036"),
    ("a text part without text", chat(user([{"type": "text", "content": "Rain?"}]), DONE), "error", "FTB037"),
    ("a text part with null", chat(user([{"type": "text", "text": None}]), DONE), "error", "FTB037"),
    ("a refusal part without its text", chat(ASK, assistant([{"type": "refusal"}])), "error", "FTB037"),
    ("sound", chat(user([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}]), DONE), "error", "FTB039"),
    ("a file", chat(user([{"type": "file", "file": {"file_id": "file-1"}}]), DONE), "error", "FTB039"),
    ("sound of the assistant", chat(ASK, assistant("Yes", audio={"id": "audio_1"})), "error", "FTB039"),
    ("a refusal beside text", chat(ASK, assistant([text("Yes"), REFUSAL])), "error", "FTB040"),
    ("two refusals", chat(ASK, assistant([REFUSAL, REFUSAL])), "error", "FTB040"),
    ("a refusal of the user", chat(user([REFUSAL]), DONE), "error", "FTB040"),
    ("a refusal that is a list", chat(ASK, assistant("Yes", refusal=[])), "error", "FTB040"),
    ("a cache mark on a part", chat(user([{**text(), "cache_control": {"type": "ephemeral"}}]), DONE), "warning", "FTB041"),
    # Weights and order
    ("a weight between", chat(ASK, assistant("Yes", weight=0.3)), "error", "FTB042"),
    ("a negative weight", chat(ASK, assistant("Yes", weight=-1)), "error", "FTB042"),
    ("a weight in words", chat(ASK, assistant("Yes", weight="high")), "error", "FTB042"),
    ("a weight in quotes", chat(ASK, assistant("Yes", weight="1")), "error", "FTB042"),
    ("a weight in a list", chat(ASK, assistant("Yes", weight=[1])), "error", "FTB042"),
    ("a weight that is true", chat(ASK, assistant("Yes", weight=True)), "warning", "FTB042"),
    ("a weight of 1.0", chat(ASK, assistant("Yes", weight=1.0)), "warning", "FTB042"),
    ("a weight of the user's", chat(user("Rain?", weight=1), DONE), "error", "FTB043"),
    ("a weight of the system's", chat({**system(), "weight": 0}, ASK, DONE), "error", "FTB043"),
    ("the only weight is 0", chat(ASK, assistant("Yes", weight=0)), "error", "FTB044"),
    ("every weight is 0", chat(ASK, assistant("No", weight=0), ASK, assistant("Yes", weight=0)), "error", "FTB044"),
    ("the last weight is 0", chat(ASK, assistant("No"), ASK, assistant("Yes", weight=0)), "error", "FTB045"),
    ("only a user", chat(ASK), "error", "FTB046"),
    ("a system message alone", chat(system()), "error", "FTB046"),
    ("the user has the last word", chat(ASK, DONE, user("Thanks!")), "error", "FTB047"),
    ("a tool has the last word", _called(calling(), result()), "error", "FTB047"),
    ("a system message at the end", chat(ASK, DONE, system()), "error", "FTB047"),
    # Tools
    ("one tool, not in a list", chat(ASK, DONE, tools=tool()), "error", "FTB050"),
    ("tools as text", chat(ASK, DONE, tools=json.dumps(TOOLS)), "error", "FTB050"),
    ("no tools in the list", chat(ASK, DONE, tools=[]), "ok", None),
    ("a tool that is a name", chat(ASK, DONE, tools=["weather"]), "error", "FTB051"),
    ("a tool without a type", chat(ASK, DONE, tools=[{"function": _function()}]), "error", "FTB051"),
    ("a tool of another type", chat(ASK, DONE, tools=[{"type": "web_search"}]), "error", "FTB051"),
    ("a tool without a function", chat(ASK, DONE, tools=[{"type": "function"}]), "error", "FTB051"),
    ("a flat tool", chat(ASK, DONE, tools=[{"type": "function", **_function()}]), "error", "FTB051"),
    ("a tool without a name", chat(ASK, DONE, tools=[{"type": "function", "function": {"description": "Rain"}}]), "error", "FTB051"),
    ("a description that is a list", chat(ASK, DONE, tools=[_tool(description=["Rain"])]), "error", "FTB051"),
    ("strict in words", chat(ASK, DONE, tools=[_tool(strict="yes")]), "error", "FTB051"),
    ("a tool's name with a dot", chat(ASK, DONE, tools=[tool("weather.now")]), "error", "FTB052"),
    ("a tool's name with an umlaut", chat(ASK, DONE, tools=[tool("wetter_für")]), "error", "FTB052"),
    ("an empty tool's name", chat(ASK, DONE, tools=[tool("")]), "error", "FTB052"),
    ("65 letters of a name", chat(ASK, DONE, tools=[tool("w" * 65)]), "error", "FTB052"),
    ("a called name with a space", chat(ASK, calling(call(name="get weather"))), "error", "FTB052"),
    ("parameters that are text", chat(ASK, DONE, tools=[_tool(parameters="city")]), "error", "FTB053"),
    ("parameters of another type", chat(ASK, DONE, tools=[_tool(parameters={"type": "string"})]), "error", "FTB053"),
    ("parameters without a type", chat(ASK, DONE, tools=[_tool(parameters={"properties": {}})]), "warning", "FTB053"),
    ("properties in a list", chat(ASK, DONE, tools=[_tool(parameters={"type": "object", "properties": ["city"]})]), "warning", "FTB053"),
    ("a required name that is no property", chat(ASK, DONE, tools=[_tool(parameters={"type": "object", "properties": {}, "required": ["city"]})]), "warning", "FTB053"),
    ("a property of an unknown type", chat(ASK, DONE, tools=[_tool(parameters={"type": "object", "properties": {"city": {"type": "str"}}})]), "warning", "FTB053"),
    ("two tools of one name", chat(ASK, DONE, tools=[tool(), tool()]), "warning", "FTB054"),
    ("parallel_tool_calls in quotes", chat(ASK, DONE, parallel_tool_calls="True"), "error", "FTB055"),
    ("parallel_tool_calls as a number", chat(ASK, DONE, parallel_tool_calls=1), "error", "FTB055"),
    ("two calls where one is allowed", _called(calling(call("a"), call("b")), parallel_tool_calls=False), "warning", "FTB056"),
    ("no functions in the list", chat(ASK, DONE, functions=[]), "error", "FTB057"),
    ("129 functions", chat(ASK, DONE, functions=[{"name": f"f{n}"} for n in range(129)]), "error", "FTB057"),
    ("functions in an object", chat(ASK, DONE, functions={"name": "rain"}), "error", "FTB057"),
    ("a function without a name", chat(ASK, DONE, functions=[{"description": "Rain"}]), "error", "FTB057"),
    # Calls
    ("no calls in the list, beside content", chat(ASK, assistant("Yes", tool_calls=[])), "error", "FTB059"),
    ("calls in an object", _called(calling(), assistant(None, tool_calls=_call())), "error", "FTB059"),
    ("a call that is a name", _called(calling("weather")), "error", "FTB060"),
    ("a call without an id", _called(calling(_without(_call(), "id"))), "error", "FTB060"),
    ("a call with a null id", _called(calling(_call(id=None))), "error", "FTB060"),
    ("a call with a number as id", _called(calling(_call(id=7))), "error", "FTB060"),
    ("a call without a type", _called(calling(_without(_call(), "type"))), "error", "FTB060"),
    ("a call of another type", _called(calling(_call(type="tool"))), "error", "FTB060"),
    ("a call without a function", _called(calling(_without(_call(), "function"))), "error", "FTB060"),
    ("a call of nothing", _called(calling(_call(function={"arguments": "{}"}))), "error", "FTB060"),
    ("arguments in an object", _called(calling(_call(function={"name": "weather", "arguments": {"city": "Oslo"}}))), "error", "FTB061"),
    ("no arguments", _called(calling(_call(function={"name": "weather"}))), "error", "FTB061"),
    ("null arguments", _called(calling(_call(function={"name": "weather", "arguments": None}))), "error", "FTB061"),
    ("arguments in single quotes", _called(calling(call(arguments="{'city': 'Oslo'}"))), "warning", "FTB062"),
    ("empty arguments", _called(calling(call(arguments=""))), "warning", "FTB062"),
    ("arguments in a list", _called(calling(call(arguments='["Oslo"]'))), "warning", "FTB062"),
    ("two calls of one id", _called(calling(call("a"), call("a"))), "warning", "FTB063"),
    ("a result of no call", _called(calling(call("a")), result(id="b"), DONE), "warning", "FTB064"),
    ("a result before its call", _called(result(), calling(), result(), DONE), "warning", "FTB064"),
    ("a result without an id", _called(calling(), _without(result(), "tool_call_id"), DONE), "error", "FTB065"),
    ("a result with a null id", _called(calling(), result(id=None), DONE), "error", "FTB065"),
    ("a call that nobody answers", _called(calling(), ASK, DONE), "warning", "FTB066"),
    ("one of two calls is answered", _called(calling(call("a"), call("b")), result(id="a"), DONE), "warning", "FTB066"),
    ("a call of another tool", _called(calling(call(name="forecast"))), "warning", "FTB067"),
    ("a result in parts", _called(calling(), result([text("Rain"), text("y")]), DONE), "warning", "FTB068"),
    ("a function's result without a name", chat(ASK, {"role": "function", "content": "yes"}, DONE), "error", "FTB069"),
    ("a function_call that is a name", chat(ASK, assistant(None, function_call="rain")), "error", "FTB069"),
    # Images
    ("an image of the assistant", chat(ASK, assistant([image()])), "error", "FTB070"),
    ("an image in the system message", chat(system([image()]), ASK, DONE), "error", "FTB070"),
    ("an image from a tool", _called(calling(), result([image()]), DONE), "error", "FTB070"),
    ("an image's address as text", chat(user([{"type": "image_url", "image_url": "https://example.com/a.png"}]), DONE), "error", "FTB071"),
    ("an image without an address", chat(user([{"type": "image_url", "image_url": {"detail": "low"}}]), DONE), "error", "FTB071"),
    ("an image of nothing", chat(user([{"type": "image_url"}]), DONE), "error", "FTB071"),
    ("a path as address", chat(user([image("pictures/cat.png")]), DONE), "warning", "FTB072"),
    ("a path of Windows", chat(user([image("C:\\pictures\\cat.png")]), DONE), "warning", "FTB072"),
    ("an address at home", chat(user([image("http://localhost:8000/cat.png")]), DONE), "warning", "FTB072"),
    ("an address of a bucket", chat(user([image("s3://bucket/cat.png")]), DONE), "warning", "FTB072"),
    ("a GIF by its ending", chat(user([image("https://example.com/cat.gif?x=1")]), DONE), "warning", "FTB072"),
    ("a GIF in a data URL", chat(user([image(data_url("image/gif", GIF))]), DONE), "warning", "FTB073"),
    ("a GIF that says it is a PNG", chat(user([image(data_url("image/png", GIF))]), DONE), "warning", "FTB073"),
    ("a JPEG that says it is a PNG", chat(user([image(data_url("image/png", JPEG))]), DONE), "warning", "FTB073"),
    ("base64 with a hole", chat(user([image("data:image/png;base64,iVBORw0KGg o=")]), DONE), "warning", "FTB073"),
    ("base64 cut short", chat(user([image("data:image/png;base64,iVBORw0KGgoAA")]), DONE), "warning", "FTB073"),
    ("a data URL without base64", chat(user([image("data:image/png,abc")]), DONE), "warning", "FTB073"),
    ("11 MB of an image", chat(user([image(data_url("image/png", PNG, 11_000_000))]), DONE), "warning", "FTB073"),
    ("detail in another word", chat(user([image(detail="medium")]), DONE), "error", "FTB074"),
    ("detail in capitals", chat(user([image(detail="HIGH")]), DONE), "error", "FTB074"),
    ("eleven images in two messages", chat(user([image()] * 6), DONE, user([image()] * 5), DONE), "error", "FTB075"),
]  # fmt: skip

_BETTER, _WORSE = [assistant("Yes, lightly.")], [assistant("Rain is water.")]
_INPUT = {"messages": [ASK]}
_PAIR = {"input": _INPUT, "preferred_output": _BETTER, "non_preferred_output": _WORSE}


def _pair(**changed: Any) -> str:
    return json.dumps({**_PAIR, **changed})


_PREFERENCE: list[tuple[str, str, str, str | None]] = [
    ("two answers", _pair(), "ok", None),
    ("several turns before", preference(system(), ASK, DONE, user("And now?")), "ok", None),
    ("a call as the better answer", _pair(input={**_INPUT, "tools": TOOLS, "parallel_tool_calls": True}, preferred_output=[calling()]), "ok", None),
    ("an earlier answer without weight", preference(ASK, assistant("No.", weight=0), user("Sure?")), "ok", None),
    ("a tool's result last", preference(ASK, calling(), result()), "ok", None),
    ("a refusal as the better answer", _pair(preferred_output=[assistant([REFUSAL])]), "ok", None),
    ("chosen and rejected", '{"prompt": "Rain?", "chosen": "Yes", "rejected": "No"}', "error", "FTB023"),
    ("chosen and rejected messages", json.dumps({"chosen": [ASK, DONE], "rejected": [ASK, DONE]}), "error", "FTB023"),
    ("a chat line", chat(ASK, DONE), "error", "FTB024"),
    ("a key too many", _pair(score=0.7), "error", "FTB025"),
    ("a key too many in input", _pair(input={**_INPUT, "id": 1}), "error", "FTB025"),
    ("no input", json.dumps(_without(_PAIR, "input")), "error", "FTB080"),
    ("messages at the top", json.dumps({"messages": [ASK], **_without(_PAIR, "input")}), "error", "FTB080"),
    ("an input that is text", _pair(input="Rain?"), "error", "FTB080"),
    ("an input that is a list", _pair(input=[ASK]), "error", "FTB080"),
    ("an input without messages", _pair(input={"tools": TOOLS}), "error", "FTB080"),
    ("an input whose messages are text", _pair(input={"messages": "Rain?"}), "error", "FTB080"),
    ("an input with no messages in the list", _pair(input={"messages": []}), "error", "FTB080"),
    ("no better answer", json.dumps(_without(_PAIR, "preferred_output")), "error", "FTB081"),
    ("no worse answer", json.dumps(_without(_PAIR, "non_preferred_output")), "error", "FTB081"),
    ("an empty worse answer", _pair(non_preferred_output=[]), "error", "FTB081"),
    ("a worse answer in two messages", _pair(non_preferred_output=[DONE, DONE]), "error", "FTB081"),
    ("a worse answer that is text", _pair(non_preferred_output="Water."), "error", "FTB081"),
    ("a better answer not in a list", _pair(preferred_output=DONE), "error", "FTB081"),
    ("a null answer", _pair(preferred_output=None), "error", "FTB081"),
    ("the older names", json.dumps({"input": _INPUT, "preferred_completion": _BETTER, "non_preferred_completion": _WORSE}), "error", "FTB082"),
    ("an answer of the user's", _pair(preferred_output=[user("Yes")]), "error", "FTB083"),
    ("an answer without a role", _pair(preferred_output=[{"content": "Yes"}]), "error", "FTB028"),
    ("an answer without content", _pair(preferred_output=[assistant(None)]), "error", "FTB021"),
    ("an answer of white space", _pair(preferred_output=[assistant("  ")]), "warning", "FTB034"),
    ("the same answer twice", _pair(non_preferred_output=_BETTER), "warning", "FTB084"),
    ("the same answer, with another space at the end", _pair(non_preferred_output=[assistant("Yes, lightly. ")]), "warning", "FTB084"),
    ("tools beside input", _pair(tools=TOOLS), "error", "FTB085"),
    ("tools beside input and in it", _pair(input={**_INPUT, "tools": TOOLS}, tools=TOOLS), "error", "FTB085"),
    ("a weight of an answer that changes nothing", _pair(preferred_output=[assistant("Yes", weight=1)]), "error", "FTB086"),
    ("a weight of an answer", _pair(preferred_output=[assistant("Yes", weight=0)]), "error", "FTB086"),
    ("nobody asks", preference(system()), "warning", "FTB087"),
    ("the input ends with an answer", preference(ASK, DONE), "warning", "FTB088"),
    ("an image", preference(user([text(), image()])), "warning", "FTB089"),
    ("sound", preference(user([{"type": "input_audio", "input_audio": {}}])), "error", "FTB039"),
]  # fmt: skip

_REINFORCEMENT: list[tuple[str, str, str, str | None]] = [
    ("a question and its reference", chat(ASK, reference="yes"), "ok", None),
    ("a developer message", chat(system(role="developer"), ASK, reference="yes"), "ok", None),
    ("fields of every kind", chat(ASK, reference={"rain": True, "mm": [1, 2.5]}, tags=["a"], hard=None, weight=3), "ok", None),
    ("tools", chat(ASK, tools=TOOLS, reference="weather"), "ok", None),
    ("several turns before", chat(ASK, DONE, user("And now?"), reference="no"), "ok", None),
    ("calls before", chat(ASK, calling(), result(), user("In degrees?"), tools=TOOLS, reference="21"), "ok", None),
    ("an image", chat(user([text(), image()]), reference="cat"), "ok", None),
    ("no reference is advice only", chat(ASK), "ok", "FTB093"),
    ("a field with a space is advice only", chat(ASK, **{"the answer": "yes"}), "ok", "FTB092"),
    ("parallel_tool_calls as a field is advice only", chat(ASK, parallel_tool_calls=True, reference="yes"), "ok", "FTB092"),
    ("no messages", '{"reference": "yes"}', "error", "FTB022"),
    ("a preference line", preference(), "error", "FTB024"),
    ("prompt and completion", '{"prompt": "Rain?", "completion": "yes"}', "error", "FTB023"),
    ("a system message", chat(system(), ASK, reference="yes"), "error", "FTB090"),
    ("an answer at the end", chat(ASK, DONE, reference="yes"), "error", "FTB091"),
    ("a developer message at the end", chat(ASK, system(role="developer"), reference="yes"), "error", "FTB091"),
    ("a tool's result at the end", chat(ASK, calling(), result(), tools=TOOLS, reference="yes"), "error", "FTB091"),
    ("a function's message", chat({"role": "function", "name": "rain", "content": "yes"}, ASK, reference="yes"), "error", "FTB029"),
    ("null content", chat(user(None), reference="yes"), "error", "FTB021"),
    ("a file", chat(user([{"type": "file", "file": {}}]), reference="yes"), "error", "FTB039"),
    ("empty text", chat(user(""), reference="yes"), "warning", "FTB034"),
    ("a tool of another type", chat(ASK, tools=[{"type": "web_search"}], reference="yes"), "error", "FTB051"),
]  # fmt: skip

CASES = [
    Case(name, method, line, verdict, code)
    for method, table in (("supervised", _SUPERVISED), ("dpo", _PREFERENCE), ("reinforcement", _REINFORCEMENT))
    for name, line, verdict, code in table
]
