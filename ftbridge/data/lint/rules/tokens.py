"""Rules about token counts: examples that are cut, cannot be read, train nothing, or are unlike the others in length.

Counts are exact in a hosted model's vocabulary, or by a local model's own tokenizer and template where one counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from ftbridge.data.lint.dataset import Dataset
from ftbridge.data.lint.rule import Context, Problem, lines_of, quoted, rule
from ftbridge.data.lint.source import FileFacts
from ftbridge.data.targets import longest_example

_BEST = "OpenAI fine-tuning best practices: token limits per example; longer ones are cut at the end without an error"
_FEW = 20
"""Examples below which a file says nothing about what is usual."""


@rule(
    "FTB200",
    "example-over-token-limit",
    kind="data",
    severity="warning",
    severities={"nebius": "info"},
    needs=("tokens",),
    reason="Text beyond the limit is cut off without an error, and the completion is at the end.",
    source=_BEST,
    bad="an example of 70,000 tokens for gpt-4.1, which reads 65,536",
    good="the same conversation in two examples",
)
def example_over_limit(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """An example has more tokens than the model reads."""
    import numpy as np

    limit = _limit(context)
    if limit is None:
        return
    columns = dataset.columns
    # In preference data each side is read by itself: what stands before the second is the prompt and the first.
    length = columns.target if dataset.method == "dpo" and not dataset.by_model else columns.tokens
    reader = dataset.counted_with if dataset.by_model else context.model or context.target.title
    for row in np.flatnonzero(length > limit).tolist():
        description = f"has {int(length[row]):,} tokens; {reader} reads {limit:,} of an example and cuts off the rest"
        if dataset.method != "supervised":
            description += "."
        elif columns.target[row] >= limit:
            description += (
                ": nothing is left of the completion that it trains on, which begins at token "
                f"{int(columns.target[row]) + 1:,}."
            )
        else:
            description += ": the end of its last completion."
        yield Problem("", f"{description} Shorten it, or split it in two.", line=int(columns.line[row]))


@rule(
    "FTB201",
    "unreadable-for-the-model",
    kind="data",
    severity="error",
    needs=("tokens",),
    reason="Training stops at an example that the model's chat template cannot write.",
    source="ftbridge's own renderer, which training on this machine uses",
    bad="a tool's result, for a model whose chat template has no tools",
    good="messages with the roles and parts that the template knows",
)
def unreadable(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """An example cannot be written by the local model's chat template."""
    for line, problem in dataset.unreadable:
        yield Problem("", f"cannot be trained with {dataset.counted_with}: {problem}", line=line)


@rule(
    "FTB202",
    "no-trained-tokens",
    kind="data",
    severity="warning",
    methods=("supervised", "dpo"),
    needs=("tokens",),
    reason="A job without a single token to train on costs money and teaches nothing.",
    source="OpenAI supervised fine-tuning guide: the loss falls on assistant messages whose weight is not 0",
    bad="a file in which every assistant message has weight 0",
    good="a file whose last completions are trained on",
)
def nothing_trained(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """No example of the file has a token that is trained on."""
    columns = dataset.columns
    if dataset.role != "test" and columns.tokens.any() and not columns.loss_tokens.any():
        yield Problem("", "has no token to train on in any example. Give the last completions a weight of 1.")


@rule(
    "FTB203",
    "unusual-length",
    kind="data",
    severity="info",
    needs=("tokens",),
    reason="An example far longer than the others is often several examples joined by mistake, or a pasted file; it "
    "dominates its batch.",
    source="Tukey, Exploratory Data Analysis (1977): fences at three interquartile ranges, here on a log scale",
    bad="1,000 examples of about 200 tokens and one of 30,000",
    good="examples of about one length, or of many lengths",
)
def unusual_length(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """A few examples are far longer than all others."""
    import numpy as np

    tokens = dataset.columns.tokens
    counted = tokens[tokens > 0]
    if len(counted) < _FEW:
        return
    low, middle, high = np.quantile(np.log(counted), [0.25, 0.5, 0.75])
    # A quartile range of nothing (all alike) would make every other length unusual: four times the median at least.
    fence = max(float(np.exp(high + 3 * (high - low))), 4 * float(np.exp(middle)))
    rows = np.flatnonzero(tokens > fence)
    if len(rows):
        longest = rows[np.argsort(-tokens[rows], kind="stable")]
        times = tokens[longest[0]] / np.exp(middle)
        which = lines_of(dataset.columns.line[longest].tolist(), ordered=False)
        description = (
            f"has examples far longer than the others: {which}, up to {int(tokens[longest[0]]):,} tokens, "
            f"{times:,.0f} times the median. Check that they are intended."
        )
        yield Problem("", description, line=int(dataset.columns.line[longest[0]]))


@rule(
    "FTB204",
    "few-trained-tokens",
    kind="data",
    severity="info",
    methods=("supervised",),
    needs=("tokens",),
    reason="All tokens are paid for in every epoch, but only the completions are learnt.",
    source="OpenAI pricing: training is charged by all tokens of the file",
    bad="prompts of 5,000 tokens with completions of one word",
    good="a prompt shortened to what the completion needs",
)
def few_trained(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """Less than one token in a hundred is trained on."""
    total, loss_tokens = int(dataset.columns.tokens.sum()), int(dataset.columns.loss_tokens.sum())
    if dataset.rows >= _FEW and 0 < loss_tokens * 100 < total:
        yield Problem(
            "", f"trains on {loss_tokens:,} of {total:,} tokens; shorter prompts would cost less and teach the same."
        )


@rule(
    "FTB205",
    "reasoning-not-written",
    kind="data",
    severity="warning",
    methods=("supervised", "dpo"),
    needs=("tokens",),
    reason="A chat template writes only the keys that it knows; the model neither reads nor learns the others.",
    source="the model's own chat template, by which training on this machine writes examples",
    bad="reasoning_content in every completion, for a model whose template has no reasoning",
    good="the reasoning in content, or a model whose template writes it",
)
def reasoning_not_written(dataset: Dataset, context: Context) -> Iterator[Problem]:
    """The local model's chat template leaves out the reasoning of a completion to learn."""
    for line, at in dataset.unwritten:
        description = f"is not written by the chat template of {dataset.counted_with}, so it is not learnt."
        yield Problem(at, f"{description} Put it into content, or train a model whose template writes it.", line=line)


@rule(
    "FTB206",
    "unknown-model",
    kind="file",
    severity="info",
    severities={"nebius": None, "local": None},
    reason="Tokens are counted in the model's vocabulary, and examples are cut off at its limit; both are guessed here.",
    source="OpenAI's fine-tuning guides, for the models that ftbridge knows",
    bad="--model gpt-9",
    good="--model gpt-4.1-mini",
)
def unknown_model(file: FileFacts, context: Context) -> Iterator[Problem]:
    """The model that is named is not known."""
    model = context.model
    if not model or context.longest is not None or "/" in model or model.removeprefix("ft:").startswith(_KNOWN_MODELS):
        return
    description = (
        f"is checked for {quoted(model)}, a model that ftbridge does not know: its limits are taken to be those"
    )
    yield Problem("", f"{description} of gpt-4.1. Check the name.")


_KNOWN_MODELS = ("gpt-3.5", "gpt-35", "gpt-4", "gpt-5", "o1", "o3", "o4", "davinci", "babbage")
"""How the names of hosted models begin whose vocabulary and limits are known."""


def _limit(context: Context) -> int | None:
    """The most tokens of an example; None where nobody knows."""
    if context.longest is not None:
        return context.longest
    return None if context.target.name == "local" else longest_example(context.model)
