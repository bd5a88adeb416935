"""Preparing: canonical bytes, splits that leak nothing, refusals that name both sides, and doing nothing twice."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from ftbridge.data.examples import parse_example
from ftbridge.data.manifest import load_manifest
from ftbridge.data.prepare import hold_out, origin, prepare
from ftbridge.data.tokens import count_tokens
from ftbridge.errors import DataError
from ftbridge.spec import JobSpec


def _chat(question, reply, **extra):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return {"messages": messages, **extra}


def _chats(count, labels=1, prefix="question"):
    return [_chat(f"{prefix} {number}", f"label {number % labels}") for number in range(count)]


def _write(path, documents):
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))


def _spec(seed=7, method="supervised", **data):
    document = {"name": "t", "method": method, "seed": seed, "model": {"local": "m"}}
    return JobSpec.from_dict({**document, "data": {"train": "train.jsonl", **data}})


def _examples(documents):
    return [parse_example(document) for document in documents]


def _lines(out, split):
    return (out / f"{split}.jsonl").read_bytes().decode().split("\n")[:-1]


def test_each_split_is_written_as_canonical_lines_with_its_hash_tokens_and_origins(tmp_path):
    train = [{**_chat("one", "a"), "id": 1}, _chat("two\u2028", "b"), _chat("three", "c")]
    (tmp_path / "train.jsonl").write_text("\n\n".join(json.dumps(document, indent=None) for document in train))
    _write(tmp_path / "more.jsonl", [_chat("four", "d")])
    _write(tmp_path / "val.jsonl", [_chat("five", "e")])
    _write(tmp_path / "test.jsonl", [_chat("six", "f")])
    spec = _spec(train=["train.jsonl", "more.jsonl"], validation="val.jsonl", test="test.jsonl")
    out = tmp_path / "out"
    manifest = prepare(spec, base=tmp_path, out=out)

    assert _lines(out, "train") == [example.canonical() for example in _examples([*train, _chat("four", "d")])]
    assert _lines(out, "test") == [parse_example(_chat("six", "f")).canonical()]
    assert {name: split.examples for name, split in manifest.splits.items()} == {"train": 4, "validation": 1, "test": 1}
    for name, split in manifest.splits.items():
        content = (out / f"{name}.jsonl").read_bytes()
        assert split.sha256 == hashlib.sha256(content).hexdigest()
        assert split.tokens == count_tokens(parse_example(json.loads(line)) for line in _lines(out, name))
    assert manifest.splits["train"].sources == ["train.jsonl", "more.jsonl"]
    assert origin(out, "train") == ["train.jsonl:1", "train.jsonl:3", "train.jsonl:5", "more.jsonl:1"]
    assert load_manifest(out) == manifest


def test_a_fraction_is_held_out_and_every_line_is_kept_once_in_file_order(tmp_path):
    _write(tmp_path / "train.jsonl", _chats(40, labels=40))
    out = tmp_path / "out"
    manifest = prepare(_spec(validation=0.1), base=tmp_path, out=out)
    assert (manifest.splits["train"].examples, manifest.splits["validation"].examples) == (36, 4)
    places = {split: [int(where.partition(":")[2]) for where in origin(out, split)] for split in manifest.splits}
    assert places["train"] == sorted(places["train"])
    assert sorted(places["train"] + places["validation"]) == list(range(1, 41))


def test_the_same_input_gives_the_same_bytes_whatever_the_hash_seed(tmp_path):
    _write(tmp_path / "train.jsonl", _chats(60, labels=3))
    _write(tmp_path / "test.jsonl", _chats(5, prefix="unseen"))
    program = (
        "import sys; from pathlib import Path\n"
        "from ftbridge.data.prepare import prepare; from ftbridge.spec import JobSpec\n"
        "base, out = map(Path, sys.argv[1:])\n"
        "data = {'train': 'train.jsonl', 'validation': 0.2, 'test': 'test.jsonl'}\n"
        "prepare(JobSpec.from_dict({'name': 't', 'data': data, 'model': {'local': 'm'}}), base=base, out=out)\n"
    )
    contents = []
    for seed in ("1", "2"):
        out = tmp_path / f"out{seed}"
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", program, str(tmp_path), str(out)], check=True, env=environment)
        contents.append({path.name: path.read_bytes() for path in sorted(out.iterdir())})
    assert list(contents[0]) == ["lines.json", "manifest.json", "test.jsonl", "train.jsonl", "validation.jsonl"]
    assert contents[0] == contents[1]


def test_the_held_out_examples_are_these_for_this_seed_for_ever():
    """A change here changes the data of everyone's runs."""
    examples = _examples(_chats(30, labels=30))
    assert hold_out(examples, 0.1, 7) == [8, 9, 23]
    assert hold_out(examples, 0.1, 8) == [20, 23, 25]


