"""The matrix of architectures in docs/architectures.md: one round of training on a tiny random model of each family.

    OMP_NUM_THREADS=1 python benchmarks/architectures.py                 # every family below; a few seconds each
    OMP_NUM_THREADS=1 python benchmarks/architectures.py llama gemma2    # these alone

Trained, resumed, loaded in plain peft, merged, and full tuning's checkpoint loaded again, as the tests do for some of them
(`tests/providers/local/architectures.py`). Prints a Markdown table; differences are the largest of any log-probability.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "providers" / "local"))

FAMILIES = [
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "mistral_window",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "gpt2",
    "gpt_neox",
    "gptj",
    "gpt_bigcode",
    "opt",
    "bloom",
    "mpt",
    "falcon",
    "falcon_alibi",
    "stablelm",
    "starcoder2",
    "olmo2",
    "olmo3",
    "granite",
    "cohere",
    "cohere2",
    "glm",
    "glm4",
    "exaone4",
    "smollm3",
    "nemotron",
    "qwen2_moe",
    "qwen3_moe",
    "mixtral",
    "olmoe",
    "deepseek_v2",
    "deepseek_v3",
    "gpt_oss",
    "glm4_moe",
    "phimoe",
    "llama4_text",
    "dbrx",
    "granitemoe",
    "ernie4_5_moe",
    "minimax_m2",
    "lfm2",
    "lfm2_moe",
    "qwen3_5_text",
    "qwen3_next",
    "bamba",
    "jamba",
    "falcon_h1",
    "nemotron_h",
    "granitemoehybrid",
    "recurrent_gemma",
    "mamba",
    "falcon_mamba",
    "rwkv",
]


def main(families: list[str]) -> None:
    """Print one row a family."""
    from architectures import round_of

    print("| family | trains | adapter | experts | resumed | plain peft | merged | full tuning |")
    print("|---|---|---|---|---|---|---|---|")
    for family in families:
        try:
            seen = round_of(family)
        except Exception as error:  # a row of its own: the table is to be whole
            print(f"| {family} | fails: {type(error).__name__}: {str(error).splitlines()[0]} | | | | | | |", flush=True)
            continue
        if seen.refused:
            print(f"| {family} | refused: {seen.refused} | | | | | | |", flush=True)
            continue
        frozen = "; ".join(note for note in seen.notes if note.startswith("stay frozen")) or "every linear layer"
        figures = " | ".join(f"{figure:.1g}" for figure in (seen.resumed, seen.peft, seen.merged, seen.full))
        print(f"| {family} | {seen.way} | {frozen} | {'yes' if seen.experts else ''} | {figures} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or FAMILIES)
