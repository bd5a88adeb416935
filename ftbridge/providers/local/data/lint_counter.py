"""Counts for the linter with a local model's own tokenizer and chat template, in one child process without weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ftbridge import extras
from ftbridge.data.examples import ExampleError, Message, parse_example
from ftbridge.data.lint.counting import Counted, ModelCounter, Thinking
from ftbridge.data.lint.rule import Method
from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local.process.child import Child, serve


@contextmanager
def local_counter(
    model: str,
    *,
    log: Path,
    max_length: int | None = None,
    trust_remote_code: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[ModelCounter]:
    """A counter for `Options.counter`, as long as the context is open; its process ends with it.

    `model` is a name as `find_model` takes it, and is fetched if it has to be. The limit is `max_length` or the model's
    positions, whichever is less. What libraries print goes to `log`. Raises `MissingDependency` or `ModelUnavailable`.
    """
    from ftbridge.providers.local.process.provider import NEEDS

    extras.require("local", "counting with this model's tokenizer", *NEEDS)
    child = Child("ftbridge.providers.local.data.lint_counter", log)
    request = {"model": model, "trust_remote_code": trust_remote_code}

    def ask(**more: Any) -> list[dict[str, Any]]:
        child.ask({**request, **more})
        return list(child.replies(progress))

    def count(documents: Sequence[Any], method: Method, thinking: Thinking = "auto") -> list[Counted]:
        [reply] = ask(documents=list(documents), method=method, thinking=thinking)
        return [Counted(*counts) for counts in reply["counts"]]

    try:
        [facts] = ask()
        limits = [limit for limit in (max_length, facts["max_positions"]) if limit]
        yield ModelCounter(facts["name"], min(limits, default=None), count)
    finally:
        child.close()


class _Reader(NamedTuple):
    name: str
    max_positions: int | None
    renderer: Any


def respond(request: dict[str, Any], tell: Callable[..., None]) -> None:
    """Without documents tell {name, max_positions}; with them, {counts}: a `Counted` for each, in order."""

    def progress(what: str, done: float) -> None:
        tell("progress", text=f"{what} {done:4.0%}")

    reader = _reader(request["model"], request.get("thinking", "auto"), request["trust_remote_code"], progress)
    if "documents" in request:
        tell("result", counts=[count_one(reader.renderer, one, request["method"]) for one in request["documents"]])
    else:
        tell("result", name=reader.name, max_positions=reader.max_positions)


def count_one(renderer: Any, document: Any, method: Method) -> Counted:
    """One parsed line. A preference counts as its longer side, a reinforcement item as its prompt."""
    from ftbridge.providers.local.data.template import RenderError

    try:
        if method == "dpo":
            sides = [_conversation(renderer, side, key) for side, key in _sides(document)]
            longer = max(sides, key=lambda counted: counted[:3])
            return longer._replace(unwritten=next((side.unwritten for side in sides if side.unwritten), None))
        if method == "reinforcement":
            messages = [Message.model_validate(message) for message in document["messages"]]
            return Counted(len(renderer.prompt(messages, document.get("tools") or ())), 0, 0)
        return _conversation(renderer, document)
    except RenderError as error:
        return Counted(0, 0, 0, f"{error}.")
    except (ExampleError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Counted(0, 0, 0)  # no example: the rules of lines and texts tell why


def _conversation(renderer: Any, document: Any, output: str | None = None) -> Counted:
    """One conversation's counts; `output` is the key of a preference under which its last message stands."""
    example = parse_example(document)
    sequences = renderer.sequences(example)
    longest = max(sequences, key=lambda rendered: rendered.n_tokens)
    loss_mask = longest.loss_mask
    target = len(loss_mask) - loss_mask[::-1].index(True)
    while target and loss_mask[target - 1]:
        target -= 1
    messages = list(example.messages)
    unwritten = _unwritten(renderer, sequences, messages if output is None else messages[-1:], output or "messages")
    return Counted(
        longest.n_tokens, sum(rendered.num_loss_tokens for rendered in sequences), target, unwritten=unwritten
    )


def _unwritten(renderer: Any, sequences: Sequence[Any], messages: Sequence[Message], at: str) -> str | None:
    """The first reasoning of an answer to learn that is not in the text of the example."""
    from ftbridge.data.notation import REASONING_KEYS

    reasoning = [
        (f"{at}[{index}].{key}", extra_value)
        for index, message in enumerate(messages)
        if message.has_loss
        for key, extra_value in (message.model_extra or {}).items()
        if key in REASONING_KEYS and isinstance(extra_value, str) and extra_value.strip()
    ]
    if not reasoning:
        return None
    decode = renderer.tokenizer.decode
    text = _bare("".join(decode(rendered.input_ids, skip_special_tokens=False) for rendered in sequences))
    return next((index for index, extra_value in reasoning if _bare(extra_value) not in text), None)


def _bare(text: str) -> str:
    """A text without white space, which templates and tokenizers change."""
    return "".join(text.split())


def _sides(document: Any) -> list[tuple[Any, str]]:
    """A preference as two conversations, each with the key of its answer."""
    input_document = document["input"]
    return [
        ({**input_document, "messages": [*input_document["messages"], *document[key]]}, key)
        for key in ("preferred_output", "non_preferred_output")
    ]


_READERS: dict[tuple[str, Thinking], _Reader] = {}


def _reader(model: str, thinking: Thinking, trust_remote_code: bool, progress: Callable[[str, float], None]) -> _Reader:
    """The model's renderer, made once in this process with reasoning and once without."""
    if (model, thinking) in _READERS:
        return _READERS[model, thinking]
    from ftbridge.providers.local.data.rendering import Renderer
    from ftbridge.providers.local.data.template import RenderError
    from ftbridge.providers.local.models.find import check_model, find_model
    from ftbridge.providers.local.models.load import load_tokenizer

    base = find_model(model, progress=progress, trust_remote_code=trust_remote_code)
    facts = check_model(base, trust_remote_code=trust_remote_code)
    try:
        renderer = Renderer(load_tokenizer(base.path, trust_remote_code=trust_remote_code), thinking)
    except RenderError as error:
        raise ModelUnavailable(f"{base.name} cannot be used: {error}.") from error
    _READERS[model, thinking] = _Reader(base.name, facts.max_positions, renderer)
    return _READERS[model, thinking]


if __name__ == "__main__":
    serve(respond)
