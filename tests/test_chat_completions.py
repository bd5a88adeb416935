"""Chat completions over HTTP: how a reply is read, and what happens to parameters that a model objects to."""

import pytest

from ftbridge.chat_completions import NotAChatCompletion, Objections, read_reply
from ftbridge.redaction import remember


def _reply(message, **document):
    return read_reply({"choices": [{"message": message, "finish_reason": "stop"}], **document})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hello", "hello"),
        ("", ""),
        (None, None),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"}], "b"),
        ("half \ud83d", "half \ufffd"),
    ],
)
def test_the_text_of_a_reply_is_its_content_in_any_form(content, text):
    assert _reply({"content": content}).text == text


def test_a_key_in_use_that_a_service_repeats_is_taken_out():
    remember("sk-repeated-0123456789abcdef")
    assert "repeated" not in _reply({"content": "your key is sk-repeated-0123456789abcdef"}).text


@pytest.mark.parametrize(
    "message",
    [
        {"content": "4", "reasoning_content": " two and two "},
        {"content": "4", "reasoning": "two and two"},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "two and two"}]},
                {"type": "text", "text": "4"},
            ]
        },
    ],
)
def test_reasoning_is_read_wherever_a_service_puts_it_and_is_never_text(message):
    reply = _reply(message)
    assert (reply.text, reply.reasoning) == ("4", "two and two")


def test_tool_calls_are_read_in_both_forms_and_named_where_they_have_no_id():
    reply = _reply(
        {
            "content": None,
            "tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": "{}"}},
                {"function": {"name": "g", "arguments": {"x": 1}}},
            ],
            "function_call": {"name": "h", "arguments": None},
        }
    )
    assert [(call["id"], *call["function"].values()) for call in reply.tool_calls] == [
        ("a", "f", "{}"),
        ("call_1", "g", '{"x": 1}'),
        ("call_2", "h", ""),
    ]


def test_tokens_are_counted_as_the_service_says_and_unknown_where_it_says_nonsense():
    reply = _reply({"content": "a"}, usage={"prompt_tokens": 3, "completion_tokens": 4})
    assert (reply.prompt_tokens, reply.completion_tokens, reply.total_tokens) == (3, 4, 7)
    reply = _reply({"content": "a"}, usage={"prompt_tokens": True, "completion_tokens": "4", "total_tokens": -1})
    assert (reply.prompt_tokens, reply.completion_tokens, reply.total_tokens) == (None, None, None)


@pytest.mark.parametrize(
    "document", [None, [], "page", {}, {"choices": []}, {"choices": "no"}, {"choices": [{}]}, {"choices": [None]}]
)
def test_a_document_without_a_completion_is_none(document):
    with pytest.raises(NotAChatCompletion):
        read_reply(document)


class _Refused(Exception):
    """A model's objection to a parameter."""


class _Model:
    """A model that refuses some parameters, and keeps the bodies that it was sent."""

    def __init__(self, *refuses):
        self.refuses, self.bodies = refuses, []

    def __call__(self, body):
        self.bodies.append(body)
        for name in self.refuses:
            if name in body:
                raise _Refused(name)
        return body


def _param(error):
    return str(error) if isinstance(error, _Refused) else None


def test_a_parameter_that_the_model_objects_to_is_dropped_and_never_sent_again():
    model, objections = _Model("temperature"), Objections()
    for _ in range(2):
        assert objections.send({"temperature": 0, "seed": 1}, model, _param) == {"seed": 1}
    assert ["temperature" in body for body in model.bodies] == [True, False, False]


@pytest.mark.parametrize(
    ("accepted", "other"), [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")]
)
def test_the_limit_on_tokens_is_sent_under_the_name_that_the_model_takes(accepted, other):
    assert Objections().send({other: 9}, _Model(other), _param) == {accepted: 9}


def test_a_model_that_takes_neither_name_of_the_limit_is_not_asked_for_ever():
    model = _Model("max_tokens", "max_completion_tokens")
    with pytest.raises(_Refused):
        Objections().send({"max_tokens": 9}, model, _param)
    assert len(model.bodies) == 2


def test_a_parameter_that_makes_another_question_is_not_dropped():
    with pytest.raises(_Refused):
        Objections().send({"tools": []}, _Model("tools"), _param)


def test_a_parameter_takes_the_one_along_that_means_nothing_without_it():
    objections = Objections(frozenset({"logprobs"}))
    assert objections.send({"logprobs": True, "top_logprobs": 5}, _Model("logprobs"), _param) == {}


def test_an_error_about_no_parameter_is_raised():
    def broken(body):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        Objections().send({"temperature": 0}, broken, _param)
