"""Keys and values of all rows in blocks that are allocated ahead: a pass writes into them and reads a slice, nothing is joined.

    slot 0   A A A A A a a . .      A prompt, a completion, . room        keys, values: (layers, slots, heads, columns, width)
    slot 1   B B b b b b b b .      a row begins at column 0, so a column is a position
    slot 2   C C C c . . . . .
    slot 3   . . . . . . . . .      slots of running rows come first: a pass reads keys[:, :3, :, :8]

A row's own positions decide what each of its tokens sees, by the very mask function that the model builds for each kind of
layer (causal, sliding window, chunks), so layers with windows keep whole rows and see only their window. What lies beyond a
row's last token is never seen, and is written over.

Blocks are replaced where rows need more, by others of the size that rows need then, in slots and in columns: a long prompt
after many short ones gets one long slot, not many. Layers of one shape share a few blocks, replaced one after the other, so
that little is held twice. Caches that are more than keys and values by position (recurrent and convolutional states,
compressed or indexed keys) have no place here: `alone` runs those models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from ftbridge.providers.local.models.device import is_out_of_memory

NAME = "ftbridge_rows"
_COLUMN_STEP = 64
"""Columns are added in these steps, so that all rows are copied once in so many tokens."""
_PARTS = 4
"""Blocks into which the layers of one shape are cut. Only one tensor of one block is held twice while all are replaced."""
_SPARE = 4
"""Blocks with more than so many times the room that rows need are replaced when others join."""

Segment = list[tuple[Tensor, Tensor]]
"""Keys and values of some columns of one row, for each block: (layers, heads, columns, width)."""


class NotInColumns(Exception):
    """The model needs more of its attention or cache than rows in columns can give."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: rows in the slots `first` to `last`, each token at its position.

    `width` columns are read. `start` is where every row's tokens begin, if that is the same for all.
    """

    first: int
    last: int
    positions: Tensor
    """(rows, tokens)"""
    width: int
    start: int | None


_current: ContextVar[Pass | None] = ContextVar("pass", default=None)


@dataclass
class _Block:
    """Keys and values of some layers of one shape."""

    members: Sequence[int]
    """Numbers of the layers, in the order of the tensors' first dimension."""
    keys: Tensor
    values: Tensor


