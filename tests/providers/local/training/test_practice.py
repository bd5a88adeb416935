"""Drawing, grading and writing the completions of a step, on a random model of two layers."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from ftbridge.errors import DataError, GateNotMet, GraderError, TrainingFailed
from ftbridge.prices import load_prices
from ftbridge.providers.local.data.prompts import encode_prompts
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.models.parts import use_own_attention
from ftbridge.providers.local.process.job import Halted, JobInterrupted
from ftbridge.providers.local.training.rollouts import Draw, draw
from ftbridge.runs.rollouts import RolloutFiles, read_rollouts, seed_of
from support import practice_cases
from support.priced_judge import HOST, Judge


@pytest.fixture(scope="module")
def model(base_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return practice_cases.small_model(tmp_path_factory.mktemp("practice") / "model", base_model_dir)


def test_seeds_derive_from_seed_step_prompt_and_sample_alone() -> None:
    seeds = {seed_of(*name) for name in [(1, 2, 3, 4), (1, 2, 4, 3), (2, 1, 3, 4), (1, "valid", 3, 4), (1, 23, 3, 4)]}
    assert len(seeds) == 5
    assert seed_of(1, 2, 3, 4) == seed_of(1, 2, 3, 4) < 2**63


def test_completions_are_drawn_from_the_softmax_and_not_by_the_models_generation_defaults(
    tmp_path: Path, model: Path
) -> None:
    """Chi-square over the five likeliest first tokens and the rest, 4,000 draws; a truncated or colder draw fails it."""
    forward, renderer = practice_cases.prepared(tmp_path, model, practice_cases.request())
    forward.model.generation_config.update(top_k=3, temperature=0.2, do_sample=True, repetition_penalty=3.0)
    prompt = (5, 6, 7, 8)
    head = forward.model.get_base_model().lm_head
    with torch.no_grad():
        head.weight[:5] += 3 * torch.sign(head.weight[:5])  # five tokens that are likely enough to be counted
        head.weight[5:] *= 0.05
        forward.model.eval()
        use_own_attention(forward.model)
        p = torch.softmax(forward.model(torch.tensor([prompt])).logits[0, -1].float(), -1)
    counts: Counter[int] = Counter()
    count = 4000
    draws = [Draw(prompt, 1, seed_of(0, 1, 0, where)) for where in range(count)]
    draw(forward, renderer, draws, lambda where, drawn: counts.update(drawn.tokens), at_once=500)
    top = p.topk(5)
    expected = [float(value) * count for value in top.values]
    observed = [counts[int(token)] for token in top.indices]
    expected.append(count - sum(expected))
    observed.append(count - sum(observed))
    statistic = sum((one - other) ** 2 / other for one, other in zip(observed, expected, strict=True))
    assert statistic < 20.5, (observed, expected)  # p = 0.001 at 5 degrees of freedom


def test_the_tokens_and_log_probabilities_that_are_trained_on_are_those_that_were_drawn(
    tmp_path: Path, model: Path
) -> None:
    source, _ = practice_cases.practice(tmp_path, model, practice_cases.request())
    collected = source.collect(source.train[:3], 1)
    rollouts = read_rollouts(tmp_path / "rollouts" / "000001.jsonl")
    assert len(rollouts) == 12
    by_tokens = {tuple(one.tokens) for one in rollouts}
    for one in collected.units:
        completion = tuple(token for token, on in zip(one.example.input_ids, one.example.loss_mask, strict=True) if on)
        assert completion in by_tokens
        source.forward.model.eval()
        with torch.no_grad():
            now = source.forward.log_probabilities([one.example])
        assert torch.allclose(now, torch.tensor(one.drawn), atol=1e-4)


def test_a_step_is_the_same_whoever_draws_it_and_another_step_is_not(tmp_path: Path, model: Path) -> None:
    texts = []
    for name, step in (("one", 1), ("two", 1), ("three", 2)):
        source, _ = practice_cases.practice(tmp_path / name, model, practice_cases.request())
        source.collect(source.train[:3], step)
        texts.append(
            [(one.tokens, one.reward) for one in read_rollouts(tmp_path / name / "rollouts" / f"{step:06d}.jsonl")]
        )
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_a_step_that_was_written_is_read_and_neither_drawn_nor_graded_again(
    tmp_path: Path, model: Path, judge: Judge
) -> None:
    response = practice_cases.request(judge.grader)
    source, _ = practice_cases.practice(tmp_path, model, response)
    first = source.collect(source.train[:3], 1)
    count = len(judge.questions)
    again, _ = practice_cases.practice(tmp_path, model, response)
    second = again.collect(again.train[:3], 1)
    assert second.units == first.units
    assert len(judge.questions) == count
    with pytest.raises(TrainingFailed, match="prompts that this step does not have"):
        again.collect(again.train[3:], 1)


def test_a_step_that_was_cut_short_asks_no_judge_again_and_ends_as_it_would_have(
    tmp_path: Path, model: Path, judge: Judge
) -> None:
    response = practice_cases.request(judge.grader)
    complete, _ = practice_cases.practice(tmp_path / "whole", model, response)
    expected = complete.collect(complete.train[:3], 1)
    judge.questions.clear()

    def stop() -> str | None:
        return "pause" if len(judge.questions) >= 3 else None

    judge.seconds = 0.05
    source, _ = practice_cases.practice(tmp_path / "cut", model, response, requested=stop)
    with pytest.raises(JobInterrupted):
        source.collect(source.train[:3], 1)
    time.sleep(0.5)  # what was under way is answered and written
    assert RolloutFiles(tmp_path / "cut" / "rollouts").drawn("000001")
    again, _ = practice_cases.practice(tmp_path / "cut", model, response)
    assert again.collect(again.train[:3], 1).units == expected.units
    assert len(judge.questions) == len(set(judge.questions)), "no question is paid twice"


def test_judges_are_asked_while_others_are_drawn_and_eight_at_a_time(tmp_path: Path, model: Path, judge: Judge) -> None:
    judge.seconds = 0.1
    response = practice_cases.request(judge.grader, {"group_size": 8})
    source, _ = practice_cases.practice(tmp_path, model, response)
    began = time.monotonic()
    figures = source.collect(source.train[:3], 1).figures
    assert time.monotonic() - began < 0.1 * len(judge.questions), "they were asked one after the other"
    assert 2 <= judge.most <= 8
    assert figures["grader_latency"] >= 0.1


def test_a_failed_judge_removes_the_sample_and_is_never_a_reward_of_0(
    tmp_path: Path, model: Path, judge: Judge
) -> None:
    response = practice_cases.request(judge.grader, {"group_size": 8})
    plain, _ = practice_cases.practice(tmp_path / "plain", model, response)
    plain.collect(plain.train[:3], 1)
    victim = read_rollouts(tmp_path / "plain" / "rollouts" / "000001.jsonl")[0].text
    reply_to = judge.reply_to
    judge.reply_to = lambda text: ("no", 500) if text == victim else reply_to(text)
    source, _ = practice_cases.practice(tmp_path / "failing", model, response)
    collected = source.collect(source.train[:3], 1)
    rollouts = read_rollouts(tmp_path / "failing" / "rollouts" / "000001.jsonl")
    failed = [one for one in rollouts if one.reward is None]
    assert [one.text for one in failed] == [victim] * len(failed)
    assert list(failed[0].errors) == ["model_grader_server_error"]
    first = [one for one in rollouts if one.prompt == rollouts[0].prompt and one.reward is not None]
    mean = sum(one.reward for one in first) / len(first)
    weights = [one.advantage for one in collected.units[: len(first)]]
    assert weights == pytest.approx([(one.reward - mean) / 2 for one in first])
    assert collected.figures["mean_unresponsive_rewards"] == len(failed) / 24
    assert collected.figures["errors/graders/score_model/quality/errors/train_model_grader_server_error_mean"] > 0


@pytest.mark.parametrize("reply", [("busy", 429), ("not a number", 200)])
def test_a_judge_that_is_away_pauses_the_run_by_name_and_resuming_goes_on(
    tmp_path: Path, model: Path, judge: Judge, reply: tuple[str, int]
) -> None:
    response = practice_cases.request(judge.grader)
    reply_to, judge.reply_to = judge.reply_to, lambda text: reply
    source, _ = practice_cases.practice(tmp_path, model, response)
    with pytest.raises(Halted, match="grader quality gave 12 of 12 completions no reward") as stop:
        source.collect(source.train[:3], 1)
    assert "judge" in str(stop.value.error.hint)
    assert not (tmp_path / "rollouts" / "000001.jsonl").exists()
    drawn = RolloutFiles(tmp_path / "rollouts").drawn("000001")
    judge.reply_to = reply_to
    again, _ = practice_cases.practice(tmp_path, model, response)
    assert again.collect(again.train[:3], 1).units
    written = read_rollouts(tmp_path / "rollouts" / "000001.jsonl")
    assert {one.name: one.tokens for one in written} == {name: one.tokens for name, one in drawn.items()}


def test_a_budget_stops_before_the_step_that_would_pass_it(tmp_path: Path, model: Path, judge: Judge) -> None:
    each = load_prices().judge_usd(judge.grader["model"], f"http://{HOST}/v1", 1000, 1000)
    assert each
    response = practice_cases.request(judge.grader, {"max_usd": each * 14})
    source, _ = practice_cases.practice(tmp_path, model, response)
    source.collect(source.train[:3], 1)
    paid = len(judge.questions)
    assert paid <= 12
    with pytest.raises(GateNotMet, match="budget.max_usd"):
        source.collect(source.train[3:], 2)
    assert len(judge.questions) == paid, "nothing of the step was asked"
    again, _ = practice_cases.practice(tmp_path, model, practice_cases.request(judge.grader, {"max_usd": 1.0}))
    assert again.collect(again.train[3:], 2).units


def test_python_source_that_raises_pauses_with_what_to_change(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTBRIDGE_ALLOW_PYTHON_GRADERS", "own")
    source = "def grade(sample, item):\n    raise KeyError('colour')\n"
    response = practice_cases.request({"type": "python", "name": "own", "source": source}, {"group_size": 2})
    practised, _ = practice_cases.practice(tmp_path, model, response)
    with pytest.raises(Halted, match="colour") as stop:
        practised.collect(practised.train[:1], 1)
    assert "low reward" in str(stop.value.error.hint)


@pytest.mark.parametrize(("letter", "says"), [("", "100%"), ("no completion holds this", "0%")])
def test_base_completions_that_all_earn_the_same_are_refused_before_the_first_update(
    tmp_path: Path, model: Path, letter: str, says: str
) -> None:
    grader = {**practice_cases.HAS_LETTER, "reference": letter or "{{item.nothing}}"}
    if not letter:
        grader = {**practice_cases.HAS_LETTER, "operation": "ne", "reference": "never this"}
    source, _ = practice_cases.practice(tmp_path, model, practice_cases.request(grader))
    source.begin(False)
    with pytest.raises(TrainingFailed, match=f"{says} of what there is"):
        source.collect(source.train[:3], 1)


def test_a_grader_without_a_declared_scale_gets_no_share_of_it(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTBRIDGE_ALLOW_PYTHON_GRADERS", "own")
    grader = {"type": "python", "name": "own", "source": "def grade(sample, item):\n    return -3.0\n"}
    source, _ = practice_cases.practice(tmp_path, model, practice_cases.request(grader))
    source.begin(False)
    with pytest.raises(TrainingFailed, match=r"earned -3 by own, so there") as error:
        source.collect(source.train[:3], 1)
    assert "too easy or too hard" in str(error.value.hint)


def test_groups_without_differences_are_named_before_training(tmp_path: Path, model: Path) -> None:
    lines = [*practice_cases.rows(2, letter="no completion holds this"), *practice_cases.rows(1)]
    source, message = practice_cases.practice(tmp_path, model, practice_cases.request(), train=lines)
    collected = source.collect(source.train, 1)
    assert collected.figures["live_groups"] <= 1 / 3
    assert any(text.startswith("in ") and "groups of step 1" in text for _, text in message)


def test_a_grader_that_pays_for_an_attack_is_named_before_training(tmp_path: Path, model: Path) -> None:
    """The grader looks for a word of the reference: heaped words hold it, and so does every label at once."""
    labels = ["billing", "delivery", "returns"]
    lines = practice_cases.rows(12)
    for where, line in enumerate(lines):
        line["reference"] = labels[where % 3]
    grader = {**practice_cases.HAS_LETTER, "reference": "{{item.reference}}"}
    source, message = practice_cases.practice(
        tmp_path, model, practice_cases.request(grader), train=lines, validation=lines[:4]
    )
    source.begin(False)
    warned = [text for level, text in message if level == "warn"]
    assert any("the reference among other words earns 1, where honest completions earn 0" in text for text in warned)
    assert any("all labels at once earns 1, where" in text for text in warned)
    assert not any("empty text" in text or "plea" in text for text in warned)
    assert any(text.startswith("base model: mean reward 0.000") for _, text in message)


def test_a_changed_grader_is_refused_on_resume_and_so_is_a_deleted_one(tmp_path: Path, model: Path) -> None:
    first, _ = practice_cases.practice(tmp_path, model, practice_cases.request())
    first.begin(False)
    changed = practice_cases.request({**practice_cases.HAS_LETTER, "operation": "like"})
    second, _ = practice_cases.practice(tmp_path, model, changed)
    with pytest.raises(TrainingFailed, match="not the one that graded earlier steps"):
        second.begin(True)
    (tmp_path / "rollouts" / "grader.json").unlink()
    third, _ = practice_cases.practice(tmp_path, model, practice_cases.request())
    with pytest.raises(TrainingFailed, match="not the one that graded earlier steps"):
        third.begin(True)


def test_validation_draws_the_same_seeds_each_time_and_measures_the_base_model_first(
    tmp_path: Path, model: Path
) -> None:
    source, _ = practice_cases.practice(tmp_path, model, practice_cases.request(settings={"eval_samples": 2}))
    source.begin(False)
    measured = source.validate(4)
    base, later = (read_rollouts(tmp_path / "rollouts" / f"valid-00000{step}.jsonl") for step in (0, 4))
    assert [one.tokens for one in base] == [one.tokens for one in later], "the model has not changed"
    assert len(base) == 6
    assert measured.score == measured.figures["full_valid_mean_reward"] == sum(one.reward for one in base) / 6
    assert measured.figures["full_valid_mean_parse_error"] == 0


def test_lines_that_lack_what_the_grader_reads_are_refused_by_their_place(tmp_path: Path, model: Path) -> None:
    _, renderer = practice_cases.prepared(tmp_path / "other", model, practice_cases.request())
    lines = practice_cases.rows(3)
    del lines[1]["letter"]
    path = practice_cases.write_split(tmp_path, "train", lines)
    with pytest.raises(GraderError, match=r"train\.jsonl:2 .*item\.letter"):
        encode_prompts(path, "train", renderer, practice_cases.request())


def test_a_prompt_with_an_image_is_refused_by_its_place(tmp_path: Path, model: Path) -> None:
    _, renderer = practice_cases.prepared(tmp_path / "other", model, practice_cases.request())
    lines = practice_cases.rows(3)
    lines[1]["messages"][0]["content"] = [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]
    path = practice_cases.write_split(tmp_path, "train", lines)
    with pytest.raises(DataError, match=r"train\.jsonl:2 .*reads text only"):
        encode_prompts(path, "train", renderer, practice_cases.request())


def test_a_prompt_that_leaves_no_room_for_a_completion_is_refused_or_dropped(tmp_path: Path, model: Path) -> None:
    _, renderer = practice_cases.prepared(tmp_path / "other", model, practice_cases.request())
    lines = practice_cases.rows(3)
    lines[2]["messages"][0]["content"] *= 30
    path = practice_cases.write_split(tmp_path, "train", lines)
    with pytest.raises(DataError, match=r"1 train prompts leave no room for completions of 6 tokens"):
        encode_prompts(path, "train", renderer, practice_cases.request(max_length=100))
    result = encode_prompts(path, "train", renderer, practice_cases.request(max_length=100, overlength="drop"))
    assert [one.index for one in result.examples] == [0, 1]
    assert len(result.dropped) == 1


def test_a_rollouts_file_that_a_kill_cut_short_is_read_up_to_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    line = {"prompt": 0, "sample": 0, "seed": 1, "prompt_tokens": 3, "tokens": [1], "logprobs": [-0.5],
            "finish_reason": "stop", "text": "a"}  # fmt: skip
    path.write_text(json.dumps(line) + "\n" + json.dumps({**line, "sample": 1}) + "\n" + '{"prompt": 0, "sam')
    assert [one.name for one in read_rollouts(path)] == [(0, 0), (0, 1)]


def test_one_prompt_is_enough_to_practise_on(tmp_path: Path, model: Path) -> None:
    lines = practice_cases.rows(1)
    source, _ = practice_cases.practice(
        tmp_path, model, practice_cases.request(settings={"group_size": 8}), train=lines, validation=lines
    )
    source.begin(False)
    assert source.collect(source.train, 1).units


def test_without_validation_prompts_the_grader_is_attacked_on_those_that_are_trained_on(
    tmp_path: Path, model: Path
) -> None:
    lines = practice_cases.rows(4, reference="h")
    source, message = practice_cases.practice(tmp_path, model, practice_cases.request(), train=lines)
    source.validation = ()
    source.begin(False)
    assert any("the reference among other words" in text for level, text in message if level == "warn")


def test_a_template_without_a_system_role_has_the_words_of_the_system_message_in_the_prompt(
    tmp_path: Path, model: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    lines = practice_cases.rows(2)
    lines[1]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    path = practice_cases.write_split(tmp_path, "train", lines)
    prompts = encode_prompts(path, "train", Renderer(tokenizer, "off"), practice_cases.request()).examples
    assert "Be brief." in tokenizer.decode(prompts[1].ids)
