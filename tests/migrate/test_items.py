"""Which requests a model is recorded on, what that will cost, and which way is chosen; all before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ftbridge.chat_completions import Objections
from ftbridge.errors import UsageError
from ftbridge.migrate.account import RateLimit
from ftbridge.migrate.completing import OPTIONAL, body_of, samples_of
from ftbridge.migrate.forecast import forecast, spent_usd
from ftbridge.migrate.items import RecordedItem, choose, items_of
from ftbridge.migrate.objects import MigrationKey
from ftbridge.migrate.recording import RecordingRequest, Settings, Usage, requests_of
from ftbridge.migrate.stored import StoredCompletion
from ftbridge.prices import load_prices

MODEL = "ft:gpt-4o-2024-08-06:quay:desk:desk1"
USER = {"role": "user", "content": "Which lamp?"}
SETTINGS = Settings(model=MODEL, samples=3, temperature=0.7)
SOURCE = MigrationKey(id="s", variable="OPENAI_API_KEY")


def write(path: Path, *lines: Any) -> Path:
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return path


def item(text: str = "Which lamp?", **more: Any) -> RecordedItem:
    return RecordedItem(
        key=f"{abs(hash(text)):024x}"[:24],
        source="file",
        origin="f",
        request={"messages": [{**USER, "content": text}]},
        **more,
    )


class Objected(Exception):
    """What a model answers that does not take a parameter."""


def sent_without(body: dict[str, Any], parameter: str) -> dict[str, Any]:
    """The body that is sent at last to a model that objects to one parameter."""

    def send(changed: dict[str, Any]) -> dict[str, Any]:
        if parameter in changed:
            raise Objected
        return changed

    return Objections(OPTIONAL).send(body, send, lambda error: parameter)


@pytest.mark.parametrize(
    ("line", "messages", "expected", "fields"),
    [
        ({"messages": [USER, {"role": "assistant", "content": "red", "weight": 1}]}, [USER], "red", {}),
        (
            {
                "input": {"messages": [USER]},
                "preferred_output": [{"role": "assistant", "content": "red"}],
                "non_preferred_output": [],
            },
            [USER],
            "red",
            {},
        ),
        ({"messages": [USER], "answer": "red"}, [USER], None, {"answer": "red"}),
        (
            {"custom_id": "1", "method": "POST", "url": "/v1", "body": {"model": "x", "messages": [USER]}},
            [USER],
            None,
            {},
        ),
        (b"\xef\xbb\xbf" + json.dumps({"messages": [USER]}).encode(), [USER], None, {}),
    ],
    ids=["supervised", "preference", "reinforcement", "batch", "byte order mark"],
)
def test_every_kind_of_line_is_a_request(
    tmp_path: Path, line: Any, messages: list[Any], expected: str | None, fields: dict[str, Any]
) -> None:
    listing = list(items_of(write(tmp_path / "items.jsonl", line), "file"))
    assert [one.request["messages"] for one in listing] == [messages]
    assert (listing[0].expected or {}).get("content") == expected
    assert listing[0].fields == fields


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{not json", r"items.jsonl:2 is not valid JSON"),
        (b'{"text": 1}', r"items.jsonl:2 contains no messages"),
        (b"[]", "contains no messages"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = write(tmp_path / "items.jsonl", {"messages": [USER]}, line)
    with pytest.raises(UsageError, match=message):
        list(items_of(path, "file"))


def test_the_same_request_is_one_item_wherever_it_comes_from_and_other_tools_make_it_another(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look_up"}}
    lines = [{"messages": [USER, {"role": "assistant", "content": "red"}]}, {"tools": [tool], "messages": [USER]}]
    first, with_tools = items_of(write(tmp_path / "a.jsonl", *lines), "validation")
    stored = StoredCompletion(id="c1", source=SOURCE.id, messages=(USER,), request={"temperature": 0.2})
    chosen = choose(validation=tmp_path / "a.jsonl", stored=[stored])
    assert [one.key for one in chosen.items] == [first.key, with_tools.key]
    assert any("repeat an earlier prompt" in note for note in chosen.notes)


def test_training_lines_are_left_out_and_alone_they_are_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", {"messages": [USER, {"role": "assistant", "content": "red"}]})
    other = {"messages": [{**USER, "content": "Other?"}]}
    settings = write(tmp_path / "own.jsonl", {"messages": [USER]}, other)
    chosen = choose(validation=None, training=[train], file=settings)
    assert [one.request for one in chosen.items] == [other]
    with pytest.raises(UsageError, match="only training lines to record this model on"):
        choose(validation=train, training=[train])


def test_the_production_temperature_is_that_of_most_stored_requests() -> None:
    stored = [
        StoredCompletion(id=f"c{n}", source="s", messages=({**USER, "content": f"{n}"},), request={"temperature": t})
        for n, t in enumerate((0.2, 0.7, 0.7))
    ]
    assert choose(validation=None, stored=stored).temperature == 0.7
    assert choose(validation=None, stored=stored, limit=1).temperature == 0.2


def test_a_request_is_sent_as_clients_send_it_with_what_recording_adds() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    sent = item(temperature=0.3).model_copy(
        update={"request": {"messages": [USER], "response_format": schema, "max_tokens": 9}}
    )
    greedy = body_of(RecordingRequest(item=sent, samples=(0,)), SETTINGS, store=True)
    drawn = body_of(RecordingRequest(item=sent, samples=(1, 2, 3)), SETTINGS, store=False)
    assert (greedy["temperature"], greedy["logprobs"], greedy["top_logprobs"], greedy["store"]) == (0, True, 20, True)
    assert greedy["metadata"] == {"ftbridge_request": f"{sent.key}-0"}
    assert (drawn["temperature"], drawn["n"], drawn["response_format"], drawn["max_tokens"]) == (0.3, 3, schema, 9)
    assert "logprobs" not in drawn
    assert "top_logprobs" not in sent_without(greedy, "logprobs")
    with pytest.raises(Objected):  # that would be another question
        sent_without(greedy, "response_format")


def test_fewer_choices_than_asked_for_are_the_first_samples_and_the_rest_stays_missing() -> None:
    request = RecordingRequest(item=item(), samples=(1, 2, 3))
    document = {
        "choices": [{"index": 0, "message": {"content": "red"}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1},
    }
    samples, usage, _ = samples_of(request, document)
    assert [(sample.sample, sample.text) for sample in samples] == [(1, "red")]
    assert usage == Usage(read=5, written=1)
    recorded = {(sample.key, sample.sample): sample for sample in samples}
    left = requests_of([item()], SETTINGS.model_copy(update={"takes_n": False}), recorded)
    assert [one.samples for one in left] == [(0,), (2,), (3,)]


def test_calls_are_samples_and_empty_text_that_the_model_means_is_no_refusal() -> None:
    request = RecordingRequest(item=item(), samples=(0,))
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    for message, outcome in (
        ({"content": None, "tool_calls": [call]}, "completion"),
        ({"content": ""}, "completion"),
        ({"content": None}, "no_content"),
        ({"content": None, "refusal": "no"}, "refusal"),
    ):
        samples, _, _ = samples_of(request, {"choices": [{"message": message, "finish_reason": "stop"}]})
        assert samples[0].outcome == outcome, message


TIER = RateLimit(model="*", requests_per_minute=500, tokens_per_minute=30_000, batch_queue_tokens=50_000)
ROOMY = TIER.model_copy(update={"batch_queue_tokens": 100_000_000, "tokens_per_minute": 10_000_000})


@pytest.mark.parametrize(
    ("limit", "hours_left", "items", "way", "reason"),
    [
        (ROOMY, 2000.0, 4000, "batch", "half the price"),
        (ROOMY, 30.0, 4000, "live", "the model stops in 30 hours"),
        (ROOMY, None, 3, "live", "a batch would save"),
        (TIER, 2000.0, 4000, "live", "the queue holds so few tokens"),
        (ROOMY.model_copy(update={"requests_per_minute": 1}), 60.0, 4000, "batch", "live requests would take"),
        (None, 2000.0, 4000, "batch", "half the price"),
    ],
)
def test_the_way_is_chosen_by_time_left_price_and_queue(
    limit: RateLimit | None, hours_left: float | None, items: int, way: str, reason: str
) -> None:
    text = "lamp " * 60
    requests = [RecordingRequest(item=item(f"{text}{n}"), samples=(0,)) for n in range(items)]
    estimate = forecast(requests, MODEL, prices=load_prices(), limit=limit, hours_left=hours_left)
    assert (estimate.way, reason in estimate.reason) == (way, True), estimate.reason
    assert estimate.usd_batch == pytest.approx((estimate.usd_live or 0) / 2)
    assert estimate.limits_known == (limit is not None)


def test_what_was_spent_counts_batches_at_half_the_price() -> None:
    used = Usage(read=1_000_000, written=0)
    live, batch = (spent_usd([(used, way)], MODEL, load_prices()) for way in ("live", "batch"))
    assert live is not None
    assert batch == pytest.approx(live / 2)
    assert spent_usd([(used, "live")], "unheard-of", load_prices()) is None
