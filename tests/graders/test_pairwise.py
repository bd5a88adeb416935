"""The pairwise judge, asked in both orders over real HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ftbridge.errors import FtbridgeError
from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.items import load_items
from ftbridge.evaluation.score import judge
from ftbridge.graders import check, grade, judges_of, variables
from ftbridge.spec.graders import PairwiseGrader


@pytest.fixture
def judging():
    """An endpoint whose verdict is made of the two answers by a function that a test sets."""
    requests = []
    verdict = {"of": lambda first, second: "tie"}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(body)
            text = body["messages"][-1]["content"]
            first, second = (text.split(f"<answer_{n}>\n")[1].split(f"\n</answer_{n}>")[0] for n in (1, 2))
            message = verdict["of"](first, second)
            reply = {"steps": [], "result": message} if isinstance(message, str) else message
            by_name = {"model": "j", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(reply)}}], "usage": {"total_tokens": 9}}  # fmt: skip
            content = json.dumps(by_name).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    class Judging:
        def __init__(self):
            self.requests_seen = requests
            self.grader = PairwiseGrader(
                type="pairwise", name="which", model="j", question="Asked: {{item.question}} Shorter is better.",
                base_url=f"http://127.0.0.1:{server.server_port}/v1",
            )  # fmt: skip

        def says(self, of):
            verdict["of"] = of

    yield Judging()
    server.shutdown()
    server.server_close()


ITEM = {"question": "Capital of France?", "reference": "Paris, of course."}
SAMPLE = {"output_text": "Paris."}


def shorter(first, second):
    return "tie" if len(first) == len(second) else "1" if len(first) < len(second) else "2"


def test_the_better_answer_wins_in_both_orders(judging):
    judging.says(shorter)
    won = grade(judging.grader, ITEM, SAMPLE)
    assert (won.reward, won.errors) == (1.0, {})
    assert won.metadata.details == {"in_order": "1", "in_reverse": "2", "consistent": True}
    assert len(won.metadata.calls) == 2
    assert "Capital of France?" in judging.requests_seen[0]["messages"][-1]["content"]
    lost = grade(judging.grader, ITEM, {"output_text": "The capital of France is Paris, as everybody knows."})
    assert lost.reward == 0.0
    assert grade(judging.grader, ITEM, {"output_text": "Paris, of course!"}).reward == 0.5


@pytest.mark.parametrize("position", ["1", "2"])
def test_a_judge_that_goes_by_the_place_decides_nothing(judging, position):
    judging.says(lambda first, second: position)
    result = grade(judging.grader, ITEM, SAMPLE)
    assert result.reward == 0.5
    assert result.metadata.details["consistent"] is False


def test_nonsense_in_either_order_is_an_error(judging):
    replies = iter(["1", "both", "first"])
    judging.says(lambda first, second: next(replies))
    result = grade(judging.grader, ITEM, SAMPLE)
    assert result.reward == 0.0
    assert "model_grader_parse_error" in result.errors
    assert len(result.metadata.calls) == 2


def test_how_often_the_order_changed_the_verdict_is_told(judging, tmp_path):
    judging.says(lambda first, second: "1")
    chats = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": str(n)}] for n in range(4)]
    lines = [json.dumps({"messages": chat, "question": "?"}) + "\n" for chat in chats]
    (tmp_path / "t.jsonl").write_text("".join(lines))
    items = load_items(tmp_path / "t.jsonl")
    messages = [
        Prediction(key=i.key, index=i.index, prompt_sha256="", output_text="x", finish_reason="stop", prompt_tokens=1, completion_tokens=1)
        for i in items
    ]  # fmt: skip
    evaluation = judge(items, {"base": messages}, [judging.grader])
    assert evaluation.candidates["base"]["which"].mean == 0.5
    assert any("4 of 4 verdicts of which changed with the order" in note for note in evaluation.notes)


def test_its_templates_are_checked_like_others(judging):
    assert variables(judging.grader) == {"item.question", "item.reference", "sample.output_text"}
    assert judges_of([judging.grader]) == [judging.grader]
    with pytest.raises(FtbridgeError, match="question"):
        check(judging.grader, {"reference": "x"})


def test_after_preference_tuning_the_judge_also_compares_tuned_with_base_and_at_equal_length(
    judging, tmp_path, monkeypatch
):
    from ftbridge.evaluation.preference import _name
    from ftbridge.runner.evaluate import RunEvaluation
    from ftbridge.runner.start import create_run
    from ftbridge.spec import SpecFile

    def pair(n):
        return {
            "input": {"messages": [{"role": "user", "content": f"Is {n} odd?"}]},
            "preferred_output": [{"role": "assistant", "content": f"It is {n}."}],
            "non_preferred_output": [{"role": "assistant", "content": "Well, who can say?"}],
        }

    for name, first in (("train", 0), ("test", 50)):
        lines = "".join(json.dumps(pair(first + n)) + "\n" for n in range(12))
        (tmp_path / f"{name}.jsonl").write_text(lines)
    monkeypatch.chdir(tmp_path)
    grader = {**judging.grader.model_dump(exclude_none=True), "question": "{{item.reference}}"}
    spec = {
        "name": "odd", "method": "dpo", "model": {"local": "smollm2-135m-instruct"}, "evaluation": {"graders": [grader]},
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
    }  # fmt: skip
    run = create_run(SpecFile.of(spec), "local", lint=False, home=tmp_path / "home")
    items = load_items(run.data / "test.jsonl")
    nats = {"preferred": 9.0, "preferred_tokens": 4, "other": 9.0, "other_tokens": 4}
    for name, text in (("base", "a long one, which loses"), ("tuned", "short")):
        path = run.predictions(name)
        path.parent.mkdir(exist_ok=True)
        completions = [
            Prediction(
                key=item.key, index=item.index, prompt_sha256="", finish_reason="stop", prompt_tokens=3,
                output_text=f"{text} {item.index % 4}" + "!" * (item.index % 3), completion_tokens=5,
            )
            for item in items
        ]  # fmt: skip
        path.write_text("".join(one.model_dump_json() + "\n" for one in completions))
        rows = {item.key: {**nats, "preferred": 9.0 - (name == "tuned")} for item in items}
        path.with_suffix(".preference.json").write_text(json.dumps({"pairs": _name(items), "nats": rows}))
    judging.says(lambda first, second: "1" if len(first) < len(second) else "2" if len(second) < len(first) else "tie")
    result = RunEvaluation(run, run.resolved_spec(), NullWatcher(), lambda: None).judge()
    assert result is not None
    assert result.preference is not None
    assert (result.preference.wins["which"].mean, result.preference.wins["which"].n) == (1.0, 12)
    against = [
        body["messages"][-1]["content"]
        for body in judging.requests_seen
        if "which loses" in body["messages"][-1]["content"]
    ]
    assert any("<answer_1>\nshort" in text for text in against), "tuned first"
    assert any("<answer_2>\nshort" in text for text in against), "and second"
    again = len(judging.requests_seen)
    assert RunEvaluation(run, run.resolved_spec(), NullWatcher(), lambda: None).judge() == result
    assert len(judging.requests_seen) == again, "what was paid is not paid again"


class NullWatcher:
    """Hears nothing."""

    def __getattr__(self, name):
        return lambda *_, **__: None
