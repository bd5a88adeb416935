"""Reinforcement against TRL's GRPOTrainer, and the controls of the example: what must move, and what must not.

    python benchmarks/reinforcement.py controls --seeds 1,2,3 --only "as written"   # examples/reinforcement and its controls
    python benchmarks/reinforcement.py speed --steps 6 --repeat 3                   # alternating sides, a Markdown table

`controls`: each row trains on examples/reinforcement from the base model and measures the mean reward of completions of the
test prompts before and after, with the same seeds; the interval is over prompts. Only `as written` may move it:

    as written        the example
    shuffled          the advantages of each group are dealt out again at random: the same updates, without what they are for
    rate 0            a learning rate of nothing

`speed`: SmolLM2-135M-Instruct, 4 prompts x 8 completions a step of exactly 32 tokens at temperature 1 (nothing ends one), LoRA
r=16 alpha=32 without dropout on all linear layers, AdamW at a constant rate, no KL, one update a step, advantages not scaled,
the loss a sum over tokens, no gradient checkpointing, a reward computed in process (the share of distinct tokens), no
validation, no checkpoints; each run a process of its own, the first step left out. TRL runs without vLLM.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from alternating import alternate

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent / "examples" / "reinforcement"
MODEL = "smollm2-135m-instruct"
CONTROLS = ("as written", "shuffled", "rate 0")
PROMPTS, GROUP, ROOM, RATE = 4, 8, 32, 1e-4
CASES = {"short": 64, "long prompts": 256}
"""Tokens of a prompt."""


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    controls = commands.add_parser("controls")
    controls.add_argument("--seeds", default="1,2,3")
    controls.add_argument("--only", action="append", choices=CONTROLS)
    controls.add_argument("--steps", type=int, default=None, help="Stop after so many steps.")
    controls.add_argument("--samples", type=int, default=2, help="Completions of each test prompt.")
    speed = commands.add_parser("speed")
    speed.add_argument("--case", choices=list(CASES), action="append")
    speed.add_argument("--steps", type=int, default=6)
    speed.add_argument("--repeat", type=int, default=3)
    speed.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    speed.add_argument("--sides", default="ftbridge,trl")
    one = commands.add_parser("one")
    for name in ("side", "case", "steps", "precision"):
        one.add_argument(name)
    arguments = parser.parse_args()
    if arguments.command == "controls":
        show_controls(
            [int(seed) for seed in arguments.seeds.split(",")],
            arguments.only or CONTROLS,
            arguments.steps,
            arguments.samples,
        )
    elif arguments.command == "speed":
        show_speed(
            arguments.case or list(CASES),
            arguments.sides.split(","),
            arguments.steps,
            arguments.repeat,
            arguments.precision,
        )
    else:
        side: Callable[[str, int, str], dict[str, float]] = ours if arguments.side == "ftbridge" else theirs
        print(json.dumps(side(arguments.case, int(arguments.steps), arguments.precision)))


# The example and its controls


def show_controls(seeds: list[int], names: Any, steps: int | None, samples: int) -> None:
    """One row a run: the held-out reward before and after, and their difference with its interval."""
    print("| run | seed | steps | reward, base | reward, tuned | difference, 95 % interval | training |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in names:
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                before, after, taken, seconds = learn(name, seed, Path(folder), steps, samples)
            differences = [new - old for old, new in zip(before, after, strict=True)]
            mean = statistics.mean(differences)
            error = 1.96 * statistics.stdev(differences) / math.sqrt(len(differences))
            cells = (
                name, seed, taken, f"{statistics.mean(before):.3f}", f"{statistics.mean(after):.3f}",
                f"{mean:+.3f} ({mean - error:+.3f} to {mean + error:+.3f})", f"{seconds:.0f} s",
            )  # fmt: skip
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


def learn(
    name: str, seed: int, folder: Path, steps: int | None, samples: int
) -> tuple[list[float], list[float], int, float]:
    """Mean rewards of each test prompt before and after training, the steps, and the seconds of training alone."""
    import torch

    from ftbridge.data.prepare import prepare
    from ftbridge.providers import load as provider
    from ftbridge.providers.local.data.prompts import as_examples, as_pairs, encode_prompts
    from ftbridge.providers.local.data.rendering import Renderer
    from ftbridge.providers.local.models import load
    from ftbridge.providers.local.models.device import pick
    from ftbridge.providers.local.models.find import find_model
    from ftbridge.providers.local.models.fused import DropoutPool, fuse
    from ftbridge.providers.local.request import LocalRequest
    from ftbridge.providers.local.training.checkpoint import TrainingState
    from ftbridge.providers.local.training.forward import Forward, prove
    from ftbridge.providers.local.training.loop import Trainer, train
    from ftbridge.providers.local.training.objective import Collected
    from ftbridge.providers.local.training.optim import optimizer_for
    from ftbridge.providers.local.training.pairs import shares_prompts
    from ftbridge.providers.local.training.policy_gradient import PolicyGradient, groups_of
    from ftbridge.providers.local.training.reinforcement import Practice
    from ftbridge.runs.rollouts import read_rollouts
    from ftbridge.spec import JobSpec
    from ftbridge.spec.resolve import resolve

    document = yaml.safe_load((EXAMPLE / "job.yaml").read_text(encoding="utf-8"))
    document["seed"] = seed
    spec = JobSpec.from_dict(document)
    prepare(spec, base=EXAMPLE, out=folder / "data")
    count = len((folder / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines())
    request = LocalRequest.model_validate(provider("local").lower(resolve(spec, count, "local", 0)).request)
    own = request.reinforcement
    assert own is not None
    if name == "rate 0":
        request = request.model_copy(update={"learning_rate": 0.0})
    device = pick(request.device, request.precision)
    path = find_model(request.model).path
    renderer = Renderer(load.load_tokenizer(path), request.thinking)
    splits = {
        split: encode_prompts(folder / "data" / f"{split}.jsonl", split, renderer, request).examples
        for split in ("train", "validation", "test")
    }
    torch.manual_seed(seed)
    model = load.add_adapter(load.load_base(path, request, device), request)
    pool = DropoutPool(0.0, device.compute, device.torch)
    fuse(model, load.FrozenWeights.of(model, request, device).weight_of, pool)
    forward = prove(
        Forward(model, device, "plain", autocast=False, pool=pool), as_examples(splits["train"]), packing=True
    )
    shared = shares_prompts(forward, as_pairs(splits["train"]))

    def practice(where: Path, validation: Any, settings: LocalRequest) -> Practice:
        return Practice(forward, renderer, settings, splits["train"], validation, where, lambda *_: None, lambda: None)

    class Shuffled(Practice):
        """Deals the advantages of each group out again."""

        def collect(self, batch: Any, step: int) -> Collected:
            collected = super().collect(batch, step)
            draw = random.Random(f"{seed} {step}")
            units = []
            for group in groups_of(collected.units):
                weights = [one.advantage for one in group]
                draw.shuffle(weights)
                units += [replace(one, advantage=weight) for one, weight in zip(group, weights, strict=True)]
            return replace(collected, units=units)

    measuring = practice(
        folder / "test", splits["test"],
        request.model_copy(update={"reinforcement": own.model_copy(update={"eval_samples": samples})}),
    )  # fmt: skip

    def measured(step: int) -> list[float]:
        measuring.validate(step)
        by_prompt: dict[int, list[float]] = {}
        for one in read_rollouts(folder / "test" / "rollouts" / f"valid-{step:06d}.jsonl"):
            by_prompt.setdefault(one.prompt, []).append(one.reward or 0.0)
        return [statistics.mean(by_prompt[place]) for place in sorted(by_prompt)]

    before = measured(0)
    source = practice(folder, (), request)
    if name == "shuffled":
        source = Shuffled(forward, renderer, request, splits["train"], (), folder, lambda *_: None, lambda: None)
    (folder / "checkpoints").mkdir()
    done: list[int] = []
    trainer = Trainer(
        forward, optimizer_for(model.parameters(), request, device), torch.amp.GradScaler("cpu", enabled=False), request,
        device, splits["train"], (), folder / "checkpoints", 2048, _Steps(done),
        lambda: "cancel" if steps is not None and len(done) >= steps else None, PolicyGradient(shared), source,
    )  # fmt: skip
    began = time.perf_counter()
    train(trainer, TrainingState())
    seconds = time.perf_counter() - began
    return before, measured(len(done)), len(done), seconds


class _Steps:
    def __init__(self, done: list[int]) -> None:
        self._done = done

    def message(self, text: str, level: str = "info") -> None:
        """Nothing to say."""

    def metrics(self, **figures: Any) -> None:
        """Count it."""
        self._done.append(int(figures["step"]))

    def checkpoint(self, path: Path, step: int) -> None:
        """Nothing to say."""


# Speed


def show_speed(cases: list[str], sides: list[str], steps: int, repeat: int, precision: str) -> None:
    """Alternate the sides, and print medians and ratios."""
    print(f"{os.cpu_count()} cores, {steps} steps of {PROMPTS} x {GROUP} completions of {ROOM} tokens, {precision}, ")
    print(f"medians of {repeat}\n\n| case | side | seconds a step | completion tokens/s | peak memory | against trl |")
    print("|---|---|---|---|---|---|", flush=True)
    for case in cases:
        runs = alternate(__file__, sides, [case, str(steps), precision], repeat)
        medians = {side: statistics.median(run["seconds"] for run in results) for side, results in runs.items()}
        for side, results in runs.items():
            rate = PROMPTS * GROUP * ROOM / medians[side]
            memory = statistics.median(run["gb"] for run in results)
            ratio = f"{medians['trl'] / medians[side]:.1f}x" if "trl" in medians else ""
            print(f"| {case} | {side} | {medians[side]:.1f} | {rate:.0f} | {memory:.1f} GB | {ratio} |", flush=True)


def drawn_prompts(case: str, count: int) -> list[list[int]]:
    """Prompts of drawn token ids, the same for both sides."""
    draw = random.Random(f"{case} 1")
    return [[draw.randrange(100, 40_000) for _ in range(CASES[case])] for _ in range(count)]


def reward_of(tokens: list[int]) -> float:
    """The share of distinct tokens: it differs within every group, and costs nothing."""
    return len(set(tokens)) / len(tokens)


def ours(case: str, steps: int, precision: str) -> dict[str, float]:
    """The parts of a local job, without a run around them; rewards are computed here instead of by a grader's text."""
    import torch

    from ftbridge.providers.local.data.prompts import PracticePrompt, as_examples, as_pairs
    from ftbridge.providers.local.inference.engine import Engine, Request
    from ftbridge.providers.local.models import load
    from ftbridge.providers.local.models.device import Device
    from ftbridge.providers.local.models.find import find_model
    from ftbridge.providers.local.models.fused import DropoutPool, fuse
    from ftbridge.providers.local.models.parts import use_own_attention
    from ftbridge.providers.local.request import LocalRequest
    from ftbridge.providers.local.training.forward import Forward, prove, use_way
    from ftbridge.providers.local.training.loop import Trainer, _update
    from ftbridge.providers.local.training.optim import optimizer_for
    from ftbridge.providers.local.training.pairs import shares_prompts
    from ftbridge.providers.local.training.policy_gradient import PolicyGradient, advantages, trial

    request = LocalRequest(
        name="benchmark", model=MODEL, seed=1, n_epochs=1, batch_size=PROMPTS, learning_rate=RATE,
        lr_schedule="constant", warmup_ratio=0.0, weight_decay=0.0, max_grad_norm=1.0, optimizer="adamw", tuning="lora",
        quantization="none", lora_r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", use_rslora=False,
        use_dora=False, max_length=2048, overlength="refuse", packing=True, max_tokens_per_microbatch=2048, patience=None,
        min_delta=0.0, gradient_checkpointing=False, precision=precision, device="cpu", cache_dequantized_weights=False,
        evals_per_epoch=1, keep_checkpoints=1, checkpoint_minutes=1e9, trust_remote_code=False,
    )  # fmt: skip
    device = Device(torch.device("cpu"), torch.float32 if precision == "fp32" else torch.bfloat16)
    path = find_model(MODEL).path
    tokenizer = load.load_tokenizer(path)
    model = load.add_adapter(load.load_base(path, request, device), request)
    pool = DropoutPool(0.0, device.compute, device.torch)
    fuse(model, load.FrozenWeights.of(model, request, device).weight_of, pool)
    prompts = [
        PracticePrompt(tuple(ids), {}, (), "", place, ROOM)
        for place, ids in enumerate(drawn_prompts(case, steps * PROMPTS))
    ]
    forward = prove(Forward(model, device, "plain", autocast=False, pool=pool), as_examples(prompts), packing=True)
    objective = PolicyGradient(shares_prompts(forward, as_pairs(prompts)))
    trainer = Trainer(
        forward, optimizer_for(model.parameters(), request, device), torch.amp.GradScaler("cpu", enabled=False), request,
        device, prompts, (), Path(), 2048, _Steps([]), lambda: None, objective,
    )  # fmt: skip
    moments = []
    for step in range(steps):
        moments.append(time.perf_counter())
        batch = prompts[step * PROMPTS : (step + 1) * PROMPTS]
        requests = [
            Request(
                prompt.ids, max_new_tokens=ROOM, temperature=1.0, seed=hash((step, prompt.index, sample)), logprobs=0,
                end_tokens=frozenset(),
            )
            for prompt in batch
            for sample in range(GROUP)
        ]  # fmt: skip
        use_own_attention(model)
        generations = Engine(model, tokenizer, device=device).generate(requests)
        use_way(model, forward.way)
        model.train()
        units = []
        for place, prompt in enumerate(batch):
            group = generations[place * GROUP : (place + 1) * GROUP]
            weights = advantages([reward_of(one.token_ids) for one in group])
            units += [
                trial(prompt.ids, one.token_ids, weight, one.logprobs)
                for one, weight in zip(group, weights, strict=True)
                if weight is not None
            ]
        _update(trainer, units, step + 1)
    moments.append(time.perf_counter())
    return _result(moments)


