"""Several completions of each item: how they are asked, kept and scored, and what they are worth."""

from __future__ import annotations

import json

import pytest

import ftbridge
from ftbridge import providers
from ftbridge.data.examples import Message
from ftbridge.evaluation.candidates import Candidate, plain
from ftbridge.evaluation.generate import Sampling, generate, read_predictions
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.results import item_scores, read_scores, recorded_results, write_scores
from ftbridge.evaluation.score import answered_of, judge
from ftbridge.providers import resolve
from ftbridge.providers.base import Completion
from ftbridge.providers.openai.sampling.sampler import endpoint_sampler
from ftbridge.report.html.contents import contents_of_completions
from ftbridge.report.html.page import page
from ftbridge.spec import JobSpec
from ftbridge.spec.graders import StringCheckGrader
from support.judge_server import judge_server

EXACT = StringCheckGrader(
    type="string_check", name="exact", operation="eq", input="{{sample.output_text}}", reference="{{item.reference}}"
)
THREE = Sampling(samples=3, temperature=0.7, seed=5)


def items(count):
    return [
        Item(
            key=f"{n:016x}-{n}",
            index=n,
            prompt=(Message(role="user", content=f"question {n}"),),
            tools=(),
            fields={"reference": "yes"},
        )
        for n in range(count)
    ]


class Dice:
    """A sampler whose answer depends on prompt and seed alone; `dies` after so many answers."""

    def __init__(self, dies=None, says=lambda prompt: "yes" if (prompt.seed or 0) % 3 else "no"):
        self.seen_prompts, self.dies, self.says = [], dies, says

    def generate(self, prompts, *, max_tokens, batch_size):
        for prompt in prompts:
            if self.dies is not None and len(self.seen_prompts) >= self.dies:
                raise KeyboardInterrupt
            self.seen_prompts.append(prompt)
            error = "the service gave up" if self.says(prompt) is None else None
            yield Completion(
                key=prompt.key, text=self.says(prompt) or "", finish_reason="stop", prompt_tokens=2, completion_tokens=1, error=error
            )  # fmt: skip

    def close(self): ...


def ask(sampler, path, sampling=THREE, count=4):
    return generate(
        Candidate("base", plain), items(count), sampler, path, max_tokens=8, batch_size=2, sampling=sampling
    )


def test_each_item_is_asked_several_times_with_seeds_of_their_own(tmp_path):
    sampler = Dice()
    result = ask(sampler, tmp_path / "base.jsonl")
    assert sorted({(prompt.temperature, prompt.seed) for prompt in sampler.seen_prompts}) == [
        (0.7, 5),
        (0.7, 6),
        (0.7, 7),
    ]
    assert len({prompt.key for prompt in sampler.seen_prompts}) == 12
    assert [[one.output_text for one in each.samples] for each in result] == [["yes", "no", "yes"]] * 4
    assert read_predictions(tmp_path / "base.jsonl") == result


