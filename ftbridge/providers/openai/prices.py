"""What training costs, as dated data: for holding a budget before anything is uploaded.

US dollars for a million trained tokens, of OpenAI's pricing page in late 2025; training is billed by tokens in the file times
epochs, validation is free. Later pages are said to list other prices, so the date is told wherever a figure is used.
"""

from __future__ import annotations

AS_OF = "late 2025"

TRAINING = {
    "gpt-4.1": 25.0,
    "gpt-4.1-mini": 5.0,
    "gpt-4.1-nano": 1.5,
    "gpt-4o": 25.0,
    "gpt-4o-mini": 3.0,
    "gpt-3.5-turbo": 8.0,
    "davinci-002": 6.0,
    "babbage-002": 0.4,
}
"""By base model, or the beginning of its dated names."""


def training_usd(model: str, tokens: int, epochs: int) -> float | None:
    """Estimated US dollars of a supervised or preference job; None when no price is known."""
    base = model.removeprefix("ft:").split(":")[0]
    known = [name for name in TRAINING if base == name or base.startswith(f"{name}-20")]
    return TRAINING[max(known, key=len)] * tokens * epochs / 1e6 if known else None
