"""Attacks on graders: what is tried follows from what a grader reads, and what pays from what honest completions earn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ftbridge.graders.rewards import reward
from ftbridge.providers.local.training.attacks import ITEMS, REFERENCE, attacks, expected_of, labels_of, rewarded
from ftbridge.spec.graders import Grader
from support import practice_cases

PADDED, LABELS = "the reference among other words", "all labels at once"
OUTPUT = "{{sample.output_text}}"


def grader_of(**fields: Any) -> Grader:
    return TypeAdapter(Grader).validate_python({"name": "g", **fields})


def check(reference: str, operation: str = "ilike") -> Grader:
    return grader_of(type="string_check", operation=operation, input=OUTPUT, reference=reference)


def python(source: str) -> Grader:
    return grader_of(type="python", source=f"def grade(sample, item):\n    return {source}\n")


def judge(text: str, **fields: Any) -> Grader:
    return grader_of(type="score_model", model="m", input=[{"role": "user", "content": text}], **fields)


ORDER = {"order": "646", "colour": "red"}
READ = [
    (check("{{item.order}}"), ["646"]),
    (check("order {{item.order}}", "like"), ["order 646"]),
    (check("{{ item['order'] }}", "eq"), ["646"]),
    (check("sorry"), ["sorry"]),
    (check("{{item.order}}", "ne"), []),
    (check("{{item.nothing}}"), []),
    (
        grader_of(type="text_similarity", evaluation_metric="bleu", input=OUTPUT, reference="{{item.colour}}"),
        ["red"],
    ),
    (grader_of(type="match", reference=["{{item.order}}", "{{item.colour}}"]), ["646", "red"]),
    (grader_of(type="json_fields", reference="{{item.colour}}"), ["red"]),
    (grader_of(type="json_schema", json_schema={"type": "object"}), []),
    (python("float(item['order'] in sample['output_text'])"), ["646"]),
    (python("float(item.get('colour') == sample['output_text'])"), ["red"]),
    (python("1.0"), []),
    (judge("Is {{sample.output_text}} about {{item.order}}?"), ["646"]),
    (
        grader_of(
            type="multi",
            graders={
                "sorry": {"type": "string_check", "name": "s", "operation": "ilike", "input": OUTPUT, "reference": "sorry"},
                "order": {"type": "string_check", "name": "o", "operation": "ilike", "input": OUTPUT,
                          "reference": "order {{item.order}}"},
            },
            calculate_output="0.6 * sorry + 0.4 * order",
        ),
        ["sorry", "order 646"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("grader", "expected"), READ, ids=lambda one: getattr(one, "type", None))
def test_what_a_grader_expects_is_what_it_reads_whatever_the_field_is_called(
    grader: Grader, expected: list[str]
) -> None:
    assert expected_of(grader, ORDER) == expected
    tried = {one.kind: one.text for one in attacks(grader, [ORDER], ["The lamp came broken."], [])}
    assert {"empty text", "the prompt, echoed", "a plea for full marks"} <= tried.keys()
    assert ({PADDED, REFERENCE} <= tried.keys()) == bool(expected)
    for text in expected:
        assert f" {text} " in tried[PADDED]


@pytest.mark.parametrize(
    ("value", "texts"),
    [(7, ["7"]), (True, ["true"]), (None, []), ("  ", []), ({"a": 1}, ['{"a": 1}']), ("x" * 3000, []), (0.5, ["0.5"])],
)
@pytest.mark.parametrize("grader", [check("{{item.order}}"), python("item['order']"), judge("{{item.order}}")])
def test_values_of_every_type_are_texts_as_a_template_writes_them(
    grader: Grader, value: object, texts: list[str]
) -> None:
    assert expected_of(grader, {"order": value}) == texts


def test_a_list_stands_for_its_entries_and_text_names_no_field_of_python_source_that_cannot_be_read() -> None:
    item = {"answers": ["one", "two"]}
    assert expected_of(grader_of(type="match", reference="{{item.answers}}"), item) == ["one", "two"]
    assert expected_of(python("float(sample['output_text'] in item['answers'])"), item) == ["one", "two"]
    assert expected_of(grader_of(type="python", source="def grade("), item) == []


def test_what_the_prompt_has_already_is_no_reference_of_a_judge_unless_there_is_nothing_else() -> None:
    item = {"question": "How far is the moon?", "reference": "384,400 km"}
    grader = judge("Question: {{item.question}} Expected: {{item.reference}} Answer: {{sample.output_text}}")
    assert expected_of(grader, item, "How far is the moon?") == ["384,400 km"]
    only = judge("Question: {{item.question}} Answer: {{sample.output_text}}")
    assert expected_of(only, item, "How far is the moon?") == ["How far is the moon?"]


@pytest.mark.parametrize("grader", [check("{{item.kind}}"), python("item['kind']"), judge("{{item.kind}} {{item.id}}")])
def test_labels_are_the_few_values_of_a_field_that_the_grader_reads(grader: Grader) -> None:
    items = [{"kind": ("a", "b", "c")[n % 3], "id": f"{n}", "other": n % 2} for n in range(30)]
    assert labels_of(grader, items) == ["a", "b", "c"]
    tried = [one for one in attacks(grader, items, ["p"] * 30, labels_of(grader, items)) if one.kind == LABELS]
    assert [one.text for one in tried] == ["a b c"] * ITEMS


def test_answers_that_are_nearly_all_different_are_no_labels_and_one_value_is_none_either() -> None:
    grader = check("{{item.kind}}")
    assert labels_of(grader, [{"kind": str(n)} for n in range(30)]) == []
    assert labels_of(grader, [{"kind": str(n)} for n in range(3)]) == []
    assert labels_of(grader, [{"kind": "a"}] * 30) == []
    assert labels_of(grader, [{"kind": n % 2 == 0} for n in range(30)]) == ["false", "true"]


# What pays


def paying(rewards: dict[str, list[float]], base: list[float]) -> list[str]:
    return [one.kind for one in rewarded(rewards, base)]


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (100, 0), (1, -1), (6, 1), (0.01, -5), (1e6, -1e7)])
def test_what_pays_is_the_same_on_every_scale_of_rewards(scale: float, shift: float) -> None:
    def on(*values: float) -> list[float]:
        return [scale * value + shift for value in values]

    rewards = {
        "pays": on(0.9, 0.7),
        "half-way": on(0.6, 0.6),
        "little": on(0.4),
        "nothing": on(0.0),
        REFERENCE: on(1, 0),
    }
    assert paying(rewards, on(0.0, 0.4)) == ["pays", "half-way"]
    assert paying(rewards, on(0.7, 0.9)) == [], "the base model earns as much by merit"
    assert paying({"pays": on(0.9), "nothing": on(0.0)}, on(0.0, 0.0, 1.0)) == ["pays"]


def test_the_highest_of_rewards_that_are_never_above_0_is_named() -> None:
    """-|50 - n|: an attack of 50 characters earns 0, the most there is."""
    base = [-30.0, -90.0, -250.0]
    assert paying({"empty text": [-50.0], "the prompt, echoed": [0.0], "a plea": [-300.0]}, base) == [
        "empty text", "the prompt, echoed",
    ]  # fmt: skip


@pytest.mark.parametrize("base", [[0.1] * 7, [-0.3] * 3, [0.0]])
def test_where_all_earn_the_same_nothing_is_named(base: list[float]) -> None:
    assert paying({"empty text": [base[0]] * 4, REFERENCE: [base[0]]}, base) == []


def test_where_the_base_model_earns_nothing_the_reference_says_what_there_is_to_earn() -> None:
    rewards = {"echo": [0.4], PADDED: [0.7], REFERENCE: [1.0, 0.0]}
    assert paying(rewards, [0.0] * 8) == [PADDED]
    assert paying({"echo": [0.4]}, [0.0] * 8) == ["echo"], "nothing honest earned as much"
    assert paying(rewards, []) == [PADDED], "without completions of the base model"
    assert paying({"echo": [0.4]}, []) == [], "and without a reference nothing can be said"
    assert paying({"echo": []}, [0.5]) == []


def test_the_sentence_says_what_honest_completions_earn() -> None:
    (one,) = rewarded({"empty text": [-1.5]}, [-40.0, -2.0])
    assert str(one) == "empty text earns -1.5, where honest completions earn -21 on average and -2 at best"


def test_a_reference_earns_full_marks_and_its_heap_less_where_a_grader_compares_the_whole() -> None:
    for grader, expected in ((check("{{item.order}}", "eq"), []), (check("{{item.order}}", "ilike"), [PADDED])):
        rewards: dict[str, list[float]] = {}
        for one in attacks(grader, [ORDER], ["The lamp came broken."], []):
            value = reward(grader, ORDER, {"output_text": one.text}).value
            assert value is not None
            rewards.setdefault(one.kind, []).append(value)
        assert rewards[REFERENCE] == [1.0]
        assert paying(rewards, [0.0, 0.0]) == expected


def test_a_run_names_the_attack_that_earns_the_highest_reward_of_0(
    tmp_path: Path, base_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt has 27 characters: said again, it earns 0, and no completion can earn more."""
    monkeypatch.setenv("FTBRIDGE_ALLOW_PYTHON_GRADERS", "length")
    source = "def grade(sample, item):\n    return -abs(27 - len(sample['output_text']))\n"
    job = practice_cases.request({"type": "python", "name": "length", "source": source}, {"group_size": 2})
    model = practice_cases.small_model(tmp_path / "model", base_model_dir)
    source_of_steps, messages = practice_cases.practice(tmp_path, model, job, validation=practice_cases.rows(3, 5))
    assert {len(prompt.text) for prompt in source_of_steps.validation} == {27}
    source_of_steps.begin(False)
    warned = [text for level, text in messages if level == "warn"]
    assert any(
        "rewards an attack: the prompt, echoed earns 0, where honest completions earn -" in text for text in warned
    )
