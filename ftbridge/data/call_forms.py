"""Forms of tool calls as text, one of each kind that chat templates write, each with its reader.

    marked JSON       <tool_call>{"name": …, "arguments": {…}}</tool_call>    [TOOL_CALLS][{…}]
    name, then JSON   [TOOL_CALLS]look_up[ARGS]{…}    <function=look_up>{…}</function>
    tags              <function=look_up><parameter=city>Lima</parameter></function>
    Python            [look_up(city="Lima")]    call:look_up{city:<|"|>Lima<|"|>}

A form reads all calls of a completion or raises `NotACall`: half a call is text.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Tools = Sequence[Mapping[str, Any]]


class Call(NamedTuple):
    """One call: arguments as JSON values, or the text where they are not JSON."""

    name: str
    arguments: Any
    id: str | None = None


class NotACall(ValueError):
    """A text that is not in this form."""


_Reader = Callable[[str, Tools], tuple[str, list[Call]]]


@dataclass(frozen=True)
class Form:
    """One form of calls.

    A completion with calls holds one of `openers`; a chat template of the form holds all of `signs`, and none of `not_signs`.
    `also` names forms that models of the family write as well. Without openers the whole completion must be calls.
    """

    name: str
    read: _Reader
    openers: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    not_signs: tuple[str, ...] = ()
    closers: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def has_marks(self) -> bool:
        """Whether a call can be told from text by a mark."""
        return bool(self.openers)

    @property
    def marks(self) -> tuple[str, ...]:
        """Tokens that belong to the form."""
        return (*self.openers, *self.signs, *self.closers)

    def is_written_in(self, template: str) -> bool:
        """Whether a chat template's source writes this form."""
        return (
            bool(self.signs)
            and all(sign in template for sign in self.signs)
            and not any(sign in template for sign in self.not_signs)
        )

    def write(self, calls: Sequence[Mapping[str, Any]]) -> str:
        """Calls in Hermes' form; the others are written by chat templates alone."""
        blocks = []
        for call in calls:
            function = call.get("function", call)
            arguments = json_or_text(function.get("arguments") or "{}")
            line = json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)
            blocks.append(f"<tool_call>\n{line}\n</tool_call>")
        return "\n".join(blocks)


