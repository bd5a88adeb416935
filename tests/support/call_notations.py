"""Calls as models of every family write them."""

from __future__ import annotations

import json

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
