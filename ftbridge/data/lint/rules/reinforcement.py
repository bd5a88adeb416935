"""Rules about reinforcement lines: a prompt that ends with the user, and an item whose fields the graders read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ftbridge.data.field_names import is_bookkeeping
from ftbridge.data.lint.dataset import Dataset, Splits
from ftbridge.data.lint.rule import Context, Line, Problem, rule
from ftbridge.data.lint.rules.specimens import GOOD_REINFORCEMENT, assistant, chat, system, user
from ftbridge.data.lint.structure import KEYS, LINE_KEYS, REINFORCEMENT_SCHEMA, put

_AZURE = "microsoft/azure-skills 2026-08-21, validate_rft.py"
_GUIDE = "OpenAI reinforcement fine-tuning guide"
MOST_TRAIN, MOST_TEST = 50_000, 1_000


@rule(
    "FTB090",
    "system-in-reinforcement",
    kind="line",
    severity="error",
    methods=("reinforcement",),
    severities={"nebius": "warning", "local": None},
    reason="Reasoning models take their instructions from developer messages. Azure refuses system here, and the schema "
    "of these lines, in which roles are a closed list, has no system.",
    source=f"{REINFORCEMENT_SCHEMA}: developer, user, assistant, tool; {_AZURE}",
    bad=chat(system(), user("2 + 2?"), reference_answer="4"),
    good=chat(system(role="developer"), user("2 + 2?"), reference_answer="4"),
    fixable=True,
)
def system_in_reinforcement(line: Line) -> Iterator[Problem]:
    """A reinforcement line has a system message."""
    for at, message, role, _ in line.messages:
        if role == "system":
            description = "is system, which reinforcement lines do not have. Write developer."
            yield Problem(f"{at}.role", description, put(message, "role", "developer", "wrote developer"))


@rule(
    "FTB091",
    "last-message-not-user",
    kind="line",
    severity="error",
    methods=("reinforcement",),
    reason=(
        "The model responds to the last message, and graders score the response, so the last message must be the "
        "user's."
    ),
    source=f"Microsoft's reinforcement fine-tuning guide; {_AZURE}",
    bad=chat(user("2 + 2?"), assistant("4"), reference_answer="4"),
    good=GOOD_REINFORCEMENT,
)
def last_message_not_user(line: Line) -> Iterator[Problem]:
    """A reinforcement line's last message is not the user's."""
    for conversation in line.conversations:
        last = conversation.messages[-1] if conversation.messages else None
        role = last.get("role") if isinstance(last, dict) else None
        if isinstance(role, str) and role in KEYS and role != "user":
            hint = (
                "Move the answer to a separate field, for graders."
                if role == "assistant"
                else "End with a user message."
            )
            yield Problem(
                f"{conversation.at}[{len(conversation.messages) - 1}].role",
                f"is {role}; the model writes the completion. {hint}",
            )


@rule(
    "FTB092",
    "item-field-name",
    kind="line",
    severity="info",
    methods=("reinforcement",),
    reason="Graders read fields as item.name, so a name cannot contain other characters; keys of chat lines have no "
    "effect here.",
    source=f"{REINFORCEMENT_SCHEMA}: only messages and tools are reserved; OpenAI graders guide: templates",
    bad=chat(user("2 + 2?"), **{"reference answer": "4"}),
    good=GOOD_REINFORCEMENT,
)
def item_field_name(line: Line) -> Iterator[Problem]:
    """An item's field has a name that graders cannot read, or that looks like another thing."""
    if not line.conversations or not isinstance(line.document, dict):
        return
    for key in line.document:
        if key in LINE_KEYS["reinforcement"]:
            continue
        if key in ("parallel_tool_calls", "functions"):
            yield Problem(key, "is an item's field here, and has no effect. Remove it unless graders read it.")
        elif key in ("item", "sample"):
            yield Problem(
                key, f"is read as item.{key}, which is easily confused with the template's own {key}. Rename it."
            )
        elif not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            yield Problem(key, "cannot be written in a grader's template. Use letters, digits and _.")


