"""The running rows of one model: they join and leave between two tokens, and each pass computes one token for all of them.

    join    what no stored beginning holds of the new prompts is read; rows that share more than that with a row being
            read wait one pass, and find it stored: a system message, or the prompt of a group, is read once
    step    the last token of every row in one pass
    leave   the last rows move into the slots that are free

How rows are held is decided once, by trying: `columns` where two ragged rows in columns give the logits of each alone,
otherwise `alone`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from ftbridge.providers.local.inference import columns, prefixes
from ftbridge.providers.local.inference.adapters import Adapters
from ftbridge.providers.local.inference.alone import Alone
from ftbridge.providers.local.inference.columns import KeyColumns, NotInColumns, Pass
from ftbridge.providers.local.inference.prefixes import Prefixes
from ftbridge.providers.local.inference.sampling import Choice, Drawing, choose, with_logprobs
from ftbridge.providers.local.models.device import Device, is_out_of_memory
from ftbridge.providers.local.models.parts import causal, keeps_logits, use_attention

log = logging.getLogger("ftbridge.inference")

_SCORED_TOKENS = 512
"""Tokens whose logits are made at once when a prompt is scored."""
_PADDING = 256
"""Padding of a pass that costs no more than another pass would."""
PREFIX_SHARE = 0.1
"""Share of the memory that is free without them which stored beginnings may take."""
AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 0.08, torch.float16: 0.03}
"""Largest mean difference of logits, as a share of their mean size, that is rounding of the compute type."""


@dataclass(eq=False)
class Row:
    """One completion under way: the tokens of its prompt and those that came since, its adapter, how tokens are drawn.

    The last token was not read by the model yet. A row that has to join again is read whole, with what it has.
    """

    tokens: list[int]
    adapter: str | None
    drawing: Drawing


class Batch:
    """Rows, and their keys and values. One model's; not for several threads."""

    def __init__(
        self, model: Any, adapters: Adapters, device: Device, pad: int, *, share_prefixes: bool = True
    ) -> None:
        self._model, self._adapters, self._device, self._pad = model, adapters, device, pad
        self._keeps_logits = keeps_logits(model)
        self._share = share_prefixes
        self.rows: list[Row] = []
        self._columns: KeyColumns | None = None
        self._alone: Alone | None = None
        self.prefixes: Prefixes | None = None
        self.why_alone = ""
        """Why rows are computed one after the other, if they are."""

    def tokens_for(self, rows: int, width: int) -> int:
        """Tokens that so many rows of so many tokens take in the cache, padding included."""
        return self._columns.tokens_for(rows, width) if self._columns is not None else rows * width

    def extra_bytes(self, rows: int, width: int) -> int:
        """Bytes that such rows, with those that run, take beside what is held; 0 where it is not known or rows take turns."""
        return self._columns.extra_bytes(rows, width) if self._columns is not None else 0

    def join(self, rows: Sequence[Row]) -> list[Choice]:
        """Read new rows' tokens; the choice for each that follows. All rows join, or none where this raises."""
        self._prove()
        if self._alone is not None:
            logits = self._alone.read(rows, self._adapters.use)
        else:
            self._reserve([*self.rows, *rows])
            by_row: dict[Row, Tensor] = {}
            waiting = list(rows)
            while waiting:
                part, waiting = self._apart(waiting)
                first = len(self.rows) + len(by_row)
                by_row.update(zip(part, self._read(part, first), strict=True))
            rows = list(by_row)  # in the order of their slots
            logits = torch.stack(list(by_row.values()))
        self.rows += rows
        return self._taken(rows, logits)

    def step(self) -> list[Choice]:
        """One more token for every row, in the order of `rows`."""
        if self._alone is not None:
            return self._taken(self.rows, self._alone.step(self.rows, self._adapters.use))
        assert self._columns is not None
        where = self._device.torch
        lengths = [len(row.tokens) for row in self.rows]
        start = lengths[0] - 1 if len(set(lengths)) == 1 else None
        positions = torch.tensor([[length - 1] for length in lengths], device=where)
        ids = torch.tensor([row.tokens[-1:] for row in self.rows], device=where)
        self._adapters.use([row.adapter for row in self.rows])
        self._reserve(self.rows)
        logits = self._forward(ids, Pass(0, len(self.rows), positions, max(lengths), start))
        return self._taken(self.rows, logits[:, -1])

    def leave(self, gone: set[Row], *, keep: bool = False) -> None:
        """Drop rows; the last ones take their places. `keep` stores what they read, for a conversation that goes on."""
        if self._alone is not None:
            self._alone.leave(gone)
            self.rows = [row for row in self.rows if row not in gone]
            return
        for row in gone:
            if keep and self._columns is not None:
                self._store(row, self.rows.index(row), len(row.tokens) - 1)
        for slot in sorted((self.rows.index(row) for row in gone), reverse=True):
            last = len(self.rows) - 1  # a row that stays, or this one: those that go leave from the end
            if slot != last:
                assert self._columns is not None
                self._columns.move(last, slot, len(self.rows[last].tokens))
                self.rows[slot] = self.rows[last]
            self.rows.pop()

    def release(self) -> None:
        """Drop all rows and stored beginnings, and give their memory back."""
        self.leave(set(self.rows))
        if self.prefixes is not None:
            self.prefixes.clear()
        if self._columns is not None:
            self._columns.release()
        self._device.empty_cache()

    def unread(self, row: Row) -> int:
        """Tokens of a row that would have to be read."""
        return len(row.tokens) - self._stored(row) if self.prefixes is not None else len(row.tokens)

    def score(self, prompt: list[int], adapter: str | None, count: int) -> list[Choice]:
        """Each token of a prompt but the first, with its log-probability and the `count` likeliest in its place."""
        self._adapters.use([adapter])
        cache = DynamicCache()
        scored: list[Choice] = []
        with self._own_attention():
            for start in range(0, len(prompt) - 1, _SCORED_TOKENS):  # logits of a whole long prompt would not fit
                part = prompt[start : start + _SCORED_TOKENS]
                ids = torch.tensor([part], device=self._device.torch)
                positions = torch.arange(start, start + len(part), device=self._device.torch)[None]
                out = self._model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
                following = prompt[start + 1 : start + 1 + len(part)]
                scored += [with_logprobs(out.logits[0, index], token, count) for index, token in enumerate(following)]
        return scored

    def embed(self, prompt: list[int], adapter: str | None) -> list[float]:
        """The mean of the last layer's states over a prompt's tokens, with length 1."""
        ids = torch.tensor([prompt], device=self._device.torch)
        self._adapters.use([adapter])
        with self._own_attention():
            out = self._model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                use_cache=False,
                output_hidden_states=True,
                logits_to_keep=1,
            )
        mean = out.hidden_states[-1][0].float().mean(0)
        values: list[float] = torch.nn.functional.normalize(mean, dim=0).tolist()
        return values

    def _apart(self, waiting: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """Rows to read in one pass, and those that wait because they share more with one of them than is stored."""
        if self.prefixes is None:
            return list(waiting), []
        now: list[Row] = []
        later: list[Row] = []
        for row in waiting:
            stored = self._stored(row)
            shared = max(
                (prefixes.common(row.tokens[:-1], one.tokens) for one in now if one.adapter == row.adapter), default=0
            )
            (later if shared >= stored + prefixes.SHORTEST else now).append(row)
        now.sort(key=self.unread, reverse=True)
        longest, real = self.unread(now[0]), 0
        for index, row in enumerate(now):
            real += self.unread(row)
            if longest * (index + 1) > 2 * real + _PADDING:  # short rows beside long ones are mostly padding
                return now[:index], [*now[index:], *later]
        return now, later

    def _stored(self, row: Row) -> int:
        assert self.prefixes is not None
        return sum(count for _, count in self.prefixes.find(row.tokens[:-1], row.adapter))

    def _reserve(self, rows: Sequence[Row]) -> None:
        """Make room for all rows, those that run first. When rows join, room that others left is given back."""
        assert self._columns is not None
        live, columns = len(self.rows), max(len(row.tokens) for row in rows)
        is_replaced = False
        if len(rows) > live:
            columns += 1  # where the padding of a pass is written
            is_replaced = self._columns.trim(len(rows), columns, live)
        if self._columns.reserve(len(rows), columns, live) or is_replaced:
            self._device.empty_cache()

    def _read(self, rows: Sequence[Row], first: int) -> Tensor:
        """Read rows into the slots from `first`; logits of what follows each, (rows, vocabulary).

        Rows begin where what is stored of them ends, and are padded to as many tokens. Padding that would lie behind the
        longest row is written into the one column after it, so that no pass is wider than its rows.
        """
        assert self._columns is not None
        where = self._device.torch
        starts = [0] * len(rows)
        longest = max(len(row.tokens) for row in rows)
        if self.prefixes is not None:
            for index, row in enumerate(rows):
                for segment, count in self.prefixes.find(row.tokens[:-1], row.adapter):
                    self._columns.paste(first + index, starts[index], segment, count)
                    starts[index] += count
        unread = [row.tokens[start:] for row, start in zip(rows, starts, strict=True)]
        tokens = max(map(len, unread))
        ids = torch.tensor([[*one, *[self._pad] * (tokens - len(one))] for one in unread], device=where)
        positions = torch.tensor(starts, device=where)[:, None] + torch.arange(tokens, device=where)
        positions = positions.clamp(max=longest)
        same = starts[0] if len(set(starts)) == 1 else None
        self._adapters.use([row.adapter for row in rows])
        now = Pass(first, first + len(rows), positions, min(max(starts) + tokens, longest + 1), same)
        last = torch.tensor([len(one) - 1 for one in unread], device=where)
        logits = self._forward(ids, now, last)
        for index, row in enumerate(rows):
            self._store(row, first + index, len(row.tokens))
        return logits[torch.arange(len(rows), device=where), last if logits.shape[1] == tokens else 0 * last]

    def _forward(self, ids: Tensor, now: Pass, last: Tensor | None = None) -> Tensor:
        """Logits of a pass, (rows, tokens or 1, vocabulary). `last` are the places whose logits are wanted, one a row."""
        assert self._columns is not None
        options: dict[str, Any] = {}
        if self._keeps_logits and (last is None or bool((last == ids.shape[1] - 1).all())):
            options["logits_to_keep"] = 1
        elif self._keeps_logits and last is not None:
            options["logits_to_keep"] = places = last.unique()
        with self._columns.running(now):
            logits: Tensor = self._model(
                input_ids=ids,
                position_ids=now.positions,
                past_key_values=self._columns,
                use_cache=True,
                **options,
            ).logits
        if last is not None and isinstance(options.get("logits_to_keep"), Tensor):
            chosen = torch.searchsorted(places, last)
            logits = logits[torch.arange(len(last), device=last.device), chosen][:, None]
        return logits

    def _taken(self, rows: Sequence[Row], logits: Tensor) -> list[Choice]:
        choices = choose(logits, [row.drawing for row in rows])
        for row, choice in zip(rows, choices, strict=True):
            row.tokens.append(choice.token)
        return choices

    def _store(self, row: Row, slot: int, tokens: int) -> None:
        """Store the first tokens of a row that was read, unless memory runs out: the row does not depend on it."""
        if self.prefixes is None or self._columns is None:
            return
        held = self._columns
        limit = int(PREFIX_SHARE * (self.prefixes.bytes + self._device.free_bytes()))
        try:
            self.prefixes.store(row.tokens[:tokens], row.adapter, lambda a, b: held.copy(slot, a, b), limit)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise

    @contextmanager
    def attention(self) -> Iterator[None]:
        """The attention that rows need, and afterwards the one that was there."""
        self._prove()
        if self._columns is None:
            yield
            return
        before = causal(self._model).config._attn_implementation
        use_attention(self._model, columns.NAME)
        try:
            yield
        finally:
            use_attention(self._model, before)

    @contextmanager
    def _own_attention(self) -> Iterator[None]:
        now = causal(self._model).config._attn_implementation
        if now != columns.NAME:
            yield
            return
        use_attention(self._model, self._before)
        try:
            yield
        finally:
            use_attention(self._model, now)

    def _prove(self) -> None:
        """Decide how rows are held: in columns where that computes what the model computes."""
        if self._columns is not None or self._alone is not None:
            return
        self._before = causal(self._model).config._attn_implementation
        self._adapters.use([])
        problem: Exception | str | None
        try:
            problem = self._tried()
        except (NotInColumns, TypeError, AttributeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            if is_out_of_memory(error):
                raise
            problem = error
        finally:
            use_attention(self._model, self._before)
        if problem is None:
            assert self._columns is not None
            self.prefixes = Prefixes(self._columns.token_bytes) if self._share else None
            return
        self.why_alone = str(problem) or type(problem).__name__
        log.info("rows are computed one after the other: %s", self.why_alone)
        self._columns, self._alone = None, Alone(self._model, self._device.torch)

    def _tried(self) -> str | None:
        """Two ragged rows, read in two parts and stepped, against each alone; what is wrong, or None."""
        config = causal(self._model).config.get_text_config()
        where, size = self._device.torch, int(config.vocab_size)
        window = getattr(config, "sliding_window", None)
        longest = window + 6 if isinstance(window, int) and window < 64 else 9
        drawn = torch.randint(0, size, (2, longest), generator=torch.Generator().manual_seed(1)).to(where)
        lengths = (longest, longest - 4)
        cache = DynamicCache()
        self._model(input_ids=drawn[:1, :3], past_key_values=cache, use_cache=True)
        wanted = torch.cat([
            self._model(input_ids=drawn[row : row + 1, :length], use_cache=False).logits[:, -1].float()
            for row, length in enumerate(lengths)
        ])  # fmt: skip
        self._columns = KeyColumns.of(cache)
        self._columns.reserve(2, longest, live=0)
        use_attention(self._model, columns.NAME)
        positions = torch.arange(longest, device=where)
        early = longest - 5
        self._forward(drawn[:, :early], Pass(0, 2, positions[:early].expand(2, -1), early, 0))
        ends = torch.tensor(lengths, device=where)
        part = torch.stack([positions[early:-1], positions[early - 3 : -4]])
        ids = drawn.gather(1, part)
        self._forward(ids, Pass(0, 2, part, longest - 1, None))
        last = (ends - 1)[:, None]
        logits = self._forward(drawn.gather(1, last), Pass(0, 2, last, longest, None))[:, -1].float()
        difference = (logits - wanted).abs().mean() / wanted.abs().mean().clamp(min=1e-6)
        self._columns.release()
        if not bool(difference <= AGREEMENT[self._device.compute]):
            return f"rows in columns differ from each alone by {float(difference):.3g} of their logits"
        return None
