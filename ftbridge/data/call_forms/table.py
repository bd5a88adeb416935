"""The table of forms. Order matters: a form with more signs stands before one whose signs it contains."""

from __future__ import annotations

from ftbridge.data.call_forms.calls import CallForm, after, between
from ftbridge.data.call_forms.json_forms import bare_json, json_block, llama, mistral
from ftbridge.data.call_forms.marked_forms import apertus, cohere, deepseek, functionary, kimi
from ftbridge.data.call_forms.python_forms import gemma, python_calls, pythonic
from ftbridge.data.call_forms.tag_forms import FUNCTION, functions, glm, invokes

HERMES = CallForm(
    "hermes",
    between("<tool_call>", "</tool_call>", json_block),
    ("<tool_call>",),
    ("<tool_call>",),
    (),
    ("</tool_call>",),
)
HARMONY = CallForm("harmony", after("<|call|>", json_block), ("<|call|>",), ("<|channel|>", "<|message|>"))

FORMS: tuple[CallForm, ...] = (
    CallForm(
        "kimi_k2",
        between("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", kimi),
        ("<|tool_calls_section_begin|>",),
        ("<|tool_calls_section_begin|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>"),
        (),
        ("<|tool_calls_section_end|>", "<|tool_call_end|>"),
    ),
    CallForm(
        "deepseek_dsml",
        between("<｜DSML｜function_calls>", "</｜DSML｜function_calls>", invokes),
        ("<｜DSML｜function_calls>",),
        ("｜DSML｜",),
        (),
        ("</｜DSML｜function_calls>", "｜DSML｜"),
    ),
    CallForm(
        "deepseek",
        between("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", deepseek),
        ("<｜tool▁calls▁begin｜>",),
        ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"),
        (),
        ("<｜tool▁calls▁end｜>", "<｜tool▁call▁end｜>"),
    ),
    CallForm(
        "minimax_m2",
        between("<minimax:tool_call>", "</minimax:tool_call>", invokes),
        ("<minimax:tool_call>",),
        ("<minimax:tool_call>",),
        (),
        ("</minimax:tool_call>",),
    ),
    CallForm(
        "seed_oss",
        between("<seed:tool_call>", "</seed:tool_call>", functions),
        ("<seed:tool_call>",),
        ("<seed:tool_call>",),
        (),
        ("</seed:tool_call>",),
    ),
    CallForm(
        "glm",
        between("<tool_call>", "</tool_call>", glm),
        ("<tool_call>",),
        ("<tool_call>", "<arg_key>"),
        (),
        ("</tool_call>", "</arg_key>", "<arg_value>", "</arg_value>"),
    ),
    CallForm(
        "qwen3_coder",
        between("<tool_call>", "</tool_call>", functions),
        ("<tool_call>",),
        ("<tool_call>", "<function=", "<parameter="),
        (),
        ("</tool_call>",),
        also=("function_tags",),
    ),
    CallForm(
        "gemma4",
        between("<|tool_call>", "<tool_call|>", gemma('<|"|>')),
        ("<|tool_call>",),
        ("<|tool_call>", "call:"),
        (),
        ("<tool_call|>", '<|"|>'),
    ),
    CallForm(
        "functiongemma",
        between("<start_function_call>", "<end_function_call>", gemma("<escape>")),
        ("<start_function_call>",),
        ("<start_function_call>",),
        (),
        ("<end_function_call>", "<escape>"),
    ),
    CallForm("mistral", mistral, ("[TOOL_CALLS]",), ("[TOOL_CALLS]",), (), ("[ARGS]", "[CALL_ID]", "[/TOOL_CALLS]")),
    CallForm(
        "cohere_action",
        between("<|START_ACTION|>", "<|END_ACTION|>", json_block),
        ("<|START_ACTION|>",),
        ("<|START_ACTION|>",),
        (),
        ("<|END_ACTION|>",),
    ),
    CallForm("command_r", cohere, ("Action:",), ("Action:", "```json")),
    CallForm(
        "nemotron",
        between("<TOOLCALL>", "</TOOLCALL>", json_block),
        ("<TOOLCALL>",),
        ("<TOOLCALL>",),
        (),
        ("</TOOLCALL>",),
    ),
    CallForm(
        "hunyuan",
        between("<tool_calls>", "</tool_calls>", json_block),
        ("<tool_calls>",),
        ("<tool_calls>", "</tool_calls>"),
        ("<tool_call>",),
        ("</tool_calls>",),
    ),
    CallForm(
        "granite", after("<|tool_call|>", json_block), ("<|tool_call|>",), ("<|tool_call|>",), ("<|/tool_call|>",)
    ),
    CallForm(
        "phi4",
        between("<|tool_call|>", "<|/tool_call|>", json_block),
        ("<|tool_call|>",),
        ("<|tool_call|>", "<|/tool_call|>"),
        (),
        ("<|/tool_call|>",),
    ),
    CallForm("phi4_functools", after("functools", json_block), ("functools[",), ("functools",)),
    CallForm("glaive", after("<functioncall>", json_block), ("<functioncall>",), ("<functioncall>",)),
    CallForm(
        "internlm",
        between("<|action_start|><|plugin|>", "<|action_end|>", json_block),
        ("<|action_start|>",),
        ("<|action_start|>",),
        (),
        ("<|plugin|>", "<|action_end|>"),
    ),
    CallForm(
        "olmo3",
        between("<function_calls>", "</function_calls>", lambda text, tools: python_calls(text)),
        ("<function_calls>",),
        ("<function_calls>",),
        (),
        ("</function_calls>",),
    ),
    CallForm(
        "lfm2",
        between("<|tool_call_start|>", "<|tool_call_end|>", lambda text, tools: python_calls(text)),
        ("<|tool_call_start|>",),
        ("<|tool_call_start|>",),
        (),
        ("<|tool_call_end|>",),
    ),
    CallForm(
        "apertus",
        between("<|tools_prefix|>", "<|tools_suffix|>", lambda text, tools: apertus(text)),
        ("<|tools_prefix|>",),
        ("<|tools_prefix|>",),
        (),
        ("<|tools_suffix|>",),
    ),
    HERMES,
    CallForm(
        "function_tags",
        lambda text, tools: (FUNCTION.sub("", text), functions(text, tools)),
        ("<function=",),
        ("<function=",),
    ),
    CallForm("functionary", functionary, (), (">>>", "recipient")),
    CallForm("llama3", llama, (), ("<|python_tag|>",), (), ("<|python_tag|>",), also=("pythonic",)),
    CallForm("llama3_json", llama, (), ('"name": ', '"parameters": '), (), ("<|python_tag|>",), also=("pythonic",)),
    CallForm("pythonic", pythonic, (), ("func_name1(",)),  # Llama 3.2 and 4, ToolACE
    CallForm("json", bare_json),  # xLAM, and models that answer in JSON of their own accord
)
"""Forms in the order in which they are tried. The marks of their families keep one from being read as another."""
