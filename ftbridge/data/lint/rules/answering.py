"""Which call a tool's result answers, where the result does not say it: by the tool's name, else by their order.

    assistant  get_order (c1), get_stock (c2)
    tool       name get_stock                  answers c2, the only open call of this tool
    tool                                       answers c1, the only call that is left open

A pairing is made only where no other is possible, or where as many results follow as calls are open, in their order. All
results that follow each other are looked at together. A wrong pairing would teach the model what no tool ever gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ftbridge.data.lint.rule import JSON
from ftbridge.data.lint.structure import function_of


class AnsweredCall(NamedTuple):
    """The id of the call that a result answers, and by what it was found."""

    id: str
    how: str


class _Open(NamedTuple):
    id: str
    name: JSON


class _Result(NamedTuple):
    position: int
    id: JSON
    name: JSON


def pairs_of(messages: Sequence[JSON]) -> dict[int, AnsweredCall]:
    """For each tool message without tool_call_id the call it answers, by the message's index; those in doubt are left out."""
    waiting: list[_Open] = []
    results: list[_Result] = []
    pairs: dict[int, AnsweredCall] = {}
    certain = True
    for index, message in enumerate([*messages, None]):
        role = message.get("role") if isinstance(message, dict) else None
        if role == "tool":
            results.append(_Result(index, message.get("tool_call_id"), message.get("name")))
            continue
        if results:
            pairs.update(_paired(waiting, results) if certain else ())
            waiting, results, certain = [], [], True
        calls = list(_calls(message))
        if calls:
            waiting += [call for call in calls if call is not None]
            certain &= all(call is not None for call in calls)
        elif role != "assistant" or (isinstance(message, dict) and message.get("content")):
            waiting, certain = [], True  # the conversation went on: nothing is open any more
    return pairs


def _calls(message: JSON) -> Iterator[_Open | None]:
    """The calls of a message; None for one that has no id by which a result could name it."""
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    for value in calls if isinstance(calls, list) else ():
        call = value if isinstance(value, dict) else {}
        identity = call.get("id")
        named = isinstance(identity, str) and identity
        yield _Open(str(identity), function_of(call).get("name")) if named else None


def _paired(waiting: Sequence[_Open], results: Sequence[_Result]) -> Iterator[tuple[int, AnsweredCall]]:
    """Pairs among the open calls and the results that follow them."""
    if len({call.id for call in waiting}) < len(waiting):
        return  # an id that two calls have names neither
    named = {result.id for result in results if isinstance(result.id, str) and result.id}
    left = [call for call in waiting if call.id not in named]
    silent = [result for result in results if result.id is None or result.id == ""]
    strange = bool(named - {call.id for call in waiting})  # it may be the misspelled id of any of these calls
    by_name = [result for result in silent if isinstance(result.name, str) and result.name]
    for name in dict.fromkeys(result.name for result in by_name):
        ours = [result for result in by_name if result.name == name]
        calls = [call for call in left if call.name == name]
        if len(ours) == len(calls):
            how = "the call of this tool" if len(calls) == 1 else "the call of this tool in the same place"
            yield from _in_order(calls, ours, how)
            left = [call for call in left if call.name != name]
        else:
            return  # another number of results than of calls: any of them may be the one too many
    rest = [result for result in silent if not (isinstance(result.name, str) and result.name)]
    if rest and len(rest) == len(left) and not strange:
        how = "the call before it" if len(waiting) == 1 else "the call in the same place"
        yield from _in_order(left, rest, how)


def _in_order(calls: Iterable[_Open], results: Iterable[_Result], how: str) -> Iterator[tuple[int, AnsweredCall]]:
    for call, result in zip(calls, results, strict=True):
        yield result.position, AnsweredCall(call.id, how)
