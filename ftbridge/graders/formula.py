"""The formula of a multi grader: read with Python's own grammar behind a whitelist, computed without eval.

    0.5 * exact + max(f1, 0.2) ^ 2 ──▶ tokens, each checked where it stands ──▶ ast.parse ──▶ nodes of the whitelist ──▶ value

Numbers as in 2, 0.5, .5, 1e-3; names are graders' keys; + - * / ^ bind as in mathematics (2^3^2 is 2^9, -2^2 is -4);
functions are min, max (one argument or more), abs, floor, ceil, exp, sqrt, log (natural; one argument). Source: OpenAI's
graders guide, multigraders.
"""

from __future__ import annotations

import ast
import functools
import keyword
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

DEEPEST = 64
"""Parentheses, signs and powers may stand this deep in each other."""
LONGEST = 10_000
"""A formula has at most so many characters."""
MOST_OPERATORS = 200
"""A formula has at most so many signs, since Python's parser takes no sums of thousands of terms."""

_TOKEN = re.compile(r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|(\S))", re.ASCII)
_Arithmetic = Callable[..., float]
_OPERATORS: dict[str, _Arithmetic] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": math.pow,
}
_ONE: dict[str, _Arithmetic] = {
    "abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp, "sqrt": math.sqrt, "log": math.log,
}  # fmt: skip
_MANY: dict[str, _Arithmetic] = {"min": lambda *values: min(values), "max": lambda *values: max(values)}
FUNCTIONS = frozenset(_ONE) | frozenset(_MANY)


class FormulaError(ValueError):
    """A formula that cannot be read; the message says where, counting characters from 1."""


class ArithmeticFailed(ValueError):
    """A formula that these values have no result for: division by zero, a logarithm of 0, an overflow."""


class _Token(NamedTuple):
    """A piece of a formula: the character it begins at (from 1), its text and its kind."""

    at: int
    text: str
    kind: Literal["number", "name", "function", "sign"]


@dataclass(frozen=True)
class Formula:
    """A formula that was read: `names` are its variables; `compute` applies it."""

    text: str
    names: frozenset[str]
    _tokens: tuple[_Token, ...]
    _root: ast.expr

    def compute(self, values: Mapping[str, float]) -> float:
        """Its value, a finite number. Raises `ArithmeticFailed`, and `KeyError` for a name without a value."""
        return self._value(self._root, values)

    def _value(self, node: ast.expr, values: Mapping[str, float]) -> float:
        match node:
            case ast.Name():
                token = _token_of(node, self._tokens)
                return float(token.text) if token.kind == "number" else float(values[token.text])
            case ast.UnaryOp():
                value = self._value(node.operand, values)
                return -value if isinstance(node.op, ast.USub) else value
            case ast.BinOp():
                sign = _sign_of(node, self._tokens)
                left, right = self._value(node.left, values), self._value(node.right, values)
                return _apply(sign, _OPERATORS[sign.text], (left, right))
            case ast.Call():
                token = _token_of(node.func, self._tokens)
                function = _ONE.get(token.text) or _MANY[token.text]
                return _apply(token, function, [self._value(argument, values) for argument in node.args])
        raise AssertionError(f"{node!r} is not a node of a formula")  # `_check` lets no other through


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Formula:
    """Read a formula. Raises `FormulaError`."""
    if len(text) > LONGEST:
        raise FormulaError(f"a formula has at most {LONGEST:,} characters; this one has {len(text):,}")
    tokens = tuple(_tokens(text))
    _check_order(tokens)
    # One token a line, so that a node's line is its token; `x` for values, so that no number or name is read as Python.
    lines = (token.text.replace("^", "**") if token.kind == "sign" else "x" for token in tokens)
    root = ast.parse("(\n" + "\n".join(lines) + "\n)", mode="eval").body
    _check(root, tokens, depth=1)
    return Formula(text, frozenset(token.text for token in tokens if token.kind == "name"), tokens, root)


def _tokens(text: str) -> list[_Token]:
    tokens = []
    for match in _TOKEN.finditer(text):
        at, word = match.start(match.lastindex or 0) + 1, match.group(match.lastindex or 0)
        if match.lastindex == 1:
            if not math.isfinite(float(word)):
                raise FormulaError(f"the number at character {at} is too large")
            tokens.append(_Token(at, word, "number"))
        elif match.lastindex == 2:
            if keyword.iskeyword(word):
                raise FormulaError(f"{word!r} at character {at} is a keyword of Python and cannot be a name")
            tokens.append(_Token(at, word, "function" if word in FUNCTIONS else "name"))
        else:
            tokens.append(_Token(at, word, "sign"))
    return tokens


