"""One row of figures for each example of a piece: hashes, token counts, a sketch. The texts themselves are let go."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from ftbridge.data.lint.dataset import BANDS, LABEL_LENGTH, Columns, Counts
from ftbridge.data.lint.plain import PlainShape
from ftbridge.data.lint.rule import Line
from ftbridge.data.lint.sketch import sketches
from ftbridge.data.tokens import (
    TOKENS_PER_MESSAGE,
    TOKENS_PER_REPLY,
    count_texts,
    message_texts,
)

if TYPE_CHECKING:
    from ftbridge.data.lint.block import LintPlan

_PLAIN_MESSAGE = TOKENS_PER_MESSAGE + 1


class Rows:
    """Collects rows, and counts tokens and makes sketches for all of them at once."""

    def __init__(self, plan: LintPlan) -> None:
        self._plan = plan
        self._line: list[int] = []
        self._start: list[int] = []
        self._prompt: list[bytes] = []
        self._rest: list[bytes] = []
        self._reply: list[bytes] = []
        self._system: list[bytes] = []
        self._texts: list[str] = []
        self._messages: list[tuple[int, int, bool]] = []
        """For each message: texts it is counted by, tokens whatever it says, whether it is trained on."""
        self._sizes: list[int] = []
        """For each example: its messages, one more for what is not a message."""
        self._words: list[str] = []
        self._counted_shapes: dict[tuple[bool, ...], list[tuple[int, int, bool]]] = {}

    def add_chat(self, line: int, start: int, contents: list[str], shape: PlainShape, tally: Counts) -> None:
        """Add a plain line."""
        plan = self._plan
        self._line.append(line)
        self._start.append(start)
        if plan.count:
            self._texts += contents
            counted = self._counted_shapes.get(shape.loss_mask)
            if counted is None:
                counted = [(0, TOKENS_PER_REPLY, False), *((1, _PLAIN_MESSAGE, in_loss) for in_loss in shape.loss_mask)]
                self._counted_shapes[shape.loss_mask] = counted
            self._sizes.append(len(counted))
            self._messages += counted
        if not plan.compare:
            return
        systems, spoken, system = shape.systems, contents, ""
        if systems == (0,):
            system, spoken = contents[0], contents[1:]
        elif systems:
            system = "\x1e".join([contents[index] for index in systems])
            spoken = [content for index, content in enumerate(contents) if index not in systems]
        meanings = [f"{role}\x1f{content}" for role, content in zip(shape.roles, contents, strict=True)]
        self._compare(meanings, shape.completion_index, system, "", tally)
        if plan.sketch:
            self._words.append(" ".join(spoken))
        self._label(contents[-1] if shape.roles[-1] == "assistant" else None, tally)

    def add_line(self, line: int, start: int, example: Line, tally: Counts) -> None:
        """Add a line that was looked at by every rule, whatever its shape."""
        plan, document = self._plan, example.document
        conversation = example.conversations[0] if example.conversations else None
        holder = conversation.holder if conversation else {}
        spots = example.messages
        tally.with_tools += bool(holder.get("tools") or holder.get("functions"))
        tally.with_images += any(_has_image(spot.message) for spot in spots)
        self._items(document, tally)
        self._line.append(line)
        self._start.append(start)
        if plan.count:
            tools = [_dump(holder[key]) for key in ("tools", "functions") if holder.get(key)]
            self._sizes.append(len(spots) + 1)
            self._messages.append((len(tools), TOKENS_PER_REPLY, False))
            self._texts += tools
            for spot in spots:
                fixed, texts = message_texts(spot.message)
                in_loss = spot.role == "assistant" and spot.message.get("weight") not in (0, False)
                self._messages.append((len(texts), fixed, in_loss))
                self._texts += texts
        if not plan.compare:
            return
        roles = [spot.role for spot in spots]
        meanings = [_meaning(spot.message) for spot in spots]
        texts = [_text(spot.message) for spot in spots]
        system = "\x1e".join(text for role, text in zip(roles, texts, strict=True) if role in ("system", "developer"))
        outputs = next((index for index, spot in enumerate(spots) if spot.output), None)
        completion_index = outputs if outputs is not None else last_answer(roles)
        fields = ""
        if plan.context.method == "reinforcement":
            completion_index = len(spots)
            fields = _dump({key: value for key, value in document.items() if key not in ("messages", "tools")})
        extra = _dump(holder["tools"]) if holder.get("tools") else ""
        self._compare(meanings, completion_index, system, extra, tally, fields)
        if plan.sketch:
            self._words.append(
                " ".join(t for r, t in zip(roles, texts, strict=True) if r not in ("system", "developer"))
            )
        label = (
            texts[completion_index]
            if completion_index < len(texts) and "tool_calls" not in spots[completion_index].message
            else None
        )
        self._label(label, tally)

    def columns(self) -> Columns | None:
        """The rows as columns; None without rows."""
        if not self._line:
            return None
        import numpy as np

        rows = len(self._line)
        tokens, loss_tokens, target = self._counted(rows)
        prompt = _joined(self._prompt, rows)
        return Columns(
            line=np.array(self._line, dtype=np.int32),
            start=np.array(self._start, dtype=np.int64),
            content=prompt * np.uint64(_ODD) + _joined(self._rest, rows),
            prompt=prompt,
            completion=_joined(self._reply, rows),
            system=_joined(self._system, rows),
            tokens=tokens,
            loss_tokens=loss_tokens,
            target=target,
            sketch=sketches(self._words) if self._words else np.zeros((rows, BANDS), np.uint32),
        )

    def _compare(
        self, meanings: Sequence[str], completion_index: int, system: str, extra: str, tally: Counts, fields: str = ""
    ) -> None:
        rest = meanings[completion_index:]
        reply = digest(rest[0]) if rest else digest(fields) if fields else NOTHING
        self._prompt.append(digest("\x1e".join(meanings[:completion_index]) + extra))
        self._reply.append(reply)
        self._rest.append(reply if len(rest) == 1 and not fields else digest("\x1e".join([*rest, fields])))
        self._system.append(_system_digest(system) if system else NOTHING)
        if system:
            tally.with_system += 1
            cut = system[:200]
            if cut in tally.systems or len(tally.systems) < 200:
                tally.systems[cut] += 1

    def _label(self, text: str | None, tally: Counts) -> None:
        if text is not None and len(text) <= LABEL_LENGTH:
            tally.count_label(text.strip())
        else:
            tally.other_answers += 1

    def _items(self, document: dict[str, Any], tally: Counts) -> None:
        if self._plan.context.method != "reinforcement":
            return
        fields = {key: value for key, value in document.items() if key not in ("messages", "tools")}
        tally.fields[tuple(sorted(fields))] += 1
        for key, value in fields.items():
            counts = tally.values.setdefault(key, type(tally.labels)())
            text = _dump(value)[:200]
            if text in counts or len(counts) < 50:
                counts[text] += 1

    def _counted(self, rows: int) -> tuple[Any, Any, Any]:
        import numpy as np

        if not self._plan.count:
            return tuple(np.zeros(rows, np.int32) for _ in range(3))  # type: ignore[return-value]
        counts: Any = np.zeros(len(self._texts) + 1, np.int64)
        counts[1:] = np.cumsum(count_texts(self._texts, self._plan.encoding))
        described = np.array(self._messages, dtype=np.int64)
        ends = np.cumsum(described[:, 0])
        message = counts[ends] - counts[ends - described[:, 0]] + described[:, 1]
        last = np.cumsum(self._sizes)
        first = last - np.array(self._sizes)
        tokens = np.add.reduceat(message, first)
        weights = described[:, 2].astype(bool)
        loss_tokens = np.add.reduceat(np.where(weights, message - TOKENS_PER_MESSAGE, 0), first)
        before = np.cumsum(message) - message
        position = np.where(weights, np.arange(len(message)), -1)
        final = np.maximum.reduceat(position, first)
        target = np.where(final >= 0, before[final] - before[first], 0)
        return tuple(column.astype(np.int32) for column in (tokens, np.maximum(loss_tokens, 0), target))


def last_answer(roles: Sequence[str]) -> int:
    """The index of the last assistant message; the number of messages if there is none."""
    for index in range(len(roles) - 1, -1, -1):
        if roles[index] == "assistant":
            return index
    return len(roles)


def digest(text: str) -> bytes:
    """64 bits of BLAKE2b."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


NOTHING = bytes(8)
"""The hash of what an example does not have."""

_ODD = 0x9E3779B97F4A7C15

_system_digest = functools.lru_cache(maxsize=64)(digest)
"""Most lines have the system message of the line before."""


def _joined(hashes: list[bytes], rows: int) -> Any:
    import numpy as np

    return np.frombuffer(b"".join(hashes), "<u8").astype(np.uint64) if hashes else np.zeros(rows, np.uint64)


def _meaning(message: dict[str, Any]) -> str:
    """A message for comparison: keys in one order, null and absent alike, and no weight."""
    content = {key: value for key, value in message.items() if value is not None and key != "weight"}
    if (
        content.keys() == {"role", "content"}
        and isinstance(content["role"], str)
        and isinstance(content["content"], str)
    ):
        return f"{content['role']}\x1f{content['content']}"
    return _dump(content)


def _text(message: dict[str, Any]) -> str:
    """A message's text: its content, its text parts, or its calls as JSON."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") or part.get("refusal") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    calls = message.get("tool_calls") or message.get("function_call") or message.get("refusal")
    return calls if isinstance(calls, str) else _dump(calls) if calls else ""


def _has_image(message: dict[str, Any]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    return any(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        return "…"
