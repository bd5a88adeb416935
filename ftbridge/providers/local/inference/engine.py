"""The engine: requests in, completions out. Rows join the running batch and leave it between two tokens.

    engine = Engine(model, tokenizer)
    generations = engine.generate([Request(ids, max_new_tokens=64, temperature=1.0, seed=7, logprobs=0)])

A server adds requests as they come and calls `advance` in a loop within `generating`; `generate` is that loop for a list of
requests. Not for several threads.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ftbridge.providers.local.inference.adapters import Adapters
from ftbridge.providers.local.inference.batch import Batch, Row
from ftbridge.providers.local.inference.packed import PackedLinears
from ftbridge.providers.local.inference.row_limit import RowLimit
from ftbridge.providers.local.inference.sampling import Choice, Drawing
from ftbridge.providers.local.inference.shape import Shape
from ftbridge.providers.local.inference.text import Words
from ftbridge.providers.local.models.device import Device, is_out_of_memory
from ftbridge.providers.local.models.threads import Threads

FinishReason = Literal["stop", "length", "cancelled"]

MAX_ROWS = 64
PREFILL_TOKENS = 8_192
"""Tokens of prompts that are read in one pass, padding included; a longer prompt is read alone. Others wait for that pass."""
MEMORY_SHARE = 0.5
"""Share of the free memory that rows which join may take for keys and values, with the copies that are made as these grow."""
PLANNED_TOKENS = 512
"""Tokens of a completion that room is planned for when its row joins; few reach the limit they are allowed."""


@dataclass(frozen=True)
class Request:
    """One completion to generate.

    Args:
        prompt_ids: Tokens of the prompt, at least one.
        max_new_tokens: Tokens of the completion at most, its end of turn included.
        temperature: 0 takes the likeliest token; otherwise logits are divided by it and a token is drawn.
        top_p, top_k, min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias: As in `sampling.Drawing`.
        seed: Makes the draws of this row repeatable, whatever rows are beside it. None draws again each time.
        adapter: Folder of a LoRA adapter for this row; None for the model as it stands (a live peft model: its active adapter).
        logprobs: How many likeliest alternatives to report with each token's log-probability; 0 reports that of the token
            alone, None nothing. Nats, of the model's own distribution, before temperature and penalties.
        stop: Texts that end the completion; they are not part of its text.
        end_tokens: Tokens that end it; None for those that the tokenizer and the model's generation config name.
        hidden_tokens: Special tokens that are not part of the text.
        shape: What the completion has to be, such as JSON of a schema.
        stream: Whether `Step.text` is wanted as tokens come.
    """

    prompt_ids: Sequence[int]
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    adapter: str | None = None
    logprobs: int | None = None
    stop: Sequence[str] = ()
    end_tokens: frozenset[int] | None = None
    hidden_tokens: frozenset[int] = frozenset()
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    shape: Shape | None = None
    stream: bool = False


@dataclass
class Generation:
    """A completion: its tokens (with the token that ended it), its text, and why it ended.

    `logprobs[i]` belongs to `token_ids[i]`, and `alternatives[i]` are the likeliest tokens in its place; both are empty unless
    they were requested. `error` is what made this completion alone fail; its tokens are those that came before.
    """

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    error: Exception | None = None


@dataclass(eq=False)
class Completion:
    """A request under way. `row` is its place in the batch, `generation` what came of it so far."""

    request: Request
    row: Row
    ends: frozenset[int]
    words: Words | None
    generation: Generation = field(default_factory=Generation)
    joined: float = 0.0
    """When its prompt was first read, on the monotonic clock."""

    @property
    def tokens_left(self) -> int:
        """How many more tokens it may have."""
        return self.request.max_new_tokens - len(self.generation.token_ids)


@dataclass(frozen=True)
class Step:
    """One more token of one completion. `text` is new text that no later token changes, `ended` why it was the last token."""

    completion: Completion
    choice: Choice
    text: str = ""
    ended: FinishReason | None = None
    error: Exception | None = None


class Engine:
    """One model's completions.

    Args:
        model: A causal language model of transformers, or a peft model around one, also while it is in training: its mode is
            put back after `generate`, and its weights may change between two calls.
        tokenizer: Its tokenizer.
        device: Where it is; None looks at its parameters.
        pad_id: Any token, for padding.
        max_rows: Completions that run at once, at most; fewer for some time after memory ran out, as `RowLimit` says.
        max_batch_tokens: Tokens that all rows together may take in the cache, padding included; None leaves it to the memory
            that is free.
        share_prefixes: Whether beginnings of prompts are stored, and read once.
        keep_completions: Whether what rows generated is stored too, for conversations that go on.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        device: Device | None = None,
        pad_id: int = 0,
        max_rows: int = MAX_ROWS,
        max_batch_tokens: int | None = None,
        share_prefixes: bool = True,
        keep_completions: bool = False,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.device = device or _device_of(model)
        self.max_rows, self.max_batch_tokens = max_rows, max_batch_tokens
        self.adapters = Adapters(model, self.device.torch, self.device.compute)
        self._packed = PackedLinears(model, self.device)
        self._threads = Threads() if self.device.kind == "cpu" else None
        self._weights = sum(parameter.numel() for parameter in model.parameters())
        self.adapters.products = self._packed.products
        self.batch = Batch(model, self.adapters, self.device, pad_id, share_prefixes=share_prefixes)
        self._keep = keep_completions
        self._waiting: deque[Completion] = deque()
        self._running: dict[Row, Completion] = {}
        self.limit = RowLimit()
        self._pass_rows = 0  # of the last pass, those that joined in it included
        self._failures = 0  # passes on end in which memory ran out
        self._trained = any(parameter.requires_grad for parameter in model.parameters())
        self._ends = _ends_of(model, tokenizer)
        self._is_generating = False

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """The completions of all requests, in their order. Raises what makes all of them fail."""
        completions = [self.add(request) for request in requests]
        for _ in self.run():
            pass
        return [completion.generation for completion in completions]

    def run(self) -> Generator[Step, None, None]:
        """Every token of everything that was added, as it comes, until nothing is left. Closing it cancels the rest."""
        with self.generating():
            try:
                while self.busy:
                    yield from self.advance()
            finally:
                self.fail()

    def add(self, request: Request) -> Completion:
        """Put a request in line. Raises `ModelUnavailable` for an adapter that cannot be loaded."""
        if not request.prompt_ids:
            raise ValueError("a prompt has at least one token")
        if request.adapter is not None:
            self.adapters.load(request.adapter)
        words = None
        if request.stop or request.stream:
            words = Words(self.tokenizer, request.stop, request.hidden_tokens)
        row = Row(list(request.prompt_ids), request.adapter, _drawing(request))
        ends = self._ends if request.end_tokens is None else request.end_tokens
        completion = Completion(request, row, ends, words)
        self._waiting.append(completion)
        return completion

    def cancel(self, completion: Completion) -> None:
        """Take a completion out of the line or the batch; what it has so far stays. Others go on."""
        if completion.row in self._running:
            self._leave({completion.row})
        elif completion in self._waiting:
            self._waiting.remove(completion)
        if completion.generation.finish_reason is None:
            completion.generation.finish_reason = "cancelled"

    def advance(self) -> list[Step]:
        """One pass: those who wait join, or one more token for all who run.

        When memory runs out, rows go back in line with what they have, half as many run at a time, and the list is empty;
        `RowLimit` says when more run again. Raises `OutOfMemoryError` or its like when a single row does not fit, and
        `RuntimeError` outside `generating`, where the model's own attention would mix the padding of rows into their
        completions.
        """
        if not self._is_generating:
            raise RuntimeError("an engine advances only within generating()")
        try:
            steps = self._pass()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the tensors of the pass
            if not self.reduce():
                raise
            return []
        self._failures = 0
        self.limit.passed(self._pass_rows)
        return steps

    def reduce(self) -> bool:
        """Put every row back in line with what it has, half as many at a time, and give all memory back.

        A single row is tried once more, since what others left behind is gone now; False where that was in vain. It was that
        row then, not the number of rows, and the limit of rows is lifted.
        """
        rows = max(self._pass_rows, len(self._running))
        self._waiting.extendleft(reversed(self._running.values()))
        self._running = {}
        self.batch.release()
        self.limit.failed(rows)
        self._failures += 1
        if rows > 1 or self._failures == 1:
            return True
        self.limit, self._failures = RowLimit(), 0
        return False

    def fail(self) -> list[Completion]:
        """Cancel everything; what was cancelled."""
        cancelled = [*self._running.values(), *self._waiting]
        for completion in cancelled:
            completion.generation.finish_reason = "cancelled"
        self._leave(set(self._running))
        self._waiting.clear()
        return cancelled

    def score(self, token_ids: list[int], adapter: str | None, count: int) -> list[Choice]:
        """Each token but the first, with its log-probability and the `count` likeliest in its place."""
        return self.batch.score(token_ids, adapter, count)

    def embed(self, token_ids: list[int], adapter: str | None) -> list[float]:
        """The mean of the last layer's states over a text's tokens, with length 1."""
        return self.batch.embed(token_ids, adapter)

    @property
    def row_limit(self) -> int:
        """How many completions may run at once now."""
        return self.limit.at_most(self.max_rows)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self._running)

    @contextmanager
    def generating(self) -> Iterator[None]:
        """The model in the state that generates, and afterwards as it was. `run` and `generate` do this by themselves.

        What was stored of a model in training is forgotten first: its weights may have changed since.
        """
        training, threads = self.model.training, torch.get_num_threads()
        self.model.eval()
        if self._trained and self.batch.prefixes is not None:
            self.batch.prefixes.clear()
        try:
            with self._no_gradients(), self._packed.in_use(), self.batch.attention():
                self._is_generating = True
                yield
        finally:
            self._is_generating = False
            self.model.train(training)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)

    def _no_gradients(self) -> Any:
        """The context in which passes run.

        A model in training may keep a tensor that its forward pass made (rotary frequencies grow with the context); one made
        in inference mode could not be trained with later.
        """
        return torch.no_grad() if self._trained else torch.inference_mode()

    def _pass(self) -> list[Step]:
        joining = self._joining()
        self._pass_rows = len(self._running) + len(joining)
        if joining:
            if self._threads is not None and not self._running:
                self._threads.start()
            try:
                self._use_threads(sum(self.batch.unread(row) for row in joining))
                choices = self.batch.join(list(joining))
            except Exception:
                self._waiting.extendleft(reversed(joining.values()))
                raise
            self._running |= joining
            return self._taken(self.batch.rows[-len(joining) :], choices)
        if not self._running:
            return []
        self._use_threads(len(self._running))
        return self._taken(self.batch.rows, self.batch.step())

    def _use_threads(self, tokens: int) -> None:
        if self._threads is not None:
            self._threads.use(tokens * self._weights)

    def _joining(self) -> dict[Row, Completion]:
        """Those who wait and fit: by rows, and by what their keys and values will take."""
        joining: dict[Row, Completion] = {}
        if not self._waiting:
            return joining
        width = max((_planned(one) for one in self._running.values()), default=0)
        limit, reading = self.row_limit, 0
        while self._waiting and len(self._running) + len(joining) < limit:
            completion = self._waiting[0]
            reading = max(reading, self.batch.unread(completion.row))
            if joining and reading * (len(joining) + 1) > PREFILL_TOKENS:
                break
            width = max(width, _planned(completion))
            rows = len(self._running) + len(joining) + 1
            if rows > 1 and not self._has_room(rows, width):
                break
            completion.joined = completion.joined or time.monotonic()
            joining[completion.row] = self._waiting.popleft()
        return joining

    def _has_room(self, rows: int, width: int) -> bool:
        """Whether so many rows, the longest with so many tokens, fit: all slots of the cache count, in their whole width."""
        if self.max_batch_tokens is not None and self.batch.tokens_for(rows, width) > self.max_batch_tokens:
            return False
        extra = self.batch.extra_bytes(rows, width)
        return not extra or extra <= MEMORY_SHARE * self.device.free_bytes()

    def _taken(self, rows: Sequence[Row], choices: Sequence[Choice]) -> list[Step]:
        steps: list[Step] = []
        gone: set[Row] = set()
        for row, choice in zip(rows, choices, strict=True):
            step = _taken(self._running[row], choice, self.tokenizer)
            if step.ended is not None or step.error is not None:
                gone.add(row)
            steps.append(step)
        self._leave(gone)
        return steps

    def _leave(self, gone: set[Row]) -> None:
        if gone:
            self.batch.leave(gone, keep=self._keep)
            self._running = {row: one for row, one in self._running.items() if row not in gone}


