"""A file's tokens as a few figures: what a report tells of the distribution."""

from __future__ import annotations

from ftbridge.data.lint.dataset import Dataset
from ftbridge.data.lint.findings import Tokens

BINS = 12


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