def test_the_order_of_the_file_does_not_change_what_is_held_out():
    examples = _examples(_chats(30, labels=3))
    held = {examples[index].canonical() for index in hold_out(examples, 0.2, 7)}
    turned = examples[::-1]
    assert {turned[index].canonical() for index in hold_out(turned, 0.2, 7)} == held


@pytest.mark.parametrize(
    ("count", "fraction", "held"),
    [(40, 0.1, 4), (45, 0.1, 5), (44, 0.1, 4), (3, 0.01, 1), (100, 0.999, 99), (2, 0.1, 1)],
)
def test_the_fraction_is_rounded_half_up_and_leaves_something_on_both_sides(count, fraction, held):
    assert len(hold_out(_examples(_chats(count, labels=count)), fraction, 7)) == held


def test_few_labels_are_held_out_in_proportion():
    documents = [_chat(f"a{n}", "often") for n in range(60)] + [_chat(f"b{n}", "seldom") for n in range(30)]
    documents += [_chat(f"c{n}", "rare") for n in range(10)]
    for seed in range(20):
        held = [documents[index]["messages"][1]["content"] for index in hold_out(_examples(documents), 0.1, seed)]
        assert {label: held.count(label) for label in held} == {"often": 6, "seldom": 3, "rare": 1}


def test_every_label_keeps_an_example_to_train_on():
    documents = [_chat(f"a{n}", "often") for n in range(50)] + [_chat(f"b{n}", "rare") for n in range(2)]
    for seed in range(20):
        held = hold_out(_examples(documents), 0.9, seed)
        assert not {50, 51} <= set(held)