def theirs(case: str, steps: int, precision: str) -> dict[str, float]:
    """TRL's trainer on prompts of the same length, its loss set to what ours computes."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from ftbridge.providers.local.models.find import find_model

    path = find_model(MODEL).path
    tokenizer = AutoTokenizer.from_pretrained(path)
    moments: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [reward_of(tokens) for tokens in completion_ids]

    kind = torch.float32 if precision == "fp32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(path, dtype=kind)
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, report_to=[], use_cpu=True, bf16=precision == "bf16", gradient_checkpointing=False,
            per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, max_completion_length=ROOM,
            max_steps=steps, learning_rate=RATE, lr_scheduler_type="constant", beta=0.0, num_iterations=1,
            loss_type="dapo", scale_rewards="none", temperature=1.0, logging_steps=1, save_strategy="no", seed=1,
            optim="adamw_torch", weight_decay=0.0, max_grad_norm=1.0, disable_tqdm=True, use_vllm=False,
            generation_kwargs={"min_new_tokens": ROOM},
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list(
                [{"prompt": tokenizer.decode(ids)} for ids in drawn_prompts(case, steps * PROMPTS)]
            ),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    return _result(moments)


def _result(moments: list[float]) -> dict[str, float]:
    steps = [after - before for before, after in itertools.pairwise(moments[1:])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"seconds": statistics.mean(steps), "gb": peak}


if __name__ == "__main__":
    main()