def _taken(completion: Completion, choice: Choice, tokenizer: Any) -> Step:
    """What one more token makes of a completion."""
    generation, words = completion.generation, completion.words
    if choice.failed is not None:
        generation.error, generation.finish_reason = choice.failed, "stop"
        return Step(completion, choice, error=choice.failed)
    generation.token_ids.append(choice.token)
    if choice.logprob is not None:
        generation.logprobs.append(choice.logprob)
        generation.alternatives.append(choice.top)
    ended = choice.token in completion.ends
    text = "" if ended or words is None else words.add(choice.token)
    reason: FinishReason | None = None
    if ended or (words is not None and words.stopped):
        reason = "stop"
    elif completion.tokens_left <= 0:
        reason = "length"
    if reason is not None:
        generation.finish_reason = reason
        text += words.rest() if words is not None else ""
    if words is not None:
        generation.text += text
    elif reason is not None:
        hidden = completion.request.hidden_tokens
        shown = generation.token_ids[:-1] if ended else generation.token_ids
        generation.text = tokenizer.decode([one for one in shown if one not in hidden], skip_special_tokens=False)
    return Step(completion, choice, text, reason)


def _planned(completion: Completion) -> int:
    return len(completion.row.tokens) + min(completion.tokens_left, PLANNED_TOKENS)


def _drawing(request: Request) -> Drawing:
    return Drawing(
        request.temperature,
        request.top_p,
        request.seed,
        request.logprobs,
        request.shape,
        top_k=request.top_k,
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=request.logit_bias,
        prompt=frozenset(request.prompt_ids) if request.repetition_penalty != 1.0 else frozenset(),
    )


def _device_of(model: Any) -> Device:
    parameter = next(one for one in model.parameters() if one.is_floating_point())
    return Device(parameter.device, parameter.dtype)


def _ends_of(model: Any, tokenizer: Any) -> frozenset[int]:
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])}
    return frozenset(int(token) for token in ends if token is not None)
