"""The tuned weights, written for others to load: peft's own format, tokenizer, chat template, and a model card."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from ftbridge.files import disk_full_is_an_error, sync_folder
from ftbridge.providers.local.models.find import LocalModel
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training import shards
from ftbridge.providers.local.training.checkpoint import TrainingState
from ftbridge.providers.local.training.parallel import ALONE, Parallel


def save_tuned(
    folder: Path,
    model: Any,
    tokenizer: Any,
    base: LocalModel,
    request: LocalRequest,
    state: TrainingState,
    figures: dict[str, Any],
    parallel: Parallel = ALONE,
) -> Path:
    """Write the adapter (or, for full tuning, the model) to `folder`, whole or not at all, and return it.

    All workers call this together. An adapter is opened again and compared with the one that was trained.
    """
    norms = shards.norms(model, parallel) if request.tuning == "lora" else None
    weights = shards.gathered(model, keep=parallel.is_main) if parallel.sharded else None
    card = model_card(base, request, state, figures)
    return parallel.from_main(partial(_write, folder, model, tokenizer, card, weights, norms))


def _write(
    folder: Path,
    model: Any,
    tokenizer: Any,
    card: str,
    weights: dict[str, Any] | None,
    norms: dict[str, tuple[tuple[int, ...], float]] | None,
) -> Path:
    temporary = folder.with_name(f".{folder.name}.tmp")
    with disk_full_is_an_error(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            model.save_pretrained(temporary, safe_serialization=True, state_dict=weights)
            if norms is not None:
                shards.require_saved(temporary, model, norms)
            tokenizer.save_pretrained(temporary)
            (temporary / "README.md").write_text(card, encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def model_card(base: LocalModel, request: LocalRequest, state: TrainingState, figures: dict[str, Any]) -> str:
    """A model card in the hub's format: what it stands on, what it saw, how it was trained, how to load it."""
    adapter = request.tuning == "lora"
    library = "peft" if adapter else "transformers"
    tuning = f"LoRA r={request.lora_r} alpha={request.lora_alpha:g}" if adapter else "full"
    best = "last"
    if state.best_scores:
        best = f"best by validation reward, {state.best_scores[0][1]:.4f}"
    elif state.best_step is not None:
        best = f"best by validation loss, {state.best_valid_loss:.4f} nats"
    loads = (
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{base.path}")\n'
        'model = PeftModel.from_pretrained(model, "PATH/TO/THIS/FOLDER")\n'
        if adapter
        else "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("PATH/TO/THIS/FOLDER")\n'
    )
    rows = "\n".join(f"| {name} | {value} |" for name, value in figures.items())
    method, loss = "supervised", "The loss covers assistant messages only, including the end of turn."
    if request.dpo is not None:
        started = f", continued from {request.continue_from}" if request.continue_from else ""
        method = f"dpo, {request.dpo.loss} loss, beta {request.dpo.beta:g}{started}"
        loss = "Trained on pairs of completions; the loss covers completions only, including the end of turn."
    unit = "pairs" if request.dpo is not None else "examples"
    if request.reinforcement is not None:
        reinforcement = request.reinforcement
        method = f"reinforcement, rewarded by the grader {reinforcement.grader.name}"
        unit = f"prompts (x {reinforcement.group_size} completions)"
        loss = "Trained on its own completions, by the policy gradient of their rewards."
    return f"""---
base_model: {base.name}
library_name: {library}
pipeline_tag: text-generation
tags: [ftbridge, {"lora" if adapter else "full"}]
---

# {request.name}

A fine-tune of `{base.name}` (weights SHA-256 `{base.sha256}`), made with ftbridge.

| | |
|---|---|
| method | {method} |
| tuning | {tuning}, {request.quantization} base weights |
| epochs, {unit} a step | {request.n_epochs}, {request.batch_size} |
| learning rate | {request.learning_rate:g}, {request.lr_schedule}, warm-up {request.warmup_ratio:g} |
| seed | {request.seed} |
| weights kept | step {state.best_step or state.step} ({best}) |
| trained tokens | {state.trained_tokens:,} |
{rows}

{loss}

```python
{loads}tokenizer = AutoTokenizer.from_pretrained("PATH/TO/THIS/FOLDER")
```
"""
