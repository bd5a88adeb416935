"""What a lint rule is. One small function finds problems; its decorator says everything people want to know about it.

    file rule     the file as bytes: encoding, shape, size, line endings
    json rule     one line as JSON: what stands in the way of parsing it, keys that stand twice
    line rule     one parsed line: keys, roles, contents, tools, images, weights
    text rule     one string a model reads or writes: special tokens, secrets, personal data
    data rule     a whole file's examples together: counts, tokens, duplicates, labels
    split rule    several files of one job together: leakage

Which rules run is `chosen_codes`: `--select` and `--ignore` take codes, their beginnings, or names; the longer one wins.

Every rule is pure. It yields `Problem`s; where and how bad they are is decided by the engine from the rule's entry here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

from ftbridge.data.lint.as_run import PreparedLine, prepared_line
from ftbridge.data.lint.screens import Screen
from ftbridge.data.targets import TARGETS, UploadTarget
from ftbridge.errors import UsageError

Severity = Literal["error", "warning", "info"]
Method = Literal["supervised", "dpo", "reinforcement"]
METHODS: tuple[Method, ...] = ("supervised", "dpo", "reinforcement")

JSON = Any
"""A parsed JSON value; rules meet every kind of it."""


class Repair(NamedTuple):
    """A safe fix: `said` tells what it does in the past tense; `apply` does it to the document the rule looked at."""

    description: str
    apply: Callable[[], None]


class Problem(NamedTuple):
    """One thing wrong. `message` is a sentence whose subject is the field: "is null but the message has no tool_calls."

    `field` is a path in the line (`messages[1].content`), empty for the line itself. `span` counts characters in the
    field's text. `line` is set by rules that look at more than a line. `severity` overrides the rule's.
    `secret` says that the piece at `span` must not be shown.
    """

    field: str
    message: str
    repair: Repair | None = None
    span: tuple[int, int] | None = None
    line: int | None = None
    severity: Severity | None = None
    secret: bool = False
    fix: str | None = None
    """For rules about files and JSON, which have no document to repair: what `--fix` does."""


@dataclass(frozen=True)
class Context:
    """What a rule may know beside its subject: where the file goes, and which of a job's files it is."""

    target: UploadTarget = TARGETS["openai"]
    method: Method = "supervised"
    model: str | None = None
    role: Literal["train", "validation", "test"] = "train"
    variables: tuple[str, ...] = ()
    """What the job's graders read, as in `item.reference` and `item.tags[0].name`."""
    longest: int | None = None
    """The most tokens of one example that a local model reads, where it is known."""
    path: str = "FILE"
    """How the file was named, for the commands that a hint gives."""
    is_prepared: bool = False
    """Whether its lines are a run's prepared data."""

    @property
    def trains_here(self) -> bool:
        """Whether the file goes to a run on this machine, which prepares its lines first."""
        return self.target.name == "local" and not self.is_prepared


@dataclass(frozen=True)
class Line:
    """One parsed line. `messages` lists every message object with its path, whatever the method; never raises."""

    document: JSON
    context: Context
    text: str = ""
    messages: tuple[Spot, ...] = ()
    conversations: tuple[Conversation, ...] = ()

    @cached_property
    def as_run(self) -> PreparedLine:
        """What a run on this machine makes of the line."""
        return prepared_line(self.document, self.context)


class Spot(NamedTuple):
    """A message that is an object, where it stands, and its role if that is text (`""` if not)."""

    at: str
    message: dict[str, JSON]
    role: str
    output: bool
    """Whether it is a preferred or non-preferred output."""


class Conversation(NamedTuple):
    """A list of messages and the object that holds it beside its tools: the line itself, or `input`."""

    at: str
    messages: list[JSON]
    holder: dict[str, JSON]
    holder_at: str


Need = Literal["tokens", "hashes", "sketch"]
"""Columns that cost time, which data and split rules ask for by name: they are zeros when no rule needs them."""

Kind = Literal["file", "json", "line", "text", "data", "split"]


