"""Practice: where the steps of reinforcement come from, and how the model is measured on the way.

    before step 1    base completions of the validation prompts · attacks on the grader · is there anything to learn?
    each step        draw a group of completions for each prompt ─▶ grade ─▶ write both ─▶ trials for the update
    now and then     completions of the validation prompts: their mean reward decides which checkpoints are kept

The loop, checkpoints and resuming are those of every method (`loop.py`); the loss is `policy_gradient.py`. Several workers draw
a part of the completions each, one engine on each GPU; the main one grades and writes, and all hold the same rollouts then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ftbridge.data.notation import answer_text
from ftbridge.errors import GateNotMet, TrainingFailed
from ftbridge.files import sha256_bytes, write_json
from ftbridge.graders.budget import JudgeBudget
from ftbridge.graders.calls import FILE as CALLS
from ftbridge.graders.calls import Calls, read_calls
from ftbridge.graders.rewards import Reward, share, width
from ftbridge.providers.local.data.batches import steps_between
from ftbridge.providers.local.data.prompts import PracticePrompt
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.request import LocalRequest, ReinforcementRequest
from ftbridge.providers.local.training import attacks
from ftbridge.providers.local.training.forward import Forward
from ftbridge.providers.local.training.grading import RewardGrading
from ftbridge.providers.local.training.health import Health, reports_of
from ftbridge.providers.local.training.objective import Collected, Validation
from ftbridge.providers.local.training.parallel import ALONE, Parallel
from ftbridge.providers.local.training.policy_gradient import SAME, advantages, trial
from ftbridge.providers.local.training.repeatable import rounding
from ftbridge.providers.local.training.rollouts import Draw, Drawn, draw
from ftbridge.runs.rollouts import FOLDER, JudgeReply, Rollout, RolloutFiles, seed_of
from ftbridge.runs.run import Run
from ftbridge.spec.graders import Grader, MultiGrader

GRADER = "grader.json"
Say = Callable[[str, str], None]
"""Hears a sentence for people, and its level."""
Owner = tuple[PracticePrompt, int]
"""A prompt, and the number of one of its completions."""
Requested = Callable[[], Literal["pause", "cancel"] | None]


@dataclass
class Practice:
    """The source of a job's steps. `folder` is the run's."""

    forward: Forward
    renderer: Renderer
    request: LocalRequest
    train: Sequence[PracticePrompt]
    validation: Sequence[PracticePrompt]
    folder: Path
    say: Say
    requested: Requested
    parallel: Parallel = ALONE

    def __post_init__(self) -> None:
        """Open the files, and count what judges were paid already."""
        assert self.request.reinforcement is not None
        self.settings: ReinforcementRequest = self.request.reinforcement
        self.files = RolloutFiles(self.folder / FOLDER)
        calls, limit = self.folder / CALLS, budget_of(self.folder, self.settings)
        self.budget = None
        if limit is not None:
            self.budget = JudgeBudget(limit, on_used_up=_used_up, earlier=read_calls(calls))
        self.grading = RewardGrading(self.settings.grader, Calls(calls, self.budget))
        earlier = reports_of(self.folder) if self.parallel.is_main else None
        self.health = Health(self.say, width(self.settings.grader), earlier, rounding(self.forward).token)

    def begin(self, begun: bool) -> None:
        """What comes before the first step, unless it was done: measure the base model, attack the grader.

        The model must be as training finds it. Raises `TrainingFailed` for a grader that is not the one of earlier steps.
        """
        self.parallel.from_main(partial(self._require_same_grader, begun))
        if begun:
            return
        base = self._rollouts("valid-000000", self.validation, self.settings.eval_samples, "valid")
        mean = _mean([one.reward for one in base if one.reward is not None])
        self.say(
            f"base model: mean reward {mean:.3f} on {len(self.validation):,} validation prompts x {self.settings.eval_samples}",
            "info",
        )
        with self._stopping():
            self.parallel.from_main(partial(self._attack, [one.reward for one in base if one.reward is not None]))
        self.grading.forget()

    def collect(self, batch: Sequence[PracticePrompt], step: int) -> Collected:
        """A step's trials. Raises `Halted`, `GateNotMet`, `Interrupted`, and `TrainingFailed` for nothing to learn."""
        began = time.monotonic()
        rollouts = self._rollouts(f"{step:06d}", batch, self.settings.group_size, step)
        self.grading.forget()
        if step == 1:
            self.parallel.from_main(partial(self._require_differences, rollouts))
        groups = [[one for one in rollouts if one.prompt == prompt.index] for prompt in batch]
        trials = []
        live = 0
        for prompt, group in zip(batch, groups, strict=True):
            rewards = [
                None if self.settings.mask_truncated and one.finish_reason == "length" else one.reward for one in group
            ]
            weights = advantages(rewards, width(self.settings.grader))
            live += any(weight is not None for weight in weights)
            trials += [
                trial(prompt.ids, one.tokens, weight, one.logprobs)
                for one, weight in zip(group, weights, strict=True)
                if weight is not None
            ]
        figures = {
            "train_mean_reward": _mean([one.reward for one in rollouts if one.reward is not None]),
            "live_groups": live / len(groups),
            **summary(self.settings.grader, rollouts, "train"),
            "sampling_duration": time.monotonic() - began,
        }
        self.health.look(step, figures)
        tokens = sum(len(one.tokens) for one in rollouts)
        return Collected(trials, figures, tokens, figures["sampling_duration"])

    def validate(self, step: int) -> Validation:
        """The mean reward of completions of the validation prompts, drawn with the same seeds each time."""
        began = time.monotonic()
        rollouts = self._rollouts(f"valid-{step:06d}", self.validation, self.settings.eval_samples, "valid")
        self.grading.forget()
        mean = _mean([one.reward for one in rollouts if one.reward is not None])
        figures = {"full_valid_mean_reward": mean, **summary(self.settings.grader, rollouts, "valid")}
        self.health.look_at_validation(step, figures)
        return Validation(mean, {**figures, "eval_duration": time.monotonic() - began})

    def validation_steps(self, total: int) -> set[int]:
        """By hyperparameters.eval_interval, and the last."""
        return steps_between(total, self.settings.eval_interval)

    def _rollouts(self, name: str, prompts: Sequence[PracticePrompt], samples: int, series: int | str) -> list[Rollout]:
        """Graded completions of each prompt: from the file, or drawn and graded now and written to it."""
        owners = [(prompt, sample) for prompt in prompts for sample in range(samples)]
        if (graded := self.parallel.from_main(partial(self._read, name, owners))) is not None:
            return graded
        with self._stopping():
            rollouts = self._drawn(name, owners, series)
            return self.parallel.from_main(partial(self._graded, name, owners, rollouts))

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Whatever ends the run here, judges that were asked are waited for."""
        try:
            yield
        except BaseException:
            self.grading.stop()
            raise

    def _read(self, name: str, owners: Sequence[Owner]) -> list[Rollout] | None:
        """The graded completions of a step from its file; None where they are to be drawn. Holds the budget for these."""
        if (graded := self.files.graded(name)) is not None:
            if [one.name for one in graded] != [(prompt.index, sample) for prompt, sample in owners]:
                raise TrainingFailed(
                    f"{self.files.path(name).name} contains completions of prompts that this step does not have.",
                    hint="The run's data have changed since; start a new run.",
                )
            return graded
        if self.budget is not None:
            drawn = self.files.drawn(name)
            pairs = [
                (prompt.item, sample_of(drawn[prompt.index, sample]))
                for prompt, sample in owners
                if (prompt.index, sample) in drawn
            ]
            self.budget.hold((len(owners) - len(pairs)) * self.grading.questions + self.grading.unpaid(pairs))
        return None

    def _graded(self, name: str, owners: Sequence[Owner], rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The completions of a step with their rewards, written to its file."""
        pairs = [(prompt.item, sample_of(one)) for (prompt, _), one in zip(owners, rollouts, strict=True)]
        rewards = self.grading.end(pairs, self.requested)
        graded = [_with_reward(one, reward) for one, reward in zip(rollouts, rewards, strict=True)]
        self.files.finish(name, graded)
        return graded

    def _drawn(self, name: str, owners: Sequence[Owner], series: int | str) -> list[Rollout]:
        """The completions of a step, each on disk before it is graded in the background.

        Where some were drawn before, all are drawn again, in the same batches, so that the others come out as they would have;
        those on disk go before. Those of other workers are written once all are drawn.
        """
        earlier = self.parallel.from_main(partial(self.files.drawn, name))
        if all((prompt.index, sample) in earlier for prompt, sample in owners):
            rollouts = [earlier[prompt.index, sample] for prompt, sample in owners]
            for (prompt, _), rollout in zip(owners, rollouts, strict=True):
                self._keep(name, prompt, rollout, earlier)
            return rollouts
        mine = self.parallel.share(owners)
        drawn = self.parallel.together(partial(self._draw, name, mine, series, earlier))
        rollouts = [rollout for part in drawn for rollout in part]
        for (prompt, _), rollout in list(zip(owners, rollouts, strict=True))[
            len(mine) :
        ]:  # the main worker's come first
            self._keep(name, prompt, rollout, earlier)
        return rollouts

    def _draw(
        self, name: str, owners: Sequence[Owner], series: int | str, earlier: Mapping[tuple[int, int], Rollout]
    ) -> list[Rollout]:
        """The completions that this worker draws."""
        rollouts: dict[int, Rollout] = {}

        def on_drawn(index: int, drawn: Drawn) -> None:
            prompt, sample = owners[index]
            rollout = earlier.get((prompt.index, sample)) or self._rollout(prompt, sample, series, drawn)
            rollouts[index] = rollout
            self._keep(name, prompt, rollout, earlier)

        draws = [
            Draw(prompt.ids, prompt.room, seed_of(self.request.seed, series, prompt.index, sample))
            for prompt, sample in owners
        ]
        if draws:
            draw(self.forward, self.renderer, draws, on_drawn, self.requested if self.parallel.is_main else _never)
        return [rollouts[index] for index in range(len(owners))]

    def _keep(
        self, name: str, prompt: PracticePrompt, rollout: Rollout, earlier: Mapping[tuple[int, int], Rollout]
    ) -> None:
        """Write a completion, unless it is on disk, and grade it in the background; the main worker alone does both."""
        if not self.parallel.is_main:
            return
        if rollout.name not in earlier:
            self.files.add(name, rollout)
        self.grading.begin(prompt.item, sample_of(rollout))

    def _rollout(self, prompt: PracticePrompt, sample: int, series: int | str, drawn: Drawn) -> Rollout:
        reply = self.renderer.completions.read(prompt.ids, drawn.tokens, prompt.tools)
        reasoning = reply.reasoning_content
        return Rollout(
            prompt=prompt.index,
            sample=sample,
            seed=seed_of(self.request.seed, series, prompt.index, sample),
            prompt_tokens=len(prompt.ids),
            tokens=list(drawn.tokens),
            logprobs=list(drawn.logprobs),
            finish_reason=drawn.finish_reason,
            text=answer_text(reply.content, reply.calls),
            reasoning=reasoning,
            reasoning_tokens=len(self.renderer.tokenizer.encode(reasoning, add_special_tokens=False))
            if reasoning
            else 0,
            tool_calls=list(reply.tool_calls) or None,
        )

    def _require_same_grader(self, begun: bool) -> None:
        """Keep what names the grader, and hold it against what earlier steps were graded by."""
        document = self.settings.grader.model_dump(mode="json")
        digest = sha256_bytes(json.dumps(document, sort_keys=True).encode())
        path = self.files.folder / GRADER
        try:
            earlier = json.loads(path.read_bytes())["sha256"] if path.exists() else None
        except (ValueError, KeyError, TypeError):
            earlier = "unreadable"
        if earlier not in (None, digest) or (earlier is None and begun):
            raise TrainingFailed(
                f"the grader {self.settings.grader.name} is not the one that graded earlier steps of this run: rewards of "
                "two graders are not comparable.",
                hint="Restore the grader that the run began with, or start a new run.",
            )
        self.files.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"sha256": digest, "grader": document})

    def _require_differences(self, rollouts: Sequence[Rollout]) -> None:
        """Raise `TrainingFailed` when every base completion earned the same; warn where hardly any group differs."""
        base = [*(self.files.graded("valid-000000") or []), *rollouts]
        rewards = [one.reward for one in base if one.reward is not None]
        wide = width(self.settings.grader)
        if max(rewards) - min(rewards) <= SAME * wide:
            grader = self.settings.grader
            earned = share(grader, rewards[0])
            part = "" if earned is None else f", {earned:.0%} of what there is to earn"
            if earned is None:
                hint = "The task is too easy or too hard for this model, or the grader ignores completions: change one of them."
            elif earned > 0.5:
                hint = "The task is too easy for this model, or the grader ignores the completions: make one of them harder."
            else:
                hint = "Use easier prompts, a grader that gives partial rewards, or supervised tuning first."
            raise TrainingFailed(
                f"each of the base model's {len(rewards):,} completions earned {rewards[0]:g} by {grader.name}{part}, so there "
                "is nothing to learn from.",
                hint=hint,
            )
        by_prompt: dict[int, list[float]] = {}
        for one in rollouts:
            if one.reward is not None:
                by_prompt.setdefault(one.prompt, []).append(one.reward)
        flat = sum(max(group) - min(group) <= SAME * wide for group in by_prompt.values())
        if 2 * flat > len(by_prompt):
            self.say(
                f"in {flat} of {len(by_prompt)} groups of step 1 all completions had the same reward, and only groups "
                "that differ teach: use prompts that the base model sometimes gets right, or raise compute_multiplier",
                "warn",
            )

    def _attack(self, base: Sequence[float]) -> None:
        """Grade completions that deserve nothing, and say which of them pay beside the rewards of the base model's."""
        prompts = self.validation or self.train
        items = [prompt.item for prompt in prompts]
        labels = attacks.labels_of(self.settings.grader, [prompt.item for prompt in (*self.train, *self.validation)])
        tried = attacks.attacks(self.settings.grader, items, [prompt.text for prompt in prompts], labels)
        pairs = [(items[one.index], {"output_text": one.text, "finish_reason": "stop"}) for one in tried]
        if self.budget is not None:
            self.budget.hold(self.grading.unpaid(pairs))
        rewards: dict[str, list[float]] = {}
        for one, reward in zip(tried, self.grading.settled(pairs, self.requested), strict=True):
            if reward.value is not None:
                rewards.setdefault(one.kind, []).append(reward.value)
        write_json(self.files.folder / "attacks.json", {kind: _mean(values) for kind, values in rewards.items()})
        for paying in attacks.rewarded(rewards, base):
            self.say(
                f"the grader {self.settings.grader.name} rewards an attack: {paying}. Training finds such shortcuts; "
                "change the grader before you trust its rewards",
                "warn",
            )


