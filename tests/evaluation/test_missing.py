"""A failure is not a wrong answer: what a grader, judge or endpoint failed on is left out, told, and above a tenth decides nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ftbridge.data.examples import Message
from ftbridge.evaluation.document import Evaluation
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import Item
from ftbridge.evaluation.score import judge
from ftbridge.evaluation.verdict import compare_paired
from ftbridge.evaluation.wording import sentence
from ftbridge.report.terminal.comparison import fails
from ftbridge.spec.graders import JsonSchemaGrader, LabelModelGrader, MultiGrader, PairwiseGrader, ScoreModelGrader

ASKED = [{"role": "user", "content": "{{sample.output_text}}"}]


@pytest.fixture
def judge_url() -> Iterator[str]:
    """A judge that gives 0.75, the label a and the place tie, and fails where the answer names a failure."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["content-length"])).decode()
            status, text, refusal = 200, '{"result": 0.75}', None
            if '"enum"' in request:
                text = '{"result": "tie"}' if '"tie"' in request else '{"result": "a"}'
            if "FAILS" in request:
                how = request.split("FAILS-")[1].split()[0].strip('"}],\\<')
                status = int(how) if how.isdecimal() else 200
                text = {"unreadable": "I like it", "cut": '{"steps": [{"result": 1'}.get(how, text)
                refusal = "I cannot" if how == "refusal" else None
            message = {"role": "assistant", "content": None if refusal else text, "refusal": refusal}
            body = json.dumps({"model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": message}]})
            self.send_response(status)
            self.send_header("retry-after", "0")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def items_of(count: int) -> list[Item]:
    return [
        Item(key=f"k{n}", index=n, prompt=(Message(role="user", content=f"q{n}"),), tools=(), fields={"reference": "r"})
        for n in range(count)
    ]


def predictions_of(items: list[Item], fails: int, how: str, error: str | None = None) -> list[Prediction]:
    return [
        Prediction(
            key=item.key, index=item.index, prompt_sha256="x", finish_reason="stop", prompt_tokens=1,
            completion_tokens=1, error=error if item.index < fails else None,
            output_text=f"FAILS-{how} " if item.index < fails and error is None else f"answer {item.index}",
        )
        for item in items
    ]  # fmt: skip


def graders(url: str) -> dict[str, Any]:
    score = ScoreModelGrader.model_validate(
        {"type": "score_model", "name": "g", "model": "m", "base_url": url, "input": ASKED}
    )
    return {
        "score_model": score,
        "label_model": LabelModelGrader.model_validate(
            {
                "type": "label_model",
                "name": "g",
                "model": "m",
                "base_url": url,
                "labels": ["a", "b"],
                "passing_labels": ["a"],
                "input": ASKED,
            }
        ),
        "pairwise": PairwiseGrader.model_validate(
            {"type": "pairwise", "name": "g", "model": "m", "base_url": url, "question": "which?"}
        ),
        "multi": MultiGrader.model_validate(
            {"type": "multi", "name": "g", "graders": {"a": score.model_dump()}, "calculate_output": "a"}
        ),
    }


def evaluated(grader: Any, tuned: list[Prediction], items: list[Item]) -> Evaluation:
    return judge(items, {"base": predictions_of(items, 0, ""), "tuned": tuned}, [grader], margin=0.02)


@pytest.mark.parametrize("how", ["500", "401", "refusal", "unreadable", "cut"])
@pytest.mark.parametrize("kind", ["score_model", "label_model", "pairwise", "multi"])
def test_an_outage_of_the_judge_is_no_verdict(judge_url: str, kind: str, how: str) -> None:
    items = items_of(20)
    result = evaluated(graders(judge_url)[kind], predictions_of(items, 8, how), items)
    verdict = result.verdicts["tuned-base"]["g"]
    assert (verdict.verdict, verdict.missing, verdict.n, verdict.margin_met) == ("undetermined", 8, 12, False)
    assert (result.candidates["tuned"]["g"].n, result.candidates["base"]["g"].n) == (12, 20)
    assert result.paired["tuned-base"]["g"].n == 12
    assert any("8 of 20 items have no score by g" in note for note in result.notes)
    assert "could not be determined" in sentence("g", verdict)
    assert fails(verdict)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_few_failures_are_left_out_of_both_sides(judge_url: str, fails_at: int) -> None:
    items = items_of(20)
    result = evaluated(graders(judge_url)["score_model"], predictions_of(items, fails_at, "500"), items)
    verdict = result.verdicts["tuned-base"]["g"]
    assert (verdict.difference, verdict.n, verdict.missing) == (0.0, 20 - fails_at, fails_at)
    assert verdict.verdict not in ("worse", "better", "undetermined")
    assert result.candidates["tuned"]["g"].mean == 0.75


def test_an_endpoint_that_failed_for_half_of_the_answers_is_no_verdict(judge_url: str) -> None:
    items = items_of(20)
    result = evaluated(graders(judge_url)["score_model"], predictions_of(items, 10, "", error="503: overloaded"), items)
    assert result.verdicts["tuned-base"]["g"].verdict == "undetermined"


def test_nothing_scored_at_all_is_no_verdict_and_no_crash(judge_url: str) -> None:
    items = items_of(5)
    result = evaluated(graders(judge_url)["score_model"], predictions_of(items, 5, "500"), items)
    assert result.verdicts["tuned-base"]["g"].verdict == "undetermined"
    assert (result.candidates["tuned"]["g"].n, result.candidates["tuned"]["g"].ci95) == (0, (0.0, 1.0))


def test_what_the_model_itself_did_wrong_still_scores() -> None:
    items = items_of(20)
    grader = JsonSchemaGrader(type="json_schema", name="g", json_schema={"type": "object"})
    base = [one.model_copy(update={"output_text": "{}"}) for one in predictions_of(items, 0, "")]
    result = judge(items, {"base": base, "tuned": predictions_of(items, 0, "")}, [grader], margin=0.02)
    verdict = result.verdicts["tuned-base"]["g"]
    assert (verdict.verdict, verdict.missing) == ("worse", 0)


def test_one_grader_without_a_verdict_does_not_weigh_on_the_others() -> None:
    base = {"a": [0.0] * 10, "b": [0.0] * 10}
    alone = compare_paired({"a": base["a"]}, {"a": [1.0] * 10})
    both = compare_paired(base, {"a": [1.0] * 10, "b": [None] * 5 + [1.0] * 5})
    assert both["a"] == alone["a"]
    assert both["b"].verdict == "undetermined"