def _check_order(tokens: Sequence[_Token]) -> None:
    """Raise `FormulaError` at the first token that cannot stand where it does."""
    opened: list[tuple[_Token, bool]] = []  # each open parenthesis, and whether it holds a function's arguments
    before: _Token | None = None
    for token in tokens:
        after_value = before is not None and (before.kind in ("number", "name") or before.text == ")")
        after_function = before is not None and before.kind == "function"
        if after_function and token.text != "(":
            break
        if token.text == "(" and (after_function or not after_value):
            opened.append((token, after_function))
        elif token.text == "(" and before is not None and before.kind == "name":
            names = ", ".join(sorted(FUNCTIONS))
            raise FormulaError(f"there is no function {before.text} (character {before.at}); functions: {names}")
        elif token.text == ")" and after_value and opened:
            opened.pop()
        elif token.text == ")" and after_value:
            raise FormulaError(f"')' at character {token.at} has no opening")
        elif not _may_follow(token, after_value=after_value, in_call=bool(opened) and opened[-1][1]):
            raise FormulaError(f"{token.text!r} at character {token.at} is not expected here")
        if len(opened) > DEEPEST:
            raise FormulaError(f"nested deeper than {DEEPEST} at character {token.at}")
        before = token
    _check_end(before, opened)
    if sum(token.text in _OPERATORS for token in tokens) > MOST_OPERATORS:
        raise FormulaError(f"a formula has at most {MOST_OPERATORS} signs")


def _may_follow(token: _Token, *, after_value: bool, in_call: bool) -> bool:
    if token.kind != "sign":
        return not after_value
    if after_value:
        return token.text in _OPERATORS or (token.text == "," and in_call)
    return token.text in ("+", "-")


def _check_end(last: _Token | None, opened: Sequence[tuple[_Token, bool]]) -> None:
    if last is None:
        raise FormulaError("the formula is empty")
    if last.kind == "function":
        raise FormulaError(f"{last.text} at character {last.at} is a function; write {last.text}(...)")
    if last.kind == "sign" and last.text != ")":
        raise FormulaError("the formula ends where a value is expected")
    if opened:
        raise FormulaError(f"the parenthesis at character {opened[-1][0].at} is never closed")


def _check(node: ast.AST, tokens: Sequence[_Token], depth: int) -> None:
    """Raise `FormulaError` for nodes beyond the whitelist, nesting that is too deep, and calls with too many arguments."""
    if depth > DEEPEST:
        raise FormulaError(f"nested deeper than {DEEPEST} at character {_token_of(node, tokens).at}")
    match node:
        case ast.Name():
            pass
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            _check(node.operand, tokens, depth + 1)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow()):
            _check(node.left, tokens, depth)
            _check(node.right, tokens, depth + 1)
        case ast.Call(func=ast.Name(), keywords=[]):
            function = _token_of(node.func, tokens)
            if function.text in _ONE and len(node.args) != 1:
                raise FormulaError(
                    f"{function.text} at character {function.at} takes one argument, not {len(node.args)}"
                )
            for argument in node.args:
                _check(argument, tokens, depth + 1)
        case _:
            raise FormulaError(f"{type(node).__name__} is not part of a formula")


def _token_of(node: ast.AST, tokens: Sequence[_Token]) -> _Token:
    """The token that a node begins with: the first line holds the opening parenthesis."""
    return tokens[getattr(node, "lineno", 2) - 2]


def _sign_of(node: ast.BinOp, tokens: Sequence[_Token]) -> _Token:
    """The operator's token: the first one behind the left side, and its closing parentheses."""
    between = tokens[(node.left.end_lineno or 0) - 1 : node.right.lineno - 2]
    return next(token for token in between if token.text in _OPERATORS)


def _apply(token: _Token, function: _Arithmetic, arguments: Sequence[float]) -> float:
    try:
        result = function(*arguments)
    except ZeroDivisionError:
        raise ArithmeticFailed(f"division by zero at character {token.at}") from None
    except OverflowError:
        raise ArithmeticFailed(f"the result of {token.text} at character {token.at} is too large") from None
    except ValueError:
        shown = ", ".join(f"{value:g}" for value in arguments)
        raise ArithmeticFailed(f"{token.text} at character {token.at} has no result for {shown}") from None
    if not math.isfinite(result):
        raise ArithmeticFailed(f"the result of {token.text} at character {token.at} is not finite")
    return float(result)
