"""Downloads that go on where they broke off, and what hf:// addresses name; over real HTTP on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ftbridge.data.reading.sources import find_files, opened
from ftbridge.errors import FtbridgeError, UsageError


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")


CONTENT = b"".join(b'{"number": %d}\n' % number for number in range(60_000))


class _Server(ThreadingHTTPServer):
    """Serves `content` under every path, cut as `cuts` says, one for each request; and a dataset's list of files."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content, self.cuts, self.ranges, self.headers = CONTENT, [], [], {"ETag": '"one"'}
        self.statuses, self.siblings, self.paths = [], [], []
        self.after_first = lambda: None

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.paths.append(self.path)
        if self.path.startswith("/api/"):
            files = [{"rfilename": name} for name in server.siblings]
            self._say(200, {}, json.dumps({"siblings": files}).encode())
            return
        server.ranges.append(self.headers.get("Range"))
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            self._say(status, {}, b"")
            return
        start = 0
        names = self.headers.get("If-Range") in server.headers.values()
        if (response := self.headers.get("Range")) and names:
            start = int(response.removeprefix("bytes=").removesuffix("-"))
        complete = server.content
        headers = dict(server.headers)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(complete) - 1}/{len(complete)}"
        cut = server.cuts.pop(0) if server.cuts else len(complete)
        self._say(206 if start else 200, headers, complete[start:cut], len(complete) - start)
        server.after_first()

    def _say(self, status, headers, body, length=None):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with _Server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def _fetched(source, base):
    content = []
    for file in find_files([source], base):
        with opened(file) as stream:
            content.append(stream.read())
    return content


@pytest.mark.parametrize(
    "headers", [{"ETag": '"one"'}, {"Last-Modified": "Mon, 23 Nov 2026 10:00:00 GMT", "ETag": 'W/"weak"'}]
)
def test_a_cut_download_asks_only_for_what_is_missing(server, tmp_path, headers):
    server.headers, server.cuts = headers, [300_000, 600_000]
    assert _fetched(f"{server.address}/t.jsonl", tmp_path) == [CONTENT]
    assert server.ranges[0] is None
    assert [int(request[6:-1]) for request in server.ranges[1:]] == [300_000, 600_000]


def test_a_file_that_cannot_be_recognised_again_is_fetched_whole(server, tmp_path):
    server.headers, server.cuts = {"ETag": 'W/"weak"'}, [300_000]
    assert _fetched(f"{server.address}/t.jsonl", tmp_path) == [CONTENT]
    assert server.ranges == [None, None]


def test_a_file_that_changes_in_between_is_fetched_whole(server, tmp_path):
    server.cuts = [300_000]

    def change():
        server.content, server.headers = CONTENT[::-1], {"ETag": '"two"'}

    server.after_first = change
    assert _fetched(f"{server.address}/t.jsonl", tmp_path) == [CONTENT[::-1]]
    assert server.ranges[1] == "bytes=300000-"


def test_a_range_that_is_no_longer_there_is_fetched_whole(server, tmp_path):
    server.cuts, server.statuses = [300_000], [200, 416]
    assert _fetched(f"{server.address}/t.jsonl", tmp_path) == [CONTENT]
    assert server.ranges == [None, "bytes=300000-", None]


def test_tries_that_bring_something_are_not_counted(server, tmp_path):
    server.cuts = [100_000, 200_000, 300_000, 400_000, 500_000]
    assert _fetched(f"{server.address}/t.jsonl", tmp_path) == [CONTENT]
    assert len(server.ranges) == 6


def test_a_dataset_with_one_data_file_needs_no_file_name(server, tmp_path):
    server.siblings = ["README.md", ".gitattributes", "dataset_infos.json", "data/train.jsonl.gz"]
    (file,) = find_files(["hf://datasets/own/set@v1"], tmp_path)
    assert file.label == "hf://datasets/own/set/data/train.jsonl.gz@v1"
    assert file.location == f"{server.address}/datasets/own/set/resolve/v1/data/train.jsonl.gz"
    assert server.paths == ["/api/datasets/own/set/revision/v1"]


def test_a_dataset_with_several_data_files_lists_them_and_takes_a_pattern(server, tmp_path):
    server.siblings = ["data/train-0.parquet", "data/test-0.parquet", "data/train-1.parquet", "README.md"]
    with pytest.raises(UsageError, match="has 3 data files:\n  hf://datasets/own/set/data/test-0.parquet"):
        find_files(["hf://datasets/own/set"], tmp_path)
    matches = [file.label for file in find_files(["hf://datasets/own/set/data/train-*.parquet"], tmp_path)]
    assert matches == [f"hf://datasets/own/set/data/train-{number}.parquet" for number in (0, 1)]


@pytest.mark.parametrize(
    ("siblings", "source", "says"),
    [
        (["README.md"], "hf://datasets/own/set", "has no data file of a known format.\nIt holds README.md."),
        ([], "hf://datasets/own/set", "It contains no file."),
        (["a.csv"], "hf://datasets/own/set/*.jsonl", "no file matches.\nIt holds a.csv."),
    ],
)
def test_a_dataset_without_data_says_what_it_holds(server, tmp_path, siblings, source, says):
    server.siblings = siblings
    with pytest.raises(UsageError) as caught:
        find_files([source], tmp_path)
    assert says in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_given_up_after_three_tries(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FtbridgeError, match="in 3 tries") as caught:
        find_files(["hf://datasets/own/set"], tmp_path)
    assert caught.value.exit_code == 1
