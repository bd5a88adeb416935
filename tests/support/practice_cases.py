"""Drawn trials, and a two-layer model with a real tokenizer, for tests of reinforcement."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from ftbridge.providers.local.data.prompts import PracticePrompt, as_examples, encode_prompts
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.models import load
from ftbridge.providers.local.models.fused import DropoutPool, fuse
from ftbridge.providers.local.request import LocalRequest
from ftbridge.providers.local.training.forward import Forward, prove
from ftbridge.providers.local.training.loop import Trainer
from ftbridge.providers.local.training.optim import optimizer_for
from ftbridge.providers.local.training.policy_gradient import PolicyGradient, Trial, trial
from ftbridge.providers.local.training.reinforcement import Practice
from support import architectures
from support.small_model import write_small_model
from support.tiny_training import Steps

HAS_LETTER = {"type": "string_check", "name": "has_letter", "operation": "ilike", "input": "{{sample.output_text}}",
         "reference": "{{item.letter}}"}  # fmt: skip
"""About half of a random model's completions of a few tokens hold an h."""


def drawn_trials(shapes: tuple[tuple[int, int, float], ...], seed: int = 3) -> list[Trial]:
    """Trials of drawn tokens: (tokens of the prompt, of the completion, advantage) each."""
    dice = random.Random(seed)

    def ids(count: int) -> list[int]:
        return [dice.randrange(4, architectures.VOCABULARY) for _ in range(count)]

    return [trial(ids(prompt), ids(length), advantage, [-1.0] * length) for prompt, length, advantage in shapes]


def like(one: Trial, length: int) -> Trial:
    """Another completion of the same prompt."""
    dice = random.Random(length)
    completion = [dice.randrange(4, architectures.VOCABULARY) for _ in range(length)]
    return trial(one.example.input_ids[: one.prompt], completion, one.advantage, [-1.0] * length)


def request(
    grader: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, **changes: Any
) -> LocalRequest:
    """Groups of four, completions of six tokens."""
    reinforcement = {"grader": grader or HAS_LETTER, "group_size": 4, "max_completion_tokens": 6, **(settings or {})}
    values = {"method": "reinforcement", "reinforcement": reinforcement, "lora_dropout": 0.0, "learning_rate": 3e-3}
    return architectures.request(**{**values, "batch_size": 3, "thinking": "off", **changes})


def small_model(folder: Path, base: Path) -> Path:
    """A random model of two layers with the tokenizer of the real one."""
    return folder if folder.exists() else write_small_model(folder, base, max_position_embeddings=512)


def rows(count: int, first: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """Prompts with the letter that completions are rewarded for."""
    return [
        {"messages": [{"role": "user", "content": f"Say something about lamp {first + n}."}], "letter": "h", **fields}
        for n in range(count)
    ]


def write_split(folder: Path, name: str, lines: list[dict[str, Any]]) -> Path:
    """A canonical split, with the file that says where its lines come from."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = folder / "lines.json"
    origins = json.loads(names.read_text()) if names.exists() else {}
    origins[name] = [f"{name}.jsonl:{n + 1}" for n in range(len(lines))]
    names.write_text(json.dumps(origins))
    return path


def prepared(
    folder: Path, model: Path, local_request: LocalRequest, train: list[dict[str, Any]] | None = None
) -> tuple[Forward, Renderer]:
    """The model, adapted, fused and proved on its prompts, and the renderer of its tokenizer."""
    renderer = Renderer(AutoTokenizer.from_pretrained(model), local_request.thinking)
    path = write_split(folder / "data", "train", train or rows(6))
    prompts = encode_prompts(path, "train", renderer, local_request).examples
    adapted = load.add_adapter(load.load_base(model, local_request, architectures.CPU), local_request)
    pool = DropoutPool(0.0, torch.float32, torch.device("cpu"))
    fuse(adapted, load.FrozenWeights.of(adapted, local_request, architectures.CPU).weight_of, pool)
    forward = Forward(adapted, architectures.CPU, "plain", autocast=False, pool=pool)
    return prove(forward, as_examples(prompts), packing=True), renderer


def practice(
    folder: Path, model: Path, local_request: LocalRequest, train: list[dict[str, Any]] | None = None, **also: Any
) -> tuple[Practice, list[tuple[str, str]]]:
    """The source of a job's steps in `folder`, and what it says."""
    forward, renderer = prepared(folder, model, local_request, train)
    splits: dict[str, tuple[PracticePrompt, ...]] = {}
    for name, lines in (("train", train or rows(6)), ("validation", also.pop("validation", rows(3, 100)))):
        path = write_split(folder / "data", name, lines)
        splits[name] = encode_prompts(path, name, renderer, local_request).examples
    messages: list[tuple[str, str]] = []
    source = Practice(
        forward, renderer, local_request, splits["train"], splits["validation"], folder,
        lambda text, level="info": messages.append((level, text)), also.pop("requested", lambda: None),
    )  # fmt: skip
    return source, messages


def trainer_of(folder: Path, model: Path, requested: Any = lambda: None, **changes: Any) -> tuple[Trainer, Steps]:
    """A job of six prompts, three a step; `lines`: other prompts."""
    lines = changes.pop("lines", None)
    local_request = request(**{"n_epochs": 2, "settings": {"eval_interval": 2}, **changes})
    source, _ = practice(folder, model, local_request, train=lines, requested=requested)
    steps = Steps()
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        source.forward, optimizer_for(source.forward.model.parameters(), local_request, architectures.CPU),
        torch.amp.GradScaler("cpu", enabled=False), local_request, architectures.CPU, source.train, source.validation,
        folder / "checkpoints", 400, steps, requested, PolicyGradient(shared=True), source,
    )  # fmt: skip
    return trainer, steps


def trained_numbers(forward: Forward) -> torch.Tensor:
    """Every trained number of the model, in one row."""
    return torch.cat([one.detach().flatten().clone() for one in forward.model.parameters() if one.requires_grad])
