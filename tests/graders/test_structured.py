"""json_schema and json_fields: JSON answers."""

import json
import socket
import threading

import pytest

from ftbridge.graders import GraderError, check, grade
from ftbridge.spec.graders import JsonFieldsGrader, JsonSchemaGrader

ORDER = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}}},
    "required": ["id"],
    "$defs": {"tag": {"enum": ["new", "paid"]}},
}


def _schema(schema=ORDER, **more):
    return JsonSchemaGrader(type="json_schema", name="shape", json_schema=schema, **more)


@pytest.mark.parametrize(
    ("output", "violation"),
    [
        ('{"id": 1}', None),
        ('{"id": 1, "tags": ["new"], "more": null}', None),
        ('{"id": "1"}', "$.id: '1' is not of type 'integer'"),
        ('{"tags": []}', "'id' is a required property"),
        ('{"id": 1, "tags": ["old"]}', "$.tags[0]: 'old' is not one of"),
        ('{"id": 1', "not JSON"),
        ('Here you are: {"id": 1}', "not JSON"),
        ('{"id": NaN}', "not JSON: NaN is not a number in JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_an_answer_fits_the_schema_or_the_first_reason_is_told(output, violation):
    result = grade(_schema(), {}, {"output_text": output})
    assert (result.reward, result.passed, result.errors) == (float(violation is None), violation is None, {})
    assert (violation or "") in result.metadata.details.get("violation", "")


def test_a_schema_that_is_none_is_refused_before_anything_is_spent():
    with pytest.raises(GraderError, match=r"json_schema is not a JSON Schema: \$\.type"):
        check(_schema({"type": "intger"}), {})


def test_references_to_other_documents_are_never_fetched():
    request = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(2)

        def listen():
            try:
                server.accept()
            except OSError:
                return
            request.set()

        threading.Thread(target=listen, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        with pytest.raises(GraderError, match="References stay inside the schema"):
            grade(_schema({"$ref": address}), {}, {"output_text": "{}"})
    assert not request.is_set()


def _fields(**more):
    return JsonFieldsGrader(type="json_fields", name="fields", **more)


@pytest.mark.parametrize(
    ("reference", "output", "reward", "different"),
    [
        ({"a": 1, "b": "x"}, {"b": "x", "a": 1}, 1, []),
        ({"a": 1, "b": "x"}, {"a": 1, "b": "y"}, 1 / 2, ["b"]),
        ({"a": 1, "b": "x"}, {"a": 1}, 1 / 2, ["b"]),
        ({"a": 1}, {"a": 1, "more": 2}, 1 / 2, ["more"]),
        ({"a": 1}, {"a": 1.0}, 1, []),
        ({"a": 1}, {"a": True}, 0, ["a"]),
        ({"a": 0}, {"a": False}, 0, ["a"]),
        ({"a": None}, {}, 0, ["a"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, 0, ["a"]),
        ({"a": {"x": [True]}}, {"a": {"x": [1]}}, 0, ["a"]),
        ({}, {}, 1, []),
    ],
)
def test_fields_are_compared_as_json(reference, output, reward, different):
    result = grade(_fields(), {"reference": reference}, {"output_text": json.dumps(output)})
    assert result.reward == pytest.approx(reward)
    assert result.metadata.details.get("different", []) == different


def test_only_the_fields_that_are_named_are_compared():
    item = {"reference": {"order": {"id": 7, "note": "a"}, "tags": ["new", "paid"]}}
    text = json.dumps({"order": {"id": 7, "note": "b"}, "tags": ["new", "old"], "more": 1})
    result = grade(_fields(fields=["order.id", "tags[0]", "tags[1]"]), item, {"output_text": text})
    assert result.reward == pytest.approx(2 / 3)
    assert result.metadata.details == {"different": ["tags[1]"]}


def test_an_answer_that_is_not_json_scores_0_and_a_reference_that_is_not_is_an_error():
    result = grade(_fields(pass_threshold=0.5), {"reference": {"a": 1}}, {"output_text": "a is 1"})
    assert (result.reward, result.passed, result.errors) == (0, False, {})
    assert "not JSON" in result.metadata.details["violation"]
    wrong = grade(_fields(), {"reference": "a is 1"}, {"output_text": "{}"})
    assert "the reference is not JSON" in wrong.errors["other_error"]


def test_a_named_field_that_the_reference_has_not_is_an_error():
    result = grade(_fields(fields=["a", "b.c"]), {"reference": {"a": 1}}, {"output_text": '{"a": 1}'})
    assert result.errors == {"other_error": "the reference has no field b.c"}


def test_a_field_that_is_no_path_is_refused():
    with pytest.raises(GraderError, match=r"the field 'a\[x\]' is not a valid path"):
        check(_fields(fields=["a[x]"]), {"reference": "{}"})
