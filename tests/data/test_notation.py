"""Completions of every family of models are read into text, reasoning and calls by one table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ftbridge.data.notation import Reply, notation_of, read_reply, split_reasoning, tools_prompt, write_calls

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "tags": {"type": "array"}},
            },
        },
    }
]
WANTED = {"city": "Lima", "days": 3, "tags": ["a", "b"]}
AS_JSON = json.dumps(WANTED)

FAMILIES: dict[str, tuple[str, str]] = {
    # name: what its chat template's source holds, what a model of it writes for the call
    "hermes": ("<tool_call>", f'<tool_call>\n{{"name": "look_up", "arguments": {AS_JSON}}}\n</tool_call>'),
    "qwen3_coder": (
        "<tool_call> <function= <parameter=",
        "<tool_call>\n<function=look_up>\n<parameter=city>\nLima\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
        '<parameter=tags>\n["a", "b"]\n</parameter>\n</function>\n</tool_call>',
    ),
    "glm": (
        "<tool_call> <arg_key>",
        "<tool_call>look_up\n<arg_key>city</arg_key>\n<arg_value>Lima</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3"
        '</arg_value>\n<arg_key>tags</arg_key>\n<arg_value>["a", "b"]</arg_value>\n</tool_call>',
    ),
    "llama3": ("<|python_tag|>", f'{{"name": "look_up", "parameters": {AS_JSON}}}'),
    "llama3 with its tag": ("<|python_tag|>", f'<|python_tag|>{{"name": "look_up", "parameters": {AS_JSON}}}'),
    "llama3 as Python": ("<|python_tag|>", '[look_up(city="Lima", days=3, tags=["a", "b"])]'),
    "llama3 built-in": ("<|python_tag|>", '<|python_tag|>look_up.call(city="Lima", days=3, tags=["a", "b"])'),
    "mistral v3": ("[TOOL_CALLS]", f'[TOOL_CALLS] [{{"name": "look_up", "arguments": {AS_JSON}, "id": "abcdefghi"}}]'),
    "mistral v11": ("[TOOL_CALLS]", f"[TOOL_CALLS]look_up[CALL_ID]abcdefghi[ARGS]{AS_JSON}"),
    "mistral v13": ("[TOOL_CALLS]", f"[TOOL_CALLS]look_up[ARGS]{AS_JSON}"),
    "mistral with a bare name": ("[TOOL_CALLS]", f"[TOOL_CALLS]look_up{AS_JSON}"),
    "command_r": ("Action: ```json", f'Action: ```json\n[{{"tool_name": "look_up", "parameters": {AS_JSON}}}]\n```'),
    "command_a": (
        "<|START_ACTION|>",
        f'<|START_ACTION|>[{{"tool_call_id": "0", "tool_name": "look_up", "parameters": {AS_JSON}}}]<|END_ACTION|>',
    ),
    "granite": ("<|tool_call|>", f'<|tool_call|>[{{"name": "look_up", "arguments": {AS_JSON}}}]'),
    "phi4": (
        "<|tool_call|> <|/tool_call|>",
        f'<|tool_call|>[{{"name": "look_up", "arguments": {AS_JSON}}}]<|/tool_call|>',
    ),
    "phi4 functools": ("functools", f'functools[{{"name": "look_up", "arguments": {AS_JSON}}}]'),
    "deepseek v3": (
        "<｜tool▁calls▁begin｜> <｜tool▁call▁begin｜> <｜tool▁sep｜>",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look_up\n```json\n{AS_JSON}\n```"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    "deepseek v3.1": (
        "<｜tool▁calls▁begin｜> <｜tool▁call▁begin｜> <｜tool▁sep｜>",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look_up<｜tool▁sep｜>{AS_JSON}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    ),
    "deepseek v3.2": (
        "<｜DSML｜function_calls>",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="look_up">\n<｜DSML｜parameter name="city" string="true">Lima'
        '</｜DSML｜parameter>\n<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n<｜DSML｜parameter '
        'name="tags" string="false">["a", "b"]</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    ),
    "kimi_k2": (
        "<|tool_calls_section_begin|> <|tool_call_begin|> <|tool_call_argument_begin|>",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.look_up:0<|tool_call_argument_begin|>"
        f"{AS_JSON}<|tool_call_end|><|tool_calls_section_end|>",
    ),
    "minimax_m2": (
        "<minimax:tool_call>",
        '<minimax:tool_call>\n<invoke name="look_up">\n<parameter name="city">Lima</parameter>\n<parameter name="days">3'
        '</parameter>\n<parameter name="tags">["a", "b"]</parameter>\n</invoke>\n</minimax:tool_call>',
    ),
    "seed_oss": (
        "<seed:tool_call>",
        "<seed:tool_call>\n<function=look_up>\n<parameter=city>Lima</parameter>\n<parameter=days>3</parameter>\n"
        '<parameter=tags>["a", "b"]</parameter>\n</function>\n</seed:tool_call>',
    ),
    "functiongemma": (
        "<start_function_call>",
        "<start_function_call>call:look_up{city:<escape>Lima<escape>,days:3,tags:[<escape>a<escape>,<escape>b<escape>]}"
        "<end_function_call>",
    ),
    "gemma4": (
        "<|tool_call> call:",
        '<|tool_call>call:look_up{city:<|"|>Lima<|"|>,days:3,tags:[<|"|>a<|"|>,<|"|>b<|"|>]}<tool_call|>',
    ),
    "nemotron": ("<TOOLCALL>", f'<TOOLCALL>[{{"name": "look_up", "arguments": {AS_JSON}}}]</TOOLCALL>'),
    "hunyuan": (
        "<tool_calls> </tool_calls>",
        f'<tool_calls>[{{"name": "look_up", "arguments": {AS_JSON}}}]</tool_calls>',
    ),
    "glaive": ("<functioncall>", f'<functioncall> {{"name": "look_up", "arguments": {AS_JSON}}}'),
    "internlm": (
        "<|action_start|>",
        f'<|action_start|><|plugin|>\n{{"name": "look_up", "parameters": {AS_JSON}}}<|action_end|>',
    ),
    "olmo3": ("<function_calls>", '<function_calls>look_up(city="Lima", days=3, tags=["a", "b"])</function_calls>'),
    "lfm2": (
        "<|tool_call_start|>",
        '<|tool_call_start|>[look_up(city="Lima", days=3, tags=["a", "b"])]<|tool_call_end|>',
    ),
    "apertus": ("<|tools_prefix|>", f'<|tools_prefix|>[{{"look_up": {AS_JSON}}}]<|tools_suffix|>'),
    "function tags": ("<function=", f"<function=look_up>{AS_JSON}</function>"),
    "functionary": (">>>recipient", f"look_up\n{AS_JSON}"),
    "gpt-oss": (
        "<|channel|> <|message|>",
        f" to=functions.look_up<|channel|>commentary <|constrain|>json<|message|>{AS_JSON}<|call|>",
    ),
    "gpt-oss, recipient in its channel": (
        "<|channel|> <|message|>",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.look_up "
        f"<|constrain|>json<|message|>{AS_JSON}<|call|>",
    ),
    "xlam": ("", f'[{{"name": "look_up", "arguments": {AS_JSON}}}]'),
    "toolace": ("", '[look_up(city="Lima", days=3, tags=["a", "b"])]'),
}


def _calls(reply: Reply) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in reply.tool_calls]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_of_each_family_is_read(family: str) -> None:
    template, text = FAMILIES[family]
    reply = read_reply(text, notation_of(template), tools=TOOLS)
    assert _calls(reply) == [("look_up", WANTED)]
    assert reply.content == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_a_call_where_no_tools_were_offered(family: str) -> None:
    template, text = FAMILIES[family]
    assert not read_reply(text, notation_of(template), tools=()).tool_calls


CUT = [name for name in FAMILIES if not name.startswith("gpt-oss")]


@pytest.mark.parametrize("family", CUT)
def test_half_a_call_stays_text(family: str) -> None:
    template, text = FAMILIES[family]
    half = text[: text.index("Lima") + 2]
    reply = read_reply(half, notation_of(template), tools=TOOLS)
    assert (reply.content, reply.tool_calls) == (half, ())


def test_text_beside_calls_and_several_calls() -> None:
    template, text = FAMILIES["hermes"]
    reply = read_reply(f"I look.\n{text}\n{text}", notation_of(template), tools=TOOLS)
    assert reply.content == "I look."
    assert [call["id"] for call in reply.tool_calls] == ["call_0", "call_1"]


@pytest.mark.parametrize(
    ("text", "thinking_open", "content", "reasoning"),
    [
        ("<think>\n\n</think>\n\nLima.", False, "Lima.", None),
        ("<think>\nPeru.\n</think>\n\nLima.", False, "Lima.", "Peru."),
        ("Peru.\n</think>\n\nLima.", True, "Lima.", "Peru."),
        ("\n</think>\n\nLima.", True, "Lima.", None),
        ("Peru, which", True, "", "Peru, which"),
        ("</think>Lima.", False, "Lima.", None),
        ("<think>Peru, which", False, "", "Peru, which"),
        ("Lima.", False, "Lima.", None),
        (" Lima.\n", False, " Lima.\n", None),
        ("Say <think> to think.", False, "Say <think> to think.", None),
        ("<think>a</think>Say </think>", False, "Say </think>", "a"),
    ],
)
def test_reasoning_is_a_part_of_its_own(text: str, thinking_open: bool, content: str, reasoning: str | None) -> None:
    reply = read_reply(text, notation_of("<think> {{ content.split('</think>') }}"), thinking_open)
    assert (reply.content, reply.reasoning_content) == (content, reasoning)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("[THINK] [/THINK]", "[THINK]Peru.[/THINK]Lima."),
        (
            "<|START_THINKING|> <|END_THINKING|>",
            "<|START_THINKING|>Peru.<|END_THINKING|><|START_RESPONSE|>Lima.<|END_RESPONSE|>",
        ),
        ("<seed:think> </seed:think>", "<seed:think>Peru.</seed:think>Lima."),
        ("<|channel>thought\\n <channel|>", "<|channel>thought\nPeru.<channel|>Lima."),
        ("◁think▷ ◁/think▷", "◁think▷Peru.◁/think▷Lima."),
        (
            "<|channel|> <|message|>",
            "<|channel|>analysis<|message|>Peru.<|end|><|start|>assistant<|channel|>final<|message|>Lima.",
        ),
        ("plain", "<think>Peru.</think>\n\nLima."),
    ],
)
def test_each_family_marks_its_reasoning(template: str, text: str) -> None:
    if "RESPONSE" in text:
        template += " <|START_RESPONSE|> <|END_RESPONSE|>"
    assert read_reply(text, notation_of(template)) == Reply("Lima.", "Peru.")


def test_text_without_reasoning_is_not_touched() -> None:
    assert split_reasoning(" a\n") == (None, " a\n")
    assert split_reasoning("<think>\nb\n</think>\n\na") == ("\nb\n", "a")
    assert read_reply("<think> is a mark") == Reply("<think> is a mark")


def test_values_have_the_types_of_the_schema() -> None:
    text = "<tool_call><function=look_up><parameter=city>007</parameter><parameter=days>7</parameter></function></tool_call>"
    reply = read_reply(text, notation_of("<tool_call> <function= <parameter="), tools=TOOLS)
    assert _calls(reply) == [("look_up", {"city": "007", "days": 7})]


@pytest.mark.parametrize("text", ['{"name": "Ada", "arguments": []}', "[1, 2]", "print(x=1)", "Action: run", "a >>> b"])
def test_an_answer_that_resembles_a_call_of_no_offered_tool_is_text(text: str) -> None:
    assert read_reply(text, notation_of(""), tools=TOOLS) == Reply(text)


def test_a_template_without_a_place_for_tools_has_a_prompt_and_a_notation() -> None:
    written = write_calls([{"function": {"name": "look_up", "arguments": AS_JSON}}])
    assert "look_up" in tools_prompt(TOOLS)
    assert "<tool_call>" in tools_prompt(TOOLS)
    assert _calls(read_reply(f"I look.\n{written}", notation_of(""), tools=TOOLS)) == [("look_up", WANTED)]
