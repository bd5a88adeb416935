"""Memory of the engine on tiny random models: what the cache takes, and what happens during and after an out-of-memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ftbridge.providers.local.inference import columns as columns_module
from ftbridge.providers.local.inference import engine as engine_module
from ftbridge.providers.local.inference.batch import PREFIX_SHARE
from ftbridge.providers.local.inference.columns import KeyColumns
from ftbridge.providers.local.inference.engine import Completion, Engine, Request
from ftbridge.providers.local.models.device import Device
from support.letters import engine, llama

NO_END: frozenset[int] = frozenset()


def request(seed: int, length: int, new: int = 4) -> Request:
    draw = random.Random(seed)
    return Request([draw.randrange(256) for _ in range(length)], new, end_tokens=NO_END)


def short(count: int, new: int = 4) -> list[Request]:
    return [request(number, 4 + number % 9, new) for number in range(count)]


def cache(ours: Engine) -> KeyColumns:
    assert ours.batch._columns is not None
    return ours.batch._columns


def cache_bytes(ours: Engine) -> int:
    """What the tensors of the cache take, each storage once."""
    views = [view for layer in cache(ours).layers for view in (layer.keys, layer.values) if view is not None]
    return sum({view.untyped_storage().data_ptr(): view.untyped_storage().nbytes() for view in views}.values())


def row_bytes(ours: Engine, tokens: int) -> int:
    return tokens * cache(ours).token_bytes


def rows_by_pass(ours: Engine, requests: list[Request]) -> list[int]:
    """Complete requests; how many rows each pass had."""
    rows = []
    completions = [ours.add(one) for one in requests]
    with ours.generating():
        while ours.busy:
            if ours.advance():
                rows.append(ours._pass_rows)
    assert all(len(one.generation.token_ids) == one.request.max_new_tokens for one in completions)
    return rows


def tokens_of(ours: Engine, requests: list[Request]) -> list[list[int]]:
    return [generation.token_ids for generation in ours.generate(requests)]


def runs_out(model: Any, when: Callable[[torch.Tensor], bool]) -> list[tuple[int, int]]:
    """Let memory run out in passes whose tokens, (rows, tokens), are such; the shapes of those that failed."""
    failed: list[tuple[int, int]] = []

    def scarce(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if when(kwargs["input_ids"]):
            failed.append(tuple(kwargs["input_ids"].shape))
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(scarce, with_kwargs=True)
    return failed


# After an out-of-memory


def test_one_out_of_memory_is_made_up_for_and_all_requests_run_together_again():
    model = llama()
    wanted = tokens_of(engine(model), short(32))
    ours = engine(model, max_rows=32)
    left = [1]
    failed = runs_out(model, lambda ids: len(ids) == 32 and bool(left) and left.pop() == 1)
    assert tokens_of(ours, short(32)) == wanted
    assert len(failed) == 1
    rows = rows_by_pass(ours, short(32, new=12) * 60)
    assert max(rows[:4]) < 32
    assert 32 in rows[:500]
    assert set(rows[500:-100]) == {32}
    assert tokens_of(ours, short(32)) == wanted
    assert len(failed) == 1


def test_a_long_prompt_that_fails_once_alone_leaves_others_as_many_rows_as_before():
    model = llama()
    ours = engine(model)
    ours.generate(short(64))
    left = [1]
    failed = runs_out(model, lambda ids: ids.shape[1] > 1000 and bool(left) and left.pop() == 1)
    assert len(tokens_of(ours, [request(901, 2000)])[0]) == 4
    assert failed == [(1, 2000)]
    assert max(rows_by_pass(ours, short(32))) == 32


def test_after_a_prompt_that_fits_nowhere_the_others_run_together_again():
    model = llama()
    ours = engine(model)
    failed = runs_out(model, lambda ids: ids.shape[1] > 1000)
    with pytest.raises(torch.OutOfMemoryError):
        ours.generate([*short(20), request(901, 2000), *short(20)])
    assert len(failed) > 1
    assert not ours.busy
    assert max(rows_by_pass(ours, short(32))) == 32


def test_an_out_of_memory_that_repeats_at_a_number_of_rows_settles_and_fails_no_request():
    model = llama()
    wanted = tokens_of(engine(model), short(40, new=12))
    ours = engine(model)
    failed = runs_out(model, lambda ids: len(ids) > 5)
    assert tokens_of(ours, short(40, new=12)) == wanted
    rows = rows_by_pass(ours, short(40, new=12) * 6)
    assert max(rows) <= 6  # with the one that is tried
    assert sum(rows) / len(rows) > 3.5
    assert len(failed) <= 10
    before = len(failed)
    rows = rows_by_pass(ours, short(40, new=12) * 6)
    assert len(failed) - before <= 2
    assert tokens_of(ours, short(40, new=12)) == wanted


def test_memory_that_runs_out_in_every_other_pass_still_completes_everything():
    model = llama()
    wanted = tokens_of(engine(model), short(9))
    ours, passes = engine(model), [0]
    ours.generate(short(1))

    def every_other(ids: torch.Tensor) -> bool:
        passes[0] += 1
        return passes[0] % 2 == 0

    failed = runs_out(model, every_other)
    assert tokens_of(ours, short(9)) == wanted
    assert len(failed) > 9


def test_a_smaller_setting_of_rows_holds_while_the_limit_grows():
    model = llama()
    ours = engine(model)
    left = [1]
    runs_out(model, lambda ids: len(ids) > 20 and bool(left) and left.pop() == 1)
    ours.generate(short(24))
    assert ours.row_limit == 12
    ours.max_rows = 8
    assert max(rows_by_pass(ours, short(100))) == 8
    ours.max_rows = 64
    assert 12 <= max(rows_by_pass(ours, short(24))) < 24


def test_a_completion_that_cannot_be_stored_ends_where_it_would_have_ended(monkeypatch: pytest.MonkeyPatch):
    model = llama()
    wanted = tokens_of(engine(model), short(6))
    ours = engine(model, keep_completions=True)

    def scarce(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(KeyColumns, "copy", scarce)
    assert tokens_of(ours, short(6)) == wanted
    assert ours.row_limit == 64


# What the cache takes


def test_a_long_prompt_after_many_short_rows_takes_the_room_of_one_row():
    ours = engine(llama(), share_prefixes=False)
    ours.generate(short(64))
    assert cache_bytes(ours) == row_bytes(ours, 64 * 64)
    ours.generate([request(901, 6000)])
    assert cache_bytes(ours) <= row_bytes(ours, 6004 + 64)


def test_many_short_rows_after_a_long_prompt_take_the_room_of_short_rows():
    ours = engine(llama(), share_prefixes=False)
    ours.generate([request(901, 6000)])
    ours.generate(short(64))
    assert cache_bytes(ours) <= row_bytes(ours, 64 * 64)


@pytest.mark.parametrize("live", [1, 2, 5])
def test_a_long_prompt_beside_few_rows_takes_no_more_slots_than_there_are_rows(live: int):
    model = llama()
    ours = engine(model, share_prefixes=False)
    wanted = tokens_of(ours, [*short(live, new=40), request(901, 3000)])
    completions = [ours.add(one) for one in [*short(live, new=40), *short(60, new=3)]]
    with ours.generating():
        for _ in range(6):
            ours.advance()
        assert len(ours.batch.rows) == live
        completions.append(ours.add(request(901, 3000)))
        ours.advance()
        assert len(ours.batch.rows) == live + 1
        assert cache_bytes(ours) <= row_bytes(ours, (live + 1) * 3072)
        while ours.busy:
            ours.advance()
    assert [one.generation.token_ids for one in [*completions[:live], completions[-1]]] == wanted


def test_room_of_a_long_prompt_that_ended_is_given_back_while_others_run():
    model = llama()
    wanted = tokens_of(engine(model), short(8, new=40))
    ours = engine(model, share_prefixes=False)
    completions = [ours.add(one) for one in short(7, new=40)]
    ours.add(request(901, 3000, new=2))
    with ours.generating():
        while len(ours.batch.rows) < 8:
            ours.advance()
        assert cache_bytes(ours) >= row_bytes(ours, 8 * 3000)
        while len(ours.batch.rows) > 7:
            ours.advance()
        completions.append(ours.add(short(8, new=40)[-1]))
        ours.advance()
        assert cache_bytes(ours) <= row_bytes(ours, 8 * 64)
        while ours.busy:
            ours.advance()
    assert [one.generation.token_ids for one in completions] == wanted


@pytest.mark.parametrize(("stored_tokens", "unread_tokens", "columns"), [(1500, 1400, 1536), (127, 110, 192)])
def test_padding_behind_a_stored_beginning_takes_no_room(stored_tokens: int, unread_tokens: int, columns: int):
    """Of a row of 1,501 tokens one is unread: beside 1,400 unread, its padding would reach to column 2,900."""
    model = llama()
    stored, unread = request(901, stored_tokens), request(902, unread_tokens)
    longer = Request([*stored.prompt_ids, 9], 4, end_tokens=NO_END)
    ours = engine(model)
    ours.generate([stored])
    together = tokens_of(ours, [longer, unread])
    assert cache_bytes(ours) <= row_bytes(ours, 2 * columns)
    assert together == [tokens_of(engine(model, share_prefixes=False), [one])[0] for one in (longer, unread)]


def test_padding_behind_a_stored_beginning_stays_within_positions_that_are_learned():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=260, n_embd=48, n_layer=2, n_head=4, n_positions=256, eos_token_id=256)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    stored, unread = request(901, 200), request(902, 150)
    longer = Request([*stored.prompt_ids, 9], 4, end_tokens=NO_END)
    ours = engine(model)
    ours.generate([stored])
    assert not ours.batch.why_alone
    assert tokens_of(ours, [longer, unread]) == tokens_of(engine(model, share_prefixes=False), [longer, unread])


def test_a_budget_of_tokens_counts_every_slot_in_its_whole_width():
    ours = engine(llama(), max_batch_tokens=1024, share_prefixes=False)
    for one in [*short(40), *[request(number, 200) for number in range(10)], *short(40)]:
        ours.add(one)
    rows = []
    with ours.generating():
        while ours.busy:
            ours.advance()
            rows.append(len(ours.batch.rows))
            assert cache_bytes(ours) <= row_bytes(ours, 1024)
    assert max(rows) == 16


class Memory:
    """A device with so many bytes for the cache and stored beginnings: beyond these, the cache gets no tensor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        self.size, self.failures, self.peak = size, 0, 0
        self.engine: Engine | None = None
        resized = columns_module._resized

        def limited(states: torch.Tensor, slots: int, columns: int, live: int) -> torch.Tensor:
            taken = self.taken() + _bytes(states, slots, columns)
            if taken > self.size:
                self.failures += 1
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.peak = max(self.peak, taken)
            return resized(states, slots, columns, live)

        monkeypatch.setattr(columns_module, "_resized", limited)
        monkeypatch.setattr(Device, "free_bytes", lambda _: self.size - self.taken())

    def taken(self) -> int:
        if self.engine is None or self.engine.batch._columns is None:
            return 0
        blocks = self.engine.batch._columns._blocks
        stored = self.engine.batch.prefixes.bytes if self.engine.batch.prefixes is not None else 0
        return stored + sum(one.nbytes for block in blocks for one in (block.keys, block.values))


