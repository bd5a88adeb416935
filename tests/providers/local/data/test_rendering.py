"""The mask for any template, against an oracle that never looks at spans: what is trained must read as the answers do."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ftbridge.data.examples import Message, parse_example
from ftbridge.providers.local.data.preview import explain
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.spans import Spans
from ftbridge.providers.local.data.template import RenderError
from support.templates import (
    CHATML,
    FAMILIES,
    INST,
    LATE_SYSTEM_LOST,
    LINES,
    NINE,
    NO_END,
    PLAIN_END,
    REASONS,
    STRING_CALLS,
    THINKING,
    TURNS,
)


@pytest.fixture(scope="module")
def renderers(base_model_dir: Path) -> dict[str, Renderer]:
    extra = AutoTokenizer.from_pretrained(base_model_dir)
    by_name = {"own": Renderer(extra)}
    for name, (template, _, tokens) in FAMILIES.items():
        tokenizer = copy.deepcopy(extra)
        tokenizer.add_special_tokens({"additional_special_tokens": [*tokens]} if tokens else {})
        tokenizer.chat_template = template
        by_name[name] = Renderer(tokenizer)
    return by_name


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


def trained_texts(renderer: Renderer, example: Any) -> list[str]:
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
    renderer, replies = renderers[family], CASES[case][1::2]
    end = FAMILIES[family][1] if family in FAMILIES else "<|im_end|>"
    got = trained_texts(renderer, chat(*CASES[case]))
    if family == "inst":  # this family writes a space before each answer
        got = [text.removeprefix(" ") for text in got]
    assert got == [f"{reply}{end}" for reply in replies]


@pytest.mark.parametrize("family", ["own", *FAMILIES])
def test_every_prompt_is_a_prefix_and_what_is_trained_comes_right_after(
    renderers: dict[str, Renderer], family: str
) -> None:
    if family == "thinking":  # it writes an empty block before the last answer alone
        example = chat("Capital?", "Paris.")
        assert_prompts_are_prefixes(renderers[family], example)
        prompt = renderers[family].prompt(example.prompt)
        assert renderers[family].tokenizer.decode(prompt).endswith("<think>\n\n</think>\n\n")
        renderers[family].example(chat("Capital?", "Paris.", "And?", "Rome."))
        assert "each of them is trained in a separate sequence" in "".join(renderers[family].notes)
        return
    for replies in (("Paris.", "Rome."), ("  two spaces", "  two spaces"), ("\n\nlines\n", "\nmore"), ("", "x")):
        assert_prompts_are_prefixes(renderers[family], chat("Capital?", replies[0], "And?", replies[1]))


def assert_prompts_are_prefixes(renderer: Renderer, example: Any) -> None:
    rendered = renderer.example(example)
    for index, message in enumerate(example.messages):
        if message.role == "assistant":
            prompt = renderer.prompt(example.messages[:index], example.tools or ())
            assert rendered.input_ids[: len(prompt)] == prompt
            assert rendered.loss_mask[len(prompt) - 1 : len(prompt) + 1] == [False, True]


@pytest.mark.parametrize("family", ["own", "chatml", "turns", "dated", "marked", "reasons"])
def test_ordinary_answers_have_the_tokens_of_the_whole_text(renderers: dict[str, Renderer], family: str) -> None:
    renderer = renderers[family]
    example = chat("Capital of France?", "Paris.", "And 2 + 2?", "It is 4 🙂.")
    rendered = renderer.example(example)
    messages = [{"role": message.role, "content": message.text} for message in example.messages]
    text = renderer.tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered.input_ids == renderer.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_tokens_do_not_depend_on_what_is_trained(renderers: dict[str, Renderer]) -> None:
    document = chat("a", "\n\nfirst", "b", "\nsecond").model_dump(exclude_unset=True)
    both = renderers["own"].example(parse_example(document))
    document["messages"][1]["weight"] = 0
    assert renderers["own"].example(parse_example(document)).input_ids == both.input_ids


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20),
        min_size=2,
        max_size=2,
    )
)
def test_any_text_is_trained_whole_right_after_its_prompt(renderers: dict[str, Renderer], turns: list[str]) -> None:
    for family in ("own", "chatml", "marked", "dated", "no prompt"):
        renderer = renderers[family]
        example = chat("q", *turns[:1], "r", turns[1])
        assert_prompts_are_prefixes(renderer, example)
        rendered = renderer.example(example)
        text = "".join(text for text, flag in explain(rendered, renderer.tokenizer) if flag)
        complete = renderer.tokenizer.decode(
            renderer.tokenizer("".join(f"{turn}<|im_end|>" for turn in turns))["input_ids"]
        )
        assert text == complete


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
        (text,) = trained_texts(renderers[family], example)
        assert text.startswith("right")
        pieces = "".join(text for text, _ in explain(renderers[family].example(example), renderers[family].tokenizer))
        assert "wrong" in pieces


def test_the_end_of_turn_is_known_and_never_the_padding_by_id(renderers: dict[str, Renderer]) -> None:
    extra = renderers["own"]
    assert extra.tokenizer.pad_token_id == extra.tokenizer.eos_token_id  # the classic trap is set
    rendered = extra.example(chat("a", "b"))
    last = max(where for where, flag in enumerate(rendered.loss_mask) if flag)
    assert rendered.input_ids[last] in extra.completions.end_of_turn
    eot = renderers["headers"].tokenizer.convert_tokens_to_ids("<|eot|>")
    assert eot in renderers["headers"].completions.end_of_turn


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
    calls, reply = trained_texts(renderer, tool_chat(arguments))
    assert written in calls
    assert '\\"' not in calls
    assert "It is 3 degrees.<|im_end|>" in reply
    read = "".join(
        text for text, flag in explain(renderer.example(tool_chat(arguments)), renderer.tokenizer) if not flag
    )
    assert "3 degrees" in read
    assert "get_weather" in read


def test_earlier_reasoning_that_the_template_drops_is_not_looked_for(renderers: dict[str, Renderer]) -> None:
    example = chat("a", "<think>\nhm\n</think>\n\none", "b", "<think>\nwell\n</think>\n\ntwo")
    first, second = trained_texts(renderers["thinking"], example)
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
        ("own", tool_chat("{}").model_dump(exclude_none=True), "tool calls, which this model's chat template does not render"),
        ("inst", {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}, "alternate"),
        ("thinking", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{oops"}}]}]}, "not JSON"),
        ("own", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, {"role": "assistant", "content": "c"}]}, "reads text only"),
    ],
)  # fmt: skip
def test_what_a_template_cannot_express_is_refused_with_the_reason(
    renderers: dict[str, Renderer], family: str, document: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RenderError, match=reason):
        renderers[family].example(parse_example(document))


def test_a_template_that_loses_the_answer_is_refused(renderers: dict[str, Renderer]) -> None:
    silent = with_template(
        renderers["own"],
        LINES.replace("{{ m.content }}", "{{ m.content[:3] if m.role == 'assistant' else m.content }}"),
    )
    with pytest.raises(RenderError, match=r"messages\[1\]"):
        silent.example(chat("question", "a long answer"))


def test_reasoning_that_the_template_asks_with_and_never_writes_is_left_out_and_told(
    renderers: dict[str, Renderer],
) -> None:
    renderer = with_template(renderers["own"], REASONS)
    example = chat("a", "<think>hm</think>one")
    assert trained_texts(renderer, example) == ["one<|im_end|>"]
    assert renderer.tokenizer.decode(renderer.prompt(example.prompt)).endswith("<|im_start|>assistant\n")
    assert "'<think>\\n'" in renderer.notes[0]
    assert "leaves out the reasoning" in renderer.notes[1]


def test_reasoning_content_reaches_templates_that_write_it(renderers: dict[str, Renderer]) -> None:
    renderer = with_template(renderers["own"], THINKING.replace("else '' %}", "else (m.reasoning_content or '') %}"))
    assert trained_texts(renderer, chat("a", "one", reasoning_content="because"))[0].startswith(
        "<think>\nbecause\n</think>"
    )


def test_a_last_answer_the_template_does_not_end_is_ended_with_the_end_of_sequence(
    renderers: dict[str, Renderer],
) -> None:
    renderer = with_template(renderers["own"], NO_END)
    assert trained_texts(renderer, chat("a", "one", "b", "two")) == ["one", "two<|im_end|>"]
    assert "does not end the last completion" in renderer.notes[0]


def test_ends_that_cannot_stop_generation_are_told_before_training(renderers: dict[str, Renderer]) -> None:
    assert "completions may not stop" in with_template(renderers["own"], PLAIN_END).notes[0]


def test_white_space_after_an_answer_ends_nothing_and_the_end_of_sequence_does(renderers: dict[str, Renderer]) -> None:
    lines = with_template(renderers["own"], LINES)
    example = chat("a", "one\ntwo", "b", "three\nfour")
    assert [explain(one, lines.tokenizer)[:2] for one in lines.sequences(example)] == [
        [("user: a\nassistant: one\ntwo\nuser: b\nassistant: ", False), ("three\nfour<|im_end|>", True)],
        [("user: a\nassistant: ", False), ("one\ntwo<|im_end|>", True)],
    ]
    assert lines.completions.end_of_turn == {lines.tokenizer.eos_token_id}
    assert not lines.completions.stop_strings


def test_deprecated_functions_become_tools_and_tool_results(renderers: dict[str, Renderer]) -> None:
    example = parse_example(
        {
            "messages": [
                {"role": "user", "content": "Weather in Oslo?"},
                {"role": "assistant", "content": None, "function_call": {"name": "get_weather", "arguments": "{}"}},
                {"role": "function", "name": "get_weather", "content": "3 degrees"},
                {"role": "assistant", "content": "It is 3 degrees."},
            ],
            "functions": [TOOLS[0]["function"]],
        }
    )
    call = {"id": "call_1_0", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    modern = tool_chat("{}").model_dump(exclude_unset=True)
    modern["messages"][1]["tool_calls"] = [call]
    assert renderers["thinking"].example(example) == renderers["thinking"].example(parse_example(modern))


def test_call_ids_are_shortened_for_templates_that_take_no_others(renderers: dict[str, Renderer]) -> None:
    calls, _ = trained_texts(with_template(renderers["own"], NINE), tool_chat('{"city": "Oslo"}'))
    assert '"arguments": {"city": "Oslo"}' in calls


@pytest.mark.parametrize(
    ("template", "document", "reason"),
    [
        (CHATML, {"messages": [{"role": "user", "content": "use get_weather"}, {"role": "assistant", "content": "c"}], "tools": TOOLS}, "offers the tool 'get_weather'"),
        (LATE_SYSTEM_LOST, {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "c"}]}, r"messages\[1\] \(role system\)"),
        (TURNS.replace("{{ m.content | trim }}", "{{ m.content[:9] }}"), {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "a long answer"}]}, r"messages\[2\]"),
    ],
    ids=["a tool named in the text alone", "a late system message", "an answer after a folded system message"],
)  # fmt: skip
def test_what_a_template_loses_is_refused_by_its_place_in_the_data(
    renderers: dict[str, Renderer], template: str, document: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RenderError, match=reason):
        with_template(renderers["own"], template).example(parse_example(document))


@pytest.mark.parametrize("scheme", ["first", "always"])
@pytest.mark.parametrize(("template", "ends"), [(LINES, ["", "</s>"]), (INST, ["</s>", "</s>"])], ids=["lines", "inst"])
def test_tokenizers_that_put_a_space_before_a_text_put_none_before_an_answer(
    scheme: str, template: str, ends: list[str]
) -> None:
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    bpe.train_from_iterator(["user: assistant: Paris is the capital [INST] q [/INST] one two\n"] * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = template
    renderer, example = Renderer(tokenizer), chat("q", "Paris", "q", "one two")
    space = " " if template == INST else ""  # this family writes one itself
    assert trained_texts(renderer, example) == [f"{space}Paris{ends[0]}", f"{space}one two{ends[1]}"]
    assert_prompts_are_prefixes(renderer, example)


def test_offsets_that_leave_out_white_space_do_not_hide_it_from_the_mask(renderers: dict[str, Renderer]) -> None:
    lines = with_template(renderers["own"], LINES)
    tokenizer = copy.deepcopy(lines.tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    assert Renderer(tokenizer).example(chat("a", " b \n ")) == lines.example(chat("a", " b \n "))


def test_ten_thousand_short_chats_render_in_seconds(renderers: dict[str, Renderer]) -> None:
    examples = [chat(f"question {n}?", f"answer {n}.") for n in range(1000)]
    began = time.monotonic()
    for example in examples:
        renderers["own"].example(example)
    assert (time.monotonic() - began) * 10 < 60


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ["own", *FAMILIES])
def test_answers_found_by_their_marks_lie_where_rendering_finds_them(
    renderers: dict[str, Renderer], family: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = renderers[family]
    turns = [*CASES[case], "last"][: (len(CASES[case]) // 2) * 2 + 1]
    messages = [Message(role="assistant" if where % 2 else "user", content=text) for where, text in enumerate(turns)]
    quick = renderer.prompt(messages)
    monkeypatch.setattr(Spans, "_plain", lambda *_: None)
    assert renderer.prompt(messages) == quick


def test_the_prompt_of_a_long_conversation_takes_no_longer_than_its_text(renderers: dict[str, Renderer]) -> None:
    turns = [f"{'Answer' if turn % 2 else 'Question'} number {turn}" for turn in range(401)]
    messages = [Message(role="assistant" if where % 2 else "user", content=text) for where, text in enumerate(turns)]
    began = time.monotonic()
    ids = renderers["own"].prompt(messages)
    assert time.monotonic() - began < 2
    assert len(ids) > 4000
