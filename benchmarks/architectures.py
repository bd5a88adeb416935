"""The matrices of docs/architectures.md: training on a tiny random model of each family, and templates by their properties.

    OMP_NUM_THREADS=1 python benchmarks/architectures.py                 # every family below; five to ten seconds each
    OMP_NUM_THREADS=1 python benchmarks/architectures.py llama gemma2    # these alone
    OMP_NUM_THREADS=1 python benchmarks/architectures.py templates       # the matrix of templates, seconds

Trained, resumed, loaded in plain peft, merged, trained on 4-bit weights, and the checkpoint of full tuning loaded again, as the
tests do for some of them (`tests/support/architectures.py`). Prints Markdown tables.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

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
    "gemma4_text",
    "mamba2",
    "zamba2",
    "xlstm",
    "ernie4_5",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "seed_oss",
]


def main(families: list[str]) -> None:
    """Print one row a family, or the matrix of templates."""
    from support.template_matrix import HEADER, cells_of, rows

    if families == ["templates"]:
        print(HEADER, *rows(), sep="\n")
        return
    from support.architectures import MATRIX, round_of, row_of

    print(MATRIX)
    for family in families:
        try:
            print(row_of(round_of(family), cells_of(family)), flush=True)
        except Exception as error:  # a row of its own: the table is to be whole
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            print(f"| {family} | fails: {reason} | | | | | | |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or FAMILIES)
