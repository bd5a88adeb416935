"""Tokens counted without transformers are the tokens that training sees: ids, masks, prompts and ends, for every template."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from ftbridge.data.examples import parse_example
from ftbridge.data.prepare import prepare
from ftbridge.errors import ModelUnavailable
from ftbridge.planning.local_tokens import local_tokens, renderer_of
from ftbridge.providers import resolve
from ftbridge.providers.local.data.encode import encode_split
from ftbridge.providers.local.data.light_tokenizer import LightTokenizer
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.template import RenderError
from ftbridge.providers.local.lower import lower
from ftbridge.providers.local.request import LocalRequest
from ftbridge.spec import JobSpec
from ftbridge.spec.sections import LocalSpec
from support.paths import REPOSITORY
from support.templates import FAMILIES

EXAMPLES = REPOSITORY / "examples" / "support-triage" / "train.jsonl"
CALL = {"id": "call00000", "type": "function", "function": {"name": "find", "arguments": '{"city": "Zürich"}'}}
TOOL = {
    "type": "function",
    "function": {"name": "find", "description": "x", "parameters": {"type": "object", "properties": {}}},
}
CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello — 你好 🙂"}]},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                  {"role": "user", "content": "c <|im_end|>"}, {"role": "assistant", "content": "  d\n"}]},
    {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
                  {"role": "tool", "tool_call_id": "call00000", "content": "here"}, {"role": "assistant", "content": "There."}], "tools": [TOOL]},
]  # fmt: skip


@pytest.fixture(scope="module")
def pair(base_model_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """Both renderers for a family of templates, on the same files."""

    def renderers(family: str) -> tuple[Renderer, Renderer]:
        tokenizer = AutoTokenizer.from_pretrained(base_model_dir)
        if family != "own":
            template, _, tokens = FAMILIES[family]
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.add_special_tokens({"additional_special_tokens": [*tokens]} if tokens else {})
            tokenizer.chat_template = template
        folder = tmp_path_factory.mktemp("light")
        tokenizer.save_pretrained(folder)
        return Renderer(AutoTokenizer.from_pretrained(folder)), Renderer(LightTokenizer(folder))

    return renderers


def outcome(renderer: Renderer, chat: dict[str, Any]) -> Any:
    try:
        return renderer.example(parse_example(chat))
    except RenderError as error:
        return str(error)


@pytest.mark.parametrize("family", ["own", *FAMILIES])
def test_ids_masks_and_ends_are_those_of_training(family, pair):
    heavy, light = pair(family)
    assert light.completions.end_of_turn == heavy.completions.end_of_turn
    assert light.pad_id == heavy.pad_id
    assert light.notes == heavy.notes
    for chat in CHATS:
        assert outcome(light, chat) == outcome(heavy, chat)


@pytest.mark.parametrize(
    "local", [{}, {"max_length": 150, "overlength": "truncate"}, {"max_length": 150, "overlength": "drop"}], ids=str
)
def test_a_plan_counts_what_the_worker_will_read_and_train(local, base_model_dir, tmp_path):
    lines = EXAMPLES.read_text("utf-8").splitlines()[:80]
    told_long = "word " * 150
    for n in range(3):
        chat = [{"role": "user", "content": f"Tell {n}"}, {"role": "assistant", "content": f"{n} {told_long}"}]
        lines.append(json.dumps({"messages": chat}))
    (tmp_path / "all.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    spec = JobSpec.from_dict(
        {"name": "t", "data": {"train": "all.jsonl"}, "model": {"local": str(base_model_dir)}, "local": local}
    )
    prepare(spec, base=tmp_path, out=tmp_path / "data")
    path = tmp_path / "data" / "train.jsonl"
    result = local_tokens(path, renderer_of(base_model_dir), spec.local)
    request = LocalRequest.model_validate(lower(resolve(spec, len(lines), "local")).request)
    real = encode_split(path, "train", Renderer(AutoTokenizer.from_pretrained(base_model_dir)), request)
    assert (result.tokens, result.trained) == (real.tokens, real.num_loss_tokens)
    assert result.too_long == len(real.cut) + len(real.dropped)


def test_examples_that_are_too_long_or_cannot_be_expressed_are_counted(base_model_dir, tmp_path):
    lines = [json.dumps(chat) + "\n" for chat in (*CHATS, {"messages": [{"role": "user", "content": "only"}]})]
    (tmp_path / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    result = local_tokens(tmp_path / "train.jsonl", renderer_of(base_model_dir), LocalSpec(max_length=8))
    assert (result.examples, result.counted) == (4, 4)
    assert result.unreadable == 2  # the calls, which this template does not know; and the chat without an answer
    assert result.too_long == 2


def test_large_splits_are_drawn_from_and_say_so(base_model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("ftbridge.planning.local_tokens.COUNTED", 3)
    (tmp_path / "train.jsonl").write_text((json.dumps(CHATS[0]) + "\n") * 30, encoding="utf-8")
    result = local_tokens(tmp_path / "train.jsonl", renderer_of(base_model_dir), LocalSpec())
    one = renderer_of(base_model_dir).example(parse_example(CHATS[0]))
    assert (result.counted, result.examples, result.tokens) == (3, 30, 30 * one.n_tokens)


@pytest.mark.parametrize("broken", ["tokenizer.json", "tokenizer_config.json"])
def test_a_folder_without_a_readable_tokenizer_is_told(base_model_dir, tmp_path, broken):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base_model_dir / name, tmp_path / name)
    (tmp_path / broken).write_text("{")
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        renderer_of(tmp_path)
    (tmp_path / broken).unlink()
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        renderer_of(tmp_path)


def test_a_model_without_a_chat_template_is_told(base_model_dir, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base_model_dir / name, tmp_path / name)
    with pytest.raises(ModelUnavailable, match="no chat template"):
        renderer_of(tmp_path)
