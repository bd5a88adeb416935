"""Items grouped by a field of theirs."""

from __future__ import annotations

import pytest

from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item, slice_values
from ftbridge.evaluation.score import judge
from ftbridge.spec.graders import StringCheckGrader

EXACT = StringCheckGrader(
    type="string_check", name="exact", operation="eq", input="{{sample.output_text}}", reference="{{item.reference}}"
)


def items(*fields):
    return [Item(f"k-{n}", n, (), (), {"reference": f"r{n}", **settings}, str(n)) for n, settings in enumerate(fields)]


@pytest.mark.parametrize(
    ("values", "makes"),
    [
        (["de", "en"] * 4, ["de", "en"] * 4),
        ([1, 2, 1, 2], ["1", "2", "1", "2"]),
        ([True, False] * 3, ["true", "false"] * 3),
        (["", "x"] * 2, ["", "x"] * 2),
        (["de"] * 8, None),
        ([f"id {n}" for n in range(8)], None),
        ([["a"], ["b"]] * 4, None),
        (["a" * 61, "b"] * 4, None),
        ([str(n % 13) for n in range(60)], None),
    ],
)
def test_a_field_with_a_few_values_makes_slices(values, makes):
    result = slice_values(items(*({"f": value} for value in values)))
    assert result.get("f") == makes


def test_a_field_that_some_items_lack_makes_none():
    assert slice_values(items({"f": "a"}, {"f": "b"}, {"f": "a"}, {"f": "b"}, {})) == {}


def test_each_slice_has_the_scores_of_its_own_items():
    request = items(*({"language": ("de", "en")[n % 2], "cluster": "c"} for n in range(20)))
    by_name = {
        "base": [_says(item, "no") for item in request],
        "tuned": [_says(item, f"r{item.index}" if item.index % 2 else "no") for item in request],
    }
    evaluation = judge(request, by_name, [EXACT])
    by = {(one.field, one.value): one for one in evaluation.slices}
    assert set(by) == {("language", "de"), ("language", "en")}
    assert by["language", "en"].items == 10
    assert by["language", "en"].candidates["tuned"]["exact"].mean == 1.0
    assert by["language", "de"].candidates["tuned"]["exact"].mean == 0.0
    low, high = by["language", "de"].candidates["tuned"]["exact"].ci95
    assert (low, high) == (0.0, pytest.approx(0.278, abs=0.001))


def _says(item, text):
    return Prediction(
        key=item.key,
        index=item.index,
        prompt_sha256="x",
        output_text=text,
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=1,
    )
