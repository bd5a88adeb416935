"""Answering into a file that survives crashes, and judging what it holds."""

import json

import jsonschema
import pytest

from ftbridge.data.examples import parse_example
from ftbridge.errors import FtbridgeError, ModelUnavailable
from ftbridge.evaluation.candidates import Candidate, plain
from ftbridge.evaluation.document import json_schema
from ftbridge.evaluation.generate import generate, read_predictions
from ftbridge.evaluation.items import load_items
from ftbridge.evaluation.score import check, judge, scores
from ftbridge.graders import GraderError
from ftbridge.providers.base import Completion
from ftbridge.spec.graders import StringCheckGrader

BASE, TUNED = Candidate("base", plain), Candidate("tuned", plain)
ZERO_SHOT = Candidate("zero_shot", plain, shares="base")


class RuleSampler:
    """Answers by a rule on the last message, out of order as a batching sampler may; dies after `lives` answers."""

    def __init__(self, rule, lives=10**6, finish_reason="stop"):
        self.rule, self.lives, self.finish_reason = rule, lives, finish_reason
        self.seen_prompts = []

    def generate(self, prompts, *, max_tokens, batch_size):
        for prompt in reversed(prompts):
            if self.lives == 0:
                raise ConnectionError("the model went away")
            self.lives -= 1
            question = prompt.messages[-1].text
            self.seen_prompts.append(question)
            text = self.rule(question)[:max_tokens]
            yield Completion(
                key=prompt.key,
                text=text,
                finish_reason=self.finish_reason,
                prompt_tokens=3,
                completion_tokens=len(text),
            )

    def close(self):
        pass


class ShortSampler(RuleSampler):
    """Ends quietly before every prompt is answered."""

    def generate(self, prompts, *, max_tokens, batch_size):
        yield from super().generate(prompts[:-1], max_tokens=max_tokens, batch_size=batch_size)


def _items(path, outputs, **extra):
    documents = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": text}], **extra}
        for n, text in enumerate(outputs)
    ]
    path.write_text("".join(parse_example(document).canonical() + "\n" for document in documents))
    return load_items(path)


@pytest.fixture
def items(tmp_path):
    return _items(tmp_path / "test.jsonl", [f"a{n}" for n in range(10)])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "predictions" / "base.jsonl"


def right(question):
    return question.replace("q", "a")


def _ask(items, sampler, path, candidate=BASE, **more):
    return generate(candidate, items, sampler, path, max_tokens=64, batch_size=4, **more)


def _grader(name="exact", operation="eq", **more):
    templates = {"input": "{{sample.output_text}}", "reference": "{{item.reference}}", **more}
    return StringCheckGrader(type="string_check", name=name, operation=operation, **templates)


def test_every_answer_is_a_line_and_they_come_back_in_the_order_of_the_items(items, path):
    messages = []
    predictions = _ask(items, RuleSampler(right), path, on_progress=lambda done, total: messages.append((done, total)))
    assert [prediction.output_text for prediction in predictions] == [f"a{n}" for n in range(10)]
    assert messages == [(done, 10) for done in range(1, 11)]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 10
    assert {key: lines[-1][key] for key in ("key", "index", "output_text", "finish_reason", "completion_tokens")} == {
        "key": items[0].key,
        "index": 0,
        "output_text": "a0",
        "finish_reason": "stop",
        "completion_tokens": 2,
    }


def test_an_answer_is_in_the_file_as_soon_as_it_is_told(items, path):
    in_file = []
    _ask(items, RuleSampler(right), path, on_progress=lambda done, total: in_file.append(len(read_predictions(path))))
    assert in_file == list(range(1, 11))


@pytest.mark.parametrize("lives", [0, 1, 6, 9])
def test_after_a_sampler_died_only_what_is_missing_is_asked(items, path, lives):
    with pytest.raises(ConnectionError):
        _ask(items, RuleSampler(right, lives), path)
    assert len(read_predictions(path)) == lives
    second, result = RuleSampler(right), []
    predictions = _ask(items, second, path, on_progress=lambda done, total: result.append(done))
    assert second.seen_prompts == [f"q{n}" for n in reversed(range(10 - lives))]
    assert [prediction.output_text for prediction in predictions] == [f"a{n}" for n in range(10)]
    assert result == list(range(max(lives, 1), 11))


@pytest.mark.parametrize("cut", [1, 2, 40, 100])
def test_a_torn_last_line_is_cut_off_and_asked_again(items, path, cut):
    _ask(items, RuleSampler(right), path)
    text = path.read_bytes()
    path.write_bytes(text[:-cut])
    sampler = RuleSampler(right)
    assert len(_ask(items, sampler, path)) == 10
    # With only the line's end missing, the answer is whole and is kept.
    assert sampler.seen_prompts == ([] if cut == 1 else ["q0"])
    assert path.read_bytes() == text


