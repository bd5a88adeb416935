"""Small models of several families, sharded over the processes that torchrun started, beside the same model in one piece."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from ftbridge.providers.local.training.build import BuildInputs, build
from ftbridge.providers.local.training.parallel import ALONE, joined
from support import architectures


def main(folder: Path, names: list[str]) -> None:
    """Write families.json: by family whether it was sharded, its loss, and the loss of the complete model."""
    torch.set_num_threads(1)
    settings = architectures.request(workers=2, sharding="fsdp2", lora_dropout=0.0)
    examples = architectures.examples()
    outcomes = {}
    with joined() as parallel:
        for name in names:
            parallel.from_main(lambda name=name: str(architectures.model_of(name, folder / name)))
            losses = []
            for workers in (parallel, ALONE):
                notes: list[str] = []
                inputs = BuildInputs(
                    folder / name, settings, architectures.CPU, workers, examples, 40,
                    lambda text, level, notes=notes: notes.append(text), lambda model: None,
                )  # fmt: skip
                built = build(inputs)
                loss, _ = built.forward.loss_sum(examples)
                loss.backward()
                losses.append(float(loss))
                if workers.world > 1:
                    outcomes[name] = {"sharded": built.parallel.sharded, "notes": notes}
            outcomes[name] |= {"loss": losses[0], "wanted": losses[1]}
        if parallel.is_main:
            (folder / "families.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
