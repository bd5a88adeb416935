"""The mask for any template, against an oracle that never looks at spans: what is trained must read as the answers do."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from templates import FAMILIES, LINES, STRING_CALLS, THINKING, TURNS
from transformers import AutoTokenizer

from ftbridge.data.examples import parse_example
from ftbridge.providers.local.rendering import Renderer, RenderError, explain

TRIMS = {"headers", "turns"}


@pytest.fixture(scope="module")
def renderers(base_model_dir: Path) -> dict[str, Renderer]:
    own = AutoTokenizer.from_pretrained(base_model_dir)
    made = {"own": Renderer(own)}
    for name, (template, _, tokens) in FAMILIES.items():
        tokenizer = copy.deepcopy(own)
        tokenizer.add_special_tokens({"additional_special_tokens": [*tokens]} if tokens else {})
        tokenizer.chat_template = template
        made[name] = Renderer(tokenizer)
    return made


def with_template(renderer: Renderer, template: str) -> Renderer:
    tokenizer = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = template
    return Renderer(tokenizer)


def chat(*turns: str, system: str | None = None, **last: Any) -> Any:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for index, text in enumerate(turns):
        messages.append({"role": "assistant" if index % 2 else "user", "content": text})
    messages[-1].update(last)
    return parse_example({"messages": messages})


def trained(renderer: Renderer, example: Any) -> list[str]:
    return [text for text, flag in explain(renderer.example(example), renderer.tokenizer) if flag]


CASES = {
    "one turn": ["Capital of France?", "Paris."],
    "three turns": ["a", "first answer", "b", "second answer", "c", "third"],
    "the same answer twice": ["again", "yes", "again", "yes"],
    "the answer stands in the question": ["say yes", "yes", "yes", "say yes"],
    "words of the template": ["assistant", "assistant", "user\nassistant: hi", "<|im_start|> user"],
    "emoji and combining characters": ["🙂 e\u0301", "e\u0301🏳️‍🌈 ok", "ñ", "Größe 日本"],
    "numbers and json": ["1 2 3", '{"queue": "billing", "order": null}'],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ["own", *FAMILIES])
def test_what_is_trained_is_each_answer_and_its_end_of_turn(
    renderers: dict[str, Renderer], family: str, case: str
) -> None:
    renderer, answers = renderers[family], CASES[case][1::2]
    end = FAMILIES[family][1] if family in FAMILIES else "<|im_end|>"
    if family == "thinking":
        answers = [*answers[:-1], f"<think>\n\n</think>\n\n{answers[-1]}"]
    got = trained(renderer, chat(*CASES[case]))
    if family == "inst":  # this family writes a space before each answer
        got = [text.removeprefix(" ") for text in got]
    assert got == [f"{answer}{end}" for answer in answers]


@pytest.mark.parametrize("family", ["own", *FAMILIES])
def test_the_prompt_is_a_prefix_and_the_first_trained_token_comes_right_after(
    renderers: dict[str, Renderer], family: str
) -> None:
    renderer = renderers[family]
    for answer in ("Paris.", "  two spaces", "\n\nlines"):
        example = chat("Capital?", answer)
        rendered, prompt = renderer.example(example), renderer.prompt(example.prompt)
        if family == "inst" or (family in TRIMS and answer != "Paris."):
            continue  # a space of the template's own belongs to the answer's first token; trimmed text is another text
        assert rendered.input_ids[: len(prompt)] == prompt
        assert rendered.trained.index(True) == len(prompt)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20),
        min_size=2,
        max_size=2,
    )
)
def test_any_text_is_trained_whole_or_refused_with_a_reason(renderers: dict[str, Renderer], turns: list[str]) -> None:
    for family in ("own", "chatml", "marked", "dated"):
        renderer = renderers[family]
        try:
            rendered = renderer.example(chat("q", *turns[:1], "r", turns[1]))
        except RenderError:
            continue
        text = "".join(text for text, flag in explain(rendered, renderer.tokenizer) if flag)
        whole = renderer.tokenizer.decode(
            renderer.tokenizer("".join(f"{turn}<|im_end|>" for turn in turns))["input_ids"]
        )
        assert text == whole


def test_messages_of_weight_0_are_read_and_not_trained(renderers: dict[str, Renderer]) -> None:
    example = parse_example(
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "wrong", "weight": 0},
                {"role": "user", "content": "b"},
                {"role": "assistant", "content": "right", "weight": 1},
            ]
        }
    )
    for family in ("own", "chatml", "headers", "turns"):
        (text,) = trained(renderers[family], example)
        assert text.startswith("right")
        pieces = "".join(text for text, _ in explain(renderers[family].example(example), renderers[family].tokenizer))
        assert "wrong" in pieces


def test_the_end_of_turn_is_known_and_never_the_padding_by_id(renderers: dict[str, Renderer]) -> None:
    own = renderers["own"]
    assert own.tokenizer.pad_token_id == own.tokenizer.eos_token_id  # the classic trap is set
    rendered = own.example(chat("a", "b"))
    last = max(place for place, flag in enumerate(rendered.trained) if flag)
    assert rendered.input_ids[last] in own.end_of_turn
    eot = renderers["headers"].tokenizer.convert_tokens_to_ids("<|eot|>")
    assert eot in renderers["headers"].end_of_turn


TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]


def tool_chat(arguments: Any) -> Any:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    return parse_example(
        {
            "messages": [
                {"role": "user", "content": "Weather in Oslo?"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "call_1", "content": "3 degrees"},
                {"role": "assistant", "content": "It is 3 degrees."},
            ],
            "tools": TOOLS,
        }
    )


@pytest.mark.parametrize("arguments", ['{"city": "Oslo"}', {"city": "Oslo"}], ids=["as text", "as object"])
@pytest.mark.parametrize(
    ("template", "written"),
    [
        (THINKING, '{"name": "get_weather", "arguments": {"city": "Oslo"}}'),
        (STRING_CALLS, '[call get_weather {"city": "Oslo"}]'),
    ],
    ids=["object template", "text template"],
)
def test_tool_calls_are_trained_in_the_form_the_template_wants(
    renderers: dict[str, Renderer], template: str, written: str, arguments: Any
) -> None:
    renderer = with_template(renderers["own"], template)
    calls, answer = trained(renderer, tool_chat(arguments))
    assert written in calls
    assert '\\"' not in calls
    assert "It is 3 degrees.<|im_end|>" in answer
    read = "".join(
        text for text, flag in explain(renderer.example(tool_chat(arguments)), renderer.tokenizer) if not flag
    )
    assert "3 degrees" in read
    assert "get_weather" in read


def test_earlier_reasoning_that_the_template_drops_is_not_looked_for(renderers: dict[str, Renderer]) -> None:
    example = chat("a", "<think>\nhm\n</think>\n\none", "b", "<think>\nwell\n</think>\n\ntwo")
    first, second = trained(renderers["thinking"], example)
    assert first == "one<|im_end|>"
    assert second == "<think>\nwell\n</think>\n\ntwo<|im_end|>"


def test_a_system_message_the_template_refuses_goes_before_the_first_user_message(
    renderers: dict[str, Renderer],
) -> None:
    renderer = with_template(renderers["turns"], TURNS)
    example = chat("Hello", "Hi", system="Be brief.")
    text = "".join(text for text, _ in explain(renderer.example(example), renderer.tokenizer))
    assert "Be brief.\n\nHello" in text
    assert "no system role" in renderer.notes[0]


@pytest.mark.parametrize(
    ("family", "document", "reason"),
    [
        ("own", tool_chat("{}").model_dump(exclude_none=True), "tools, which this model's chat template does not render"),
        ("inst", {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}, "alternate"),
        ("thinking", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{oops"}}]}]}, "not JSON"),
        ("own", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, {"role": "assistant", "content": "c"}]}, "only text trains"),
    ],
)  # fmt: skip
def test_what_a_template_cannot_express_is_refused_with_the_reason(
    renderers: dict[str, Renderer], family: str, document: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RenderError, match=reason):
        renderers[family].example(parse_example(document))


def test_a_template_that_loses_the_answer_is_refused(renderers: dict[str, Renderer]) -> None:
    silent = with_template(renderers["own"], LINES.replace("{{ m.content }}", "{{ m.content[:3] }}"))
    with pytest.raises(RenderError, match=r"messages\[1\]"):
        silent.example(chat("question", "a long answer"))


def test_ten_thousand_short_chats_render_in_seconds(renderers: dict[str, Renderer]) -> None:
    examples = [chat(f"question {n}?", f"answer {n}.") for n in range(1000)]
    began = time.monotonic()
    for example in examples:
        renderers["own"].example(example)
    assert (time.monotonic() - began) * 10 < 60
