"""JSON of a schema without a script: what the simulator makes is what the schema accepts."""

import json

import jsonschema
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

from ftbridge.server.simulator.instances import instance


class Leaf(BaseModel):
    """One of a tree."""

    name: str = Field(pattern=r"^[A-Z]{2}-\d{3,5}$")
    size: float = Field(gt=0, lt=0.5)
    children: list["Leaf"] = []


class Order(BaseModel):
    """What clients ask for."""

    id: int = Field(ge=100, multiple_of=7)
    email: str | None
    tags: list[str] = Field(min_length=2, max_length=3)
    kind: str = Field(min_length=10, max_length=12)
    root: Leaf
    either: int | str
    pair: tuple[int, bool]


SCHEMAS = [
    Order.model_json_schema(),
    Leaf.model_json_schema(),
    {"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": {"const": None}}, "required": ["a", "b"]},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 3, "uniqueItems": True},
    {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"type": "integer"}}}]},
    {"type": ["null", "string"], "format": "date-time"},
    {"type": "string", "pattern": "^(GET|POST) /[^/ ]+\\.[a-z]{2}$"},
    {"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6},
    {"type": "number", "maximum": -3},
    {"$defs": {"n": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
                     "required": ["next"]}}, "$ref": "#/$defs/n"},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:40])
def test_an_instance_is_of_its_schema(schema):
    jsonschema.Draft202012Validator(schema).validate(instance(schema))


def test_a_client_parses_what_the_simulator_makes(client: OpenAI):
    parsed = client.chat.completions.parse(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "An order, please."}], response_format=Order
    )
    assert isinstance(parsed.choices[0].message.parsed, Order)
    assert parsed.model == "gpt-4o-mini-2024-07-18"