def test_a_stopped_candidate_goes_on_at_the_first_sample_without_an_answer(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        ask(Dice(dies=7), tmp_path / "base.jsonl")
    sampler = Dice()
    assert len(ask(sampler, tmp_path / "base.jsonl")) == 4
    assert len(sampler.seen_prompts) == 5


def test_more_samples_ask_for_the_new_ones_alone(tmp_path):
    ask(Dice(), tmp_path / "base.jsonl")
    sampler = Dice()
    result = ask(sampler, tmp_path / "base.jsonl", Sampling(samples=5, temperature=0.7, seed=5))
    assert (len(sampler.seen_prompts), {len(each.samples) for each in result}) == (8, {5})


def test_one_greedy_completion_is_asked_and_written_as_before(tmp_path):
    sampler = Dice()
    result = ask(sampler, tmp_path / "base.jsonl", None)
    assert {(prompt.temperature, prompt.seed) for prompt in sampler.seen_prompts} == {(None, None)}
    line = json.loads((tmp_path / "base.jsonl").read_text().splitlines()[0])
    assert set(line) == {"key", "index", "prompt_sha256", "output_text", "finish_reason", "prompt_tokens", "completion_tokens"}  # fmt: skip
    assert all(each.others == () for each in result)


def test_scores_are_averaged_by_item_and_an_item_is_one_draw(tmp_path):
    result = ask(Dice(), tmp_path / "base.jsonl", count=40)
    evaluation = judge(items(40), {"base": result}, [EXACT])
    score = evaluation.candidates["base"]["exact"]
    assert (score.mean, score.n, evaluation.items) == (pytest.approx(2 / 3), 40, 40)
    low, high = score.ci95
    assert 0 < high - low < 0.2  # all items alike: not the width of 40 draws of 0 and 1, and not that of 120 either
    assert any("3 completions" in note for note in evaluation.notes)
    assert answered_of(result).completion_tokens == 120


def test_the_interval_is_that_of_the_items_not_of_the_completions(tmp_path):
    # Every completion of an item is alike, so three of them tell no more than one.
    def says(prompt):
        return "yes" if int(prompt.messages[0].text.split()[1]) % 2 else "no"

    several = judge(items(60), {"base": ask(Dice(says=says), tmp_path / "a.jsonl", count=60)}, [EXACT])
    once = judge(items(60), {"base": ask(Dice(says=says), tmp_path / "b.jsonl", None, 60)}, [EXACT])
    wide, narrow = several.candidates["base"]["exact"].ci95, once.candidates["base"]["exact"].ci95
    assert wide[1] - wide[0] == pytest.approx(narrow[1] - narrow[0], abs=0.02)


def test_an_item_most_of_whose_samples_failed_is_missing(tmp_path):
    def says(prompt):
        number = int(prompt.messages[0].text.split()[1])
        return None if prompt.seed - 5 < number else "yes"  # item 0 fails never, item 1 once, item 2 twice …

    evaluation = judge(items(4), {"base": ask(Dice(says=says), tmp_path / "base.jsonl")}, [EXACT])
    score = evaluation.candidates["base"]["exact"]
    assert (score.mean, score.n, score.missing) == (1.0, 2, 2)


def test_scores_jsonl_holds_every_sample_and_is_read_back(tmp_path):
    outcome, four = ask(Dice(), tmp_path / "base.jsonl"), items(4)
    by_name = {}
    judge(four, {"base": outcome}, [EXACT], on_results=lambda graded: by_name.update(graded))
    write_scores(tmp_path / "scores.jsonl", item_scores(four, {"base": outcome}, [EXACT], by_name))
    scores = read_scores(tmp_path / "scores.jsonl")
    assert [(score.sample, score.score) for score in scores[:3]] == [(0, 1.0), (1, 0.0), (2, 1.0)]
    again = recorded_results(four, {"base": outcome}, [EXACT], {score.name: score.result for score in scores})
    assert [result.reward for result in again["base"]["exact"]] == pytest.approx([2 / 3] * 4)


def test_the_page_shows_every_completion(tmp_path):
    result = ask(Dice(says=lambda prompt: f"completion {prompt.seed}"), tmp_path / "base.jsonl")
    evaluation = judge(items(4), {"base": result}, [EXACT])
    contents = contents_of_completions("samples", items(4), {"base": result}, [EXACT], evaluation, {})
    html = page(contents)
    assert "the first of 3 completions; scores are the mean" in html
    assert html.count("completion 7") == 4


def test_several_samples_are_drawn_and_one_is_greedy_unless_the_spec_says_otherwise():
    def spec(**evaluation):
        return JobSpec.model_validate(
            {"name": "n", "model": {"local": "m"}, "data": {"train": "t"}, "evaluation": evaluation}
        )

    assert Sampling.of(spec()) == Sampling(1, 0.0, spec().seed)
    assert Sampling.of(spec(samples=4)).temperature == 1.0
    assert Sampling.of(spec(samples=4, temperature=0.2)).temperature == 0.2
    with pytest.raises(ValueError, match="samples of an item are all the same"):
        spec(samples=4, temperature=0.0)


@pytest.mark.slow
def test_a_local_model_draws_different_completions_and_the_same_ones_again(tmp_path, base_model_dir):
    spec = JobSpec.model_validate(
        {"name": "n", "model": {"local": str(base_model_dir)}, "data": {"train": "t"}, "local": {"quantization": "none", "device": "cpu", "precision": "fp32"}}
    )  # fmt: skip
    backend = providers.load("local")
    sampler = backend.sampler(backend.lower(resolve(spec, 10, "local")), None, tmp_path)
    hot = Sampling(samples=3, temperature=1.5, seed=1)
    try:
        result, again = (
            generate(Candidate("base", plain), items(2), sampler, tmp_path / f"{n}.jsonl", max_tokens=8, batch_size=8, sampling=hot)
            for n in range(2)
        )  # fmt: skip
    finally:
        sampler.close()
    assert len({one.output_text for each in result for one in each.samples}) >= 4
    assert [[one.output_text for one in each.samples] for each in result] == [
        [one.output_text for one in each.samples] for each in again
    ]


def test_a_service_is_asked_at_the_temperature_of_the_spec(tmp_path):
    temperatures = []
    with judge_server(lambda body: temperatures.append(body["temperature"]) or "yes") as address:
        for sampling in (None, THREE):
            sampler = endpoint_sampler(address, "m")
            ask(sampler, tmp_path / f"{sampling is None}.jsonl", sampling, count=2)
            sampler.close()
    assert temperatures == [0, 0, *[0.7] * 6]


def test_the_plan_counts_every_sample(tmp_path, monkeypatch):
    monkeypatch.setenv("FTBRIDGE_HOME", str(tmp_path / "home"))
    for name, first in (("train", 0), ("test", 100)):
        lines = [
            {"messages": [{"role": "user", "content": f"{first + n}?"}, {"role": "assistant", "content": "yes"}]}
            for n in range(20)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = {
        "name": "n",
        "model": {"openai": "gpt-4o-mini-2024-07-18", "local": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        "data": {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")},
    }
    once, thrice = (ftbridge.plan({**spec, "evaluation": {"samples": samples}}) for samples in (1, 3))
    assert thrice.openai.money.evaluation == pytest.approx([3 * end for end in once.openai.money.evaluation])
    assert thrice.local.whole.completing[0] == pytest.approx(3 * once.local.whole.completing[0], rel=0.05)