def _bytes(states: torch.Tensor, slots: int, columns: int) -> int:
    layers, _, heads, _, width = states.shape
    return layers * slots * heads * columns * width * states.element_size()


def mixed(count: int) -> list[Request]:
    draw = random.Random(5)
    lengths = [draw.choice([5, 20, 60, 300]) for _ in range(count)]
    return [request(number, length, draw.randint(2, 30)) for number, length in enumerate(lengths)]


@pytest.mark.parametrize("share_prefixes", [False, True])
def test_rows_that_join_by_their_room_never_run_out_of_memory(monkeypatch: pytest.MonkeyPatch, share_prefixes: bool):
    model = llama(layers=4)
    wanted = tokens_of(engine(model), mixed(80))
    for size in (2_000_000, 4_000_000, 16_000_000):
        memory = Memory(monkeypatch, size)
        ours = memory.engine = engine(model, share_prefixes=share_prefixes)
        assert tokens_of(ours, mixed(80)) == wanted
        assert memory.failures == 0
        assert memory.peak > size / 4
        monkeypatch.undo()


def test_rows_that_outgrow_what_was_planned_complete_all_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_module, "PLANNED_TOKENS", 2)
    model = llama(layers=4)
    requests = [request(number, 10, 300) for number in range(24)]
    wanted = tokens_of(engine(model), requests)
    memory = Memory(monkeypatch, 1_500_000)
    ours = memory.engine = engine(model)
    assert tokens_of(ours, requests) == wanted
    assert 0 < memory.failures < 30


def test_stored_beginnings_leave_the_memory_to_rows(monkeypatch: pytest.MonkeyPatch):
    size = 4_000_000
    memory = Memory(monkeypatch, size)
    ours = memory.engine = engine(llama())
    for number in range(300):
        ours.generate([request(number, 40, 1)])
    assert ours.batch.prefixes is not None
    assert 0.5 * PREFIX_SHARE * size < ours.batch.prefixes.bytes <= PREFIX_SHARE * size
    assert max(rows_by_pass(ours, short(40))) == 40


def test_the_cache_is_copied_at_most_once_in_64_tokens(monkeypatch: pytest.MonkeyPatch):
    resized, calls = columns_module._resized, [0]

    def counted(*args: Any) -> torch.Tensor:
        calls[0] += 1
        return resized(*args)

    ours = engine(llama())
    ours.generate(short(1))
    monkeypatch.setattr(columns_module, "_resized", counted)
    completions: list[Completion] = [ours.add(request(number, 10, 640)) for number in range(8)]
    with ours.generating():
        while ours.busy:
            ours.advance()
    assert len(completions[0].generation.token_ids) == 640
    assert calls[0] <= 2 * len(cache(ours)._blocks) * (1 + 650 // 64)
