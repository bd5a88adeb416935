"""A child that adds an adapter to its base's weights and writes the sum: a model that anything loads, without peft.

    W + (alpha / r) B A, in 16 bits

The base's own 16-bit weights are taken, also when the adapter was trained on them in 4 bits: what quantisation rounded away
comes back, so answers may differ slightly from the judged ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftbridge.providers.local.process.child import serve


def respond(request: dict[str, Any], tell: Callable[..., None]) -> None:
    """Merge `adapter` into `model` and write it to `out`, whole or not at all; tell {path, parameters}."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ftbridge.files import disk_full_is_an_error, sync_folder
    from ftbridge.providers.local.models.find import find_model
    from ftbridge.providers.local.models.load import import_peft

    import_peft()
    from peft import PeftModel

    base = find_model(request["model"], trust_remote_code=request["trust_remote_code"])
    out, adapter = Path(request["out"]), request["adapter"]
    tell("progress", text=f"loading {base.name}")
    trusted = {"trust_remote_code": request["trust_remote_code"]}
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16, **trusted)
    tell("progress", text="merging")
    merged = merge(PeftModel.from_pretrained(model, adapter))
    temporary = out.with_name(f".{out.name}.tmp")
    with disk_full_is_an_error(out):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            merged.save_pretrained(temporary, safe_serialization=True)
            AutoTokenizer.from_pretrained(adapter, **trusted).save_pretrained(temporary)
            temporary.replace(out)
            sync_folder(out.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    tell("result", path=str(out), parameters=sum(weight.numel() for weight in merged.parameters()))


def merge(tuned: Any) -> Any:
    """The base model of a peft model with the adapter added to its weights.

    A head that shares its weights with the embedding gets its own before an adapter of either is added to them.
    """
    model = tuned.get_base_model()
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    adapted = [part for part in (head, embedding) if hasattr(part, "lora_A")]
    if head is not None and adapted and head.weight is embedding.weight:
        from torch import nn

        layer = head.get_base_layer() if hasattr(head, "get_base_layer") else head
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False
        model.config.get_text_config().tie_word_embeddings = False
        for part in model.modules():
            if hasattr(part, "all_tied_weights_keys"):
                part.all_tied_weights_keys = {}
    return tuned.merge_and_unload()


if __name__ == "__main__":
    serve(respond)
