"""The process that completes: takes asks as they come, lets them join the running batch, and tells every token.

    Intake (threads: read, prepare) ─▶ Server ── Engine.advance ──▶ Step ─▶ Reader ─▶ lines out

Lines in   {"ask": {…}}, {"cancel": ID}
Lines out  {"ready": …} once the model stands; {"events": [[ID, kind, {…}], …]} after each pass; {"failed": [ID, error]}
"""

from __future__ import annotations

import copy
import json
import os
import sys
import traceback
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ftbridge.errors import FtbridgeError, UsageError, document
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.template import RenderError
from ftbridge.providers.local.inference.engine import Completion, Request, Step
from ftbridge.providers.local.inference.intake import Arrival, Cancel, Intake, ReadyRequest
from ftbridge.providers.local.inference.loaded import Loaded
from ftbridge.providers.local.inference.prompting import Prepared, Prompter
from ftbridge.providers.local.inference.replies import Parts, Reader
from ftbridge.providers.local.inference.requests import (
    ContextTooLong,
    Embedding,
    GenerationRequest,
    StreamDelta,
    StreamEnd,
    StreamEvent,
    StreamStart,
    kind_of,
)
from ftbridge.providers.local.inference.sampling import Choice
from ftbridge.providers.local.inference.shape import Shapes
from ftbridge.providers.local.process.child import end_process
from ftbridge.providers.local.request import SampleRequest

DEFAULT_MAX_TOKENS = 4_096
"""Tokens of a completion that sets no limit, where the model's context has room for as many."""


@dataclass(eq=False)
class WorkerCompletion:
    """One completion of an ask."""

    ask: GenerationRequest
    index: int
    completion: Completion
    reader: Reader
    reasoned: int = 0
    """Tokens of reasoning."""