def as_json(arguments: Any) -> str:
    """Arguments as JSON text; text that is not JSON stays as it is."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def whole_characters(text: str) -> str:
    """The text with U+FFFD for halves of characters, which models can write as JSON escapes and UTF-8 cannot hold."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def json_or_text(text: Any) -> Any:
    """JSON values of a text, or the text itself."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text.strip() or "{}")
    except (ValueError, RecursionError):
        return text.strip()


def _whole_json(text: str) -> Any:
    """JSON values of a text. Raises `NotACall` for a text that is not JSON, as one that was cut."""
    try:
        return json.loads(text.strip() or "{}")
    except (ValueError, RecursionError):
        raise NotACall from None


# JSON

_NAMES = ("name", "tool_name", "function_name", "tool", "function")
_ARGUMENTS = ("arguments", "parameters", "args", "input")
_IDS = ("id", "tool_call_id", "call_id")


def _call_of(document: Any) -> Call:
    if not isinstance(document, Mapping):
        raise NotACall
    inner = document.get("function")
    call = {**document, **inner} if isinstance(inner, Mapping) else document
    name = next((call[key] for key in _NAMES if isinstance(call.get(key), str)), None)
    if name is None:
        raise NotACall
    arguments = next((call[key] for key in _ARGUMENTS if key in call), None)
    if arguments is None:
        raise NotACall
    call_id = next((str(document[key]) for key in _IDS if isinstance(document.get(key), str | int)), None)
    return Call(name, json_or_text(arguments), call_id)


def _documents(text: str, separators: str = " \n\r\t;,") -> list[Any]:
    """All JSON documents of a text that holds nothing else but separators."""
    decoder, position = json.JSONDecoder(), 0
    documents: list[Any] = []
    while True:
        while position < len(text) and text[position] in separators:
            position += 1
        if position == len(text):
            return documents
        try:
            document, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            raise NotACall from None
        documents.append(document)


def _calls_in(text: str) -> list[Call]:
    documents = [one for each in _documents(text) for one in (each if isinstance(each, list) else [each])]
    if not documents:
        raise NotACall
    return [_call_of(document) for document in documents]


def _leading_calls(text: str) -> tuple[list[Call], str]:
    """Calls of the JSON document at the start of a text, and what follows it."""
    bare = text.lstrip()
    try:
        document, end = json.JSONDecoder().raw_decode(bare)
    except (ValueError, RecursionError):
        raise NotACall from None
    return [_call_of(one) for one in (document if isinstance(document, list) else [document])], bare[end:]


def _blocks(opening: str, closing: str, inner: Callable[[str, Tools], list[Call]]) -> _Reader:
    """A reader of blocks between two marks; the last may lack its closing mark, which may be the end of turn."""
    pattern = re.compile(re.escape(opening) + r"(.*?)(?:" + re.escape(closing) + r"|$)", re.DOTALL)

    def read(text: str, tools: Tools) -> tuple[str, list[Call]]:
        calls = [call for block in pattern.findall(text) for call in inner(block.strip(), tools)]
        return pattern.sub("", text), calls

    return read


def _tail(opening: str, inner: Callable[[str, Tools], list[Call]]) -> _Reader:
    """A reader of calls that go on from a mark to the end."""

    def read(text: str, tools: Tools) -> tuple[str, list[Call]]:
        before, separator, after = text.partition(opening)
        if not separator:
            raise NotACall
        return before, inner(after, tools)

    return read


def _json_block(text: str, tools: Tools) -> list[Call]:
    return _calls_in(text)


def _bare_json(text: str, tools: Tools) -> tuple[str, list[Call]]:
    """The whole completion is calls, perhaps within a fence of code."""
    fence = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", text, re.DOTALL)
    return "", _calls_in(fence[1] if fence else text)


# Mistral: a list of calls after the mark, or the mark, a name and its arguments for each call


def _mistral(text: str, tools: Tools) -> tuple[str, list[Call]]:
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
            calls_in_part, rest = _leading_calls(part)
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
            calls = _calls_in(text[start:])
        except NotACall:
            continue
        if all(call.name in names for call in calls):
            return text[:start], calls
    return _bare_json(text, tools)


def _leading_json(text: str) -> tuple[Any, str]:
    try:
        document, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        raise NotACall from None
    return document, text[end:]


# Llama: python_tag before JSON, JSON alone, or calls of built-in tools as Python


def _llama(text: str, tools: Tools) -> tuple[str, list[Call]]:
    before, separator, after = text.partition("<|python_tag|>")
    if not separator:
        return _json_at_the_end(text, tools)
    builtin = re.fullmatch(r"\s*([\w.]+)\.call\((.*)\)\s*", after, re.DOTALL)
    if builtin:
        return before, _python_calls(f"{builtin[1]}({builtin[2]})")
    try:
        return before, _calls_in(after)
    except NotACall:
        return before, [Call("code_interpreter", {"code": after.strip()})]


# Tags: Qwen3-coder, Nemotron, Seed, MiniMax, GLM

_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)(?:</parameter>|(?=<parameter=)|$)", re.DOTALL)
_SPACE = r"(?:｜DSML｜|\w+:)?"
_INVOKE = re.compile(rf'<{_SPACE}invoke name="?([^">]+)"?>(.*?)</{_SPACE}invoke>', re.DOTALL)
_NAMED = re.compile(
    rf'<{_SPACE}parameter name="?([^">]+?)"?(?: string="(true|false)")?>(.*?)</{_SPACE}parameter>', re.DOTALL
)
_GLM = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)


def _functions(text: str, tools: Tools) -> list[Call]:
    calls = []
    for name, body in _FUNCTION.findall(text):
        if body.strip().startswith("{"):
            calls.append(Call(name.strip(), _whole_json(body)))
            continue
        values = {key.strip(): _one_break(value) for key, value in _PARAMETER.findall(body)}
        calls.append(Call(name.strip(), _typed(name.strip(), values, tools)))
    if not calls:
        raise NotACall
    return calls


def invokes(text: str, tools: Tools) -> list[Call]:
    """Calls written as `<invoke name="look_up"><parameter name="city">Lima</parameter></invoke>`. Raises `NotACall`."""
    calls = []
    for name, body in _INVOKE.findall(text):
        parameters = _NAMED.findall(body)
        values = {key: _one_break(value) for key, _, value in parameters}
        typed = _typed(name, values, tools)
        typed |= {key: json_or_text(value) for key, is_text, value in parameters if is_text == "false"}
        typed |= {key: value for key, is_text, value in parameters if is_text == "true"}
        calls.append(Call(name, typed))
    if not calls:
        raise NotACall
    return calls


def _glm(text: str, tools: Tools) -> list[Call]:
    name = re.match(r"\s*([\w.\-]+)", text)
    if not name or text.lstrip().startswith("{"):
        return _calls_in(text)
    if _GLM.sub("", text[name.end() :]).strip():
        raise NotACall  # it was cut within an argument
    values = {key.strip(): _one_break(value) for key, value in _GLM.findall(text)}
    return [Call(name[1], _typed(name[1], values, tools))]


def _one_break(value: str) -> str:
    """A value without the one line break that layout puts on either side."""
    return value.removeprefix("\n").removesuffix("\n")


def _typed(name: str, values: Mapping[str, str], tools: Tools) -> dict[str, Any]:
    """Text values with the types of the tool's schema; without a schema, what reads as JSON other than text is that."""
    kinds = _kinds(name, tools)
    typed: dict[str, Any] = {}
    for key, value in values.items():
        kind = kinds.get(key)
        typed[key] = value if kind == {"string"} else _value(value, kind)
    return typed