@pytest.mark.parametrize("labels", [21, 40])
def test_answers_that_are_not_labels_are_not_stratified(labels):
    """With 21 answers on 2 examples each, shares would give every seed the same answers; a plain draw does not."""
    documents = _chats(42 if labels == 21 else 40, labels=labels)
    halves = [hold_out(_examples(documents), 0.5, seed) for seed in range(10)]
    replies = [[documents[index]["messages"][1]["content"] for index in half] for half in halves]
    assert all(len(half) == len(documents) // 2 for half in halves)
    assert len({tuple(sorted(reply)) for reply in replies}) > 1


def test_an_answer_that_occurs_once_makes_answers_no_labels_and_may_be_held_out():
    examples = _examples([_chat(f"q{number}", "label") for number in range(9)] + [_chat("q9", "once")])
    assert any(9 in hold_out(examples, 0.5, seed) for seed in range(20))


def test_the_same_messages_with_other_tools_are_not_copies():
    tools = [[{"type": "function", "function": {"name": name}}] for name in ("find", "close")]
    assert len(hold_out(_examples([_chat("q", "a", tools=tool) for tool in tools]), 0.5, 7)) == 1


def test_copies_never_stand_on_both_sides(tmp_path):
    documents = [copy for document in _chats(12, labels=3) for copy in (document, document, {**document, "id": 1})]
    _write(tmp_path / "train.jsonl", documents)
    for seed in range(20):
        manifest = prepare(_spec(seed=seed, validation=0.3), base=tmp_path, out=tmp_path / "out")
        sides = [
            {json.loads(line)["messages"][0]["content"] for line in _lines(tmp_path / "out", s)}
            for s in manifest.splits
        ]
        assert not sides[0] & sides[1]
        assert manifest.splits["validation"].examples > 0
    assert "12 training lines repeat an earlier line; every copy is trained on." in manifest.notes


def test_data_that_is_one_example_many_times_cannot_be_split(tmp_path):
    _write(tmp_path / "train.jsonl", [_chat("same", "same")] * 20)
    with pytest.raises(DataError, match="copies of one"):
        prepare(_spec(validation=0.1), base=tmp_path, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("count", "validation", "says"), [(1, None, "1 example is too few"), (2, 0.5, "too few to train on")]
)
def test_too_few_examples_to_train_on_are_refused(tmp_path, count, validation, says):
    _write(tmp_path / "train.jsonl", _chats(count))
    with pytest.raises(DataError, match=says) as caught:
        prepare(_spec(validation=validation), base=tmp_path, out=tmp_path / "out")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("split", ["test", "validation"])
def test_examples_that_are_also_trained_on_are_refused_with_both_places(tmp_path, split):
    _write(tmp_path / "train.jsonl", _chats(30))
    _write(tmp_path / "other.jsonl", [_chat("unseen", "x"), _chat("question 4", "another answer"), *_chats(11)])
    with pytest.raises(DataError) as caught:
        prepare(_spec(**{split: "other.jsonl"}), base=tmp_path, out=tmp_path / "out")
    assert caught.value.exit_code == 3
    assert len(caught.value.problems) == 12
    assert caught.value.problems[:2] == (
        "other.jsonl:2 has the prompt of train.jsonl:5.",
        "other.jsonl:3 is the same example as train.jsonl:1.",
    )
    assert f"data.{split}: 12 examples are also in the training data" in str(caught.value)
    assert str(caught.value).count("train.jsonl:") == 10
    assert "… and 2 more" in str(caught.value)


def test_an_earlier_turn_that_is_trained_on_counts_as_overlap_and_one_with_weight_0_does_not(tmp_path):
    turns = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "x"}]
    later = [{"role": "user", "content": "second"}, {"role": "assistant", "content": "y"}]
    _write(tmp_path / "test.jsonl", [_chat("first", "z")])
    _write(tmp_path / "train.jsonl", [{"messages": turns + later}, _chat("other", "o")])
    with pytest.raises(DataError, match=r"test.jsonl:1 has the prompt of train.jsonl:1"):
        prepare(_spec(test="test.jsonl"), base=tmp_path, out=tmp_path / "out")
    quiet = [turns[0], {**turns[1], "weight": 0}, *later]
    _write(tmp_path / "train.jsonl", [{"messages": quiet}, _chat("other", "o")])
    assert prepare(_spec(test="test.jsonl"), base=tmp_path, out=tmp_path / "out").splits["test"].examples == 1


def test_weights_in_a_prompt_do_not_hide_an_overlap(tmp_path):
    def turns(**weight):
        first = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi", **weight}]
        return {"messages": [*first, *_chat("second", "y")["messages"]]}

    _write(tmp_path / "train.jsonl", [turns(weight=0), _chat("other", "o")])
    _write(tmp_path / "test.jsonl", [turns()])
    with pytest.raises(DataError, match=r"test.jsonl:1 is the same example as train.jsonl:1"):
        prepare(_spec(test="test.jsonl"), base=tmp_path, out=tmp_path / "out")


def test_examples_without_a_prompt_overlap_only_when_their_answers_are_the_same(tmp_path):
    texts = [{"messages": [{"role": "assistant", "content": text}]} for text in ("one", "two", "three")]
    _write(tmp_path / "train.jsonl", texts[:2])
    _write(tmp_path / "test.jsonl", texts[2:])
    assert prepare(_spec(test="test.jsonl"), base=tmp_path, out=tmp_path / "out").splits["test"].examples == 1
    _write(tmp_path / "test.jsonl", texts[1:])
    with pytest.raises(DataError, match=r"test.jsonl:1 is the same example as train.jsonl:2"):
        prepare(_spec(test="test.jsonl"), base=tmp_path, out=tmp_path / "fresh")


def test_bad_lines_of_every_split_come_in_one_error(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"messages": 1}\n')
    (tmp_path / "test.jsonl").write_text("nonsense\n")
    with pytest.raises(DataError) as caught:
        prepare(_spec(test="test.jsonl"), base=tmp_path, out=tmp_path / "out")
    assert [problem.split(" ")[0] for problem in caught.value.problems] == ["train.jsonl:1", "test.jsonl:1"]


