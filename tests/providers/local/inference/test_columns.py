"""The blocks of keys and values: how large they are, what they take while they change, what they hold on to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from ftbridge.providers.local.inference import columns
from ftbridge.providers.local.inference.columns import KeyColumns

LAYERS, TOKEN_BYTES = 6, 6 * (2 * 8 + 2 * 4) * 4


def cache() -> KeyColumns:
    return KeyColumns([((2, 8), (2, 4))] * LAYERS, torch.float32, torch.device("cpu"))


def held_bytes(held: KeyColumns) -> int:
    """What the tensors that layers see take, each storage once."""
    views = [view for layer in held.layers for view in (layer.keys, layer.values) if view is not None]
    storages = {view.untyped_storage().data_ptr(): view.untyped_storage().nbytes() for view in views}
    return sum(storages.values())


def fill(held: KeyColumns, live: int, width: int) -> None:
    for number, layer in enumerate(held.layers):
        for view in (layer.keys, layer.values):
            draw = torch.Generator().manual_seed(number)
            view[:live, :, :width] = torch.randn(view[:live, :, :width].shape, generator=draw)


def contents(held: KeyColumns, live: int, width: int) -> list[torch.Tensor]:
    return [view[:live, :, :width].clone() for layer in held.layers for view in (layer.keys, layer.values)]


class Peak(TorchDispatchMode):
    """The most bytes of all tensors that are made within it and live at once, beside `before`."""

    def __init__(self, before: KeyColumns) -> None:
        super().__init__()
        tensors = [view for layer in before.layers for view in (layer.keys, layer.values) if view is not None]
        self._storages = {StorageWeakRef(one.untyped_storage()): one.untyped_storage().nbytes() for one in tensors}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self._storages[StorageWeakRef(out.untyped_storage())] = out.untyped_storage().nbytes()
        self._storages = {one: size for one, size in self._storages.items() if not one.expired()}
        self.bytes = max(self.bytes, sum(self._storages.values()))
        return out


@pytest.mark.parametrize("before", [(64, 40), (3, 40), (64, 1000)])
def test_a_long_row_after_many_others_takes_one_slot(before: tuple[int, int]):
    held = cache()
    held.reserve(*before, live=0)
    held.reserve(1, 6000, live=0)
    assert held_bytes(held) == 6016 * TOKEN_BYTES


def test_many_short_rows_after_a_long_one_take_short_slots():
    held = cache()
    held.reserve(1, 6000, live=0)
    held.reserve(64, 40, live=0)
    assert held_bytes(held) == 64 * 64 * TOKEN_BYTES


def test_few_rows_that_grow_leave_the_slots_of_those_that_left():
    held = cache()
    held.reserve(64, 60, live=0)
    held.reserve(2, 65, live=2)
    assert held_bytes(held) == 2 * 128 * TOKEN_BYTES


def test_slots_are_at_most_a_quarter_more_than_rows():
    held = cache()
    for slots in range(1, 200):
        held.release()
        held.reserve(slots, 1, live=0)
        assert slots <= held.slots <= slots * 1.25
        assert held.slots == slots or slots > 8


def test_rows_that_join_one_by_one_replace_blocks_seldom():
    held = cache()
    replaced = sum(held.reserve(slots, 50, live=slots - 1) for slots in range(1, 65))
    assert replaced < 25


CHANGES = [(3, 70, 7, 70), (3, 70, 3, 700), (9, 500, 2, 600), (64, 60, 2, 3000), (2, 3000, 64, 60), (1, 64, 1, 65)]


@pytest.mark.parametrize(("slots", "width", "next_slots", "next_width"), CHANGES)
def test_what_rows_hold_stays_as_it_was_and_the_rest_is_numbers(
    slots: int, width: int, next_slots: int, next_width: int
):
    held, live, used = cache(), min(slots, next_slots), min(width, next_width)
    held.reserve(slots, width, live=0)
    fill(held, live, used)
    wanted = contents(held, live, used)
    assert held.reserve(next_slots, next_width, live)
    for one, other in zip(contents(held, live, used), wanted, strict=True):
        assert torch.equal(one, other)
    for layer in held.layers:
        for view in (layer.keys, layer.values):
            assert not view[live:].any()
            assert not view[:live, :, used:].any()


@pytest.mark.parametrize("is_live", [False, True])
@pytest.mark.parametrize(("slots", "width", "next_slots", "next_width"), CHANGES)
def test_room_takes_at_its_peak_what_extra_bytes_says(
    slots: int, width: int, next_slots: int, next_width: int, is_live: bool
):
    held = cache()
    held.reserve(slots, width, live=0)
    before, extra = held_bytes(held), held.extra_bytes(next_slots, next_width)
    with Peak(held) as peak:
        held.reserve(next_slots, next_width, min(slots, next_slots) if is_live else 0)
    assert held_bytes(held) <= peak.bytes <= before + extra + 64  # numbers that tensors are filled with
    assert held_bytes(held) == held.tokens_for(next_slots, next_width) * TOKEN_BYTES
    assert extra <= max(0, held_bytes(held) - before) + held_bytes(held) // 4


@pytest.mark.parametrize(("slots", "width", "next_slots", "next_width"), CHANGES)
def test_rows_that_left_are_never_held_beside_those_that_follow(
    slots: int, width: int, next_slots: int, next_width: int
):
    held = cache()
    held.reserve(slots, width, live=0)
    before = held_bytes(held)
    with Peak(held) as peak:
        held.reserve(next_slots, next_width, live=0)
    assert peak.bytes <= max(before, held_bytes(held)) + 64


def test_there_is_nothing_to_take_where_there_is_room():
    held = cache()
    held.reserve(8, 200, live=0)
    assert held.extra_bytes(8, 256) == held.extra_bytes(1, 1) == 0
    assert not held.reserve(5, 256, live=5)


def test_blocks_are_trimmed_only_where_rows_need_less_than_a_quarter():
    held = cache()
    held.reserve(16, 256, live=0)
    assert not held.trim(4, 256, live=4)
    assert held.trim(3, 256, live=3)
    assert (held.slots, held.capacity) == (3, 256)
    assert not cache().trim(1, 1, live=0)


@pytest.mark.parametrize("number", range(1, 7))
def test_memory_that_runs_out_halfway_leaves_rows_as_they_were(number: int, monkeypatch: pytest.MonkeyPatch):
    held = cache()
    held.reserve(5, 100, live=0)
    fill(held, 5, 100)
    wanted = contents(held, 5, 100)
    resized, calls = columns._resized, [0]

    def scarce(*args: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == number:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return resized(*args)

    monkeypatch.setattr(columns, "_resized", scarce)
    with pytest.raises(torch.OutOfMemoryError):
        held.reserve(6, 100, live=5)
    assert (held.slots, held.capacity) == (5, 128)
    assert all(torch.equal(one, other) for one, other in zip(contents(held, 5, 100), wanted, strict=True))
    assert held.reserve(6, 100, live=5)
    assert all(torch.equal(one, other) for one, other in zip(contents(held, 5, 100), wanted, strict=True))


def test_trimming_is_left_undone_where_there_is_no_memory_for_it(monkeypatch: pytest.MonkeyPatch):
    held = cache()
    held.reserve(64, 100, live=0)
    fill(held, 2, 100)
    wanted = contents(held, 2, 100)

    def scarce(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(columns, "_resized", scarce)
    assert not held.trim(2, 100, live=2)
    assert (held.slots, held.capacity) == (64, 128)
    assert all(torch.equal(one, other) for one, other in zip(contents(held, 2, 100), wanted, strict=True))
