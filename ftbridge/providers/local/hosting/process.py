"""The process that answers: takes asks as they come, lets them join the running batch, and tells every token.

    Intake (threads: read, prepare) ─▶ Server ── advance: join · step ──▶ Words ─▶ Reader ─▶ lines out

Lines in   {"ask": {…}}, {"cancel": ID}
Lines out  {"ready": …} once the model stands; {"told": [[ID, kind, {…}], …]} after each pass; {"failed": [ID, error]}
"""

from __future__ import annotations

import copy
import json
import os
import sys
import traceback
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftbridge.errors import FtbridgeError, UsageError, document
from ftbridge.providers.local import load
from ftbridge.providers.local.device import is_out_of_memory, pick
from ftbridge.providers.local.hosting.adapters import Adapters
from ftbridge.providers.local.hosting.batch import Batch, Row
from ftbridge.providers.local.hosting.choose import Choice, Drawing
from ftbridge.providers.local.hosting.intake import Arrival, Cancel, Intake, Ready
from ftbridge.providers.local.hosting.prompting import Prepared, Prompter
from ftbridge.providers.local.hosting.replies import Parts, Reader
from ftbridge.providers.local.hosting.requests import Ask, ContextTooLong, Embedding, End, Piece, Start, Told
from ftbridge.providers.local.hosting.shape import Shapes
from ftbridge.providers.local.hosting.words import Words
from ftbridge.providers.local.models import find_model
from ftbridge.providers.local.rendering import Renderer
from ftbridge.providers.local.request import SampleRequest
from ftbridge.providers.local.template import RenderError

MOST_ROWS = 64
PREFILL_TOKENS = 8_192
"""Tokens of prompts that are read in one pass, padding included; a longer prompt is read alone. Others wait for that pass."""
MEMORY_SHARE = 0.5
"""Share of the memory that is free which keys and values may take."""
DEFAULT_MAX_TOKENS = 4_096
"""Tokens of an answer that sets no limit, where the model's context has room for as many."""


@dataclass(eq=False)
class Answer:
    """One answer under way."""

    ask: Ask
    index: int
    row: Row
    words: Words
    reader: Reader
    limit: int
    ends: frozenset[int]
    said: list[int] = field(default_factory=list)
    reasoned: int = 0
    """Tokens of reasoning."""