@pytest.mark.parametrize(
    ("count", "says"), [(9, "OpenAI refuses a file with fewer than 10"), (49, "from 50 to 100"), (50, None)]
)
def test_small_training_sets_are_noted(tmp_path, count, says):
    _write(tmp_path / "train.jsonl", _chats(count))
    notes = prepare(_spec(), base=tmp_path, out=tmp_path / "out").notes
    assert len(notes) == (1 if says else 0)
    assert not says or says in notes[0]


def test_prompts_shared_between_validation_and_the_other_sides_are_noted(tmp_path):
    _write(tmp_path / "train.jsonl", [_chat("always the same", f"text {number}") for number in range(50)])
    _write(tmp_path / "val.jsonl", [_chat("asked", "x")])
    _write(tmp_path / "test.jsonl", [_chat("asked", "y"), _chat("new", "z")])
    manifest = prepare(_spec(validation=0.1), base=tmp_path, out=tmp_path / "one")
    assert manifest.notes == ["5 of 5 validation examples have a prompt that is also trained on."]
    manifest = prepare(_spec(validation="val.jsonl", test="test.jsonl"), base=tmp_path, out=tmp_path / "two")
    assert manifest.notes == ["1 of 2 test examples have a prompt that is also in validation."]


def test_a_prepared_folder_is_left_alone_even_when_its_sources_are_gone(tmp_path):
    _write(tmp_path / "train.jsonl", _chats(12))
    out = tmp_path / "out"
    manifest = prepare(_spec(validation=0.2), base=tmp_path, out=out)
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (tmp_path / "train.jsonl").unlink()
    assert prepare(_spec(validation=0.2), base=tmp_path, out=out) == manifest
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times


