"""What is not the same for everybody who answered, beside the weights: told in every result that compares them."""

from __future__ import annotations

from collections.abc import Sequence


def differences(sides: Sequence[tuple[str, str]]) -> list[str]:
    """Notes on candidates that answered in several places, or stand on several base models.

    A side is (provider, base model): "local" or "openai" or an address, and the model that was asked or tuned.
    """
    notes = []
    providers = sorted({provider for provider, _ in sides})
    models = sorted({model for provider, model in sides if provider == "local"})
    if len(providers) > 1:
        notes.append(
            f"Candidates answered in different places ({', '.join(providers)}): items, messages and greedy decoding are the "
            "same; chat template, tokenizer and arithmetic are each side's own, so token counts do not compare."
        )
    if len(models) > 1:
        notes.append(
            f"Candidates stand on different base models ({', '.join(models)}), each with its own chat template and tokenizer."
        )
    return notes