def test_a_damaged_line_is_no_answer_and_the_others_stay(items, path):
    _ask(items, RuleSampler(right), path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\0" * 20 + b"\n", *lines[2:]]))
    sampler = RuleSampler(right)
    _ask(items, sampler, path)
    assert sampler.seen_prompts == ["q8"]
    assert len(read_predictions(path)) == 10


def test_only_prompts_without_an_answer_are_asked_wherever_they_are_in_the_file(tmp_path, items, path):
    _ask(items, RuleSampler(right), path)
    changed = _items(tmp_path / "test.jsonl", ["a0", "new", *(f"a{n}" for n in range(2, 12))])
    sampler = RuleSampler(str.upper)
    predictions = _ask(changed, sampler, path)
    assert sampler.seen_prompts == ["q11", "q10"]
    assert [prediction.output_text for prediction in predictions][:3] == ["a0", "a1", "a2"]
    assert [prediction.key for prediction in predictions] == [item.key for item in changed]


def test_a_changed_prompt_is_asked_again_and_the_newer_answer_counts(items, path):
    _ask(items, RuleSampler(right), path)

    def shouted(item):
        prompt = plain(item)
        last = prompt.messages[-1]
        return prompt.model_copy(update={"messages": (last.model_copy(update={"content": f"{last.text}!"}),)})

    sampler = RuleSampler(right)
    _ask(items, sampler, path, Candidate("base", shouted))
    assert len(sampler.seen_prompts) == 10
    assert {prediction.output_text for prediction in read_predictions(path)} == {f"a{n}!" for n in range(10)}


def test_zero_shot_shares_the_answers_of_base(items, path):
    _ask(items, RuleSampler(right), path)
    sampler = RuleSampler(right)
    shared = path.with_name("zero_shot.jsonl")
    assert _ask(items, sampler, shared, ZERO_SHOT) == _ask(items, RuleSampler(right), path)
    assert sampler.seen_prompts == []
    assert read_predictions(shared) == sorted(read_predictions(path), key=lambda one: one.index)


def test_zero_shot_asks_itself_where_base_has_no_answer(items, path):
    with pytest.raises(ConnectionError):
        _ask(items, RuleSampler(right, lives=7), path)
    sampler = RuleSampler(right)
    _ask(items, sampler, path.with_name("zero_shot.jsonl"), ZERO_SHOT)
    assert sampler.seen_prompts == ["q2", "q1", "q0"]


def test_a_sampler_that_ends_early_is_an_error_that_says_what_is_kept(items, path):
    with pytest.raises(ModelUnavailable, match="base answered 9 of 10 items"):
        _ask(items, ShortSampler(right), path)
    assert len(read_predictions(path)) == 9


def test_answers_keep_every_character(tmp_path, path):
    items = _items(tmp_path / "test.jsonl", ["x"])
    text = 'line\nend\r\u2028 "quoted" ü 漢 \x00 \U0001f600'
    _ask(items, RuleSampler(lambda _: text), path)
    assert [prediction.output_text for prediction in read_predictions(path)] == [text]


def _judged(items, tmp_path, graders, **rules):
    predictions = {
        name: _ask(items, RuleSampler(rule), tmp_path / f"{name}.jsonl", Candidate(name, plain))
        for name, rule in rules.items()
    }
    return judge(items, predictions, graders)


def test_the_evaluation_has_the_promised_shape(items, tmp_path):
    graders = [_grader(), _grader("has_a", "like", reference="a")]
    evaluation = _judged(items, tmp_path, graders, base=lambda q: "a1", tuned=right)
    document = json.loads(evaluation.model_dump_json())
    jsonschema.Draft202012Validator(json_schema()).validate(document)
    assert (document["items"], document["graders"]) == (10, ["exact", "has_a"])
    assert document["candidates"]["base"]["exact"]["mean"] == pytest.approx(0.1)
    assert document["candidates"]["tuned"]["exact"] == {
        "mean": 1.0,
        "ci95": [pytest.approx(0.7225, abs=1e-4), 1.0],
        "n": 10,
        "missing": 0,
    }
    assert document["candidates"]["base"]["has_a"]["mean"] == 1.0
    paired = document["paired"]["tuned-base"]["exact"]
    assert paired["difference"] == pytest.approx(0.9)
    assert paired["ci95"][0] > 0
    assert {key: paired[key] for key in ("n", "better", "worse", "same")} == {
        "n": 10,
        "better": 9,
        "worse": 0,
        "same": 1,
    }


def test_tuned_is_compared_with_every_other_candidate(items, tmp_path):
    evaluation = _judged(items, tmp_path, [_grader()], base=str.upper, few_shot=right, tuned=lambda q: "a3")
    assert list(evaluation.paired) == ["tuned-base", "tuned-few_shot"]
    assert evaluation.paired["tuned-few_shot"]["exact"].worse == 9
    assert _judged(items, tmp_path, [_grader()], base=str.upper).paired == {}


def test_every_pair_has_a_verdict_with_the_margin(items, tmp_path):
    evaluation = _judged(items, tmp_path, [_grader()], base=str.upper, tuned=right)
    verdict = evaluation.verdicts["tuned-base"]["exact"]
    assert (verdict.verdict, verdict.better, verdict.margin) == ("better", 10, None)
    predictions = {name: read_predictions(tmp_path / f"{name}.jsonl") for name in ("base", "tuned")}
    turned = judge(items, predictions, [_grader()], margin=0.02, pairs=[("base", "tuned")])
    assert list(turned.verdicts) == ["base-tuned"]
    assert turned.verdicts["base-tuned"]["exact"].verdict == "worse"
    assert turned.verdicts["base-tuned"]["exact"].margin_met is False


def test_scores_follow_the_items_whatever_the_order_of_the_answers(items, tmp_path):
    predictions = _ask(items, RuleSampler(lambda q: "a3" if q in ("q3", "q4") else "?"), tmp_path / "base.jsonl")
    scored = scores(items, {"base": predictions[::-1]}, [_grader()])
    assert scored == {"base": {"exact": [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]}}


def test_a_candidate_without_all_answers_is_not_judged(items, path):
    predictions = _ask(items, RuleSampler(right), path)
    with pytest.raises(FtbridgeError, match=r"base has no completion for 2 of 10 test examples \(the first is 5\)"):
        judge(items, {"base": [*predictions[:4], *predictions[6:]]}, [_grader()])
    with pytest.raises(ValueError, match="no items"):
        judge([], {"base": []}, [_grader()])


def test_notes_tell_of_few_items_cut_answers_and_blind_graders(items, path):
    predictions = _ask(items, RuleSampler(right, finish_reason="length"), path)
    blind = _grader("blind", input="{{item.reference}}")
    notes = judge(items, {"tuned": predictions}, [_grader(), blind]).notes
    assert notes[0].startswith("10 items are few: a 95 % interval spans up to 53 points")
    assert notes[1] == "tuned: 10 of 10 completions were cut off at the token limit."
    assert notes[2].startswith("blind never looks at the completion")
    assert len(notes) == 3


def test_many_whole_answers_need_no_note(tmp_path, path):
    items = _items(tmp_path / "test.jsonl", [f"a{n}" for n in range(60)])
    assert judge(items, {"base": _ask(items, RuleSampler(right), path)}, [_grader()]).notes == []


def test_a_template_that_some_item_cannot_fill_is_refused_before_anything_is_asked(tmp_path):
    graders = [_grader(reference="{{item.topic}}")]
    items = _items(tmp_path / "test.jsonl", ["a", "b"], topic="t")
    check(items, graders)
    without = _items(tmp_path / "other.jsonl", ["c"])
    with pytest.raises(GraderError, match=r"test example 1: grader exact: \{\{ item.topic \}\}"):
        check(without, graders)


def test_items_without_an_answer_are_left_out_told_and_asked_again(items, path):
    class Failing(RuleSampler):
        def generate(self, prompts, *, max_tokens, batch_size):
            for result in super().generate(prompts, max_tokens=max_tokens, batch_size=batch_size):
                bad = result.text in ("a3", "a4")
                yield result.model_copy(update={"text": "", "error": "400: filtered"} if bad else {"seconds": 2.0})

    predictions = _ask(items, Failing(right), path)
    evaluation = judge(items, {"base": predictions}, [_grader(), _grader("not_x", "ne", reference="x")])
    for grader in ("exact", "not_x"):
        score = evaluation.candidates["base"][grader]
        assert (score.mean, score.n, score.missing) == (1.0, 8, 2)
    assert any("2 of 10 items have no score by exact" in note and "400: filtered" in note for note in evaluation.notes)
    result = evaluation.answered["base"]
    assert (result.failed, result.p50_seconds, result.p95_seconds, result.cut_off) == (2, 2.0, 2.0, 0)
    sampler = RuleSampler(right)
    assert all(result.error is None for result in _ask(items, sampler, path))
    assert sorted(sampler.seen_prompts) == ["q3", "q4"]
