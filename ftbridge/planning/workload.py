"""What there is to do for a job, whichever provider does it: tokens to train on, prompts to complete, texts to write.

splits ─▶ tokens x epochs          items x candidates x samples ─▶ prompt tokens, completion tokens (fewest, most)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

from ftbridge import providers
from ftbridge.data.targets import longest_example
from ftbridge.data.tokens import encoding_for
from ftbridge.evaluation.job_data import JobData
from ftbridge.planning.replay import ReplayPlan, replay_plan
from ftbridge.planning.tokens import SplitTokens, prompt_tokens, split_tokens
from ftbridge.planning.whole import Completions


class Schedule(BaseModel):
    """Passes over the training data, and optimizer steps in all."""

    model_config = ConfigDict(frozen=True)
    epochs: int
    steps: int
    estimated: bool = Field(
        default=False,
        description="Whether the service chooses epochs or batch size itself, so that these are an estimate.",
    )


@dataclass(frozen=True)
class Workload:
    """A job's work in tokens of the hosted model's vocabulary. Counted once, when first read, for every provider."""

    job: JobData

    @cached_property
    def encoding(self) -> str:
        """The vocabulary that is counted in."""
        return encoding_for(self.job.spec.model.openai)

    @cached_property
    def splits(self) -> dict[str, SplitTokens]:
        """Every split of examples; replay prompts, which have no completions yet, are in `replay`."""
        model = self.job.spec.model.openai
        limit = longest_example(model) if model else None
        names = [name for name in self.job.manifest.splits if name != "replay"]
        return {str(name): split_tokens(self.job.path(name), self.encoding, limit) for name in names}

    def schedule(self, provider: str) -> Schedule:
        """Epochs and steps at one provider, whose rules for auto may differ from another's."""
        resolved = self.job.resolve(provider)
        epochs, batch = resolved.planned("n_epochs"), resolved.planned("batch_size")
        steps = epochs * -(-self.splits["train"].examples // batch)
        return Schedule(epochs=epochs, steps=steps, estimated=bool(resolved.estimated))

    def replay(self, provider: str) -> ReplayPlan | None:
        """What `data.replay` adds to a job of this provider; None where the spec has none."""
        mixed = providers.load(provider).capabilities(self.job.spec).mixes_replay
        epochs = self.schedule(provider).epochs
        return replay_plan(
            self.job.spec, self.job.folder, self.splits["train"].examples, epochs, self.encoding, mixed=mixed
        )

    def training_tokens(self, provider: str) -> int:
        """Tokens of the examples that training at one provider reads, all epochs together."""
        return self.splits["train"].tokens * self.schedule(provider).epochs

    @property
    def baselines(self) -> list[str]:
        """Baselines that make requests of their own; zero_shot without a system message shares those of base."""
        settings = self.job.spec.evaluation
        return [name for name in settings.baselines if name != "zero_shot" or settings.system is not None]

    @property
    def candidates(self) -> int:
        """Base, tuned, and the baselines."""
        return 2 + len(self.baselines)

    @property
    def completions_per_item(self) -> int:
        """Completions of one test item, all candidates and samples together."""
        return self.job.spec.evaluation.samples * self.candidates

    def prompts(self, *, tuned: bool) -> int:
        """Prompt tokens of one model: each item `samples` times for each of its candidates, and the retention questions."""
        items, questions = self._item_tokens[0], self._question_tokens[0]
        baselines = 0 if tuned else self._baseline_prompts
        return self.job.spec.evaluation.samples * (items + baselines) + questions

    def completions(self, *, tuned: bool) -> tuple[int, int]:
        """Completion tokens of one model: as long as the references, and as long as they may get."""
        settings = self.job.spec.evaluation
        candidates = 1 if tuned else self.candidates - 1
        count = settings.samples * candidates * len(self.job.items) + len(self.job.questions)
        references = settings.samples * candidates * self._item_tokens[1] + self._question_tokens[1]
        return references, count * settings.max_completion_tokens

    def all_completions(self, replay: ReplayPlan | None = None) -> Completions:
        """What both models complete, with the prompts that are replayed."""
        fewest, most = zip(*(self.completions(tuned=tuned) for tuned in (False, True)), strict=True)
        count, read, written = (replay.completions, replay.read, replay.written) if replay else (0, 0, (0, 0))
        return Completions(
            count=self.completions_per_item * len(self.job.items) + 2 * len(self.job.questions) + count,
            read=self.prompts(tuned=False) + self.prompts(tuned=True) + read,
            written=(sum(fewest) + written[0], sum(most) + written[1]),
        )

    @cached_property
    def _item_tokens(self) -> tuple[int, int]:
        return prompt_tokens(self.job.items, self.encoding) if self.job.items else (0, 0)

    @cached_property
    def _question_tokens(self) -> tuple[int, int]:
        return prompt_tokens(self.job.questions, self.encoding) if self.job.questions else (0, 0)

    @property
    def _baseline_prompts(self) -> int:
        """Prompt tokens of the baselines: few_shot's with its examples before every item, the others' about the items' own."""
        others = [name for name in self.baselines if name != "few_shot"]
        return self._few_shot_prompts + self._item_tokens[0] * len(others)

    @property
    def _few_shot_prompts(self) -> int:
        settings, items = self.job.spec.evaluation, len(self.job.items)
        if "few_shot" not in settings.baselines or not items:
            return 0
        train, test = self.splits["train"], self.splits["test"]
        example = train.tokens / max(1, train.examples)
        return round(items * settings.few_shot_examples * example) + test.tokens
