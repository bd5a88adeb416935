"""Talk to the model a run made, wherever it is: on this machine, or at a service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ftbridge import providers
from ftbridge.data.examples import Message
from ftbridge.errors import UsageError
from ftbridge.providers.base import Prompt, Sampler
from ftbridge.runner.summary import read_lowering
from ftbridge.runs.run import Run


class ChatSession:
    """One conversation. Greedy: the same words get the same answers."""

    def __init__(self, sampler: Sampler, system: str | None, max_tokens: int) -> None:
        self._sampler, self._max_tokens = sampler, max_tokens
        self.messages: list[Message] = [Message(role="system", content=system)] if system else []

    def say(self, text: str) -> str:
        """Say something; returns the answer, and keeps both for what follows. Raises what the sampler raises."""
        messages = [*self.messages, Message(role="user", content=text)]
        prompt = Prompt(key="talk", messages=tuple(messages))
        (predictions,) = self._sampler.generate([prompt], max_tokens=self._max_tokens, batch_size=1)
        self.messages = [*messages, Message(role="assistant", content=predictions.text)]
        return predictions.text


@contextmanager
def open_chat(
    run: Run, *, base: bool = False, system: str | None = None, max_tokens: int = 512
) -> Iterator[ChatSession]:
    """A conversation with a run's tuned model, or with its base. Raises `UsageError` when the run has made no model."""
    state = run.state()
    if state.tuned is None and not base:
        raise UsageError(
            f"{run.id} is {state.state} and has no model yet.", hint=f"ftbridge chat {run.id} --base talks to its base."
        )
    tuned = None if base else state.tuned
    sampler = providers.load(state.provider).sampler(read_lowering(run), tuned, run.path)
    try:
        yield ChatSession(sampler, system, max_tokens)
    finally:
        sampler.close()
