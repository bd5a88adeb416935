"""Leakage between the files of one job."""

from ftbridge.data.lint import Options, lint
from support.rule_findings import chat, in_files

LONG = " ".join(f"word{n}" for n in range(80))
OTHER = " ".join(f"other{n}" for n in range(80))


def test_an_example_in_two_splits_is_told_at_the_one_that_is_measured(tmp_path):
    files = {
        "test.jsonl": ("test", [chat("x"), chat("b"), chat("c")]),
        "train.jsonl": ("train", [chat("a"), chat("b")]),
        "validation.jsonl": ("validation", [chat("c"), chat("a")]),
    }
    assert in_files(tmp_path, files, "FTB350") == [
        ("test.jsonl", 2, "FTB350", "is the same example as train.jsonl:2 (train). Remove it from one of them."),
        (
            "test.jsonl",
            3,
            "FTB350",
            "is the same example as validation.jsonl:1 (validation). Remove it from one of them.",
        ),
        ("validation.jsonl", 2, "FTB350", "is the same example as train.jsonl:1 (train). Remove it from one of them."),
    ]


def test_a_prompt_with_another_answer_leaks_too(tmp_path):
    files = {
        "train.jsonl": ("train", [chat("a", "1"), chat("b", "1")]),
        "t.jsonl": ("test", [chat("a", "2"), chat("b", "1")]),
    }
    assert [result[:3] for result in in_files(tmp_path, files, "FTB351")] == [("t.jsonl", 1, "FTB351")]


def test_a_reinforcement_prompt_leaks_whatever_its_fields(tmp_path):
    messages = [{"role": "user", "content": "2+2?"}]
    files = {
        "train.jsonl": ("train", [{"messages": messages, "x": 1}]),
        "t.jsonl": ("test", [{"messages": messages, "x": 2}]),
    }
    assert [result[:3] for result in in_files(tmp_path, files, "FTB35", method="reinforcement")] == [
        ("t.jsonl", 1, "FTB351")
    ]


def test_a_near_copy_leaks_as_advice(tmp_path):
    train = [chat(OTHER), chat(LONG, "The end.")]
    files = {
        "train.jsonl": ("train", train),
        "t.jsonl": ("test", [chat(LONG.replace("word40", "changed"), "The end.")]),
    }
    [result] = in_files(tmp_path, files, "FTB352")
    assert result[:3] == ("t.jsonl", 1, "FTB352")
    assert "train.jsonl:2 (train) (similarity 0.9" in result[3]
    report = lint([tmp_path / name for name in files], Options(select=("FTB352",)), roles=["train", "test"])
    assert report.files[1].findings[0].severity == "info"


def test_what_is_exactly_leaked_is_not_told_again_as_nearly_leaked(tmp_path):
    files = {"train.jsonl": ("train", [chat(LONG)]), "t.jsonl": ("test", [chat(LONG), chat(LONG, "Rome")])}
    assert [result[:3] for result in in_files(tmp_path, files, "FTB35")] == [
        ("t.jsonl", 1, "FTB350"),
        ("t.jsonl", 2, "FTB351"),
    ]


def test_two_training_files_that_share_examples_are_told_once(tmp_path):
    files = {"a.jsonl": ("train", [chat("a"), chat("b")]), "b.jsonl": ("train", [chat("c"), chat("b"), chat("a")])}
    assert in_files(tmp_path, files, "FTB35") == [
        ("b.jsonl", 2, "FTB353", "shares examples with a.jsonl: lines 2 and 3. Keep them in one file.")
    ]


def test_files_that_share_nothing_are_left_alone(tmp_path):
    files = {
        "train.jsonl": ("train", [chat(LONG)]),
        "v.jsonl": ("validation", [chat(OTHER)]),
        "t.jsonl": ("test", [chat("z")]),
    }
    assert in_files(tmp_path, files, "FTB35") == []


def test_empty_files_are_compared_without_harm(tmp_path):
    files = {"train.jsonl": ("train", []), "t.jsonl": ("test", [chat("z")]), "v.jsonl": ("validation", [])}
    assert in_files(tmp_path, files, "FTB35") == []


def _near_pairs(count):
    def talk(number, word):
        words = [f"w{number}x{where}" for where in range(40)]
        words[3] = word
        return chat(question=" ".join(words[:20]), reply=" ".join(words[20:]))

    return [talk(n, "before") for n in range(count)], [talk(n, "after") for n in range(count)]


def test_every_near_copy_is_told_however_many_there_are(tmp_path):
    train, test = _near_pairs(2_500)
    result = in_files(tmp_path, {"train.jsonl": ("train", train), "test.jsonl": ("test", test)}, "FTB352", keep=9_999)

    names = {line for _, line, _, _ in result}
    assert len(names) > 2_300, "a sketch misses few pairs that differ in one word of 40"
    assert None not in names
    assert max(names) > 2_300


def test_where_not_all_were_compared_it_says_how_many_were(tmp_path, monkeypatch):
    monkeypatch.setattr("ftbridge.data.lint.rules.near.COMPARED", 10)
    train, test = _near_pairs(30)
    files = {"train.jsonl": ("train", train + train[:1]), "test.jsonl": ("test", test)}
    result = in_files(tmp_path, files, "FTB352")
    [note] = [message for _, line, _, message in result if line is None]

    assert len(result) <= 11
    assert "pairs of lines that may be nearly the same, of which 10 were compared" in note

    near, _ = _near_pairs(30)
    result = in_files(tmp_path, {"train.jsonl": ("train", near + test)}, "FTB301")
    assert any("of which 10 were compared" in message for _, line, _, message in result if line is None)