def _value(value: str, kind: set[str] | None) -> Any:
    bare = value.strip()
    if bare in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[bare]
    try:
        document = json.loads(bare)
    except (ValueError, RecursionError):
        try:
            document = ast.literal_eval(bare) if bare[:1] in "[{(" else value
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return value if isinstance(document, str) or (kind and "string" in kind and document is not None) else document


def _kinds(name: str, tools: Tools) -> dict[str, set[str]]:
    for tool in tools:
        function = tool.get("function") or tool
        if function.get("name") != name:
            continue
        parameters = function.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        kinds = {}
        for key, schema in (properties if isinstance(properties, Mapping) else {}).items():
            kind = schema.get("type") if isinstance(schema, Mapping) else None
            if kind is None and isinstance(schema, Mapping) and isinstance(schema.get("enum"), list):
                kind = "string" if all(isinstance(one, str) for one in schema["enum"]) else None
            if kind is not None:
                kinds[key] = set(kind) if isinstance(kind, list) else {str(kind)}
        return kinds
    return {}


# A name, then JSON: DeepSeek, Kimi, functionary, Llama's function tags

_DEEPSEEK = re.compile(
    r"<｜tool▁call▁begin｜>(?:function)?(?:<｜tool▁sep｜>)?([^\n<]+?)(?:\n```(?:json)?\n|<｜tool▁sep｜>)(.*?)"
    r"(?:\n```)?\s*(?:<｜tool▁call▁end｜>|$)",
    re.DOTALL,
)
_KIMI = re.compile(
    r"<\|tool_call_begin\|>\s*([^<]+?)\s*<\|tool_call_argument_begin\|>(.*?)(?:<\|tool_call_end\|>|$)", re.DOTALL
)


def _deepseek(text: str, tools: Tools) -> list[Call]:
    calls = [Call(name.strip(), _whole_json(body)) for name, body in _DEEPSEEK.findall(text)]
    if not calls:
        raise NotACall
    return calls


def _kimi(text: str, tools: Tools) -> list[Call]:
    calls = []
    for name, body in _KIMI.findall(text):
        bare = re.sub(r":\d+$", "", name.removeprefix("functions."))
        calls.append(Call(bare, _whole_json(body), name))
    if not calls:
        raise NotACall
    return calls


