"""The engine on tiny random models: rows beside each other, beginnings stored, adapters, seeds, cancelling, memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ftbridge.providers.local.inference import engine as engine_module
from ftbridge.providers.local.inference.engine import Generation, Request
from ftbridge.providers.local.models.device import Device
from support.architectures import config_of
from support.letters import engine, letters, llama


def prompts(count: int, *, shared: int = 0) -> list[list[int]]:
    draw = random.Random(3)
    beginning = [draw.randrange(256) for _ in range(shared)]
    return [beginning + [draw.randrange(256) for _ in range(draw.randint(2, 40))] for _ in range(count)]


def requests(count: int, **settings: Any) -> list[Request]:
    return [Request(ids, 12, **settings) for ids in prompts(count)]


def tokens(generations: list[Generation]) -> list[list[int]]:
    return [generation.token_ids for generation in generations]


def test_completions_are_those_of_whole_forward_passes():
    model = llama()
    for request, generation in zip(requests(8), engine(model).generate(requests(8)), strict=True):
        ids = list(request.prompt_ids)
        for token in generation.token_ids:
            with torch.no_grad():
                assert token == int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            ids.append(token)


def test_two_hundred_completions_in_fp32_are_the_same_alone_and_in_any_batch():
    model = llama()
    wanted = requests(200)
    together = tokens(engine(model, max_rows=64).generate(wanted))
    in_small_batches = tokens(engine(model, max_rows=7).generate(list(reversed(wanted))))[::-1]
    one = engine(model, share_prefixes=False)
    alone = [tokens(one.generate([request]))[0] for request in wanted]
    assert together == in_small_batches == alone


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_stored_beginnings_change_nothing_and_are_read_once(temperature: float):
    model = llama()
    wanted = [
        Request(ids, 10, temperature, seed=number, logprobs=0) for number, ids in enumerate(prompts(24, shared=60) * 2)
    ]
    stores, reads = engine(model), engine(model, share_prefixes=False)
    first, again, without = stores.generate(wanted), stores.generate(wanted), reads.generate(wanted)
    assert tokens(first) == tokens(again) == tokens(without)
    for one, other in zip(first, without, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def count_tokens(model: Any) -> list[int]:
    """Tokens of each pass from now on."""
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True)
    return sizes


def test_a_shared_beginning_is_read_by_one_row_and_a_groups_prompt_once():
    model = llama()
    ours = engine(model)
    ours.generate([Request([1, 2, 3], 1)])
    sizes = count_tokens(model)
    groups = [ids[:100] + [number] * 20 for number, ids in enumerate(prompts(4, shared=100))]
    ours.generate([Request(ids, 1, 1.0, seed=seed) for ids in groups for seed in range(8)])
    # The first row of all; the first of each other group, beside 7 rows of the first group's last token; the rest.
    assert sizes == [120, (3 + 7) * 20, 21]


def test_a_conversation_that_continues_is_read_from_where_it_ended():
    model = llama()
    ours = engine(model, keep_completions=True)
    (first,) = ours.generate([Request(list(range(60)), 12)])
    assert first.finish_reason == "length"
    sizes = count_tokens(model)
    longer = [*range(60), *first.token_ids, 7, 8, 9]
    (second,) = ours.generate([Request(longer, 4)])
    assert sizes[0] <= 5
    assert tokens([second]) == tokens(engine(model, share_prefixes=False).generate([Request(longer, 4)]))


def test_stored_beginnings_make_room_for_each_other(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Device, "free_bytes", lambda _: 400_000)
    ours = engine(llama())
    ours.generate([Request(ids, 1) for ids in prompts(80)])
    assert ours.batch.prefixes is not None
    assert 0 < ours.batch.prefixes.bytes < 100_000 * 80
    monkeypatch.setattr(Device, "free_bytes", lambda _: 0)
    held = ours.batch.prefixes.bytes
    ours.generate([Request(ids, 1) for ids in prompts(20, shared=7)])
    assert ours.batch.prefixes.bytes <= held


def test_a_seed_repeats_a_row_whatever_is_beside_it():
    model = llama()
    ours = Request([5, 6, 7], 16, 1.0, 0.9, seed=11)
    alone = engine(model).generate([ours])[0]
    beside = engine(model).generate([*requests(9, temperature=1.0), ours])[-1]
    other = engine(model).generate([Request([5, 6, 7], 16, 1.0, 0.9, seed=12)])[0]
    assert alone.token_ids == beside.token_ids != other.token_ids


def test_log_probabilities_are_those_of_the_model_and_only_on_request():
    model = llama()
    with_them, without = engine(model).generate([Request([9, 8, 7, 6], 6, logprobs=2), Request([9, 8, 7, 6], 6)])
    assert without.logprobs == []
    ids = torch.tensor([[9, 8, 7, 6, *with_them.token_ids]])
    with torch.no_grad():
        values = torch.log_softmax(model(input_ids=ids).logits[0, 3:-1], -1)
    wanted = values.gather(1, ids[0, 4:, None])[:, 0].tolist()
    assert with_them.logprobs == pytest.approx(wanted, abs=1e-4)
    assert [len(one) for one in with_them.alternatives] == [2] * 6
    assert with_them.alternatives[0][0][0] == with_them.token_ids[0]


def test_ends_stop_strings_and_limits_end_a_row_each_with_its_reason():
    model = llama()
    (complete,) = engine(model).generate([Request([1, 2, 3, 4], 20)])
    text = letters().decode(complete.token_ids)
    middle = next(letter for letter in text[3:] if letter.isascii() and letter.isprintable())
    end = complete.token_ids[5]
    stopped, ended, limited = engine(model).generate(
        [
            Request([1, 2, 3, 4], 20, stop=[middle]),
            Request([1, 2, 3, 4], 20, end_tokens=frozenset({end})),
            Request([1, 2, 3, 4], 3),
        ]
    )
    assert (stopped.text, stopped.finish_reason) == (text[: text.index(middle)], "stop")
    assert ended.token_ids == complete.token_ids[: complete.token_ids.index(end) + 1]
    assert ended.finish_reason == "stop"
    assert (limited.token_ids, limited.finish_reason) == (complete.token_ids[:3], "length")


def test_a_cancelled_row_leaves_and_the_others_say_the_same():
    model = llama()
    wanted = tokens(engine(model).generate(requests(5)))
    ours = engine(model)
    completions = [ours.add(request) for request in requests(5)]
    with ours.generating():
        for _ in range(4):
            ours.advance()
        ours.cancel(completions[1])
        while ours.busy:
            ours.advance()
    assert completions[1].generation.finish_reason == "cancelled"
    assert 0 < len(completions[1].generation.token_ids) < 12
    assert [one.generation.token_ids for one in completions if one is not completions[1]] == [*wanted[:1], *wanted[2:]]


def test_rows_keep_to_the_budget_of_the_batch():
    ours = engine(llama(), max_batch_tokens=150)
    for request in requests(10):
        ours.add(request)
    rows = []
    with ours.generating():
        while ours.busy:
            ours.advance()
            rows.append(len(ours.batch.rows))
    assert 1 <= max(rows) <= 150 // 14


def test_memory_that_runs_out_puts_rows_back_in_line_and_loses_no_token():
    model = llama()
    wanted = tokens(engine(model).generate(requests(9)))
    ours = engine(model)

    def scarce(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[0] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(scarce, with_kwargs=True)
    assert tokens(ours.generate(requests(9))) == wanted
    assert ours.row_limit <= 3
    assert ours.max_rows == 64


def test_a_single_row_that_does_not_fit_is_an_error():
    model = llama()
    ours = engine(model)
    ours.generate([Request([1], 1)])

    def nothing(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(nothing)
    with pytest.raises(torch.OutOfMemoryError):
        ours.generate([Request([1, 2], 3)])
    assert not ours.busy


def adapter(folder: Path, seed: int, r: int = 4) -> str:
    torch.manual_seed(seed)
    model = get_peft_model(llama(), LoraConfig(r=r, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return str(folder)


def test_rows_of_one_pass_have_adapters_of_their_own(tmp_path: Path):
    from peft import PeftModel

    folders = [None, adapter(tmp_path / "one", 1), adapter(tmp_path / "two", 2, r=8)]
    ours = engine(llama())
    wanted = [Request(ids, 8, adapter=folders[number % 3]) for number, ids in enumerate(prompts(12, shared=30))]
    generations = ours.generate(wanted)
    alone = {folder: llama() if folder is None else PeftModel.from_pretrained(llama(), folder) for folder in folders}
    for request, generation in zip(wanted, generations, strict=True):
        (peft,) = engine(alone[request.adapter].eval()).generate([Request(request.prompt_ids, 8)])
        assert generation.token_ids == peft.token_ids
    assert len({tuple(ours.generate([Request([1, 2, 3], 8, adapter=folder)])[0].token_ids) for folder in folders}) == 3


def test_a_peft_model_in_training_generates_with_its_weights_of_now_and_goes_on_training():
    torch.manual_seed(1)
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.train()
    ours = engine(model)
    request = [Request(ids, 8, logprobs=0) for ids in prompts(4, shared=40)]
    before = ours.generate(request)
    assert model.training
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=5.0)
    ids = torch.tensor([list(range(40))])
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    after = ours.generate(request)
    assert [one.logprobs for one in after] != [one.logprobs for one in before]
    fresh = engine(model).generate(request)
    assert tokens(after) == tokens(fresh)


FAMILIES = ["llama", "qwen2", "qwen3", "mistral_window", "gemma2", "gemma3_text", "phi3", "gpt2", "gpt_oss", "falcon_alibi",
            "bloom", "mamba2", "lfm2", "qwen3_next", "deepseek_v3", "qwen3_moe", "granitemoehybrid", "llama4_text"]  # fmt: skip
IN_COLUMNS = {"llama", "qwen2", "qwen3", "mistral_window", "gemma2", "gemma3_text", "phi3", "gpt2", "gpt_oss", "qwen3_moe", "deepseek_v3",
              "llama4_text"}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_of_cache_gives_the_tokens_of_whole_passes(family: str):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(family), dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    ours = engine(model)
    wanted = [Request([4 + token % 200 for token in ids], 6, end_tokens=frozenset()) for ids in prompts(3, shared=20)]
    generations = ours.generate(wanted)
    assert (not ours.batch.why_alone) == (family in IN_COLUMNS), ours.batch.why_alone
    for request, generation in zip(wanted, generations, strict=True):
        ids = list(request.prompt_ids)
        for token in generation.token_ids:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert logits[token] >= logits.max() - 1e-3
            ids.append(token)
        assert len(generation.token_ids) == 6


def test_prompts_that_are_too_many_for_a_pass_wait_for_the_next(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_module, "PREFILL_TOKENS", 90)
    model = llama()
    ours = engine(model)
    ours.generate([Request([1], 1)])
    sizes = count_tokens(model)
    ours.generate(requests(12))
    assert max(sizes) <= 90


def test_the_load_of_a_pause_is_forgotten_when_a_batch_begins(monkeypatch: pytest.MonkeyPatch):
    """Once for a batch, not for each of its passes."""
    ours = engine(llama())
    assert ours._threads is not None
    starts: list[None] = []
    monkeypatch.setattr(ours._threads, "start", lambda: starts.append(None))
    ours.generate(requests(5))
    assert len(starts) == 1
    ours.generate(requests(1))
    assert len(starts) == 2