@pytest.mark.parametrize("damage", ["train.jsonl", "validation.jsonl", "lines.json", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_folder_is_prepared_again_to_the_same_bytes(tmp_path, damage, how):
    _write(tmp_path / "train.jsonl", _chats(12))
    out = tmp_path / "out"
    prepare(_spec(validation=0.2), base=tmp_path, out=out)
    by_name = {path.name: path.read_bytes() for path in out.iterdir()}
    if how == "cut":
        (out / damage).write_bytes(by_name[damage][:-5])
    else:
        (out / damage).unlink()
    prepare(_spec(validation=0.2), base=tmp_path, out=out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == by_name


def test_another_seed_or_data_section_prepares_anew_and_leaves_no_old_split(tmp_path):
    _write(tmp_path / "train.jsonl", _chats(40))
    out = tmp_path / "out"
    first = prepare(_spec(validation=0.2), base=tmp_path, out=out)
    assert prepare(_spec(seed=8, validation=0.2), base=tmp_path, out=out) != first
    assert list(prepare(_spec(), base=tmp_path, out=out).splits) == ["train"]
    assert not (out / "validation.jsonl").exists()


def test_a_folder_that_was_not_prepared_says_so(tmp_path):
    with pytest.raises(DataError, match="is not prepared"):
        load_manifest(tmp_path)


def _pair(question, good, bad="bad", **extra):
    messages = [
        [{"role": role, "content": text}]
        for role, text in (("user", question), ("assistant", good), ("assistant", bad))
    ]
    return {
        "input": {"messages": messages[0]},
        "preferred_output": messages[1],
        "non_preferred_output": messages[2],
        **extra,
    }


def _item(question, **extra):
    return {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": question}], **extra}


METHODS = [
    ("dpo", lambda number: _pair(f"q{number}", f"a{number}")),
    ("reinforcement", lambda number: _item(f"q{number}", n=number)),
]


@pytest.mark.parametrize(("method", "make"), METHODS)
def test_every_method_is_split_hashed_and_counted_with_nothing_lost(tmp_path, method, make):
    documents = [make(number) for number in range(20)]
    _write(tmp_path / "train.jsonl", [*documents, documents[0]])
    out = tmp_path / "out"
    manifest = prepare(_spec(method=method, validation=0.2), base=tmp_path, out=out)
    assert manifest.splits["train"].examples + manifest.splits["validation"].examples == 21
    items = [json.loads(line) for split in manifest.splits for line in _lines(out, split)]
    assert sorted(map(json.dumps, items)) == sorted(map(json.dumps, [*documents, documents[0]]))
    for name, split in manifest.splits.items():
        assert split.sha256 == hashlib.sha256((out / f"{name}.jsonl").read_bytes()).hexdigest()
        assert split.tokens > 9 * split.examples
    assert prepare(_spec(method=method, validation=0.2), base=tmp_path, out=out) == manifest


def test_a_preference_counts_its_input_once_and_both_answers(tmp_path):
    _write(tmp_path / "train.jsonl", [_pair("one", "two", "three"), _pair("four", "five", "six")])
    tokens = prepare(_spec(method="dpo"), base=tmp_path, out=tmp_path / "out").splits["train"].tokens
    # OpenAI's cookbook: 3 for each example; 3, the role and the text (a token each) for each of three messages.
    assert tokens == 2 * (3 + 3 * (3 + 1 + 1))


@pytest.mark.parametrize(
    ("method", "train", "other", "says"),
    [
        ("dpo", _pair("q", "a"), _pair("q", "b"), "has the prompt of train.jsonl:1"),
        ("dpo", _pair("q", "a", id=1), _pair("q", "a"), "is the same example as train.jsonl:1"),
        ("reinforcement", _item("q", reference=1), _item("q", reference=2), "is the same example as train.jsonl:1"),
    ],
)
def test_every_method_refuses_to_judge_on_what_it_trains_on(tmp_path, method, train, other, says):
    fresh = {"dpo": _pair("fresh", "x"), "reinforcement": _item("fresh")}[method]
    _write(tmp_path / "train.jsonl", [train, fresh])
    _write(tmp_path / "test.jsonl", [other])
    with pytest.raises(DataError, match=f"test.jsonl:1 {says}"):
        prepare(_spec(method=method, test="test.jsonl"), base=tmp_path, out=tmp_path / "out")


def test_preferences_are_held_out_in_proportion_to_their_preferred_labels():
    documents = [_pair(f"a{n}", "often") for n in range(80)] + [_pair(f"b{n}", "seldom") for n in range(20)]
    for seed in range(10):
        held = hold_out([parse_example(document, "dpo") for document in documents], 0.1, seed)
        assert [index >= 80 for index in held].count(True) == 2


def test_another_method_prepares_anew(tmp_path):
    _write(tmp_path / "train.jsonl", [_item("one"), _item("two")])
    prepare(_spec(method="reinforcement"), base=tmp_path, out=tmp_path / "out")
    with pytest.raises(DataError, match="the completion to learn"):
        prepare(_spec(), base=tmp_path, out=tmp_path / "out")


def test_supervised_bytes_are_these_for_ever(tmp_path):
    """A change here changes the data, and the hashes, of everyone's runs."""
    calls = [{"type": "function", "id": "c", "function": {"arguments": "{}", "name": "f"}}]
    image = {"image_url": {"url": "u", "detail": "low"}, "type": "image_url"}
    rich = {
        "functions": [{"parameters": {}, "name": "f"}],
        "id": 1.0,
        "messages": [
            {"content": [image, {"text": "é\u2028", "type": "text"}], "role": "user"},
            {"tool_calls": calls, "role": "assistant", "weight": 0, "reasoning": "r", "content": None},
            {"tool_call_id": "c", "content": "1", "role": "tool"},
            {"refusal": "No.", "role": "assistant", "content": ""},
        ],
        "parallel_tool_calls": False,
        "tools": [{"function": {"name": "f"}, "type": "function"}],
    }
    _write(tmp_path / "train.jsonl", [rich, _chat("two", "b", zeta=1, alpha=[2, {"b": 1, "a": None}])])
    manifest = prepare(_spec(keep=["zeta", "alpha"]), base=tmp_path, out=tmp_path / "out")
    assert manifest.splits["train"].sha256 == "a8ba5fdd90ea47ae9ce78731b0f5e2255121db44893992796778360ef4f256c0"