def _functionary(text: str, tools: Tools) -> tuple[str, list[Call]]:
    """`>>>name⏎{…}` for each call; `all` is the text. The prompt ends with the first `>>>`."""
    calls, texts = [], []
    for part in (text if text.lstrip().startswith(">>>") else ">>>" + text).split(">>>")[1:]:
        name, _, body = part.partition("\n")
        if name.strip() == "all":
            texts.append(body)
        elif re.fullmatch(r"[\w.\-]+", name.strip()) and body.strip()[:1] == "{":
            calls.append(Call(name.strip(), _whole_json(body)))
        else:
            raise NotACall
    return "".join(texts), calls


# Python


def _pythonic(text: str, tools: Tools) -> tuple[str, list[Call]]:
    """The whole completion is a list of Python calls: `[look_up(city="Lima")]`."""
    return "", _python_calls(text)


def _python_calls(text: str) -> list[Call]:
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


def _gemma(quote: str) -> Callable[[str, Tools], list[Call]]:
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
    return _value(scalar.group(), None), scalar.end()


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


# The table. Order matters: a form with more signs stands before one whose signs it contains.


def _cohere(text: str, tools: Tools) -> tuple[str, list[Call]]:
    """Command R writes `Action: ```json [...]````; its `directly_answer` is not a tool."""
    match = re.search(r"Action:\s*```json\s*(.*?)\s*```", text, re.DOTALL)
    if not match:
        raise NotACall
    calls = [call for call in _calls_in(match[1]) if call.name not in ("directly_answer", "directly-answer")]
    return text[: match.start()], calls


HERMES = Form(
    "hermes",
    _blocks("<tool_call>", "</tool_call>", _json_block),
    ("<tool_call>",),
    ("<tool_call>",),
    (),
    ("</tool_call>",),
)
HARMONY = Form("harmony", _tail("<|call|>", _json_block), ("<|call|>",), ("<|channel|>", "<|message|>"))

