"""Judges and candidates of one family."""

from __future__ import annotations

import pytest

from ftbridge.evaluation.families import family_notes, family_of
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.score import answered_of
from ftbridge.report.amounts import latency
from ftbridge.spec.graders import ScoreModelGrader


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4.1-mini-2025-04-14", "OpenAI"),
        ("ft:gpt-4.1-mini-2025-04-14:org::abc", "OpenAI"),
        ("o4-mini", "OpenAI"),
        ("openai/gpt-oss-20b", "OpenAI"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "Qwen"),
        ("Qwen/Qwen3-4B", "Qwen"),
        ("mistralai/Mixtral-8x7B-v0.1", "Mistral"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM"),
        ("google/gemma-3-1b-it", "Gemini or Gemma"),
        ("microsoft/phi-4", "Phi"),
        ("dolphin-2", None),
        ("my-model", None),
        ("llama-models/other", None),
    ],
)
def test_a_name_tells_its_family(model, family):
    assert family_of(model) == family


def test_only_a_judge_of_the_candidates_own_family_is_noted():
    def judge(name, model):
        requests = [{"role": "user", "content": "{{sample.output_text}}"}]
        return ScoreModelGrader.model_validate({"type": "score_model", "name": name, "model": model, "input": requests})

    graders = [judge("own", "gpt-4o"), judge("other", "claude-sonnet-4"), judge("unknown", "my-judge")]
    notes = family_notes(graders, ["ft:gpt-4.1-mini:org::1", "some-model"])
    assert len(notes) == 1
    assert notes[0].startswith("own: the judge gpt-4o")
    assert family_notes(graders, ["some-model"]) == []


@pytest.mark.parametrize(
    ("seconds", "in_batches"),
    [([1.0, 1.0, 2.0, 2.0], True), ([1.0, 1.1, 1.2, 1.2], False), ([1.0], False), ([None, None], False)],
)
def test_times_of_batches_are_not_taken_for_those_of_answers(seconds, in_batches):
    result = answered_of(
        [
            Prediction(
                key=str(n),
                index=n,
                prompt_sha256="x",
                output_text="",
                finish_reason="stop",
                prompt_tokens=1,
                completion_tokens=1,
                seconds=one,
            )
            for n, one in enumerate(seconds)
        ]
    )
    assert result.in_batches is in_batches
    assert ("a batch" in (latency(1.0, in_batches=result.in_batches) or "")) is in_batches
