"""Candidates: which prompts they ask, and which training examples are shown."""

import json

import pytest

from ftbridge.data.examples import parse_example
from ftbridge.evaluation.baselines import candidates_of
from ftbridge.evaluation.candidates import few_shot
from ftbridge.evaluation.items import load_items
from ftbridge.spec import JobSpec


def _chat(question, reply, system="Answer shortly.", **answer_keys):
    return {
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": question},
            {"role": "assistant", "content": reply, **answer_keys},
        ]
    }


def _write(path, documents):
    path.write_text("".join(parse_example(document).canonical() + "\n" for document in documents))
    return path


def _told(prompt):
    return [(message.role, message.text) for message in prompt.messages]


@pytest.fixture
def train(tmp_path):
    return _write(tmp_path / "train.jsonl", [_chat(f"q{n}", f"a{n}", system="Training's own.") for n in range(12)])


@pytest.fixture
def item(tmp_path):
    return load_items(_write(tmp_path / "test.jsonl", [_chat("the question", "the answer")]))[0]


def _spec(baselines):
    return JobSpec.from_dict(
        {
            "name": "t",
            "data": {"train": "train.jsonl"},
            "model": {"local": "m"},
            "seed": 3,
            "evaluation": {"baselines": baselines, "few_shot_examples": 2},
        }
    )


@pytest.mark.parametrize(
    ("baselines", "names"),
    [
        ([], ["base", "tuned"]),
        (["few_shot", "zero_shot"], ["base", "zero_shot", "few_shot", "tuned"]),
        (["few_shot"], ["base", "few_shot", "tuned"]),
    ],
)
def test_a_spec_gets_base_its_baselines_and_tuned_in_that_order(train, baselines, names):
    assert [candidate.name for candidate in candidates_of(_spec(baselines), train)] == names


def test_base_zero_shot_and_tuned_ask_the_items_own_prompt(train, item):
    for candidate in candidates_of(_spec(["zero_shot"]), train):
        assert candidate.prompt(item).messages == item.prompt
        assert candidate.prompt(item).key == item.key
        assert candidate.shares == ("base" if candidate.name == "zero_shot" else None)


def test_training_is_not_read_unless_few_shot_asks(tmp_path, item):
    candidates = candidates_of(_spec(["few_shot"]), tmp_path / "none.jsonl")
    assert candidates[0].prompt(item).messages == item.prompt


def test_examples_stand_as_turns_between_the_system_message_and_the_question(train, item):
    result = _told(few_shot(train, examples=3, seed=1).prompt(item))
    assert result[0] == ("system", "Answer shortly.")
    assert result[-1] == ("user", "the question")
    shown = result[1:-1]
    assert [role for role, _ in shown] == ["user", "assistant"] * 3
    assert all(
        reply == question.replace("q", "a") for (_, question), (_, reply) in zip(shown[::2], shown[1::2], strict=True)
    )
    assert len({question for _, question in shown[::2]}) == 3


def test_the_seed_chooses_and_the_order_of_the_file_does_not(tmp_path, train, item):
    def chosen(path, seed):
        return _told(few_shot(path, examples=4, seed=seed).prompt(item))

    lines = train.read_text().splitlines()
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(lines)) + "\n")
    assert chosen(train, 1) == chosen(turned, 1)
    assert len({json.dumps(chosen(train, seed)) for seed in range(5)}) > 1


def test_an_example_that_is_the_question_itself_is_replaced_by_the_next(tmp_path, train):
    ask = few_shot(train, examples=3, seed=1)
    items = load_items(_write(tmp_path / "same.jsonl", [_chat(f"q{n}", "?") for n in range(12)]))
    for item in items:
        result = _told(ask.prompt(item))
        assert len(result) == 8
        assert result.count(result[-1]) == 1


def test_answers_that_teach_nothing_or_call_tools_are_not_shown(tmp_path, item):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    unlearned = {
        "messages": [
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "first"},
            {"role": "user", "content": "v"},
            {"role": "assistant", "content": "bad", "weight": 0},
        ]
    }
    documents = [
        _chat("calls", None, tool_calls=[call]),
        unlearned,
        _chat("q", "a", weight=1),
        _chat("q", "b", weight=1),
    ]
    prompt = few_shot(_write(tmp_path / "train.jsonl", documents), examples=4, seed=1).prompt(item)
    result = _told(prompt)[1:-1]
    assert result in ([("user", "q"), ("assistant", "a")], [("user", "q"), ("assistant", "b")])
    assert all("weight" not in message.model_fields_set for message in prompt.messages)


def test_nearest_examples_stand_next_to_the_question(tmp_path):
    train = tmp_path / "train.jsonl"
    requests = ["a red lamp", "a blue rug", "a red red kettle", "a green chair"]
    lines = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text.upper()}]}
        for text in requests
    ]
    train.write_text("".join(json.dumps(line) + "\n" for line in lines))
    test = tmp_path / "test.jsonl"
    test.write_text(
        json.dumps({"messages": [{"role": "user", "content": "the red kettle"}, {"role": "assistant", "content": "x"}]})
        + "\n"
    )
    [item] = load_items(test)
    shown = few_shot(train, examples=2, seed=1, by="nearest").prompt(item).messages
    assert [message.text for message in shown] == [
        "a red lamp",
        "A RED LAMP",
        "a red red kettle",
        "A RED RED KETTLE",
        "the red kettle",
    ]


def test_zero_shot_with_a_system_message_of_its_own_answers_for_itself(tmp_path):
    spec = _spec(["zero_shot"])
    spec = spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"system": "Be brief."})})
    [_, zero_shot, _] = candidates_of(spec, tmp_path / "none.jsonl")
    assert zero_shot.shares is None
