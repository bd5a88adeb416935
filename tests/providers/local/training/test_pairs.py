"""Preference lines to tokens by a real template, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import DataError
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.models.load import load_tokenizer
from ftbridge.providers.local.training.pairs import Pair, encode_pairs
from support import preference_cases as cases
from support.sweep_templates import CASES, tokenizer_of


@pytest.fixture(scope="module")
def renderer(base_model_dir: Path) -> Renderer:
    return Renderer(load_tokenizer(base_model_dir))


def line(preferred: str = "Blue.", other: str = "It may be blue.", **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Colour of the sky?"}]
    return {
        "input": {"messages": messages, **more},
        "preferred_output": [{"role": "assistant", "content": preferred}],
        "non_preferred_output": [{"role": "assistant", "content": other}],
    }


def encoded(folder: Path, renderer: Renderer, *lines: dict[str, Any], **changes: Any) -> tuple[Any, list[Pair]]:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    (folder / "lines.json").write_text(json.dumps({"train": [f"train.jsonl:{n}" for n in range(1, len(lines) + 1)]}))
    split = encode_pairs(path, "train", renderer, cases.request(**changes))
    return split, list(split.examples)


def test_both_conversations_share_the_prompt_that_asks_and_end_their_turn_once(
    tmp_path: Path, renderer: Renderer
) -> None:
    _, (pair,) = encoded(tmp_path, renderer, line())
    prompt = renderer.prompt(list(map(_message, line()["input"]["messages"])))
    for side, text in zip(pair.sides, ("Blue.", "It may be blue."), strict=True):
        assert list(side.input_ids[: pair.prompt]) == prompt
        shown = renderer.tokenizer.decode(side.input_ids, skip_special_tokens=False)
        assert shown.count("<|im_start|>system") == 1, "one beginning"
        trained_ids = [token for token, flag in zip(side.input_ids, side.loss_mask, strict=True) if flag]
        assert renderer.tokenizer.decode(trained_ids) == f"{text}<|im_end|>"


@pytest.mark.parametrize("name", [name for name in CASES if "tools are always written" not in name])
@pytest.mark.parametrize("system", [False, True])
def test_by_every_template_both_completions_follow_one_prompt_and_end_their_turn_once(
    tmp_path: Path, name: str, system: bool
) -> None:
    """With a system message too, for which some templates have no role: its words are then in the prompt all the same."""
    tokenizer = tokenizer_of(CASES[name])
    renderer = Renderer(tokenizer)
    document = line()
    messages = document["input"]["messages"][0 if system else 1 :]
    _, (pair,) = encoded(tmp_path, renderer, document | {"input": {"messages": messages}})
    prompt = renderer.prompt(list(map(_message, messages)))
    assert not system or "Be brief." in tokenizer.decode(prompt)
    for side, text in zip(pair.sides, ("Blue.", "It may be blue."), strict=True):
        assert list(side.input_ids[: pair.prompt]) == prompt
        ids = [token for token, flag in zip(side.input_ids, side.loss_mask, strict=True) if flag]
        assert not any(side.loss_mask[: pair.prompt])
        assert renderer.completions.text_of(ids, prompt).strip() == text
        ends = [token for token in ids if token in renderer.completions.ends_after(prompt)]
        assert len(ends) == (0 if renderer.completions.stop_strings else 1), tokenizer.decode(ids)
        begins = tokenizer.bos_token_id
        assert begins is None or list(side.input_ids).count(begins) <= 1


def test_earlier_answers_in_the_input_are_read_and_not_trained(tmp_path: Path, renderer: Renderer) -> None:
    turns = [
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}, {"role": "user", "content": "Sky?"},
    ]  # fmt: skip
    _, (pair,) = encoded(tmp_path, renderer, line() | {"input": {"messages": turns}})
    trained_ids = [token for token, flag in zip(pair.chosen.input_ids, pair.chosen.loss_mask, strict=True) if flag]
    assert renderer.tokenizer.decode(trained_ids) == "Blue.<|im_end|>"


def test_pairs_that_teach_nothing_or_contradict_each_other_are_told_by_line(tmp_path: Path, renderer: Renderer) -> None:
    split, pairs = encoded(tmp_path, renderer, line(), line("Yes.", "Yes."), line("It may be blue.", "Blue."))
    assert len(pairs) == 3
    assert "1 train pairs have the same completion twice and teach nothing: " in split.notes[0]
    assert "train.jsonl:2" in split.notes[0]
    assert "2 train pairs are there in both orders and contradict each other" in split.notes[1]


def test_nothing_but_identical_completions_is_refused(tmp_path: Path, renderer: Renderer) -> None:
    with pytest.raises(DataError, match="no preference to learn"):
        encoded(tmp_path, renderer, line("Yes.", "Yes."), line("No.", "No."))


def test_one_pair_is_enough_to_train_on(tmp_path: Path, renderer: Renderer) -> None:
    split, pairs = encoded(tmp_path, renderer, line())
    assert (len(pairs), split.notes) == (1, ())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (line(**{}) | {"preferred_output": [{"role": "assistant", "content": "Blue.", "weight": 1}]}, "gives a message a weight"),
        (line(**{}) | {"input": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}]}}, "image"),
        (line(tools=[{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]), "look_up"),
    ],
    ids=["weight", "image", "tools"],
)  # fmt: skip
def test_what_cannot_be_rendered_is_refused_with_its_line(
    tmp_path: Path, renderer: Renderer, bad: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words) as refusal:
        encoded(tmp_path, renderer, line(), bad)
    assert "train.jsonl:2" in str(refusal.value)


def test_reasoning_before_one_completion_alone_is_refused_where_it_changes_the_prompt(
    tmp_path: Path, base_model_dir: Path
) -> None:
    tokenizer = load_tokenizer(base_model_dir)
    tokenizer.chat_template = (
        "{%- for message in messages %}<|im_start|>{{ message.role }}\n"
        "{%- if message.reasoning_content %}<think>\n{{ message.reasoning_content }}\n</think>\n{% endif %}"
        "{{ message.content }}<|im_end|>\n{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    )
    thought = {"role": "assistant", "content": "Blue.", "reasoning_content": "Skies scatter light."}
    with pytest.raises(DataError, match="another prompt before the preferred output than before the other"):
        encoded(tmp_path, Renderer(tokenizer), line() | {"preferred_output": [thought]})


def test_a_pair_is_refused_or_dropped_whole_when_one_side_is_too_long(tmp_path: Path, renderer: Renderer) -> None:
    long = line("Blue.", "It may be blue. " * 40)
    with pytest.raises(DataError, match=r"1 train pairs are longer than local.max_length = 64") as refusal:
        encoded(tmp_path, renderer, line(), long, max_length=64)
    assert "A pair is never cut" in str(refusal.value.hint)
    split, pairs = encoded(tmp_path, renderer, line(), long, max_length=64, overlength="drop")
    assert len(pairs) == 1
    assert "train.jsonl:2" in split.dropped[0]
    with pytest.raises(DataError, match="no train pair is left"):
        encoded(tmp_path, renderer, long, max_length=64, overlength="drop")


@pytest.mark.parametrize(
    "outputs", [[], [{"role": "assistant", "content": "a"}] * 2, [{"role": "user", "content": "a"}]]
)
def test_an_output_is_one_message_of_the_assistant(outputs: list[dict[str, str]]) -> None:
    from ftbridge.data.examples import ExampleError, parse_example

    with pytest.raises(ExampleError, match="one assistant message"):
        parse_example(line() | {"preferred_output": outputs}, "dpo")


def _message(document: dict[str, Any]) -> Any:
    from ftbridge.data.examples import Message

    return Message.model_validate(document)
