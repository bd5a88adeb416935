"""Instructor, in its modes of functions, JSON schemas and JSON."""

from collections.abc import Iterable

import instructor
from features import ASK, HELLO, MODEL, feature, report
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


def ask(mode, response_model=Person, **more):
    client = instructor.from_openai(OpenAI(max_retries=0), mode=mode)
    return client.chat.completions.create(
        model=MODEL, messages=ASK, response_model=response_model, max_retries=0, **more
    )


@feature
def chat():
    assert ask(instructor.Mode.TOOLS, response_model=None).choices[0].message.content == HELLO


@feature
def call_named():
    assert isinstance(ask(instructor.Mode.TOOLS), Person)


@feature
def call_strict():
    assert isinstance(ask(instructor.Mode.TOOLS_STRICT), Person)


@feature
def call_parallel():
    client = instructor.from_openai(OpenAI(max_retries=0), mode=instructor.Mode.PARALLEL_TOOLS)
    both = [{"role": "user", "content": "Name Ann and Bob."}]
    completion = client.chat.completions.create(
        model=MODEL, messages=both, response_model=Iterable[Person], max_retries=0
    )
    assert [person.name for person in completion] == ["Ann", "Bob"]


@feature
def call_streamed():
    client = instructor.from_openai(OpenAI(max_retries=0))
    *_, last = client.chat.completions.create_partial(model=MODEL, messages=ASK, response_model=Person, max_retries=0)
    assert last.name is not None


@feature
def schema():
    assert isinstance(ask(instructor.Mode.JSON_SCHEMA), Person)


@feature
def schema_streamed():
    client = instructor.from_openai(OpenAI(max_retries=0), mode=instructor.Mode.JSON_SCHEMA)
    *_, last = client.chat.completions.create_partial(model=MODEL, messages=ASK, response_model=Person, max_retries=0)
    assert last.name is not None


@feature
def schema_json_mode():
    class Text(BaseModel):
        text: str

    assert ask(instructor.Mode.JSON, response_model=Text).text


@feature
def responses_schema():
    client = instructor.from_openai(OpenAI(max_retries=0), mode=instructor.Mode.RESPONSES_TOOLS)
    assert isinstance(client.responses.create(model=MODEL, input=HELLO, response_model=Person, max_retries=0), Person)


@feature
async def asynchronous():
    client = instructor.from_openai(AsyncOpenAI(max_retries=0))
    completion = await client.chat.completions.create(model=MODEL, messages=ASK, response_model=Person, max_retries=0)
    assert isinstance(completion, Person)


report("instructor")
