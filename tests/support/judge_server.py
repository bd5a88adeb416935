"""A judge over real HTTP whose replies a function makes; shared by tests of panels and of calibration."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def judge_server(result_of: Callable[[dict[str, Any]], Any]) -> Iterator[str]:
    """The address of a judge that replies with {"result": result_of(body)}, and refuses (400) where that is None."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = result_of(body)
            message = {"role": "assistant", "content": json.dumps({"steps": [], "result": text})}
            by_name = {"model": body["model"], "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
            content = json.dumps(by_name if text is not None else {"error": {"message": "no"}}).encode()
            self.send_response(200 if text is not None else 403)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
