"""A base model in memory, with its tokenizer, renderer and engine: what the server's and the evaluator's processes load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.inference.engine import Engine
from ftbridge.providers.local.models import load
from ftbridge.providers.local.models.device import pick
from ftbridge.providers.local.models.find import find_model
from ftbridge.providers.local.models.fused import DropoutPool, fuse
from ftbridge.providers.local.request import LocalRequest, SampleRequest


class Loaded:
    """One model, ready to generate. `adapter` is what rows name to be completed by the tuned model; None where it is the base.

    Weights are those that training saw: the same quantization, as a 16-bit copy where memory allows. Raises
    `ModelUnavailable`.
    """

    def __init__(self, sample_request: SampleRequest, *, keep_completions: bool = False) -> None:
        request = sample_request.request
        self.device = pick(request.device, request.precision)
        base = find_model(request.model, trust_remote_code=request.trust_remote_code)
        self.tokenizer = load.load_tokenizer(base.path, trust_remote_code=request.trust_remote_code)
        self.renderer = Renderer(self.tokenizer, request.thinking)
        tuned = sample_request.tuned if request.tuning == "lora" else None
        weights = Path(sample_request.tuned) if sample_request.tuned and tuned is None else base.path
        plain = request.model_copy(update={"tuning": "lora"})
        model = load.load_base(weights, plain, self.device)
        self.adapter: str | None = None
        if tuned is not None and not _is_plain(tuned):
            model = self._wrapped(model, tuned, request)
        else:
            self.adapter = tuned
            if request.quantization == "nf4":
                load.use_dequantized(model, plain, self.device)
        self.model: Any = model.eval().requires_grad_(False)
        self.engine = Engine(
            self.model,
            self.tokenizer,
            device=self.device,
            pad_id=self.renderer.pad_id,
            keep_completions=keep_completions,
        )
        if self.adapter is not None:
            self.engine.adapters.load(self.adapter)

    @property
    def context(self) -> int:
        """Tokens of prompt and completion together, at most."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)

    def _wrapped(self, model: Any, tuned: str, request: LocalRequest) -> Any:
        """The model in peft's own classes, for adapters that are more than products beside linear layers."""
        load.import_peft()
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, tuned)
        frozen = load.FrozenWeights.of(model, request, self.device)
        fuse(model, frozen.weight_of, DropoutPool(0.0, self.device.compute, self.device.torch))
        return model


def _is_plain(folder: str) -> bool:
    from ftbridge.providers.local.inference.adapters import read_adapter

    try:
        read_adapter(Path(folder))
    except ModelUnavailable:
        return False
    return True
