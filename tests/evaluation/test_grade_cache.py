"""Judges' replies are saved: a request that was answered is not sent again."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ftbridge.evaluation.generate import Prediction
from ftbridge.evaluation.grade_cache import read_grades, write_grades
from ftbridge.evaluation.items import load_items
from ftbridge.evaluation.score import judge
from ftbridge.spec.graders import ScoreModelGrader, StringCheckGrader


@pytest.fixture
def endpoint(monkeypatch):
    """A judge that gives 0.5, counts questions, and is down for answers that say so."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            question = self.rfile.read(int(self.headers["Content-Length"])).decode()
            requests.append(question)
            by_name = {"choices": [{"message": {"role": "assistant", "content": "0.5"}}], "model": "judge-1"}
            body = json.dumps(by_name).encode()
            self.send_response(400 if "refuse me" in question else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("FTBRIDGE_JUDGE_API_KEY", "sk-judge")
    yield f"http://127.0.0.1:{server.server_address[1]}/v1", requests
    server.shutdown()
    server.server_close()


def _items(path):
    lines = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
        for n in range(4)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_items(path)


def _answers(items, texts):
    return [
        Prediction(
            key=item.key, index=item.index, prompt_sha256="", output_text=text, finish_reason="stop",
            prompt_tokens=1, completion_tokens=1,
        )
        for item, text in zip(items, texts, strict=True)
    ]  # fmt: skip


def test_a_judge_is_asked_once_for_the_same_answer_and_again_for_another(endpoint, tmp_path):
    url, request = endpoint
    items = _items(tmp_path / "test.jsonl")
    quality = ScoreModelGrader(
        type="score_model", name="quality", model="judge", base_url=url,
        input=[{"role": "user", "content": "{{item.reference}}: {{sample.output_text}}"}],
    )  # fmt: skip
    exact = StringCheckGrader(
        type="string_check",
        name="exact",
        operation="eq",
        input="{{sample.output_text}}",
        reference="{{item.reference}}",
    )
    path = tmp_path / "grades.jsonl"

    def questions():  # a refusal may be about the response format: that one is asked again without it
        return sum("response_format" in body for body in request)

    def graded(texts):
        grades = read_grades([path])
        result = judge(items, {"base": _answers(items, texts)}, [quality, exact], grades=grades)
        write_grades(path, grades)
        return result.candidates["base"]

    first = graded(["a0", "x", "x", "refuse me"])
    assert (first["quality"].mean, first["quality"].n, first["quality"].missing) == (0.5, 3, 1)
    assert questions() == 4
    raw = [json.loads(line)["result"]["metadata"]["calls"][0] for line in path.read_text().splitlines()]
    assert [call["reply"] for call in raw] == ["0.5"] * 3
    again = graded(["a0", "x", "x", "refuse me"])
    assert again == first
    assert questions() == 5, "only the one that failed is asked again"
    assert graded(["a0", "x", "y", "z"])["quality"].mean == 0.5
    assert questions() == 7


def test_damaged_lines_and_missing_files_hold_no_grades(tmp_path):
    (tmp_path / "grades.jsonl").write_bytes(b'{"name": "x"}\n\xff\n[]\n')
    assert read_grades([tmp_path / "grades.jsonl", tmp_path / "none.jsonl"]) == {}
    write_grades(tmp_path / "empty.jsonl", {})
    assert not (tmp_path / "empty.jsonl").exists()
