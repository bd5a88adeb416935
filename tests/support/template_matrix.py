"""The matrix of chat templates in docs/architectures.md: what each template of the sweep does, as the renderer finds it."""

from __future__ import annotations

from functools import cache

from ftbridge.data.examples import parse_example
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.template import RenderError
from support.sweep_templates import CASES, tokenizer_of

HEADER = """| template | like those of | thinking | tools | an answer ends with | earlier answers |
|---|---|---|---|---|---|"""

LIKE: dict[str, str] = {
    "marks": "ChatML, Zephyr, StableLM",
    "trims": "Gemma",
    "header names the role": "Llama 3",
    "a default system message": "Qwen 2, SmolLM2",
    "no system role, roles alternate": "Gemma 2",
    "the end is plain text": "Metharme",
    "an end of sequence after all": "Phi 3",
    "the last answer ends otherwise": "gpt-oss without channels",
    "an empty block before the last answer": "Qwen 3 without a switch",
    "a switch, a block in the last turn, calls": "Qwen 3",
    "asks with an opened block, writes a whole one": "Nemotron 3, QwQ",
    "asks with an opened block, writes a closed mark": "DeepSeek V3.1, GLM 4.6",
    "asks with an opened block, writes none": "DeepSeek R1",
    "asks with an empty block, writes reasoning": "Qwen 3.5 without thinking",
    "reasoning in the middle is dropped": "Granite 3.3, EXAONE 4",
    "channels": "gpt-oss",
    "a response within marks": "Cohere Command A",
    "calls as JSON within tags": "Hermes, Qwen 2.5",
    "calls as tags": "Qwen 3 Coder, Nemotron 3",
    "calls as keys and values, without an end": "GLM 4.5",
    "ids of nine letters, a list of calls": "Mistral v3",
    "a name and its arguments": "Mistral v11",
    "a call ends with a token of its own": "Llama 3.1",
    "arguments in a notation of its own": "FunctionGemma, Gemma 4",
    "sections with numbered calls": "Kimi K2",
    "a tag before JSON": "Llama 3.1 with built-in tools",
    "the system message with the last question": "Mistral v3, DeepSeek V2",
    "recipients": "functionary",
    "the system message before the last question, which nothing heads": "Mistral v2",
    "a result ends where more follows, and tools are always written": "Hermes 2 Pro",
    "contents in parts alone": "SmolVLM, LLaVA-NeXT",
    "white space ends a turn": "LLaVA 1.5, RWKV",
    "the header stands after everything, and a response within marks": "Command R7B",
    "text before calls that nothing marks": "Llama 4",
    "calls as Python within marks": "LFM2",
    "text beside a call stands in a channel of its own": "gpt-oss",
}
"""Published templates that have the property a template of the sweep was written for."""

_SWITCH, _WHOLE = "a switch, a block in the last turn, calls", "asks with an opened block, writes a whole one"
THINKS: dict[str, str] = {
    **dict.fromkeys(("qwen3", "qwen3_moe", "qwen3_5_text", "qwen3_5_moe_text", "glm4_moe", "smollm3"), _SWITCH),
    **dict.fromkeys(("nemotron_h",), _WHOLE),
    **dict.fromkeys(("deepseek_v3",), "asks with an opened block, writes a closed mark"),
    **dict.fromkeys(("gpt_oss",), "channels"),
    **dict.fromkeys(("granite", "granitemoehybrid", "exaone4"), "reasoning in the middle is dropped"),
    **dict.fromkeys(("llama", "qwen2", "qwen2_moe", "mistral", "mixtral"), "calls as JSON within tags"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), "no system role, roles alternate"),
    **dict.fromkeys(("phi3", "phimoe", "lfm2", "lfm2_moe", "llama4_text"), "marks"),
}
CALLS: dict[str, str] = {
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3"), "calls as JSON within tags"),
    **dict.fromkeys(("qwen3_5_text", "qwen3_5_moe_text", "nemotron_h"), "calls as tags"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "phi3"), "marks"),
    **dict.fromkeys(("mistral", "mixtral"), "ids of nine letters, a list of calls"),
    **dict.fromkeys(("lfm2", "lfm2_moe"), "calls as Python within marks"),
    "llama": "a tag before JSON",
    "llama4_text": "text before calls that nothing marks",
    "glm4_moe": "calls as keys and values, without an end",
    "gpt_oss": "text beside a call stands in a channel of its own",
    "cohere2": "the header stands after everything, and a response within marks",
    "kimi_linear": "sections with numbered calls",
}
"""Templates of the sweep that write reasoning and calls as a family's usual template does. Elsewhere the model's own decides."""


def rows() -> list[str]:
    """One row a template."""
    return [f"| {name} | {LIKE.get(name, '')} | {' | '.join(_cells(name))} |" for name in CASES]


def cells_of(family: str) -> str:
    """The cells for thinking and tools of a family's usual template."""
    thinking = _cells(THINKS[family])[0] if family in THINKS else "by its template"
    tools = _cells(CALLS[family])[1] if family in CALLS else "by its template"
    return f"{thinking} | {tools}"


@cache
def _cells(name: str) -> tuple[str, str, str, str]:
    renderer = Renderer(tokenizer_of(CASES[name]))
    template = renderer.modes.of(True)[0]
    if template._switches:
        thinking = "switch"
    elif template.reasoning_key and template.can_reason:
        thinking = "written"
    elif template.opens_reasoning(template.generation_prompt):
        thinking = "asked for"
    else:
        thinking = "closed" if template.notation.reasoning and not template.can_reason else "in the text"
        thinking = thinking if template.notation.reasoning and template.names_reasoning else "no"
    tools = template.notation.name if template.writes_tools and template.calls is not None else "no"
    end = renderer.completions.end_text.replace("|", "\\|").replace("\n", "⏎")
    return thinking, tools, f"`{end}`", _earlier(renderer)


def _earlier(renderer: Renderer) -> str:
    """Whether an earlier answer without reasoning is trained in the conversation's own sequence."""
    turns = [("user", "One?"), ("assistant", "Uno."), ("user", "Two?"), ("assistant", "Dos.")]
    document = {"messages": [{"role": role, "content": text} for role, text in turns]}
    for tools in (
        [],
        [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
    ):
        try:
            count = len(renderer.sequences(parse_example({**document, **({"tools": tools} if tools else {})})))
        except RenderError:
            continue
        return "one sequence" if count == 1 else "own sequences"
    return "refused"