@dataclass
class Server:
    """A model and its running completions."""

    sample_request: SampleRequest
    pending: dict[Completion, WorkerCompletion] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)
    """Asks that failed by themselves in the last pass."""

    def __post_init__(self) -> None:
        """Load the model. Tuned weights here are a whole model's: adapters are named in asks."""
        full_request = self.sample_request.request.model_copy(update={"tuning": "full"})
        loaded = Loaded(self.sample_request.model_copy(update={"request": full_request}), keep_completions=True)
        self.tokenizer, self.renderer, self.model = loaded.tokenizer, loaded.renderer, loaded.model
        self.engine, self.context = loaded.engine, loaded.context
        # Prompts are made in a thread of their own, and tokenizers are not for two threads at once.
        apart = Renderer(copy.deepcopy(self.tokenizer), self.sample_request.request.thinking)
        self.prompter = Prompter(apart, Shapes(apart.tokenizer, self.renderer.completions.end_of_turn))

    def take(self, ask: GenerationRequest, prepared: Prepared | None = None) -> list[tuple[str, StreamEvent]]:
        """Put an ask in line. Raises `UsageError` or `RenderError` for what this model cannot answer."""
        if ask.adapter is not None:
            self.engine.adapters.load(ask.adapter)
        prepared = prepared or self.prompter.prepare(ask)
        prompt = prepared.prompt
        room = self.context - len(prompt)
        if room < 1 or (ask.max_tokens or 1) > room:
            wanted = f" and {ask.max_tokens:,} in the answer" if ask.max_tokens else ""
            raise ContextTooLong(
                f"This model's maximum context length is {self.context:,} tokens; the messages have {len(prompt):,}{wanted}."
            )
        limit = ask.max_tokens or min(room, DEFAULT_MAX_TOKENS)
        events: list[tuple[str, StreamEvent]] = [(ask.id, StreamStart(prompt_tokens=len(prompt)))]
        if ask.embed:
            embedding = Embedding(values=self._embedding(ask, prompt))
            return [
                *events,
                (ask.id, embedding),
                (ask.id, StreamEnd(index=0, finish_reason="stop", completion_tokens=0)),
            ]
        if ask.echo:
            events += [
                (ask.id, piece.model_copy(update={"index": i}))
                for i in range(ask.n)
                for piece in self._echo(ask, prompt)
            ]
        if ask.max_tokens == 0:
            ends = [StreamEnd(index=index, finish_reason="length", completion_tokens=0) for index in range(ask.n)]
            return [*events, *((ask.id, end) for end in ends)]
        requests = [self._request(ask, index, prepared, limit) for index in range(ask.n)]
        for index, request in enumerate(requests):
            completion = self.engine.add(request)
            self.pending[completion] = WorkerCompletion(ask, index, completion, prepared.reader(index))
        return events

    def cancel(self, name: str) -> None:
        """Drop an ask."""
        for completion in [one for one, pending in self.pending.items() if pending.ask.id == name]:
            self.engine.cancel(completion)
            del self.pending[completion]

    def advance(self) -> list[tuple[str, StreamEvent]]:
        """One pass: let those who wait join, or one more token for all who run."""
        self.broken.clear()
        events: list[tuple[str, StreamEvent]] = []
        for step in self.engine.advance():
            pending = self.pending[step.completion]
            if step.error is not None:
                self.broken[pending.ask.id] = step.error
            else:
                events += [(pending.ask.id, one) for one in self._events_of(pending, step)]
            if step.ended or step.error:
                del self.pending[step.completion]
        for name in self.broken:
            self.cancel(name)
        return [(name, one) for name, one in events if name not in self.broken]

    def fail(self) -> set[str]:
        """Forget every ask; their names."""
        names = {pending.ask.id for pending in self.pending.values()}
        self.engine.fail()
        self.pending.clear()
        return names

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return self.engine.busy

    def _echo(self, ask: GenerationRequest, prompt: list[int]) -> list[StreamDelta]:
        """The prompt as pieces of the answer; with log probabilities, a piece for each token, the first without one."""
        if ask.logprobs is None:
            return [StreamDelta(index=0, text=self.tokenizer.decode(prompt))]
        texts = [self.tokenizer.decode([token]) for token in prompt]
        pieces = [StreamDelta(index=0, text=texts[0], token=texts[0])]
        for text, choice in zip(texts[1:], self.engine.score(prompt, ask.adapter, ask.logprobs), strict=True):
            pieces.append(self._piece(0, Parts(text), choice))
        return pieces

    def _embedding(self, ask: GenerationRequest, prompt: list[int]) -> list[float]:
        size = int(self.model.config.get_text_config().hidden_size)
        if ask.dimensions not in (None, size):
            raise UsageError(f"This model's embeddings have {size:,} dimensions and cannot be shortened.")
        return self.engine.embed(prompt, ask.adapter)

    def _request(self, ask: GenerationRequest, index: int, prepared: Prepared, limit: int) -> Request:
        size = int(self.model.config.get_text_config().vocab_size)
        if beyond := [token for token in ask.logit_bias if not 0 <= token < size]:
            raise UsageError(f"logit_bias names token {beyond[0]}; this model's tokens are 0 to {size - 1:,}.")
        return Request(
            prepared.prompt,
            limit,
            ask.temperature,
            ask.top_p,
            None if ask.seed is None else ask.seed + index,
            ask.adapter,
            ask.logprobs,
            stop=(*ask.stop, *prepared.stops),
            end_tokens=prepared.ends,
            hidden_tokens=prepared.hidden,
            top_k=ask.top_k,
            min_p=ask.min_p,
            repetition_penalty=ask.repetition_penalty,
            presence_penalty=ask.presence_penalty,
            frequency_penalty=ask.frequency_penalty,
            logit_bias=ask.logit_bias,
            shape=prepared.shape(),
            stream=True,
        )

    def _events_of(self, pending: WorkerCompletion, step: Step) -> list[StreamEvent]:
        """What one more token means for a client."""
        events: list[StreamEvent] = []
        reasoned = pending.reasoned
        parts = self._read(pending, step.text, last=step.ended is not None)
        ended = step.choice.token in pending.completion.ends
        shown = (
            None if ended or pending.reasoned > reasoned else step.choice
        )  # the answer's tokens, not the reasoning's
        if parts.text or parts.reasoning or parts.calls or (shown is not None and shown.logprob is not None):
            events.append(self._piece(pending.index, parts, shown))
        if step.ended is not None:
            end = StreamEnd(
                index=pending.index,
                finish_reason="length" if step.ended == "length" else "stop",
                completion_tokens=len(pending.completion.generation.token_ids),
                reasoning_tokens=pending.reasoned,
            )
            events.append(end)
        return events

    def _read(self, pending: WorkerCompletion, text: str, *, last: bool) -> Parts:
        """What more text adds to an answer. A token is one of reasoning if reasoning goes on before it or after it."""
        before = pending.reader.reasoning
        parts = pending.reader.add(text)
        pending.reasoned += before or pending.reader.reasoning
        if last:
            rest = pending.reader.end()
            parts = Parts(parts.text + rest.text, parts.reasoning + rest.reasoning, [*parts.calls, *rest.calls])
            if parts.reasoning and not pending.reasoned:  # only the whole completion shows that it is reasoning
                counted = self.tokenizer(parts.reasoning, add_special_tokens=False)["input_ids"]
                pending.reasoned = min(len(pending.completion.generation.token_ids), len(counted))
        return parts

    def _piece(self, index: int, parts: Parts, choice: Choice | None) -> StreamDelta:
        piece = StreamDelta(index=index, text=parts.text, reasoning=parts.reasoning, tool_calls=parts.calls)
        if choice is None or choice.logprob is None:
            return piece
        top = [(self.tokenizer.decode([token]), logprob) for token, logprob in choice.top]
        token = self.tokenizer.decode([choice.token])
        return piece.model_copy(update={"token": token, "logprob": choice.logprob, "top": top})


