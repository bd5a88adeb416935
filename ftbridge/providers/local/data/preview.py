"""What is trained, token by token: rendered examples for people to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftbridge import extras
from ftbridge.data.examples import parse_example
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.data.tokens import Rendered
from ftbridge.providers.local.models.find import find_model
from ftbridge.providers.local.models.load import load_tokenizer
from ftbridge.providers.local.process.provider import NEEDS
from ftbridge.providers.local.request import LocalRequest


def preview(request: LocalRequest, train: Path, count: int) -> list[list[tuple[str, bool]]]:
    """The first `count` training examples as consecutive pieces of text, each with whether the loss falls on it.

    An example has several entries where its answers are trained in sequences of their own. A preference has two: the
    conversation with the preferred completion, then the other. A prompt to practise on has the tokens before a completion, of
    which none is trained: completions are drawn while training, and stand in RUN/rollouts.
    """
    extras.require("local", "counting with this model's tokenizer", *NEEDS)
    base = find_model(request.model, trust_remote_code=request.trust_remote_code)
    tokenizer = load_tokenizer(base.path, trust_remote_code=request.trust_remote_code)
    renderer = Renderer(tokenizer, request.thinking)
    with train.open(encoding="utf-8") as lines:
        documents = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
    if request.method == "reinforcement":
        prompts = [parse_example(document, "reinforcement") for document in documents]
        rendered = [renderer.prompt(prompt.messages, prompt.tools or ()) for prompt in prompts]
        return [explain(Rendered(ids, [False] * len(ids)), tokenizer) for ids in rendered]
    if request.method == "dpo":
        examples = [side for document in documents for side in parse_example(document, "dpo").conversations]
    else:
        examples = [parse_example(document) for document in documents]
    return [explain(sequence, tokenizer) for example in examples for sequence in renderer.sequences(example)]


def explain(rendered: Rendered, tokenizer: Any) -> list[tuple[str, bool]]:
    """Consecutive pieces of text, each with whether the loss falls on it, for people to look at."""
    pieces: list[tuple[str, bool]] = []
    start = 0
    for length in range(1, rendered.n_tokens + 1):
        if length == rendered.n_tokens or rendered.loss_mask[length] != rendered.loss_mask[start]:
            text = tokenizer.decode(rendered.input_ids[start:length], skip_special_tokens=False)
            pieces.append((text, rendered.loss_mask[start]))
            start = length
    return pieces