@dataclass(frozen=True)
class Rule:
    """A rule's entry. `severities` maps a target's name to another severity, or to None where the rule does not apply."""

    code: str
    name: str
    kind: Kind
    severity: Severity
    summary: str
    reason: str
    source: str
    bad: str
    good: str
    check: Callable[..., Iterable[Any]]
    methods: tuple[Method, ...] = METHODS
    severities: Mapping[str, Severity | None] = field(default_factory=dict)
    screen: Screen | None = None
    answers_only: bool = False
    fixable: bool = False
    needs: frozenset[Need] = frozenset()
    late: bool = False

    def severity_for(self, target: str) -> Severity | None:
        """How bad it is for a target; None where it does not matter."""
        return self.severities.get(target, self.severity)


Check = TypeVar("Check", bound=Callable[..., Iterable[Any]])

RULES: dict[str, Rule] = {}
"""Every rule by code, in the order of codes once `ftbridge.data.lint.rules` is imported."""


def rule(
    code: str,
    name: str,
    *,
    kind: Kind,
    severity: Severity,
    reason: str,
    source: str,
    bad: str,
    good: str,
    methods: tuple[Method, ...] = METHODS,
    severities: Mapping[str, Severity | None] | None = None,
    screen: Screen | None = None,
    answers_only: bool = False,
    fixable: bool = False,
    needs: tuple[Need, ...] = (),
    late: bool = False,
) -> Callable[[Check], Check]:
    """Register a rule. Its summary is the first line of the function's docstring.

    `bad` and `good` are whole lines of a file for line and text rules (the tests run them: `bad` must find this rule
    and `good` must not), and a description for the others. `screen`, for text rules, finds places in raw bytes without
    which no line can have this problem (see `screens`); `answers_only` text rules read what the assistant says. `kind`
    gives the function's arguments: file (FileFacts, Context), json (Parsed or Trouble, Context), line (Line), text
    (text, Context), data (Dataset, Context), split (Splits, Context); a split rule yields (path, Problem).
    A line rule looks at keys, roles, types and bounds, never at what a plain text says: lines with the same roles and
    weights are judged once. A text rule must have a `screen`. `late` file rules run when every line has been read.
    """

    def register(check: Check) -> Check:
        if kind == "text" and screen is None:
            raise ValueError(f"{code} {name} looks into texts and needs a screen")
        if code in RULES or any(entry.name == name for entry in RULES.values()):
            raise ValueError(f"{code} {name} is registered twice")
        summary = (check.__doc__ or "").strip().splitlines()[0]
        RULES[code] = Rule(
            code, name, kind, severity, summary, reason, source, bad, good, check,
            methods=methods, severities=severities or {}, screen=screen, answers_only=answers_only, fixable=fixable,
            needs=frozenset(needs), late=late,
        )  # fmt: skip
        return check

    return register


def look(document: JSON, context: Context, text: str = "") -> Line:
    """Find the messages of a parsed line, of whatever shape it is."""
    if not isinstance(document, dict):
        return Line(document, context, text)
    conversations: list[Conversation] = []
    outputs: list[tuple[str, list[JSON]]] = []
    if context.method == "dpo":
        holder = document.get("input")
        if isinstance(holder, dict) and isinstance(holder.get("messages"), list):
            conversations.append(Conversation("input.messages", holder["messages"], holder, "input"))
        for key in ("preferred_output", "non_preferred_output"):
            if isinstance(document.get(key), list):
                outputs.append((key, document[key]))
    elif isinstance(document.get("messages"), list):
        conversations.append(Conversation("messages", document["messages"], document, ""))
    spots = [
        spot for conversation in conversations for spot in _spots(conversation.at, conversation.messages, output=False)
    ]
    spots += [spot for at, messages in outputs for spot in _spots(at, messages, output=True)]
    return Line(document, context, text, tuple(spots), tuple(conversations))


def _spots(at: str, messages: list[JSON], *, output: bool) -> Iterator[Spot]:
    for index, message in enumerate(messages):
        if isinstance(message, dict):
            role = message.get("role")
            yield Spot(f"{at}[{index}]", message, role if isinstance(role, str) else "", output)


