"""The formula of a multi grader: a small language of its own, compiled to stack instructions, with no eval anywhere.

    formula  = sum
    sum      = product { ("+" | "-") product }
    product  = unary { ("*" | "/") unary }
    unary    = ("+" | "-") unary | power
    power    = primary [ "^" unary ]                   right to left: 2^3^2 is 2^9; -2^2 is -4
    primary  = NUMBER | NAME | FUNCTION "(" sum { "," sum } ")" | "(" sum ")"

NUMBER as in 2, 0.5, .5, 1e-3; NAME is a grader's key; FUNCTION is min, max (one argument or more), abs, floor, ceil, exp,
sqrt, log (natural; one argument). Source: OpenAI's graders guide, multigraders.
"""

from __future__ import annotations

import functools
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

DEEPEST = 64
"""Parentheses, signs and powers may stand this deep in each other."""
LONGEST = 10_000
"""A formula has at most so many characters."""

_TOKEN = re.compile(r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|([A-Za-z_]\w*)|(.))", re.ASCII | re.DOTALL)
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
_MANY: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max}
FUNCTIONS = frozenset(_ONE) | frozenset(_MANY)


class FormulaError(ValueError):
    """A formula that cannot be read; the message says where, counting characters from 1."""


class ArithmeticFailed(ValueError):
    """A formula that these values have no result for: division by zero, a logarithm of 0, an overflow."""


@dataclass(frozen=True)
class Formula:
    """A formula that was read: `names` are its variables; `compute` applies it."""

    text: str
    names: frozenset[str]
    _steps: tuple[_Step, ...]

    def compute(self, values: Mapping[str, float]) -> float:
        """Its value, a finite number. Raises `ArithmeticFailed`, and `KeyError` for a name without a value."""
        stack: list[float] = []
        for step in self._steps:
            taken = stack[len(stack) - step.takes :]
            del stack[len(stack) - step.takes :]
            stack.append(_apply(step, taken, values))
        return stack[0]


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Formula:
    """Read a formula. Raises `FormulaError`."""
    if len(text) > LONGEST:
        raise FormulaError(f"a formula has at most {LONGEST:,} characters; this one has {len(text):,}")
    return _Parser(text).formula()


@dataclass(frozen=True)
class _Step:
    """One instruction: push a number or a variable, or take so many values from the stack and push their result."""

    at: int
    kind: str  # "number", "name", or the operator or function
    takes: int = 0
    number: float = 0.0
    name: str = ""


def _apply(step: _Step, taken: list[float], values: Mapping[str, float]) -> float:
    if step.kind == "number":
        return step.number
    if step.kind == "name":
        return float(values[step.name])
    try:
        result = _function(step)(taken)
    except ZeroDivisionError:
        raise ArithmeticFailed(f"division by zero at character {step.at}") from None
    except OverflowError:
        raise ArithmeticFailed(f"the result of {step.kind} at character {step.at} is too large") from None
    except ValueError:
        arguments = ", ".join(f"{value:g}" for value in taken)
        raise ArithmeticFailed(f"{step.kind} at character {step.at} has no result for {arguments}") from None
    if not math.isfinite(result):
        raise ArithmeticFailed(f"the result of {step.kind} at character {step.at} is not finite")
    return float(result)


def _function(step: _Step) -> Callable[[list[float]], float]:
    if step.kind in _MANY:
        return _MANY[step.kind]
    if step.kind == "negate":
        return lambda taken: -taken[0]
    return functools.partial(_spread, _ONE.get(step.kind) or _OPERATORS[step.kind])


def _spread(function: _Arithmetic, taken: list[float]) -> float:
    return function(*taken)


class _Parser:
    """Recursive descent, one method a rule of the grammar; writes instructions as it goes, so nothing deep is kept."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [
            (match.start(match.lastindex or 0) + 1, match.group(match.lastindex or 0), match.lastindex)
            for match in _TOKEN.finditer(text.rstrip())
        ]
        self.next = 0
        self.depth = 0
        self.steps: list[_Step] = []

    def formula(self) -> Formula:
        self.sum()
        if self.peek() is not None:
            at, token, _ = self.tokens[self.next]
            hint = "has no opening" if token == ")" else "is not expected here"
            raise FormulaError(f"{token!r} at character {at} {hint}")
        names = frozenset(step.name for step in self.steps if step.kind == "name")
        return Formula(self.text, names, tuple(self.steps))

    def sum(self) -> None:
        self.left_to_right("+-", self.product)

    def product(self) -> None:
        self.left_to_right("*/", self.unary)

    def left_to_right(self, signs: str, inner: Callable[[], None]) -> None:
        inner()
        while (token := self.peek()) is not None and token in signs:
            at = self.take()
            inner()
            self.steps.append(_Step(at, token, takes=2))

    def unary(self) -> None:
        self.deeper()
        token = self.peek()
        if token in ("+", "-"):
            at = self.take()
            self.unary()
            if token == "-":
                self.steps.append(_Step(at, "negate", takes=1))
        else:
            self.power()
        self.depth -= 1

    def power(self) -> None:
        self.primary()
        if self.peek() == "^":
            at = self.take()
            self.unary()
            self.steps.append(_Step(at, "^", takes=2))

    def primary(self) -> None:
        token = self.peek()
        if token is None:
            self.ends_early()
        at, _, group = self.tokens[self.next]
        self.next += 1
        if group == 1:
            self.steps.append(_Step(at, "number", number=self.number(at, token)))
        elif group == 2 and token in FUNCTIONS:
            self.call(at, token)
        elif group == 2:
            if self.peek() == "(":
                raise FormulaError(
                    f"there is no function {token} (character {at}); functions: {', '.join(sorted(FUNCTIONS))}"
                )
            self.steps.append(_Step(at, "name", name=token))
        elif token == "(":
            self.sum()
            self.close(at)
        else:
            raise FormulaError(f"{token!r} at character {at} is not expected here")

    def call(self, at: int, function: str) -> None:
        if self.peek() != "(":
            raise FormulaError(f"{function} at character {at} is a function; write {function}(...)")
        opened, arguments = self.take(), 1
        self.sum()
        while self.peek() == ",":
            self.take()
            self.sum()
            arguments += 1
        self.close(opened)
        if function in _ONE and arguments != 1:
            raise FormulaError(f"{function} at character {at} takes one argument, not {arguments}")
        self.steps.append(_Step(at, function, takes=arguments))

    def close(self, opened: int) -> None:
        if self.peek() is None:
            raise FormulaError(f"the parenthesis at character {opened} is never closed")
        if self.peek() != ")":
            at, token, _ = self.tokens[self.next]
            raise FormulaError(f"{token!r} at character {at} is not expected here")
        self.take()

    def number(self, at: int, token: str) -> float:
        value = float(token)
        if not math.isfinite(value):
            raise FormulaError(f"the number at character {at} is too large")
        return value

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            at = self.tokens[self.next][0] if self.next < len(self.tokens) else len(self.text)
            raise FormulaError(f"nested deeper than {DEEPEST} at character {at}")

    def peek(self) -> str | None:
        return self.tokens[self.next][1] if self.next < len(self.tokens) else None

    def take(self) -> int:
        at = self.tokens[self.next][0]
        self.next += 1
        return at

    def ends_early(self) -> NoReturn:
        raise FormulaError("the formula is empty" if not self.tokens else "the formula ends where a value is expected")
