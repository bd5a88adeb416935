"""Beginnings that several rows share, computed once: a tree of tokens whose nodes hold the keys and values of their stretch.

    root ── <system message> ──┬── <few-shot examples> ──┬── <item 1>
                               │                         └── <item 2>
                               └── <another question> ── <completion> ── <what the user said next>

A prompt finds its longest beginning in the tree, token by token, and its row begins with a copy of those columns; only the rest
is read by the model. Trees are apart by adapter, since keys and values depend on it. What was not used for longest is dropped
first, leaves before what they stand on. The idea is SGLang's RadixAttention (Zheng et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ftbridge.providers.local.inference.columns import Segment

SHORTEST = 16
"""Tokens below which a beginning is not worth another pass."""


@dataclass(eq=False)
class _Node:
    tokens: tuple[int, ...]
    segment: Segment
    parent: _Node | None
    children: dict[int, _Node] = field(default_factory=dict)
    used: int = 0


class Prefixes:
    """Stored beginnings of one model. `token_bytes` is what a token takes; `bytes` what is held."""

    def __init__(self, token_bytes: int) -> None:
        self._token_bytes = token_bytes
        self._roots: dict[str | None, _Node] = {}
        self._clock = 0
        self.bytes = 0

    def find(self, tokens: Sequence[int], adapter: str | None) -> list[tuple[Segment, int]]:
        """The longest stored beginning: segments in order, each with how many of its columns count."""
        self._clock += 1
        segments: list[tuple[Segment, int]] = []
        for node, columns in self._path(tokens, adapter):
            node.used = self._clock
            segments.append((node.segment, columns))
        return segments

    def store(
        self, tokens: Sequence[int], adapter: str | None, copy: Callable[[int, int], Segment], limit: int
    ) -> None:
        """Store what is not there yet. `copy(first, last)` gives those columns; `limit` is how many bytes may be held."""
        self._clock += 1
        path = list(self._path(tokens, adapter))
        held = sum(columns for _, columns in path)
        new = len(tokens) - held
        if new < 1 or new * self._token_bytes > limit:
            return
        parent = self._roots.setdefault(adapter, _Node((), [], None))
        for node, columns in path:
            parent = node if columns == len(node.tokens) else self._split(node, columns)
            parent.used = self._clock
        leaf = _Node(tuple(tokens[held:]), copy(held, len(tokens)), parent, used=self._clock)
        parent.children[leaf.tokens[0]] = leaf
        self.bytes += new * self._token_bytes
        self.shrink(limit)

    def shrink(self, limit: int) -> None:
        """Drop what was not used for longest until at most `limit` bytes are held."""
        while self.bytes > limit:
            leaf = min(self._leaves(), key=lambda node: node.used)
            assert leaf.parent is not None
            del leaf.parent.children[leaf.tokens[0]]
            self.bytes -= len(leaf.tokens) * self._token_bytes

    def clear(self) -> None:
        """Forget everything."""
        self._roots.clear()
        self.bytes = 0

    def _path(self, tokens: Sequence[int], adapter: str | None) -> Iterator[tuple[_Node, int]]:
        """Nodes along a beginning, each with how many of its tokens agree."""
        node, at = self._roots.get(adapter), 0
        while node is not None and at < len(tokens):
            node = node.children.get(tokens[at])
            if node is None:
                return
            columns = common(node.tokens, tokens[at : at + len(node.tokens)])
            yield node, columns
            if columns < len(node.tokens):
                return
            at += columns

    def _split(self, node: _Node, columns: int) -> _Node:
        """Cut a node in two, and return the first part. Both get memory of their own, so that either can be dropped."""
        first, second = _cut(node.segment, 0, columns), _cut(node.segment, columns, len(node.tokens))
        assert node.parent is not None
        upper = _Node(node.tokens[:columns], first, node.parent, {node.tokens[columns]: node}, self._clock)
        node.parent.children[upper.tokens[0]] = upper
        node.tokens, node.segment, node.parent = node.tokens[columns:], second, upper
        return upper

    def _leaves(self) -> Iterator[_Node]:
        return (node for root in self._roots.values() for node in _below(root) if not node.children)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens are the same."""
    length = min(len(one), len(other))
    if tuple(one[:length]) == tuple(other[:length]):
        return length
    return next(index for index in range(length) if one[index] != other[index])


def _cut(segment: Segment, first: int, last: int) -> Segment:
    return [(keys[:, :, first:last].clone(), values[:, :, first:last].clone()) for keys, values in segment]


def _below(root: _Node) -> Iterator[_Node]:
    waiting = list(root.children.values())
    while waiting:
        node = waiting.pop()
        waiting += node.children.values()
        yield node
