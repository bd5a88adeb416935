"""score_model and label_model against a real endpoint on loopback that says what each test wants it to say."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ftbridge import http
from ftbridge.graders import Calls, GraderError, chat, check, grade, grade_all, openai_document
from ftbridge.graders.calls import Stopped, read_calls
from ftbridge.spec.graders import LabelModelGrader, ScoreModelGrader

ITEM, SAMPLE = {"reference": "Paris"}, {"output_text": "It is Paris."}


class Endpoint:
    """`replies` are taken in turn, the last again and again: a text, or (status, headers, body)."""

    def __init__(self):
        self.replies, self.requests = ["1"], []
        self.lock, self.together, self.most_together, self.gate = threading.Lock(), 0, 0, None

    def respond(self, body, headers):
        with self.lock:
            self.requests.append((json.loads(body), dict(headers)))
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            self.together += 1
            self.most_together = max(self.most_together, self.together)
        if self.gate:
            self.gate.wait(10)
        with self.lock:
            self.together -= 1
        return reply


def _completion(text, **message):
    return {
        "model": "judge-2026-01-01",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42},
    }


@pytest.fixture
def endpoint(monkeypatch):
    served = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/v1/chat/completions"
            reply = served.respond(self.rfile.read(int(self.headers["Content-Length"])), self.headers)
            status, headers, body = (200, {}, json.dumps(_completion(reply))) if isinstance(reply, str) else reply
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body.encode())), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    monkeypatch.setattr(chat, "_takes_shape", {})  # an earlier endpoint may have had this port
    monkeypatch.setattr(chat, "_given_up", set())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    monkeypatch.setenv("FTBRIDGE_JUDGE_API_KEY", "sk-judge")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    yield served
    server.shutdown()
    server.server_close()


def _score(endpoint, **more):
    document = {
        "type": "score_model",
        "name": "quality",
        "model": "judge",
        "base_url": endpoint.url,
        "input": [
            {"role": "system", "content": "Be fair."},
            {"role": "user", "content": ["Reference: {{item.reference}}\n", {"type": "input_text", "text": "Answer: {{sample.output_text}}"}]},
        ],
    }  # fmt: skip
    return ScoreModelGrader.model_validate({**document, **more})


def _label(endpoint, **more):
    document = {
        "type": "label_model",
        "name": "tone",
        "model": "judge",
        "base_url": endpoint.url,
        "labels": ["kind", "rude", "neutral"],
        "passing_labels": ["kind", "neutral"],
        "input": [{"role": "user", "content": "{{sample.output_text}}"}],
    }
    return LabelModelGrader.model_validate({**document, **more})


@pytest.mark.parametrize(
    ("reply", "reward"),
    [
        ('{"steps": [], "result": 0.75}', 0.75),
        ('{"steps": [{"description": "d", "conclusion": "c"}], "result": "0.5"}', 0.5),
        ("0.25", 0.25),
        (" 1\n", 1.0),
        ('```json\n{"result": 0.75}\n```', 0.75),
        ('<think>maybe {"result": 0.1}</think> {"steps": [{"x": {"y": 1}}], "result": 0.9}', 0.9),
        ('Sure {not json} {"result": 0}', 0.0),
    ],
)
def test_the_judges_number_is_the_reward(endpoint, reply, reward):
    endpoint.replies = [reply]
    result = grade(_score(endpoint), ITEM, SAMPLE)
    assert (result.reward, result.errors) == (reward, {})


@pytest.mark.parametrize(
    "reply",
    ["good", "", "{}", '{"result": "high"}', '{"result": NaN}', "nan", '{"result": true}', '{"result": null}', '{"result": [1]}', '{"score": 1, "label": 1}', '{"points": 1}', "I give 7", '{"result": 1e999}'],
)  # fmt: skip
def test_nonsense_scores_0_and_is_shown_as_an_error(endpoint, reply):
    endpoint.replies = [reply]
    result = grade(_score(endpoint, range=[1.0, 7.0], pass_threshold=0.0), ITEM, SAMPLE)
    assert (result.reward, result.passed) == (0, False)
    assert "is not a number" in result.errors["model_grader_parse_error"]
    assert result.metadata.calls[0].reply == reply


@pytest.mark.parametrize(
    ("number", "ends", "reward", "clipped"),
    [
        (1.5, [0.0, 1.0], 1.0, True),
        (-1, [0.0, 1.0], 0.0, True),
        (9, [1.0, 7.0], 7.0, True),
        (4, [1.0, 7.0], 4.0, False),
    ],
)
def test_a_score_outside_the_range_is_clipped_and_told(endpoint, number, ends, reward, clipped):
    endpoint.replies = [json.dumps({"result": number})]
    result = grade(_score(endpoint, range=ends), ITEM, SAMPLE)
    assert (result.reward, result.errors) == (reward, {})
    assert result.metadata.details == ({"clipped_from": number} if clipped else {})


def test_prompt_seed_and_raw_reply_are_kept(endpoint):
    endpoint.replies = ['{"steps": [], "result": 0.75}']
    result = grade(_score(endpoint, sampling_params={"seed": 7}), ITEM, SAMPLE)
    (call,) = result.metadata.calls
    sent, _ = endpoint.requests[0]
    assert call.messages == sent["messages"]
    assert call.messages[1] == {"role": "user", "content": "Reference: Paris\nAnswer: It is Paris."}
    assert (call.seed, call.reply, call.tokens) == (7, '{"steps": [], "result": 0.75}', 42)
    assert (call.model, call.sampled_model_name, call.endpoint) == ("judge", "judge-2026-01-01", endpoint.url)
    document = openai_document(result)
    assert document["metadata"]["token_usage"] == 42
    assert document["model_grader_token_usage_per_model"] == {"judge": 42}


def test_the_request_carries_sampling_and_shape(endpoint):
    sampling = {"seed": 7, "temperature": 0.0, "top_p": 0.5, "max_completions_tokens": 64, "reasoning_effort": "low"}
    grade(_score(endpoint, range=[1.0, 5.0], sampling_params=sampling), ITEM, SAMPLE)
    sent, headers = endpoint.requests[0]
    assert {key: sent[key] for key in ("model", "seed", "temperature", "top_p", "max_completion_tokens", "reasoning_effort")} == {
        "model": "judge", "seed": 7, "temperature": 0.0, "top_p": 0.5, "max_completion_tokens": 64, "reasoning_effort": "low",
    }  # fmt: skip
    assert sent["response_format"]["json_schema"]["schema"]["required"] == ["steps", "result"]
    assert sent["messages"][0]["role"] == "system"
    assert sent["messages"][0]["content"].startswith("Be fair.\n\nReply with one JSON object")
    assert "a number from 1 to 5" in sent["messages"][0]["content"]
    assert headers["Authorization"] == "Bearer sk-judge"


@pytest.mark.parametrize(
    ("reply", "reward", "label"),
    [
        ('{"steps": [], "result": "kind"}', 1, "kind"),
        ('{"result": "rude"}', 0, "rude"),
        ("neutral", 1, "neutral"),
        (" rude\n", 0, "rude"),
    ],
)
def test_a_label_passes_or_not(endpoint, reply, reward, label):
    endpoint.replies = [reply]
    result = grade(_label(endpoint), ITEM, SAMPLE)
    assert (result.reward, result.passed, result.errors) == (reward, reward == 1, {})
    assert result.metadata.details == {"label": label}
    sent, _ = endpoint.requests[0]
    assert '"kind", "rude", "neutral"' in sent["messages"][0]["content"]
    assert sent["response_format"]["json_schema"]["schema"]["properties"]["result"]["enum"] == [
        "kind",
        "rude",
        "neutral",
    ]


@pytest.mark.parametrize(
    "reply", ["Kind of", '{"result": "polite"}', '{"result": 1}', '{"result": ["kind"]}', "It is kind."]
)
def test_a_label_that_is_none_is_an_error(endpoint, reply):
    endpoint.replies = [reply]
    result = grade(_label(endpoint), ITEM, SAMPLE)
    assert result.reward == 0
    assert "is not one of the labels" in result.errors["model_grader_parse_error"]


def test_a_refusal_is_an_error_that_is_shown(endpoint):
    for body in (
        _completion(None, refusal="I cannot judge this."),
        {"choices": [{"finish_reason": "content_filter", "message": {"content": '{"result": 1}'}}]},
    ):
        endpoint.replies = [(200, {}, json.dumps(body))]
        result = grade(_score(endpoint), ITEM, SAMPLE)
        assert result.reward == 0
        assert list(result.errors) == ["model_grader_refusal_error"]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_passing_failure_is_tried_again(endpoint, status):
    endpoint.replies = [(status, {"Retry-After": "0"}, "busy")] * 3 + ["0.5"]
    assert grade(_score(endpoint), ITEM, SAMPLE).reward == 0.5
    assert len(endpoint.requests) == 4


def test_a_failure_that_stays_is_an_error_after_four_attempts(endpoint):
    endpoint.replies = [(503, {"Retry-After": "0"}, "overloaded")]
    result = grade(_score(endpoint), ITEM, SAMPLE)
    assert result.errors == {"model_grader_server_error": "HTTP 503: overloaded"}
    assert len(endpoint.requests) == 4
    assert result.metadata.calls[0].reply is None


@pytest.mark.parametrize(("status", "body"), [(401, "wrong key sk-judge"), (404, "no model judge"), (400, "too long")])
def test_a_request_that_is_refused_is_not_tried_again_and_shows_no_key(endpoint, status, body):
    endpoint.replies = [(status, {}, body)]
    result = grade(_score(endpoint), ITEM, SAMPLE)
    assert result.errors["model_grader_server_error"].startswith(f"HTTP {status}: {body[:8]}")
    assert "sk-judge" not in result.model_dump_json()
    assert len(endpoint.requests) == (2 if status == 400 else 1)  # 400 may be about the response format


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"choices": []}', '{"choices": [{"message": null}]}'])
def test_what_is_no_chat_completion_is_an_error(endpoint, body):
    endpoint.replies = [(200, {}, body)]
    assert "not a chat completion" in grade(_score(endpoint), ITEM, SAMPLE).errors["model_grader_server_error"]


@pytest.mark.slow
def test_an_endpoint_that_is_not_there_is_an_error_for_each_item(endpoint):
    result = grade(_score(endpoint, base_url="http://127.0.0.1:9/v1"), ITEM, SAMPLE)
    assert "http://127.0.0.1:9/v1 did not answer" in result.errors["model_grader_server_error"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, "response_format is not supported"),
        (400, "json_schema mode is not available for this model"),
        (422, '{"detail": [{"loc": ["body"], "msg": "extra fields not permitted"}]}'),
        (501, "grammar-constrained sampling: not implemented"),
        (500, "failed to parse grammar"),
    ],
)
def test_an_endpoint_without_response_format_is_asked_without_it(endpoint, status, body):
    endpoint.replies = [(status, {"Retry-After": "0"}, body)] * (4 if status >= 500 else 1) + ["0.5"]
    assert [grade(_score(endpoint), ITEM, {"output_text": text}).reward for text in "ab"] == [0.5, 0.5]
    assert ["response_format" in sent for sent, _ in endpoint.requests][-3:] == [True, False, False]


def test_an_endpoint_that_takes_the_response_format_is_not_asked_twice_for_another_refusal(endpoint):
    endpoint.replies = ["1", (400, {}, "the prompt was filtered")]
    assert [bool(grade(_score(endpoint), ITEM, {"output_text": text}).errors) for text in "ab"] == [False, True]
    assert len(endpoint.requests) == 2


def test_a_limit_by_the_minute_is_waited_out(endpoint, monkeypatch):
    waits = []
    monkeypatch.setattr(http, "sleep", waits.append)
    endpoint.replies = [(429, {}, "slow down")] * 11 + ["0.5"]
    assert grade(_score(endpoint), ITEM, SAMPLE).reward == 0.5
    assert sum(waits) > 150
    assert max(waits) <= 30


def test_an_address_that_was_given_up_is_tried_once_until_it_answers(endpoint):
    endpoint.replies = [(503, {"Retry-After": "0"}, "down")]
    assert [bool(grade(_score(endpoint), ITEM, {"output_text": text}).errors) for text in "abc"] == [True] * 3
    assert len(endpoint.requests) == 4 + 1 + 1
    endpoint.replies = ["1", (503, {"Retry-After": "0"}, "busy"), "1"]
    assert [grade(_score(endpoint), ITEM, {"output_text": text}).reward for text in "ab"] == [1, 1]


@pytest.mark.parametrize("kind", [_score, lambda at, **more: _label(at, **more)])
def test_how_long_a_reply_may_take_is_the_graders_to_say(endpoint, kind, monkeypatch):
    monkeypatch.setattr(chat, "ATTEMPTS", 1)
    endpoint.gate = threading.Event()
    result = grade(kind(endpoint, timeout_seconds=0.2), ITEM, SAMPLE)
    endpoint.gate.set()
    assert "did not answer" in result.errors["model_grader_server_error"]


def test_a_question_that_was_answered_is_not_asked_again_even_after_a_kill(endpoint, tmp_path):
    path = tmp_path / "calls.jsonl"
    endpoint.replies = ["0.5"]
    grade(_score(endpoint), ITEM, SAMPLE, calls=Calls(path))
    path.write_bytes(path.read_bytes() + b'{"question": "torn')
    pairs = [(ITEM, SAMPLE), (ITEM, {"output_text": "another"})]
    assert [result.reward for result in grade_all(_score(endpoint), pairs, calls=Calls(path))] == [0.5, 0.5]
    assert len(endpoint.requests) == 2
    assert [record.reply.tokens for record in read_calls(path)] == [42, 42]


@pytest.mark.parametrize("reply", ["what?", (200, {}, json.dumps(_completion(None, refusal="no")))])
def test_a_reply_that_cannot_be_read_was_paid_and_is_asked_anew_the_next_time(endpoint, tmp_path, reply):
    path = tmp_path / "calls.jsonl"
    endpoint.replies = [reply, "0.5"]
    first = grade(_score(endpoint), ITEM, SAMPLE, calls=Calls(path))
    assert first.is_missing
    second = grade(_score(endpoint), ITEM, SAMPLE, calls=Calls(path))
    third = grade(_score(endpoint), ITEM, SAMPLE, calls=Calls(path))
    assert (second.reward, third.reward, len(endpoint.requests)) == (0.5, 0.5, 2)
    assert sum(record.reply.tokens for record in read_calls(path) if record.reply) == 84


def test_a_reply_that_cannot_be_read_is_asked_anew_in_the_same_evaluation_only_on_demand(endpoint, tmp_path):
    path = tmp_path / "calls.jsonl"
    calls = Calls(path)
    endpoint.replies = ["what?", "who?", "0.5"]
    for _ in range(3):
        assert grade(_score(endpoint), ITEM, SAMPLE, calls=calls).is_missing
    assert len(endpoint.requests) == 1
    assert sum(record.unreadable is not None for record in read_calls(path)) == 1
    calls.ask_again()
    assert grade(_score(endpoint), ITEM, SAMPLE, calls=calls).is_missing
    calls.ask_again()
    assert grade(_score(endpoint), ITEM, SAMPLE, calls=calls).reward == 0.5
    calls.ask_again()
    assert grade(_score(endpoint), ITEM, SAMPLE, calls=Calls(path)).reward == 0.5
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("reply", "requests"), [("0.5", 1), ((400, {}, "no"), 2)]
)  # refused: once more without a shape
def test_the_same_question_at_the_same_moment_is_paid_once(endpoint, tmp_path, reply, requests):
    endpoint.replies, endpoint.gate = [reply], threading.Event()
    calls, results = Calls(tmp_path / "calls.jsonl"), []
    threads = [
        threading.Thread(
            target=lambda: results.append(grade(_score(endpoint), {**ITEM, "id": len(results)}, SAMPLE, calls=calls))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)  # all have asked
    endpoint.gate.set()
    for thread in threads:
        thread.join()
    assert len(endpoint.requests) == requests
    assert {(result.reward, result.is_missing) for result in results} == {
        (0.5, False) if reply == "0.5" else (0.0, True)
    }


def test_stopping_waits_for_what_a_judge_is_answering_and_asks_nothing_more(endpoint, tmp_path):
    path = tmp_path / "calls.jsonl"
    endpoint.replies, endpoint.gate = ["0.5"], threading.Event()
    calls = Calls(path)
    thread = threading.Thread(target=grade, args=(_score(endpoint), ITEM, SAMPLE), kwargs={"calls": calls})
    thread.start()
    while not endpoint.requests:
        time.sleep(0.01)
    threading.Timer(0.5, endpoint.gate.set).start()
    calls.stop()
    assert len(read_calls(path)) == 1
    with pytest.raises(Stopped):
        grade(_score(endpoint), ITEM, {"output_text": "another"}, calls=calls)
    thread.join()
    assert len(endpoint.requests) == 1


def test_stopping_waits_no_longer_than_a_reply_may_take_and_not_for_another_try(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "1")
    endpoint.replies, calls = [(503, {"Retry-After": "20"}, "busy")], Calls()
    threading.Thread(target=_ignoring_stop, args=(_score(endpoint), calls), daemon=True).start()
    while not endpoint.requests:
        time.sleep(0.01)
    time.sleep(0.2)
    began = time.monotonic()
    calls.stop()
    assert time.monotonic() - began < 10, "nothing was paid: it waits for another try"

    endpoint.replies, endpoint.gate, calls = ["0.5"], threading.Event(), Calls()
    threading.Thread(target=_ignoring_stop, args=(_score(endpoint, timeout_seconds=1), calls), daemon=True).start()
    while len(endpoint.requests) < 2:
        time.sleep(0.01)
    began = time.monotonic()
    calls.stop()
    endpoint.gate.set()
    assert 0.5 < time.monotonic() - began < 5


def _ignoring_stop(grader, calls):
    with contextlib.suppress(Stopped):
        grade(grader, ITEM, SAMPLE, calls=calls)


def test_a_reply_with_half_a_character_or_the_key_is_kept_without(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("FTBRIDGE_JUDGE_API_KEY", "sk-judge-0123456789abcdef")
    endpoint.replies = [(200, {}, json.dumps(_completion("1 \ud83d")).replace("1 ", "0.5 sk-judge-0123456789abcdef"))]
    path = tmp_path / "calls.jsonl"
    result = grade(_score(endpoint), ITEM, SAMPLE, calls=Calls(path))
    assert "sk-judge" not in path.read_text("utf-8") + result.model_dump_json()


def test_openais_key_goes_to_openais_address_only(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    grade(_score(endpoint, base_url=None), ITEM, SAMPLE)
    monkeypatch.delenv("FTBRIDGE_JUDGE_API_KEY")
    grade(_score(endpoint), ITEM, SAMPLE)
    assert [headers.get("Authorization") for _, headers in endpoint.requests] == ["Bearer sk-openai", None]


def test_a_judge_at_openai_without_a_key_is_told_before_anything_is_spent(endpoint, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(GraderError, match="OPENAI_API_KEY is not set"):
        check(_score(endpoint, base_url=None), ITEM)
    check(_score(endpoint), ITEM)


def test_some_items_may_fail_and_none_is_dropped(endpoint):
    endpoint.replies = ["1", (400, {}, "too long"), "what?", "0.5"]
    results = [grade(_score(endpoint), ITEM, SAMPLE) for _ in range(4)]
    assert [result.reward for result in results] == [1, 0, 0, 0.5]
    assert [list(result.errors) for result in results] == [
        [],
        ["model_grader_server_error"],
        ["model_grader_parse_error"],
        [],
    ]


def test_several_questions_are_under_way_at_once(endpoint):
    endpoint.gate = threading.Event()
    threading.Timer(0.5, endpoint.gate.set).start()
    results = grade_all(_score(endpoint), [(ITEM, SAMPLE)] * 12)
    assert [result.reward for result in results] == [1.0] * 12
    assert endpoint.most_together == 8


def test_letters_that_are_no_unicode_reach_the_judge_without_a_crash(endpoint):
    assert grade(_score(endpoint), ITEM, {"output_text": "a\ud800b"}).reward == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"range": [1.0, 0.0]}, "1 is not below 0"),
        ({"input": []}, "at least 1 item"),
        ({"base_url": "localhost:8000"}, "pattern"),
        ({"input": [{"role": "user", "content": {"type": "input_image", "image_url": "x"}}]}, "input_text"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_by_the_schema(endpoint, changes, says):
    with pytest.raises(ValueError, match=says):
        _score(endpoint, **changes)
    with pytest.raises(ValueError, match="not among them: polite"):
        _label(endpoint, passing_labels=["polite"])