def texts(line: Line) -> Iterator[tuple[str, str]]:
    """Every string a model reads or writes in this line, with its path: contents, parts, refusals, names, calls, tools."""
    for at, message, _, _ in line.messages:
        yield from _strings(message.get("content"), f"{at}.content")
        for key in ("refusal", "name"):
            if isinstance(message.get(key), str):
                yield f"{at}.{key}", message[key]
        for key in ("tool_calls", "function_call"):
            if key in message:
                yield from _strings(message[key], f"{at}.{key}")
    for conversation in line.conversations:
        for key in ("tools", "functions"):
            if key in conversation.holder:
                yield from _strings(conversation.holder[key], _join(conversation.holder_at, key))
    if line.context.method == "reinforcement" and isinstance(line.document, dict):
        for key, value in line.document.items():
            if key not in ("messages", "tools"):
                yield from _strings(value, key)


_SKIPPED = {"type", "id", "role", "url"}
"""Keys whose strings are names in the format, not text."""


def _strings(value: JSON, at: str) -> Iterator[tuple[str, str]]:
    """Strings in a JSON value, however deep, without recursion."""
    waiting: list[tuple[str, JSON]] = [(at, value)]
    while waiting:
        node, item = waiting.pop()
        if isinstance(item, str):
            yield node, item
        elif isinstance(item, list):
            waiting += [(f"{node}[{index}]", element) for index, element in reversed(list(enumerate(item)))]
        elif isinstance(item, dict):
            waiting += [(_join(node, key), element) for key, element in reversed(item.items()) if key not in _SKIPPED]


def _join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def kind_of(value: JSON) -> str:
    """A JSON value's kind in a sentence: "an object", "a list", "text", "a number", "true or false", "null"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number"}
    return names.get(type(value), "an unknown value")


def chosen_codes(rules: Mapping[str, Rule], select: Sequence[str], ignore: Sequence[str]) -> tuple[str, ...]:
    """The codes to run, in order. An empty `select` is all rules.

    A code is run when what selects it is longer than what ignores it: `--select FTB2 --ignore FTB201` leaves FTB201 out,
    `--select FTB201 --ignore FTB2` runs only it. Raises `UsageError` for words that mean no rule.
    """
    names = {rule.name: code for code, rule in rules.items()}
    wanted = [_code_of(word, rules, names) for word in select] or [""]
    unwanted = [_code_of(word, rules, names) for word in ignore]
    codes = []
    for code in sorted(rules):
        for_it = max((len(word) for word in wanted if code.startswith(word)), default=-1)
        against = max((len(word) for word in unwanted if code.startswith(word)), default=-1)
        if for_it > against:
            codes.append(code)
    return tuple(codes)


def find_rule(rules: Mapping[str, Rule], word: str) -> Rule:
    """The rule with this code or name. Raises `UsageError`."""
    code = _code_of(word, rules, {rule.name: code for code, rule in rules.items()})
    if code not in rules:
        matching = [rule_code for rule_code in sorted(rules) if rule_code.startswith(code)]
        raise UsageError(f"{word} is more than one rule.", hint=f"One of {', '.join(matching[:12])}.")
    return rules[code]


def _code_of(word: str, rules: Mapping[str, Rule], names: Mapping[str, str]) -> str:
    code = names.get(word.strip().lower(), word.strip().upper())
    if code == "ALL":
        return ""
    if code and any(rule_code.startswith(code) for rule_code in rules):
        return code
    close = difflib.get_close_matches(word.upper(), list(rules), n=1) or difflib.get_close_matches(
        word, list(names), n=1
    )
    hint = f"Did you mean {close[0]}?" if close else "ftbridge lint --explain all lists them."
    raise UsageError(f"{word} is not a rule.", hint=hint)


def lines_of(lines: Sequence[int], *, shown: int = 3, ordered: bool = True) -> str:
    """Lines for a sentence: "line 4", "lines 4 and 9", "lines 4, 9, 12 and 30 more"."""
    ordered_lines = sorted(lines) if ordered else list(lines)
    first = [f"{line:,}" for line in ordered_lines[:shown]]
    rest = len(ordered_lines) - len(first)
    if rest:
        return f"lines {', '.join(first)} and {rest:,} more"
    if len(first) == 1:
        return f"line {first[0]}"
    return f"lines {', '.join(first[:-1])} and {first[-1]}"


def quoted(text: str, longest: int = 40) -> str:
    """A text in a sentence, on one line and cut where it is long."""
    one_line = " ".join(text.split())
    return f'"{one_line}"' if len(one_line) <= longest else f'"{one_line[: longest - 1]}…"'
