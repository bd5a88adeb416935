"""A judge over HTTP at an address that is priced, for tests of what rewards cost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.2"
"""Another host, as far as prices go: judges on 127.0.0.1 cost nothing."""


class Judge:
    """A judge over HTTP. `reply_to(question)` gives the reply's text and status, `usage(body)` the tokens that it says it
    read and wrote; `seconds` is how long it takes.
    """

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.reply_to: Any = lambda text: (json.dumps({"steps": [], "result": 1 + len(text) % 3}), 200)
        self.usage: Callable[[dict[str, Any]], tuple[int, int]] = lambda _: (1000, 1000)
        self.seconds = 0.0
        self.busy = self.most = 0
        self._lock = threading.Lock()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                request = body["messages"][-1]["content"]
                with judge._lock:
                    judge.questions.append(request)
                    judge.busy += 1
                    judge.most = max(judge.most, judge.busy)
                time.sleep(judge.seconds)
                with judge._lock:
                    judge.busy -= 1
                text, status = judge.reply_to(request)
                read, wrote = judge.usage(body)
                reply = {"model": "gpt-4.1-mini-2025-04-14", "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
                         "usage": {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}}  # fmt: skip
                content = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        threading.Thread(target=lambda: self.server.serve_forever(poll_interval=0.02), daemon=True).start()

    @property
    def grader(self) -> dict[str, Any]:
        return {
            "type": "score_model", "name": "quality", "model": "gpt-4.1-mini-2025-04-14", "range": [1.0, 3.0],
            "base_url": f"http://{HOST}:{self.server.server_address[1]}/v1",
            "input": [{"role": "user", "content": "{{sample.output_text}}"}],
        }  # fmt: skip