@rule(
    "FTB093",
    "no-item-fields",
    kind="line",
    severity="info",
    methods=("reinforcement",),
    reason="Without fields, graders see only the completion; most compare it with a reference.",
    source=f"{_GUIDE}: items carry what graders need",
    bad=chat(user("2 + 2?")),
    good=GOOD_REINFORCEMENT,
)
def no_item_fields(line: Line) -> Iterator[Problem]:
    """A reinforcement line has nothing for graders to compare with."""
    if line.conversations and isinstance(line.document, dict) and line.document.keys() <= LINE_KEYS["reinforcement"]:
        yield Problem("", "has no field beside messages and tools. Add a reference, unless graders need none.")


@rule(
    "FTB094",
    "fields-differ",
    kind="data",
    severity="warning",
    methods=("reinforcement",),
    reason="A grader that reads a field fails on items that lack it.",
    source=f"{_AZURE}; {_GUIDE}: a missing variable is an invalid_variable_error",
    bad="ten lines with reference_answer, one with label",
    good="the same fields in every line",
)
def fields_differ(data: Dataset, context: Context) -> Iterator[Problem]:
    """Some items have other fields than most."""
    fields = data.tally.fields
    if len(fields) < 2:
        return
    counted: dict[str, int] = {}
    for names, count in fields.items():
        for name in names:
            counted[name] = counted.get(name, 0) + count
    partial = sorted(
        (name for name, count in counted.items() if count < fields.total()), key=lambda name: counted[name]
    )
    for name in partial[:5]:
        count, everyone = counted[name], fields.total()
        yield Problem(name, f"is a field of {count:,} of {everyone:,} items. Give it to every item, or to none.")


_REFERENCE = re.compile(r"reference|answer|label|target|expected|truth|solution|gold|correct", re.IGNORECASE)


@rule(
    "FTB098",
    "same-reference",
    kind="data",
    severity="warning",
    methods=("reinforcement",),
    reason="If every reference is the same, one answer to every prompt earns every reward.",
    source=_AZURE,
    bad='fifty lines with the reference_answer "4"',
    good="references that differ as the questions do",
)
def same_reference(data: Dataset, context: Context) -> Iterator[Problem]:
    """Every item has the same reference, and no other field tells the items apart."""
    if data.role != "train" or data.rows < 10:
        return
    read = {name.split(".")[1].split("[")[0] for name in context.variables if name.startswith("item.")}
    fields = {name: values for name, values in data.tally.values.items() if name in read or not read}
    if any(len(values) > 1 and not is_bookkeeping(name) for name, values in fields.items()):
        return  # graders may well compare with that one
    for name, values in fields.items():
        if _REFERENCE.search(name) and len(values) == 1 and values.total() >= data.rows - 1:
            (value,) = values
            description = f"is {_cut(value)} in {values.total():,} items, so one answer earns every reward."
            yield Problem(name, f"{description} Use examples whose answers differ.")


def _cut(text: str) -> str:
    """JSON as it is, cut."""
    return text if len(text) <= 40 else text[:39] + "…"


@rule(
    "FTB096",
    "too-many-items",
    kind="data",
    severity="error",
    methods=("reinforcement",),
    severities={"nebius": None, "local": None},
    reason="Reinforcement jobs take at most 50,000 training and 1,000 test examples.",
    source=_GUIDE,
    bad="a training file of 50,001 lines",
    good="a sample of 50,000 lines",
)
def too_many_items(data: Dataset, context: Context) -> Iterator[Problem]:
    """A file has more items than a reinforcement job takes."""
    most = MOST_TRAIN if data.role == "train" else MOST_TEST
    if data.tally.examples > most:
        what = "training" if data.role == "train" else data.role
        yield Problem("", f"has {data.tally.examples:,} examples; {what} files have at most {most:,}. Take a sample.")


@rule(
    "FTB097",
    "no-validation-file",
    kind="split",
    severity="error",
    methods=("reinforcement",),
    severities={"nebius": None, "local": None},
    reason="Reinforcement jobs need a validation file as well as a training file.",
    source=f"{_GUIDE}: training and test sets are both needed; Microsoft's guide: both are required",
    bad="train.jsonl alone",
    good="train.jsonl, and --validation valid.jsonl",
)
def no_validation_file(splits: Splits, context: Context) -> Iterator[tuple[str, Problem]]:
    """A reinforcement job has no validation file.

    Advice only, where a file is checked by itself and nothing was said of the job's others.
    """
    train = splits.train
    if train and not splits.held_out:
        description = "is the only file; a reinforcement job also needs a validation file. Name it with --validation."
        yield train[0].path, Problem("", description, severity=None if splits.is_complete else "info")