@dataclass
class Server:
    """A model and its running answers."""

    asked: SampleRequest
    waiting: deque[Answer] = field(default_factory=deque)
    running: list[Answer] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    broken: dict[str, Exception] = field(default_factory=dict)
    """Asks that failed by themselves in the last pass."""
    most_rows: int = MOST_ROWS

    def __post_init__(self) -> None:
        """Load the model."""
        request = self.asked.request
        self.device = pick(request.device, request.precision)
        base = find_model(request.model, trust_remote_code=request.trust_remote_code)
        self.tokenizer = load.load_tokenizer(base.path, trust_remote_code=request.trust_remote_code)
        self.renderer = Renderer(self.tokenizer, request.thinking)
        weights = Path(self.asked.tuned) if self.asked.tuned else base.path
        plain = request.model_copy(update={"tuning": "lora"})
        self.model = load.load_base(weights, plain, self.device)
        if request.quantization == "nf4":
            load.use_dequantized(self.model, plain, self.device)
        self.model.eval()
        self.adapters = Adapters(self.model, self.device.torch, self.device.compute)
        # Prompts are made in a thread of their own, and tokenizers are not for two threads at once.
        apart = Renderer(copy.deepcopy(self.tokenizer), request.thinking)
        self.prompter = Prompter(apart, Shapes(apart.tokenizer, self.renderer.end_of_turn))
        self.batch = Batch(self.model, self.adapters, self.device, self.renderer.pad_id)
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)

    def take(self, ask: Ask, prepared: Prepared | None = None) -> list[tuple[str, Told]]:
        """Put an ask in line. Raises `UsageError` or `RenderError` for what this model cannot answer."""
        if ask.adapter is not None:
            self.adapters.load(ask.adapter)
        prepared = prepared or self.prompter.prepare(ask)
        prompt = prepared.prompt
        room = self.context - len(prompt)
        if room < 1 or (ask.max_tokens or 1) > room:
            wanted = f" and {ask.max_tokens:,} in the answer" if ask.max_tokens else ""
            raise ContextTooLong(
                f"This model's maximum context length is {self.context:,} tokens; the messages have {len(prompt):,}{wanted}."
            )
        limit = ask.max_tokens or min(room, DEFAULT_MAX_TOKENS)
        told: list[tuple[str, Told]] = [(ask.id, Start(prompt_tokens=len(prompt)))]
        if ask.embed:
            found = Embedding(values=self._embedding(ask, prompt))
            return [*told, (ask.id, found), (ask.id, End(index=0, finish_reason="stop", completion_tokens=0))]
        if ask.echo:
            told += [
                (ask.id, piece.model_copy(update={"index": i}))
                for i in range(ask.n)
                for piece in self._echo(ask, prompt)
            ]
        if ask.max_tokens == 0:
            ends = [End(index=index, finish_reason="length", completion_tokens=0) for index in range(ask.n)]
            return [*told, *((ask.id, end) for end in ends)]
        for index in range(ask.n):
            drawing = self._drawing(ask, index, prepared)
            row = Row(list(prompt), ask.adapter, drawing)
            words = Words(self.tokenizer, [*ask.stop, *prepared.stops], prepared.hidden)
            self.waiting.append(Answer(ask, index, row, words, prepared.reader(index), limit, prepared.ends))
        return told

    def _echo(self, ask: Ask, prompt: list[int]) -> list[Piece]:
        """The prompt as pieces of the answer; with log probabilities, a piece for each token, the first without one."""
        if ask.logprobs is None:
            return [Piece(index=0, text=self.tokenizer.decode(prompt))]
        texts = [self.tokenizer.decode([token]) for token in prompt]
        pieces = [Piece(index=0, text=texts[0], token=texts[0])]
        for text, choice in zip(texts[1:], self.batch.score(prompt, ask.adapter, ask.logprobs), strict=True):
            pieces.append(self._piece(0, Parts(text), choice))
        return pieces

    def _embedding(self, ask: Ask, prompt: list[int]) -> list[float]:
        size = int(self.model.config.get_text_config().hidden_size)
        if ask.dimensions not in (None, size):
            raise UsageError(f"This model's embeddings have {size:,} dimensions and cannot be shortened.")
        return self.batch.embed(prompt, ask.adapter)

    def _drawing(self, ask: Ask, index: int, prepared: Prepared) -> Drawing:
        size = int(self.model.config.get_text_config().vocab_size)
        if beyond := [token for token in ask.logit_bias if not 0 <= token < size]:
            raise UsageError(f"logit_bias names token {beyond[0]}; this model's tokens are 0 to {size - 1:,}.")
        return Drawing(
            ask.temperature,
            ask.top_p,
            None if ask.seed is None else ask.seed + index,
            ask.logprobs,
            prepared.shape(),
            top_k=ask.top_k,
            min_p=ask.min_p,
            repetition_penalty=ask.repetition_penalty,
            presence_penalty=ask.presence_penalty,
            frequency_penalty=ask.frequency_penalty,
            logit_bias=ask.logit_bias,
            prompt=frozenset(prepared.prompt) if ask.repetition_penalty != 1.0 else frozenset(),
        )

    def advance(self) -> list[tuple[str, Told]]:
        """One pass: let those who wait join, or one more token for all who run."""
        self._drop({place for place, answer in enumerate(self.running) if answer.ask.id in self.cancelled})
        self.waiting = deque(answer for answer in self.waiting if answer.ask.id not in self.cancelled)
        self.cancelled.clear()
        self.broken.clear()
        joining = self._joining()
        if joining:
            try:
                choices = self.batch.join([answer.row for answer in joining])
            except Exception:
                self.waiting.extendleft(reversed(joining))
                raise
            first = len(self.running)
            self.running += joining
            return self._told(list(enumerate(joining, first)), choices)
        if self.running:
            return self._told(list(enumerate(self.running)), self.batch.step())
        return []

    def make_smaller(self) -> bool:
        """After memory ran out: put every answer back in line with what it has said, half as many at a time.

        False when there was only one left to answer.
        """
        rows = min(self.most_rows, len(self.running) + 1)
        for answer in reversed(self.running):
            read = len(answer.row.prompt) - answer.row.asked
            answer.row.prompt += answer.said[read:]
            self.waiting.appendleft(answer)
        self.batch.leave(set(range(len(self.running))))
        self.running = []
        self.most_rows = max(1, rows // 2)
        self.device.empty_cache()
        return rows > 1

    def fail(self) -> set[str]:
        """Forget every answer; their names."""
        names = {answer.ask.id for answer in (*self.running, *self.waiting)}
        self.batch.leave(set(range(len(self.running))))
        self.running, self.waiting = [], deque()
        return names

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self.running)

    def _joining(self) -> list[Answer]:
        """Those who wait and fit: by rows, and by the memory their keys and values will take."""
        joining: list[Answer] = []
        longest = max([self.batch.columns, *(len(a.row.prompt) + a.limit for a in self.running)], default=0)
        reading = 0
        while self.waiting and len(self.running) + len(joining) < self.most_rows:
            answer = self.waiting[0]
            reading = max(reading, len(answer.row.prompt))
            if joining and reading * (len(joining) + 1) > PREFILL_TOKENS:
                break
            longest = max(longest, len(answer.row.prompt) + min(answer.limit, 512))
            rows = len(self.running) + len(joining) + 1
            needed = rows * longest * self.batch.token_bytes
            if rows > 1 and needed > MEMORY_SHARE * self.device.free_bytes():
                break
            joining.append(self.waiting.popleft())
        return joining

    def _told(self, answers: list[tuple[int, Answer]], choices: list[Choice]) -> list[tuple[str, Told]]:
        told: list[tuple[str, Told]] = []
        done: set[int] = set()
        self.broken.clear()
        for (place, answer), choice in zip(answers, choices, strict=True):
            name, ended = answer.ask.id, choice.token in answer.ends
            if choice.failed is not None:
                self.broken[name] = choice.failed
                done.add(place)
                continue
            answer.said.append(choice.token)
            text = "" if ended else answer.words.add(choice.token)
            reason = "stop" if ended or answer.words.stopped else "length" if len(answer.said) >= answer.limit else None
            if reason:
                text += answer.words.rest()
            reasoned = answer.reasoned
            parts = self._read(answer, text, last=reason is not None)
            shown = None if ended or answer.reasoned > reasoned else choice  # the answer's tokens, not the reasoning's
            if parts.text or parts.reasoning or parts.calls or (shown is not None and shown.logprob is not None):
                told.append((name, self._piece(answer.index, parts, shown)))
            if reason:
                done.add(place)
                end = End(
                    index=answer.index,
                    finish_reason=reason,
                    completion_tokens=len(answer.said),
                    reasoning_tokens=answer.reasoned,
                )
                told.append((name, end))
        done |= {place for place, answer in enumerate(self.running) if answer.ask.id in self.broken}
        self._drop(done)
        self.waiting = deque(answer for answer in self.waiting if answer.ask.id not in self.broken)
        return [(name, said) for name, said in told if name not in self.broken]

    def _read(self, answer: Answer, text: str, *, last: bool) -> Parts:
        """What more text adds to an answer. A token is one of reasoning if reasoning goes on before it or after it."""
        before = answer.reader.reasoning
        parts = answer.reader.add(text)
        answer.reasoned += before or answer.reader.reasoning
        if last:
            rest = answer.reader.end()
            parts = Parts(parts.text + rest.text, parts.reasoning + rest.reasoning, [*parts.calls, *rest.calls])
            if parts.reasoning and not answer.reasoned:  # only the whole completion shows that it is reasoning
                counted = self.tokenizer(parts.reasoning, add_special_tokens=False)["input_ids"]
                answer.reasoned = min(len(answer.said), len(counted))
        return parts

    def _piece(self, index: int, parts: Parts, choice: Choice | None) -> Piece:
        said = Piece(index=index, text=parts.text, reasoning=parts.reasoning, tool_calls=parts.calls)
        if choice is None or choice.logprob is None:
            return said
        top = [(self.tokenizer.decode([token]), logprob) for token, logprob in choice.top]
        token = self.tokenizer.decode([choice.token])
        return said.model_copy(update={"token": token, "logprob": choice.logprob, "top": top})

    def _drop(self, gone: set[int]) -> None:
        if gone:
            self.batch.leave(gone)
            self.running = [answer for place, answer in enumerate(self.running) if place not in gone]


