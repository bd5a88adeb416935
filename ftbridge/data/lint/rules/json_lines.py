"""Rules about a line as JSON: what stops a strict parser, and what parsers read in different ways."""

from __future__ import annotations

from collections.abc import Iterator

from ftbridge.data.json_slips import AFTER, repaired_text
from ftbridge.data.lint.rule import Context, Problem, rule
from ftbridge.strict_json import Parsed, Trouble

_RFC = "RFC 8259; OpenAI's server: an example that cannot be parsed fails the file"
_BAD_JSON = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],}'
_GOOD = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'


@rule(
    "FTB010",
    "invalid-json",
    kind="json",
    severity="error",
    reason="One line that cannot be parsed fails the whole file, after the upload.",
    source=_RFC,
    bad=_BAD_JSON,
    good=_GOOD,
    fixable=True,
)
def invalid_json(line: Parsed | Trouble, context: Context) -> Iterator[Problem]:
    """The line is not valid JSON."""
    if not isinstance(line, Trouble):
        return
    at = f"at column {line.column:,}"
    if line.kind == "json":
        yield _slipped(line) or Problem("", f"is not valid JSON {at}: {line.detail}.", span=_at(line))
    elif line.kind == "constant":
        description = f"contains {line.detail} {at}, which is not a number in JSON. Write null, or leave the key out."
        yield Problem("", description, span=_at(line, len(line.detail)))
    elif line.kind == "number":
        yield Problem("", f"contains a number that cannot be read: {line.detail}.")
    elif line.kind == "deep":
        yield Problem("", "is nested too deeply to be read.")


@rule(
    "FTB011",
    "not-utf-8",
    kind="json",
    severity="error",
    reason="Services read UTF-8 only.",
    source="OpenAI's server: uploads that are not UTF-8 are refused (PSOpenAI#19, chatgpt-java#168)",
    bad="a line with a Latin-1 é (byte 0xe9)",
    good="the same line in UTF-8",
)
def not_utf8(line: Parsed | Trouble, context: Context) -> Iterator[Problem]:
    """The line is not UTF-8."""
    if isinstance(line, Trouble) and line.kind == "utf8":
        yield Problem("", f"is not UTF-8 at byte {line.column:,} ({line.detail}). Save the file as UTF-8.")


@rule(
    "FTB012",
    "several-values-on-a-line",
    kind="json",
    severity="error",
    reason="A reader that expects one value per line refuses what follows, or ignores it.",
    source=_RFC,
    bad=_GOOD + _GOOD,
    good=_GOOD,
    fixable=True,
)
def several_values(line: Parsed | Trouble, context: Context) -> Iterator[Problem]:
    """A line goes on after its JSON value ends."""
    if isinstance(line, Trouble) and line.kind == "extra":
        description = f"goes on after its JSON value ends, at column {line.column:,}; each line holds one example."
        yield _slipped(line) or Problem("", description, span=_at(line))


@rule(
    "FTB013",
    "truncated-last-line",
    kind="json",
    severity="error",
    reason="The file was cut while it was written or copied; more than this line may be missing.",
    source="RFC 8259",
    bad='{"messages": [{"role": "user", "content": "Hi"}, {"role": "assist',
    good=_GOOD,
)
def truncated(line: Parsed | Trouble, context: Context) -> Iterator[Problem]:
    """The last line ends in the middle of its JSON."""
    if isinstance(line, Trouble) and line.kind == "cut":
        yield Problem("", "ends in the middle of its JSON: the file looks truncated. Copy or write it again.")


@rule(
    "FTB014",
    "key-twice",
    kind="json",
    severity="error",
    reason="Parsers keep only one of the two, and they differ in which.",
    source="RFC 8259 section 4: behaviour with duplicate names is unpredictable",
    bad='{"messages": [], "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}',
    good=_GOOD,
    fixable=True,
)
def key_twice(line: Parsed | Trouble, context: Context) -> Iterator[Problem]:
    """An object has a key twice."""
    if isinstance(line, Parsed):
        for key, same in line.doubled:
            which = "with the same value" if same else "with different values, only one of which is read"
            yield Problem("", f'has the key "{key}" twice in one object, {which}.')


def _slipped(trouble: Trouble) -> Problem | None:
    """A slip that is known by its name, and whether it can be fixed; None for other troubles."""
    repaired = repaired_text(trouble.text)
    if repaired is None or (repaired.text is None and {slip.what for slip in repaired.slips} == {AFTER}):
        return None
    first, *others = repaired.slips
    slips = " and ".join([first.what, *(slip.what for slip in others[:2])])
    description = f"is not JSON: at column {first.start + 1:,} it has {slips}. {repaired.hint}"
    return Problem(
        "", description, span=(first.start, first.start + 1), fix=repaired.did if repaired.text is not None else None
    )


def _at(trouble: Trouble, length: int = 1) -> tuple[int, int]:
    return trouble.column - 1, trouble.column - 1 + length
