"""The python grader: what it may do, and that it cannot do anything else. Every case runs a real process."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftbridge.grader_schema import PythonGrader
from ftbridge.graders import GraderError, PythonPolicy, check, grade, grade_all, sandbox

pytestmark = pytest.mark.skipif(sandbox.missing() is not None, reason=f"this system lacks {sandbox.missing()}")

HEAD = "def grade(sample, item):\n    "


def _grader(body, name="mine", **more):
    source = body if "def grade" in body or "grade =" in body else HEAD + body
    return PythonGrader(type="python", name=name, source=source, **more)


def _policy(**limits):
    return PythonPolicy(allow=frozenset(["mine"]), **{"seconds": 20.0, **limits})


def _grade(body, *, item=None, output="text", **limits):
    return grade(_grader(body), item or {"x": 3}, {"output_text": output}, policy=_policy(**limits))


@pytest.mark.parametrize(
    ("body", "reward"),
    [
        ("return item['x'] / 4", 0.75),
        ("return sample['output_text'] == 'text'", 1.0),
        ("return len(sample['choices']) / 2", 0.5),
        ("import json, math, re\n    return math.floor(1.9)", 1.0),
        ("import numpy, rapidfuzz.fuzz\n    return numpy.float32(rapidfuzz.fuzz.ratio('a', 'a') / 200)", 0.5),
        ("open('notes', 'w').write('kept'); return float(open('notes').read() == 'kept')", 1.0),
        ("import threading\n    r = []\n    t = threading.Thread(target=r.append, args=(1,)); t.start(); t.join()\n    return len(r)", 1.0),
        ("grade = lambda sample, item: 0.25", 0.25),
        ("import os; return len([k for k in os.environ if 'KEY' in k or 'TOKEN' in k])", 0.0),
        ("return 7", 7.0),
    ],
)  # fmt: skip
def test_a_grader_computes_with_its_arguments_and_installed_packages(body, reward, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    result = _grade(body)
    assert (result.reward, result.errors) == (reward, {})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('no ' + item['y'])", "line 2: KeyError: 'y'"),
        ("return 1 / 0", "line 2: ZeroDivisionError"),
        ("return 'high'", "grade returned str, not a number"),
        ("pass", "grade returned NoneType, not a number"),
        ("return float('nan')", "grade returned nan, not a finite number"),
        ("return float('-inf')", "grade returned -inf, not a finite number"),
        ("return grade(sample, item)", "RecursionError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("grade = 3", "defines no function grade"),
    ],
)
def test_a_grader_that_fails_scores_0_and_says_where(body, says):
    result = _grade(body)
    assert result.reward == 0
    assert says in result.errors["python_grader_runtime_error"]


@pytest.mark.parametrize(
    "body", ["while True: pass", "import time; time.sleep(60)", "import re; re.match('(a+)+b', 'a' * 40)"]
)
def test_a_grader_that_loops_is_ended_in_time(body):
    began = time.monotonic()
    result = _grade(body, seconds=0.5)
    assert time.monotonic() - began < 5
    assert result.errors == {"unresponsive_reward_error": "grade did not return within 0.5 s"}


@pytest.mark.parametrize(
    "body",
    [
        "import os\n    while True: os.fork()",
        "import subprocess; subprocess.run(['ls'])",
        "import os; os.posix_spawn('/bin/ls', ['ls'], {})",
        "import os; os.execv('/bin/ls', ['ls'])",
        "import multiprocessing; p = multiprocessing.Process(target=print); p.start()",
        "import os; os.kill(os.getppid(), 9)",
        "import ctypes; c = ctypes.CDLL(None, use_errno=True); r = c.vfork(); raise OSError(ctypes.get_errno(), 'Operation not permitted')",
    ],
)  # fmt: skip
def test_a_grader_cannot_fork_or_reach_other_processes(body):
    result = _grade(body)
    assert "Operation not permitted" in result.errors["python_grader_runtime_error"]


@pytest.mark.parametrize(
    "body",
    [
        "x = []\n    while True: x.append(bytearray(10_000_000))",
        "return len(b'x' * 10**10)",
        "import mmap\n    x = []\n    while True: x.append(mmap.mmap(-1, 10**8)); x[-1].write(b'1' * 10**8)",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); return len(b'x' * 10**10)",
    ],
)  # fmt: skip
def test_a_grader_cannot_eat_memory(body):
    result = _grade(body, memory_bytes=500_000_000)
    assert any(says in result.errors["python_grader_runtime_error"] for says in ("MemoryError", "not allowed to raise"))


def test_memory_that_other_ways_give_is_closed_too():
    for call in ("os.memfd_create('x')", "__import__('mmap') and ctypes.CDLL(None).shmget(0, 4096, 0o600)"):
        result = _grade(f"import os, ctypes; return {call}")
        assert result.reward == -1 or "Operation not permitted" in result.errors["python_grader_runtime_error"]


@pytest.mark.parametrize(
    "body",
    [
        "return len(open('{secret}').read())",
        "import os; os.symlink('{secret}', 'link'); return len(open('link').read())",
        "import os; os.link('{secret}', 'link'); return len(open('link').read())",
        "import os; return len(os.listdir('{folder}'))",
        "import os; return len(open('/proc/%d/environ' % os.getppid(), 'rb').read())",
        "return len(open('/etc/passwd').read())",
        "open('{folder}/new', 'w'); return 1",
        "import os; os.unlink('{secret}'); return 1",
        "import os; os.truncate('{secret}', 0); return 1",
        "import os; os.rename('{secret}', 'mine'); return 1",
        "import os; os.mkdir('{folder}/new'); return 1",
    ],
)
def test_a_grader_cannot_touch_files_outside_its_folder(body, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("key")
    result = _grade(body.format(secret=secret, folder=tmp_path))
    told = result.errors["python_grader_runtime_error"]
    assert "PermissionError" in told or "Invalid cross-device link" in told
    assert secret.read_text() == "key"
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["secret"]


@pytest.mark.parametrize(
    "how",
    [
        "socket.create_connection(('127.0.0.1', {port}))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_UNIX)",
        "__import__('urllib.request').request.urlopen('http://127.0.0.1:{port}')",
    ],
)
def test_a_grader_has_no_network(how):
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = _grade(f"import socket; {how.format(port=server.getsockname()[1])}; return 1")
        assert "Operation not permitted" in result.errors["python_grader_runtime_error"]
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_huge_output_is_cut_and_harms_nobody():
    result = _grade("for _ in range(100): print('x' * 10**6)\n    return 1")
    assert (result.reward, len(result.metadata.details["printed"])) == (1, 4000)
    result = _grade("raise ValueError('y' * 10**7)")
    assert len(result.errors["python_grader_runtime_error"]) < 3000


def test_an_answer_that_never_ends_is_ended():
    # The grader finds the descriptor of the answer and writes to it without end.
    body = "import os\n    while True:\n        for n in range(3, 9):\n            try: os.write(n, b'x' * 10**6)\n            except OSError: pass"
    assert _grade(body).errors == {"python_grader_server_error": "its answer is too long"}


def test_files_that_grow_without_end_are_stopped():
    one = _grade("f = open('f', 'wb')\n    while True: f.write(b'1' * 10**6)", disk_bytes=10_000_000)
    assert "File too large" in one.errors["python_grader_runtime_error"]
    many = "i = 0\n    while True:\n        i += 1\n        open(str(i), 'wb').write(b'1' * 10**6)"
    assert _grade(many, disk_bytes=10_000_000).errors == {
        "python_grader_server_error": "wrote more than 10,000,000 bytes"
    }


@pytest.mark.parametrize(
    ("body", "says"),
    [("import ctypes; ctypes.string_at(0)", "SIGSEGV"), ("import os; os._exit(3)", "ended with code 3")],
)
def test_a_process_that_dies_is_told(body, says):
    assert says in _grade(body).errors["python_grader_server_error"]


def test_threads_that_go_on_do_not_hold_up_the_answer():
    body = "import threading\n    def spin():\n        while True: pass\n    threading.Thread(target=spin).start()\n    return 1"
    assert _grade(body, seconds=5.0).reward == 1


def test_a_grader_ends_with_its_caller(tmp_path):
    # The child's folder is in TMPDIR; while it lives, it beats into a file there.
    code = (
        "from ftbridge.grader_schema import PythonGrader\nfrom ftbridge.graders import PythonPolicy, grade\n"
        f"source = {HEAD + 'import time' + chr(10) + '    while True: open(chr(98), chr(119)).write(str(time.time())); time.sleep(0.02)'!r}\n"
        "grade(PythonGrader(type='python', name='mine', source=source), {}, {'output_text': ''}, policy=PythonPolicy(frozenset(['mine'])))"
    )  # fmt: skip
    caller = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
    deadline = time.monotonic() + 20
    while not (beats := list(tmp_path.glob("ftbridge-grader-*/b"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    time.sleep(0.3)
    last = beats[0].read_text()
    time.sleep(0.3)
    assert beats[0].read_text() == last


def test_no_folder_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert _grade("open('f', 'w').write('x'); import os; os.mkdir('d'); return 1").reward == 1
    assert list(Path(tmp_path).glob("ftbridge-grader-*")) == []


def test_it_runs_only_when_its_name_is_allowed(monkeypatch):
    grader = _grader("return 1")
    for policy in (None, PythonPolicy(), PythonPolicy(frozenset(["other"]))):
        for attempt in (
            lambda policy=policy: check(grader, {}, policy=policy),
            lambda policy=policy: grade(grader, {}, {"output_text": ""}, policy=policy),
        ):
            with pytest.raises(GraderError, match=r"name is not allowed(.|\n)*FTBRIDGE_ALLOW_PYTHON_GRADERS=mine"):
                attempt()
    monkeypatch.setenv("FTBRIDGE_ALLOW_PYTHON_GRADERS", "other, mine")
    check(grader, {})
    assert grade(grader, {}, {"output_text": ""}).reward == 1


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def grade(sample, item:\n    return 1", "its source is not Python: line 1"),
        ("def score(sample, item): return 1", "defines no function grade"),
        ("def grade(sample): return 1", "exactly two arguments"),
        ("def grade(sample, item, more): return 1", "exactly two arguments"),
        ("def grade(sample, item, *, more): return 1", "exactly two arguments"),
    ],
)
def test_source_that_cannot_grade_is_refused_before_anything_is_spent(source, says):
    with pytest.raises(GraderError, match=says):
        check(PythonGrader(type="python", name="mine", source=source), {}, policy=_policy())


def test_source_is_shorter_than_openai_takes():
    with pytest.raises(ValueError, match="OpenAI takes less than 256,000"):
        _grader(HEAD + "return 1 #" + "x" * 256_000)


def test_many_answers_run_side_by_side_and_come_back_in_order():
    pairs = [({"x": number}, {"output_text": ""}) for number in range(12)]
    results = grade_all(_grader("return item['x']"), pairs, policy=_policy())
    assert [result.reward for result in results] == list(range(12))


def test_it_passes_at_its_threshold():
    grader = _grader("return 0.5", pass_threshold=0.5)
    assert grade(grader, {}, {"output_text": ""}, policy=_policy()).passed is True