class _Layer(CacheLayerMixin):
    """One layer's part of a block, as transformers sees it."""

    is_sliding = False

    def __init__(self, columns: KeyColumns) -> None:
        super().__init__()
        self._columns = columns
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: blocks are there."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write a pass's keys and values; return those of its rows, (rows, heads, columns, width)."""
        now, keys, values = self._columns.now, self.keys, self.values
        assert keys is not None
        assert values is not None
        tokens = now.positions.shape[1]
        if now.start is not None:
            keys[now.first : now.last, :, now.start : now.start + tokens] = key_states
            values[now.first : now.last, :, now.start : now.start + tokens] = value_states
        else:
            slots = self._columns.slots_of(now)
            keys[slots, :, now.positions] = key_states.transpose(1, 2)
            values[slots, :, now.positions] = value_states.transpose(1, 2)
        return keys[now.first : now.last, :, : now.width], values[now.first : now.last, :, : now.width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The columns that are read, from the first."""
        return self._columns.now.width, 0

    def get_seq_length(self) -> int:
        """The columns before this pass, of the longest row."""
        return self._columns.now.width - self._columns.now.positions.shape[1]

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class KeyColumns(Cache):
    """A cache of transformers with a slot for each row. `of` builds it after the cache that the model made by itself."""

    def __init__(
        self, shapes: Sequence[tuple[tuple[int, int], tuple[int, int]]], dtype: torch.dtype, device: torch.device
    ):
        """`shapes`: (heads, width) of the keys and of the values of each layer."""
        super().__init__(layers=[_Layer(self) for _ in shapes])
        self._blocks: list[_Block] = []
        for shape in dict.fromkeys(shapes):
            alike = [number for number, one in enumerate(shapes) if one == shape]
            part = -(-len(alike) // _PARTS)
            for members in (alike[first : first + part] for first in range(0, len(alike), part)):
                sizes = [(len(members), 0, heads, 0, width) for heads, width in shape]
                keys, values = (torch.empty(size, dtype=dtype, device=device) for size in sizes)
                self._blocks.append(_Block(members, keys, values))
        self._device = device
        self.slots = self.capacity = 0
        self._pass: Pass | None = None
        self._slots: Tensor | None = None

    @classmethod
    def of(cls, cache: Cache) -> KeyColumns:
        """Blocks for the layers of a filled cache. Raises `NotInColumns` where it is more than keys and values by position."""
        shapes = []
        for layer in cache.layers:
            keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
            if type(layer) is not DynamicLayer or not isinstance(keys, Tensor) or not isinstance(values, Tensor):
                raise NotInColumns(f"its cache has a layer {type(layer).__name__}")
            if not keys.dim() == values.dim() == 4 or keys.shape[2] != cache.get_seq_length():
                raise NotInColumns("its keys and values are not those of every position")
            shapes.append(((keys.shape[1], keys.shape[3]), (values.shape[1], values.shape[3])))
        if not shapes:
            raise NotInColumns("it fills no cache")
        first: Any = cache.layers[0]
        return cls(shapes, first.keys.dtype, first.keys.device)

    @property
    def token_bytes(self) -> int:
        """Bytes that one token of one row takes."""
        return sum(self._sizes())

    def tokens_for(self, slots: int, columns: int) -> int:
        """Tokens that blocks for so many rows of so many columns have room for."""
        return _rounded_slots(slots) * _rounded_columns(columns)

    def extra_bytes(self, slots: int, columns: int) -> int:
        """Bytes that room for so many rows takes, at its peak, beside what is held; 0 where there is room already.

        That is what new blocks take more than those they replace, and one tensor, the largest, which is held twice.
        """
        if self._has_room(slots, columns):
            return 0
        tokens, sizes = self.tokens_for(slots, columns), self._sizes()
        return max(0, tokens - self.slots * self.capacity) * sum(sizes) + tokens * max(sizes)

    @property
    def now(self) -> Pass:
        """The pass under way. Raises `NotInColumns` outside one."""
        if self._pass is None:
            raise NotInColumns("its cache is read outside a pass")
        return self._pass

    def slots_of(self, now: Pass) -> Tensor:
        """The slots of a pass, (rows, 1)."""
        if self._slots is None:
            self._slots = torch.arange(now.first, now.last, device=self._device)[:, None]
        return self._slots

    @contextmanager
    def running(self, now: Pass) -> Iterator[None]:
        """The model's forward pass happens inside. There has to be room for its rows."""
        self._pass, self._slots = now, None
        token = _current.set(now)
        try:
            yield
        finally:
            _current.reset(token)
            self._pass = None

    def reserve(self, slots: int, columns: int, live: int) -> bool:
        """Make room for the rows of the first `slots` slots, none longer than `columns`; whether blocks were replaced.

        New blocks are as large as these rows need, in slots and in columns. The first `live` slots keep what they hold, also
        where memory runs out and this raises.
        """
        if self._has_room(slots, columns):
            return False
        self._replace(slots, columns, live)
        return True

    def trim(self, slots: int, columns: int, live: int) -> bool:
        """Replace blocks that are far larger than such rows need, if memory allows; whether they were. As in `reserve`."""
        if self.slots * self.capacity <= _SPARE * self.tokens_for(slots, columns):
            return False
        try:
            self._replace(slots, columns, live)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def move(self, source: int, target: int, columns: int) -> None:
        """Copy a row's first columns to another slot."""
        for block in self._blocks:
            block.keys[:, target, :, :columns] = block.keys[:, source, :, :columns]
            block.values[:, target, :, :columns] = block.values[:, source, :, :columns]

    def copy(self, slot: int, first: int, last: int) -> Segment:
        """A copy of columns `first` to `last` of a row."""
        return [
            (block.keys[:, slot, :, first:last].clone(), block.values[:, slot, :, first:last].clone())
            for block in self._blocks
        ]

    def paste(self, slot: int, first: int, segment: Segment, columns: int) -> None:
        """Write the first `columns` columns of a segment into a row."""
        for block, (keys, values) in zip(self._blocks, segment, strict=True):
            block.keys[:, slot, :, first : first + columns] = keys[:, :, :columns]
            block.values[:, slot, :, first : first + columns] = values[:, :, :columns]

    def release(self) -> None:
        """Give the memory back; the next pass takes it again."""
        for layer in self.layers:
            layer.keys = layer.values = None
        for block in self._blocks:
            block.keys, block.values = block.keys[:, :0, :, :0].clone(), block.values[:, :0, :, :0].clone()
        self.slots = self.capacity = 0

    def _has_room(self, slots: int, columns: int) -> bool:
        return slots <= self.slots and columns <= self.capacity

    def _sizes(self) -> list[int]:
        """Bytes that one token of one row takes in each tensor."""
        tensors = [states for block in self._blocks for states in (block.keys, block.values)]
        return [one.shape[0] * one.shape[2] * one.shape[4] * one.element_size() for one in tensors]

    def _replace(self, slots: int, columns: int, live: int) -> None:
        """Blocks of another size. Where memory runs out halfway, all have at least the room of the smallest of them."""
        slots, columns = _rounded_slots(slots), _rounded_columns(columns)
        if not live:
            self.release()
        try:
            for block in self._blocks:
                for number in block.members:  # a view would hold on to the tensor that is replaced
                    self.layers[number].keys = self.layers[number].values = None
                block.keys = _resized(block.keys, slots, columns, live)
                block.values = _resized(block.values, slots, columns, live)
        finally:
            tensors = [states for block in self._blocks for states in (block.keys, block.values)]
            self.slots, self.capacity = (min(one.shape[dimension] for one in tensors) for dimension in (1, 3))
            for block in self._blocks:
                for index, number in enumerate(block.members):
                    self.layers[number].keys, self.layers[number].values = block.keys[index], block.values[index]


def _rounded_slots(slots: int) -> int:
    """Up to 7 as they are, more with up to a quarter to spare: rows that join one by one do not each copy all others."""
    step = 1 << max(0, slots.bit_length() - 3)
    return -(-slots // step) * step


def _rounded_columns(columns: int) -> int:
    return -(-columns // _COLUMN_STEP) * _COLUMN_STEP


def _resized(states: Tensor, slots: int, columns: int, live: int) -> Tensor:
    """The first `live` slots in a tensor of another size."""
    layers, _, heads, before, width = states.shape
    resized = states.new_empty(layers, slots, heads, columns, width)
    shared = min(before, columns)
    resized[:, :live, :, :shared] = states[:, :live, :, :shared]
    resized[:, :live, :, shared:] = 0  # a value never seen must still be a number
    resized[:, live:] = 0
    return resized


def rows_mask(
    batch_size: int, q_length: int, kv_length: int, mask_function: Callable[..., Tensor], **options: Any
) -> Tensor:
    """What each token sees, (rows, 1, tokens, columns), by its own position. Raises `NotInColumns` outside a pass."""
    now = _current.get()
    if now is None or now.positions.shape != (batch_size, q_length):
        raise NotInColumns("its masks are not those of the pass")
    device = now.positions.device
    rows = torch.arange(batch_size, device=device)[:, None, None, None]
    columns = torch.arange(kv_length, device=device)[None, None, None, :]
    seen = mask_function(
        rows, torch.zeros((), dtype=torch.long, device=device), now.positions[:, None, :, None], columns
    )
    return seen.expand(batch_size, 1, q_length, kv_length)


def rows_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in transformers' interface: (rows, heads, tokens, width) in, (rows, tokens, heads, width of values) out.

    One token a row is multiplied with the keys of its whole group of heads, which are never repeated: on a CPU that takes a
    half to a fifth of the time (32 rows of 160 to 400 columns, bf16). `softcap` bounds the scores (Gemma 2), `s_aux` holds
    one sink logit a head (gpt-oss).
    """
    if attention_mask is None or attention_mask.dtype != torch.bool or position_bias is not None:
        raise NotInColumns("it makes masks or biases of its own")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if softcap or s_aux is not None:
        mixed = _written_out(query, key, value, attention_mask, scale, softcap, s_aux)
        return mixed.transpose(1, 2).contiguous(), None
    rows, heads, tokens, width = query.shape
    groups = key.shape[1]
    if tokens == 1 and groups != heads:
        together = query.reshape(rows, groups, heads // groups, width)
        mixed = F.scaled_dot_product_attention(together, key, value, attention_mask, scale=scale)
        return mixed.reshape(rows, 1, heads, value.shape[-1]), None
    mixed = F.scaled_dot_product_attention(query, key, value, attention_mask, scale=scale, enable_gqa=groups != heads)
    return mixed.transpose(1, 2).contiguous(), None


def _written_out(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Attention in float32. A sink takes its share of a head's softmax and gives nothing."""
    rows, heads, tokens, width = query.shape
    groups = key.shape[1]
    together = (query.float() * scale).reshape(rows, groups, heads // groups * tokens, width)
    scores = (together @ key.float().transpose(-1, -2)).view(rows, heads, tokens, -1)
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        column = sinks.float().view(1, heads, 1, 1).expand(rows, heads, tokens, 1)
        weights = torch.softmax(torch.cat([scores, column], -1), -1)[..., :-1]
    else:
        weights = torch.softmax(scores, -1)
    mixed = weights.reshape(rows, groups, -1, weights.shape[-1]) @ value.float()
    return mixed.view(rows, heads, tokens, value.shape[-1]).to(query.dtype)


AttentionInterface.register(NAME, rows_attention)
AttentionMaskInterface.register(NAME, rows_mask)