def budget_of(folder: Path, settings: ReinforcementRequest) -> float | None:
    """What the run may cost in US dollars now: as `ftbridge resume --set budget.max_usd=…` left it, else as it began."""
    if (folder / "journal.jsonl").exists() and (changed := Run.open(folder).state().budget) is not None:
        return changed.max_usd
    return settings.max_usd


def _never() -> None:
    """Other workers stop where the main one does."""


def sample_of(rollout: Rollout) -> dict[str, Any]:
    """A completion as graders see it: the evaluator's own form."""
    sample: dict[str, Any] = {"output_text": rollout.text, "finish_reason": rollout.finish_reason}
    if rollout.tool_calls:
        sample["output_tools"] = [{"type": "function", "function": call["function"]} for call in rollout.tool_calls]
    return sample


def summary(grader: Grader, rollouts: Sequence[Rollout], split: Literal["train", "valid"]) -> dict[str, float]:
    """What a set of completions comes to, in the names of OpenAI's metrics where it has them.

    Shares are of all completions; `entropy` is the mean surprise of the tokens drawn, in nats: an unbiased estimate of the
    policy's entropy. Latency is in seconds a completion.
    """
    count = len(rollouts)
    tokens = sum(len(one.tokens) for one in rollouts)
    is_training = split == "train"
    figures = {
        "completion_tokens_mean" if is_training else "valid_completion_tokens_mean": tokens / count,
        "reasoning_tokens_mean" if is_training else "valid_reasoning_tokens_mean": _mean(
            [one.reasoning_tokens for one in rollouts]
        ),
    }
    if is_training:
        texts = {(one.prompt, one.text) for one in rollouts}
        figures |= {
            "mean_unresponsive_rewards": _mean([one.reward is None for one in rollouts]),
            "clipped_share": _mean([one.finish_reason == "length" for one in rollouts]),
            "distinct_share": len(texts) / count,
            "entropy": -sum(sum(one.logprobs) for one in rollouts) / max(1, tokens),
            "grader_latency": _mean([one.grading_seconds for one in rollouts]),
        }
    else:
        figures["full_valid_mean_parse_error"] = _mean(["sample_parse_error" in one.errors for one in rollouts])
    rewards = [one.reward for one in rollouts if one.reward is not None]
    figures[f"scores/graders/{grader.type}/{grader.name}/{split}_reward_mean"] = _mean(rewards)
    if isinstance(grader, MultiGrader):
        for key, part in grader.graders.items():
            values = [one.parts[key] for one in rollouts if key in one.parts]
            figures[f"scores/graders/{part.type}/{part.name}/{split}_reward_mean"] = _mean(values)
    for name in sorted({name for one in rollouts for name in one.errors}):
        at = f"errors/graders/{grader.type}/{grader.name}/errors/{split}_{name}_mean"
        figures[at] = _mean([name in one.errors for one in rollouts])
    return figures


def _with_reward(rollout: Rollout, reward: Reward) -> Rollout:
    judges = [JudgeReply(model=call.model, reply=call.reply, tokens=call.tokens) for call in reward.calls]
    return rollout.model_copy(
        update={
            "reward": reward.value,
            "errors": {str(name): text for name, text in reward.errors.items()},
            "parts": dict(reward.parts),
            "judges": judges,
            "grading_seconds": round(reward.seconds, 4),
        }
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _used_up(text: str) -> GateNotMet:
    return GateNotMet(
        f"{text}; training is paused before the step that would exceed it.",
        hint="Everything done so far is kept; raise the budget when you resume: --set budget.max_usd=…",
    )
