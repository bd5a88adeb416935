"""Rewards of reinforcement: who failed decides whether there is one."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from ftbridge.errors import GateNotMet
from ftbridge.graders.budget import JudgeBudget
from ftbridge.graders.calls import CallRecord
from ftbridge.graders.chat import JudgeResponse
from ftbridge.graders.python import PythonPolicy
from ftbridge.graders.rewards import Reward, lowest, reward, share
from ftbridge.prices import Rates, load_prices
from ftbridge.spec.graders import Grader

ITEM = {"reference": "blue"}
EXACT = {"type": "string_check", "name": "exact", "operation": "eq", "input": "{{sample.output_text}}",
         "reference": "{{item.reference}}"}  # fmt: skip
JSON = {**EXACT, "name": "colour", "input": "{{sample.output_json.colour}}"}


def python(source: str) -> dict[str, str]:
    return {"type": "python", "name": "own", "source": f"def grade(sample, item):\n    {source}\n"}


def multi(formula: str, **graders: Any) -> dict[str, Any]:
    return {"type": "multi", "name": "both", "graders": graders, "calculate_output": formula}


def of(document: dict[str, Any], text: str = "blue") -> Reward:
    grader = TypeAdapter(Grader).validate_python(document)
    return reward(grader, ITEM, {"output_text": text}, policy=PythonPolicy(allow=frozenset({"own"}), seconds=2))


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A judge: `judge(result, status)` gives a score_model grader of range 1 to 5 that replies so."""
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    judge_reply: dict[str, Any] = {"status": 200, "content": ""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"choices": [{"message": {"content": judge_reply["content"]}, "finish_reason": "stop"}]})
            self.send_response(judge_reply["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()

    def grader(content: str, status: int = 200) -> dict[str, Any]:
        judge_reply.update(status=status, content=content)
        return {"type": "score_model", "name": "judge", "model": "m", "range": [1.0, 5.0],
                "base_url": f"http://127.0.0.1:{server.server_address[1]}/v1",
                "input": [{"role": "user", "content": "{{sample.output_text}}"}]}  # fmt: skip

    yield grader
    server.shutdown()
    server.server_close()


def test_a_completion_earns_what_the_grader_says_on_the_graders_own_scale(judge: Any) -> None:
    assert (of(EXACT).value, of(EXACT, "red").value) == (1.0, 0.0)
    document = judge('{"steps": [], "result": 4}')
    assert of(document).value == 4.0
    grader = TypeAdapter(Grader).validate_python(document)
    assert (lowest(grader), share(grader, 4.0)) == (1.0, 0.75)


@pytest.mark.parametrize(
    ("text", "error"), [("no JSON", "sample_parse_error"), ('{"shape": 1}', "invalid_variable_error")]
)
def test_a_faulty_completion_earns_the_lowest_value(text: str, error: str) -> None:
    result = of(JSON, text)
    assert result.value == 0.0
    assert error in result.errors


@pytest.mark.parametrize(("content", "status", "error"), [
    ("", 500, "model_grader_server_error"), ("I would say rather good", 200, "model_grader_parse_error"),
    ("slow down", 429, "model_grader_server_error"),
])  # fmt: skip
def test_a_judge_that_fails_gives_no_reward_and_may_be_asked_again(
    judge: Any, content: str, status: int, error: str
) -> None:
    result = of(judge(content, status))
    assert result.value is None
    assert list(result.errors) == [error]
    assert result.is_worth_another_try


@pytest.mark.parametrize(("source", "error"), [
    ("raise ValueError('no')", "python_grader_runtime_error"), ("return float('nan')", "python_grader_runtime_error"),
    ("return 'good'", "python_grader_runtime_error"), ("while True: pass", "unresponsive_reward_error"),
])  # fmt: skip
def test_python_source_that_fails_gives_no_reward(source: str, error: str) -> None:
    result = of(python(source))
    assert (result.value, list(result.errors)) == (None, [error])
    assert result.is_worth_another_try == (error != "python_grader_runtime_error")


def test_a_multi_grader_has_no_reward_when_a_part_has_none_and_the_part_is_named(judge: Any) -> None:
    result = of(multi("exact + quality", exact=EXACT, quality=judge("", 500)))
    assert result.value is None
    assert result.parts == {"exact": 1.0}
    assert result.errors["model_grader_server_error"].startswith("quality: ")


def test_a_faulty_completion_costs_a_multi_grader_the_parts_lowest_value() -> None:
    result = of(multi("0.5 * exact + 0.5 * colour", exact=EXACT, colour=JSON))
    assert result.value == 0.5
    assert result.parts == {"exact": 1.0, "colour": 0.0}


def test_a_formula_without_a_result_gives_no_reward() -> None:
    assert of(multi("1 / exact", exact=EXACT), "red").value is None


def test_questions_that_are_asked_together_or_not_at_all_are_held_before_the_first() -> None:
    model = "gpt-4.1-mini-2025-04-14"
    rates = load_prices().judge_rates(model, None)
    assert isinstance(rates, Rates)
    reply = JudgeResponse(text="x", prompt_tokens=1000, completion_tokens=1000)
    each = (rates.input + rates.output) / 1000
    record = CallRecord(question="q", model=model, endpoint="https://api.openai.com/v1", reply=reply)
    meter = JudgeBudget(each * 10.5, on_used_up=GateNotMet, earlier=[record] * 4)
    meter.hold(6)
    with pytest.raises(GateNotMet, match="7 more requests"):
        meter.hold(7)
    JudgeBudget(each, on_used_up=GateNotMet).hold(1000)  # nothing is known of what they cost