FORMS: tuple[Form, ...] = (
    Form(
        "kimi_k2",
        _blocks("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", _kimi),
        ("<|tool_calls_section_begin|>",),
        ("<|tool_calls_section_begin|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>"),
        (),
        ("<|tool_calls_section_end|>", "<|tool_call_end|>"),
    ),
    Form(
        "deepseek_dsml",
        _blocks("<｜DSML｜function_calls>", "</｜DSML｜function_calls>", invokes),
        ("<｜DSML｜function_calls>",),
        ("｜DSML｜",),
        (),
        ("</｜DSML｜function_calls>", "｜DSML｜"),
    ),
    Form(
        "deepseek",
        _blocks("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", _deepseek),
        ("<｜tool▁calls▁begin｜>",),
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"),
        (),
        ("<｜tool▁calls▁end｜>", "<｜tool▁call▁end｜>"),
    ),
    Form(
        "minimax_m2",
        _blocks("<minimax:tool_call>", "</minimax:tool_call>", invokes),
        ("<minimax:tool_call>",),
        ("<minimax:tool_call>",),
        (),
        ("</minimax:tool_call>",),
    ),
    Form(
        "seed_oss",
        _blocks("<seed:tool_call>", "</seed:tool_call>", _functions),
        ("<seed:tool_call>",),
        ("<seed:tool_call>",),
        (),
        ("</seed:tool_call>",),
    ),
    Form(
        "glm",
        _blocks("<tool_call>", "</tool_call>", _glm),
        ("<tool_call>",),
        ("<tool_call>", "<arg_key>"),
        (),
        ("</tool_call>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
    Form(
        "qwen3_coder",
        _blocks("<tool_call>", "</tool_call>", _functions),
        ("<tool_call>",),
        ("<tool_call>", "<function=", "<parameter="),
        (),
        ("</tool_call>",),
        also=("function_tags",),
    ),
    Form(
        "gemma4",
        _blocks("<|tool_call>", "<tool_call|>", _gemma('<|"|>')),
        ("<|tool_call>",),
        ("<|tool_call>", "call:"),
        (),
        ("<tool_call|>", '<|"|>'),
    ),
    Form(
        "functiongemma",
        _blocks("<start_function_call>", "<end_function_call>", _gemma("<escape>")),
        ("<start_function_call>",),
        ("<start_function_call>",),
        (),
        ("<end_function_call>", "<escape>"),
    ),
    Form("mistral", _mistral, ("[TOOL_CALLS]",), ("[TOOL_CALLS]",), (), ("[ARGS]", "[CALL_ID]", "[/TOOL_CALLS]")),
    Form(
        "cohere_action",
        _blocks("<|START_ACTION|>", "<|END_ACTION|>", _json_block),
        ("<|START_ACTION|>",),
        ("<|START_ACTION|>",),
        (),
        ("<|END_ACTION|>",),
    ),
    Form("command_r", _cohere, ("Action:",), ("Action:", "```json")),
    Form(
        "nemotron",
        _blocks("<TOOLCALL>", "</TOOLCALL>", _json_block),
        ("<TOOLCALL>",),
        ("<TOOLCALL>",),
        (),
        ("</TOOLCALL>",),
    ),
    Form(
        "hunyuan",
        _blocks("<tool_calls>", "</tool_calls>", _json_block),
        ("<tool_calls>",),
        ("<tool_calls>", "</tool_calls>"),
        ("<tool_call>",),
        ("</tool_calls>",),
    ),
    Form("granite", _tail("<|tool_call|>", _json_block), ("<|tool_call|>",), ("<|tool_call|>",), ("<|/tool_call|>",)),
    Form(
        "phi4",
        _blocks("<|tool_call|>", "<|/tool_call|>", _json_block),
        ("<|tool_call|>",),
        ("<|tool_call|>", "<|/tool_call|>"),
        (),
        ("<|/tool_call|>",),
    ),
    Form("phi4_functools", _tail("functools", _json_block), ("functools[",), ("functools",)),
    Form("glaive", _tail("<functioncall>", _json_block), ("<functioncall>",), ("<functioncall>",)),
    Form(
        "internlm",
        _blocks("<|action_start|><|plugin|>", "<|action_end|>", _json_block),
        ("<|action_start|>",),
        ("<|action_start|>",),
        (),
        ("<|plugin|>", "<|action_end|>"),
    ),
    Form(
        "olmo3",
        _blocks("<function_calls>", "</function_calls>", lambda text, tools: _python_calls(text)),
        ("<function_calls>",),
        ("<function_calls>",),
        (),
        ("</function_calls>",),
    ),
    Form(
        "lfm2",
        _blocks("<|tool_call_start|>", "<|tool_call_end|>", lambda text, tools: _python_calls(text)),
        ("<|tool_call_start|>",),
        ("<|tool_call_start|>",),
        (),
        ("<|tool_call_end|>",),
    ),
    Form(
        "apertus",
        _blocks("<|tools_prefix|>", "<|tools_suffix|>", lambda text, tools: _apertus(text)),
        ("<|tools_prefix|>",),
        ("<|tools_prefix|>",),
        (),
        ("<|tools_suffix|>",),
    ),
    HERMES,
    Form(
        "function_tags",
        lambda text, tools: (_FUNCTION.sub("", text), _functions(text, tools)),
        ("<function=",),
        ("<function=",),
    ),
    Form("functionary", _functionary, (), (">>>", "recipient")),
    Form("llama3", _llama, (), ("<|python_tag|>",), (), ("<|python_tag|>",), also=("pythonic",)),
    Form("llama3_json", _llama, (), ('"name": ', '"parameters": '), (), ("<|python_tag|>",), also=("pythonic",)),
    Form("pythonic", _pythonic, (), ("func_name1(",)),  # Llama 3.2 and 4, ToolACE
    Form("json", _bare_json),  # xLAM, and models that answer in JSON of their own accord
)
"""Forms in the order in which they are tried. The marks of their families keep one from being read as another."""


def _apertus(text: str) -> list[Call]:
    """A list of objects with one key, the tool's name: `[{"look_up": {"city": "Lima"}}]`."""
    calls = []
    for document in _documents(text):
        for one in document if isinstance(document, list) else [document]:
            if not isinstance(one, Mapping) or len(one) != 1:
                raise NotACall
            ((name, arguments),) = one.items()
            calls.append(Call(str(name), arguments))
    return calls