def main() -> None:
    """Serve until standard input closes: the first line is the model to load."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(**said: Any) -> None:
        out.write(json.dumps(said, ensure_ascii=True) + "\n")
        out.flush()

    try:
        server = Server(SampleRequest.model_validate_json(sys.stdin.readline()))
    except Exception as error:
        tell(dead=document(_known(error)))
        return
    tell(ready=True, notes=server.renderer.notes, context=server.context)
    intake = Intake(server.prompter.prepare)
    intake.start(sys.stdin)
    while True:
        if not server.busy or not intake.arrivals.empty():
            arrival = intake.arrivals.get()
            if arrival is None:
                return
            _take(server, arrival, tell)
            continue
        try:
            told = server.advance()
        except Exception as error:
            _fail(server, error, tell)
            continue
        for name, reason in server.broken.items():
            tell(failed=[name, document(_known(reason))])
        if told:
            tell(told=[[name, type(said).__name__.lower(), said.model_dump()] for name, said in told])


def _take(server: Server, arrival: Arrival, tell: Any) -> None:
    """Take what came in. Whatever is wrong with an ask fails that ask alone: the process is everybody's."""
    if isinstance(arrival, Cancel):
        server.cancelled.add(arrival.name)
        return
    name = arrival.ask.id if isinstance(arrival, Ready) else arrival.name
    try:
        if not isinstance(arrival, Ready):
            raise arrival.error
        for one, told in server.take(arrival.ask, arrival.prepared):
            tell(told=[[one, type(told).__name__.lower(), told.model_dump()]])
    except Exception as error:
        if not isinstance(error, (FtbridgeError, RenderError)):
            traceback.print_exc()
        server.waiting = deque(answer for answer in server.waiting if answer.ask.id != name)
        tell(failed=[name, document(_known(error))])


def _known(error: Exception) -> BaseException:
    from ftbridge.providers.local.worker import known

    return UsageError(f"The conversation {error}.") if isinstance(error, RenderError) else known(error)


def _fail(server: Server, error: Exception, tell: Any) -> None:
    """A pass failed: go on with fewer rows if memory ran out, else every answer fails."""
    if is_out_of_memory(error) and server.make_smaller():
        return
    traceback.print_exc()
    for name in server.fail():
        tell(failed=[name, document(_known(error))])


if __name__ == "__main__":
    main()
