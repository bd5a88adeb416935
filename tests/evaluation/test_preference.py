"""What preference tuning changed, from log-probabilities and lengths of test pairs, by figures worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item, load_items
from ftbridge.evaluation.preference import (
    BASE_COMPLETION,
    PairNats,
    against_base,
    measure,
    preferences,
    read,
    sentence,
    table,
    warnings,
)
from ftbridge.providers.base import Prompt, Scored
from ftbridge.spec.graders import PairwiseGrader, StringCheckGrader


def line(n: int, preferred: object = "Yes.", other: object = "No.") -> dict[str, object]:
    return {
        "input": {"messages": [{"role": "user", "content": f"Is {n} a number?"}]},
        "preferred_output": [{"role": "assistant", "content": preferred}],
        "non_preferred_output": [{"role": "assistant", "content": other}],
    }


def items(folder: Path, lines: Sequence[dict[str, object]]) -> list[Item]:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return load_items(path)


def nats(preferred: float, other: float, tokens: tuple[int, int] = (4, 8)) -> PairNats:
    return PairNats(preferred=preferred, preferred_tokens=tokens[0], other=other, other_tokens=tokens[1])


def completions(pairs: Sequence[Item], tokens: Sequence[int]) -> list[Prediction]:
    return [
        Prediction(key=item.key, index=item.index, prompt_sha256="", output_text=f"{length} words", finish_reason="stop",
                   prompt_tokens=5, completion_tokens=length)
        for item, length in zip(pairs, tokens, strict=True)
    ]  # fmt: skip


def test_a_preference_line_asks_its_input_and_expects_its_preferred_output(tmp_path: Path) -> None:
    (item,) = items(tmp_path, [line(3) | {"shade": "red"}])
    assert [message.text for message in item.prompt] == ["Is 3 a number?"]
    assert dict(item.fields) == {"reference": "Yes.", "non_preferred": "No.", "shade": "red"}
    assert item.outputs == ("Yes.", "No.")


def test_a_pair_that_calls_tools_is_an_item_but_not_compared_by_text(tmp_path: Path) -> None:
    calls = {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    (item,) = items(tmp_path, [line(3) | {"preferred_output": [calls]}])
    assert item.outputs is None
    assert json.loads(item.fields["reference"])[0]["name"] == "f"


def test_accuracy_margin_and_changes_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    pairs = items(tmp_path, [line(n) for n in range(4)])
    keys = [item.key for item in pairs]
    base = dict(zip(keys, [nats(10, 10)] * 4, strict=True))
    # gains of the preferred: 2, 1, -1, 0; of the other: -3, -1, -2, 0
    tuned = dict(zip(keys, [nats(8, 13), nats(9, 11), nats(11, 12), nats(10, 10)], strict=True))
    by_name = {"base": completions(pairs, [20, 20, 20, 20]), "tuned": completions(pairs, [10, 12, 8, 10])}
    result = preferences(pairs, base, tuned, by_name)
    assert result is not None
    assert (result.pairs, result.accuracy.mean) == (4, (3 + 0.5) / 4)
    assert result.margin.mean == pytest.approx((5 + 2 + 1 + 0) / 4)
    assert result.preferred_change.mean == pytest.approx((2 + 1 - 1 + 0) / 4)
    assert result.preferred_change_per_token == pytest.approx(2 / 16)
    assert result.other_change.mean == pytest.approx((-3 - 1 - 2) / 4)
    assert result.margin.ci95[0] < result.margin.mean < result.margin.ci95[1]
    # per token: base 10/4 against 10/8, so the other is the likelier; none is turned round by so little
    assert {name: one.mean for name, one in result.preferred_first.items()} == {"base": 0.0, "tuned": 0.0}
    assert (result.preferred_longer, result.pair_tokens) == (0.0, (4.0, 8.0))
    assert result.length_change is not None
    assert result.length_change.mean == -10
    assert "87.5 % of the 4 test pairs" in sentence(result)
    assert ("margin: preferred over the other", "+2.0 nats") in [row[:2] for row in table(result)]


def test_without_a_change_half_of_the_pairs_count_and_no_interval_leaves_it_out(tmp_path: Path) -> None:
    pairs = items(tmp_path, [line(n) for n in range(10)])
    same = {item.key: nats(10, 9) for item in pairs}
    result = preferences(pairs, same, same, {})
    assert result is not None
    assert result.accuracy.mean == 0.5
    assert result.accuracy.ci95[0] < 0.5 < result.accuracy.ci95[1]
    assert result.margin.mean == 0
    assert warnings(result) == []


def test_a_preferred_completion_that_became_less_likely_is_said_with_what_to_do(tmp_path: Path) -> None:
    pairs = items(tmp_path, [line(n) for n in range(12)])
    base = {item.key: nats(10, 10) for item in pairs}
    tuned = {item.key: nats(13 + where / 10, 30) for where, item in enumerate(pairs)}
    result = preferences(pairs, base, tuned, {})
    assert result is not None
    (warning,) = warnings(result)
    assert "became less likely, by 3.6 nats each" in warning
    assert "local.dpo.nll_weight" in warning


def test_completions_that_became_longer_are_said_with_how_often_the_preferred_is_the_longer(tmp_path: Path) -> None:
    pairs = items(tmp_path, [line(n) for n in range(12)])
    base = {item.key: nats(10, 10, (9, 4)) for item in pairs}
    by_name = {
        "base": completions(pairs, [10 + where % 3 for where in range(12)]),
        "tuned": completions(pairs, [30 + where for where in range(12)]),
    }
    result = preferences(pairs, base, {item.key: nats(9, 11, (9, 4)) for item in pairs}, by_name)
    assert result is not None
    (warning,) = warnings(result)
    assert "longer: 11 to 36 tokens. In 100% of the test pairs" in warning


def test_one_pair_gives_no_interval_and_so_no_figures(tmp_path: Path) -> None:
    pairs = items(tmp_path, [line(1)])
    same = {pairs[0].key: nats(1, 2)}
    assert preferences(pairs, same, same, {}) is None


class Ruler:
    """Scores a completion by its number of characters."""

    def __init__(self) -> None:
        self.scored: list[str] = []

    def score(self, prompts: Sequence[Prompt], texts_scored: Sequence[str], *, batch_size: int) -> Iterator[Scored]:
        self.scored += texts_scored
        for prompt, completion in zip(reversed(prompts), reversed(texts_scored), strict=True):  # in any order
            yield Scored(key=prompt.key, nats=float(len(completion)), tokens=2)


def test_log_probabilities_are_measured_once_for_the_same_pairs(tmp_path: Path) -> None:
    pairs = items(tmp_path, [line(n, "Yes." + "!" * n) for n in range(3)])
    ruler, path = Ruler(), tmp_path / "base.preference.json"
    measure(pairs, ruler, path, batch_size=4)
    measure(pairs, ruler, path, batch_size=4)
    assert len(ruler.scored) == 6
    result = read(pairs, path)
    assert result is not None
    assert [(result[item.key].preferred, result[item.key].other) for item in pairs] == [(4, 3), (5, 3), (6, 3)]
    changed = items(tmp_path, [line(n, "Yes!") for n in range(3)])
    assert read(changed, path) is None
    path.write_text("{")
    assert read(pairs, path) is None


def test_wins_against_base_put_its_completions_in_the_place_of_the_reference(tmp_path: Path) -> None:
    pairs = items(tmp_path, [line(n) for n in range(2)])
    graders = [
        PairwiseGrader(type="pairwise", name="better", model="m", question="{{item.reference}}?"),
        StringCheckGrader(type="string_check", name="exact", operation="eq", input="a", reference="b"),
    ]
    request, rivals = against_base(pairs, completions(pairs, [5, 6]), graders)
    assert [grader.name for grader in rivals] == ["better"]
    assert rivals[0].against == "{{item.%s}}" % BASE_COMPLETION  # type: ignore[union-attr]  # noqa: UP031
    assert [item.fields[BASE_COMPLETION] for item in request] == ["5 words", "6 words"]