def main() -> None:
    """Serve until standard input closes: the first line is the model to load."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(**message: Any) -> None:
        out.write(json.dumps(message, ensure_ascii=True) + "\n")
        out.flush()

    try:
        server = Server(SampleRequest.model_validate_json(sys.stdin.readline()))
    except Exception as error:
        tell(dead=document(_known(error)))
        return
    tell(ready=True, notes=server.renderer.notes, context=server.context)
    intake = Intake(server.prompter.prepare)
    intake.start(sys.stdin)
    with ExitStack() as stack:
        stack.enter_context(server.engine.generating())
        _serve(server, intake, tell)


def _serve(server: Server, intake: Intake, tell: Any) -> None:
    while True:
        if not server.busy or not intake.arrivals.empty():
            arrival = intake.arrivals.get()
            if arrival is None:
                return
            _take(server, arrival, tell)
            continue
        try:
            events = server.advance()
        except Exception as error:
            _fail(server, error, tell)
            continue
        for name, reason in server.broken.items():
            tell(failed=[name, document(_known(reason))])
        if events:
            tell(events=[[name, kind_of(event), event.model_dump()] for name, event in events])


def _take(server: Server, arrival: Arrival, tell: Any) -> None:
    """Take what came in. Whatever is wrong with an ask fails that ask alone: the process is everybody's."""
    if isinstance(arrival, Cancel):
        server.cancel(arrival.name)
        return
    name = arrival.ask.id if isinstance(arrival, ReadyRequest) else arrival.name
    try:
        if not isinstance(arrival, ReadyRequest):
            raise arrival.error
        for one, event in server.take(arrival.ask, arrival.prepared):
            tell(events=[[one, kind_of(event), event.model_dump()]])
    except Exception as error:
        if not isinstance(error, (FtbridgeError, RenderError)):
            traceback.print_exc()
        server.cancel(name)
        tell(failed=[name, document(_known(error))])


def _known(error: Exception) -> BaseException:
    from ftbridge.providers.local.process.worker import as_known_error

    return UsageError(f"The conversation {error}.") if isinstance(error, RenderError) else as_known_error(error)


def _fail(server: Server, error: Exception, tell: Any) -> None:
    """A pass failed, and with it every ask."""
    traceback.print_exc()
    for name in server.fail():
        tell(failed=[name, document(_known(error))])


if __name__ == "__main__":
    main()
    end_process()
