"""Rules about how many examples a file has, and about files that hold two kinds of them."""

from __future__ import annotations

from collections.abc import Iterator

from ftbridge.data.lint.dataset import Dataset
from ftbridge.data.lint.rule import Context, Problem, rule

_GUIDE = "OpenAI supervised fine-tuning guide"


@rule(
    "FTB210",
    "too-few-examples",
    kind="data",
    severity="error",
    reason="A job with fewer than 10 examples fails with invalid_n_examples.",
    source=f"{_GUIDE}; OpenAI's server: file has N examples, but must have at least 10",
    bad="a training file of 9 lines",
    good="a training file of 10 lines",
)
def too_few_examples(data: Dataset, context: Context) -> Iterator[Problem]:
    """A training file has fewer examples than the service takes."""
    count, fewest = _lines(data), context.target.minimum_examples
    if data.role == "train" and 0 < count < fewest:
        amount = "1 example" if count == 1 else f"{count} examples"
        yield Problem("", f"has {amount}; {context.target.title} needs at least {fewest}. Add examples.")


@rule(
    "FTB211",
    "few-examples",
    kind="data",
    severity="info",
    reason="OpenAI sees clear improvements with 50 to 100 good examples; where completions vary, hundreds do better.",
    source=f"{_GUIDE}: 50 to 100 examples; OpenAI's best practices: doubling a data set brings a steady gain",
    bad="a training file of 30 lines",
    good="a training file of 500 lines",
)
def few_examples(data: Dataset, context: Context) -> Iterator[Problem]:
    """A training file has few examples."""
    count = _lines(data)
    if data.role != "train" or count < context.target.minimum_examples:
        return
    if count < 50:
        yield Problem("", f"has {count} examples; a clear effect is usually seen with 50 to 100.")
    elif count < 100:
        yield Problem("", f"has {count} examples, enough for a first effect; 100 or more are safer.")
    elif count < 500:
        yield Problem("", f"has {count} examples; where completions vary much, 500 and more do better.")


@rule(
    "FTB212",
    "mixed-methods",
    kind="data",
    severity="warning",
    reason="A job reads a file for one method; lines for another method are refused.",
    source="OpenAI's server refuses chat lines for other methods; the published schema of each method",
    bad="chat lines and preference lines in one file",
    good="one method per file",
)
def mixed_methods(data: Dataset, context: Context) -> Iterator[Problem]:
    """A file has lines of several methods or formats."""
    kinds = {kind: n for kind, n in data.tally.methods.items() if n and kind != "unknown"}
    if context.method == "reinforcement" and "reinforcement" in kinds:
        # Prompts without item fields look like chat lines; those with an answer are told line by line.
        kinds.pop("supervised", None)
    elif context.method == "supervised":
        # Chat lines that end too early and have a key too many look like items; both are told line by line.
        kinds.pop("reinforcement", None)
    if len(kinds) > 1:
        amounts = ", ".join(f"{n:,} {kind}" for kind, n in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
        yield Problem("", f"mixes lines of several kinds: {amounts}. Use one file per method.")


@rule(
    "FTB213",
    "tools-in-some-lines",
    kind="data",
    severity="info",
    reason=(
        "A model learns from the examples which tools it is offered; if some examples offer none, that should be on "
        "purpose."
    ),
    source="OpenAI function calling guide: examples list the tools that are offered when the model is used",
    bad="tools in 400 of 500 lines",
    good="tools in every line, or in none",
)
def tools_in_some_lines(data: Dataset, context: Context) -> Iterator[Problem]:
    """Some lines offer tools, and some do not."""
    some, everyone = data.tally.with_tools, data.rows
    if 0 < some < everyone:
        yield Problem(
            "",
            (
                f"offers tools in {some:,} of {everyone:,} examples. Offer them in all examples, unless that is "
                "intended."
            ),
        )


@rule(
    "FTB214",
    "too-many-image-examples",
    kind="data",
    severity="error",
    reason="A training file has at most 50,000 examples with images.",
    source="OpenAI vision fine-tuning guide",
    bad="60,000 lines with an image",
    good="50,000 lines with an image",
)
def too_many_image_examples(data: Dataset, context: Context) -> Iterator[Problem]:
    """A file has more examples with images than the service takes."""
    most, count = context.target.image_examples, data.tally.with_images
    if most is not None and count > most:
        yield Problem("", f"has images in {count:,} examples; {context.target.title} takes {most:,}. Take a sample.")


def _lines(data: Dataset) -> int:
    """Lines that are examples, or are to be: one that cannot be read is told by itself, and makes no file too small."""
    return data.tally.lines - data.tally.blank
