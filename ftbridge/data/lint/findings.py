"""What linting says: a finding, a file's report, the whole report. These are the shapes of `ftbridge lint --json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from ftbridge.data.lint.dataset import Dataset
from ftbridge.data.lint.rule import Severity


class Finding(BaseModel):
    """One problem at one place. `line` counts from 1 and is null for the whole file; `fix` says what `--fix` would do."""

    model_config = ConfigDict(frozen=True)
    code: str = Field(description="The rule's stable code, as in FTB021.")
    severity: Severity
    line: int | None = Field(description="Counts from 1; null for a finding about the whole file.")
    field: str | None = Field(
        description="Path in the line, as in messages[1].content; null for the line or file itself."
    )
    message: str = Field(description="What is wrong and what to do. Secrets and personal data are masked.")
    fix: str | None = Field(description="What --fix does about it; null where a person must decide.")
    span: SkipJsonSchema[tuple[int, int] | None] = Field(default=None, exclude=True)
    secret: SkipJsonSchema[bool] = Field(default=False, exclude=True)
    start: SkipJsonSchema[int | None] = Field(default=None, exclude=True)
    """Where the line begins in the file, in bytes."""


class Tokens(BaseModel):
    """Tokens of a file's examples: their sum, and the distribution's points. Counted exactly; see `counted_with`."""

    model_config = ConfigDict(frozen=True)
    total: int
    smallest: int
    median: int
    p95: int
    largest: int
    histogram: list[tuple[int, int, int]] = Field(description="Bins as [from, below, examples], of equal width.")
    counted_with: str = Field(description="The encoding or the local model whose tokenizer counted.")


class FileReport(BaseModel):
    """One file: what it holds and what is wrong. Counts are complete; `findings` may be cut by --max-findings."""

    model_config = ConfigDict(frozen=True)
    path: str
    examples: int
    tokens: int | None = Field(description="Tokens of all examples; null when nothing was counted.")
    errors: int
    warnings: int
    findings: list[Finding]
    infos: int = 0
    method: str = "supervised"
    lines: int = 0
    bytes: int = 0
    rules: dict[str, int] = Field(default_factory=dict, description="How many findings each rule has in this file.")
    fixable: int = Field(default=0, description="Findings that --fix fixes.")
    token_counts: Tokens | None = None


class LintReport(BaseModel):
    """All files. `ok` is true when there is no error; `complete` is false when linting was interrupted."""

    model_config = ConfigDict(frozen=True)
    ok: bool
    files: list[FileReport]
    target: str = "openai"
    complete: bool = True

    @property
    def errors(self) -> int:
        """Errors in all files."""
        return sum(file.errors for file in self.files)

    @property
    def warnings(self) -> int:
        """Warnings in all files."""
        return sum(file.warnings for file in self.files)

    @property
    def rules(self) -> dict[str, int]:
        """How many findings each rule has, most first."""
        total: Counter[str] = Counter()
        for file in self.files:
            total.update(file.rules)
        return dict(total.most_common())


def report(files: Iterable[FileReport], *, target: str, complete: bool = True) -> LintReport:
    """Put files together."""
    listed = list(files)
    return LintReport(ok=not any(file.errors for file in listed), files=listed, target=target, complete=complete)


def text_of(message: str) -> str:
    """Text that can be written anywhere: halves of characters, which JSON allows and UTF-8 does not, as escapes."""
    return message if message.isascii() else message.encode("utf-8", "backslashreplace").decode()


BINS = 12
"""Bars of the histogram of a file's tokens."""


def token_counts(dataset: Dataset) -> Tokens | None:
    """Sum, quantiles and a histogram of BINS equal bins; None when nothing was counted."""
    import numpy as np

    tokens = dataset.columns.tokens
    if not len(tokens) or not tokens.any():
        return None
    smallest, largest = int(tokens.min()), int(tokens.max())
    width = max(1, -(-(largest - smallest + 1) // BINS))
    counts = np.bincount((tokens - smallest) // width)
    return Tokens(
        total=int(tokens.sum()),
        smallest=smallest,
        median=int(np.median(tokens)),
        p95=int(np.quantile(tokens, 0.95, method="higher")),
        largest=largest,
        histogram=[(smallest + i * width, smallest + (i + 1) * width, int(count)) for i, count in enumerate(counts)],
        counted_with=dataset.counted_with,
    )
