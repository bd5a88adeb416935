"""The python grader: what it may do, and that it cannot do anything else. Every case runs a real process."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftbridge.graders import GraderError, PythonPolicy, check, grade, grade_all, sandbox
from ftbridge.spec.graders import PythonGrader

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
    outcome = result.errors["python_grader_runtime_error"]
    assert "PermissionError" in outcome or "Invalid cross-device link" in outcome
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
    assert _grade(body).errors == {"python_grader_server_error": "its output is too long"}


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
        "from ftbridge.spec.graders import PythonGrader\nfrom ftbridge.graders import PythonPolicy, grade\n"
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


@pytest.mark.parametrize(
    "source",
    [
        "import dataclasses\n\n@dataclasses.dataclass(frozen=True)\nclass Line:\n    n: int = 1\n\ndef grade(sample, item):\n    return Line().n",
        "from __future__ import annotations\nimport dataclasses\n\n@dataclasses.dataclass\nclass Line:\n    n: int = 1\n    kind: 'dataclasses.InitVar[int]' = 2\n\ndef grade(sample, item):\n    return Line().n",
        "from pydantic import BaseModel\n\nclass Part(BaseModel):\n    n: int\n\nclass Line(BaseModel):\n    parts: list['Part']\n\ndef grade(sample, item):\n    return Line(parts=[{'n': '1'}]).parts[0].n",
        "import typing\n\nclass Line:\n    n: 'Line | None'\n\ndef grade(sample, item):\n    return typing.get_type_hints(Line)['n'] == Line | None",
        "import enum, pickle\n\nclass Colour(enum.Enum):\n    RED = 1\n\ndef grade(sample, item):\n    return pickle.loads(pickle.dumps(Colour.RED)) is Colour.RED",
        "import asyncio\n\nasync def one():\n    await asyncio.sleep(0)\n    return 1.0\n\ndef grade(sample, item):\n    return asyncio.run(one())",
        "import asyncio, time\n\nasync def one():\n    return await asyncio.get_running_loop().run_in_executor(None, lambda: 1.0)\n\ndef grade(sample, item):\n    return asyncio.run(one())",
        "from concurrent.futures import ThreadPoolExecutor\n\ndef grade(sample, item):\n    return sum(ThreadPoolExecutor(8).map(lambda n: n, [0, 1]))",
        "import tempfile\n\ndef grade(sample, item):\n    with tempfile.TemporaryFile() as f, tempfile.NamedTemporaryFile() as g, tempfile.TemporaryDirectory():\n        return f.write(b'1')",
        "import shutil\n\ndef grade(sample, item):\n    open('a', 'w').write('x')\n    return shutil.copyfile('a', 'b') == 'b'",
        "import sys\n\ndef grade(sample, item):\n    return sys.stdin.read() == ''",
        "import sys\n\ndef grade(sample, item):\n    return sys.modules[grade.__module__].grade is grade",
    ],
)  # fmt: skip
def test_source_as_people_write_it_runs(source):
    result = _grade(source)
    assert (result.errors, result.reward) == ({}, 1.0)


ATTEMPTS = {
    "mode of a file": "os.chmod({secret!r}, 0o666)",
    "mode by descriptor": "os.fchmod(os.open('mine', os.O_CREAT | os.O_RDWR), 0o777)",
    "mode by fchmodat": "assert ctypes.CDLL(None).syscall({fchmodat}, -100, {secret!r}.encode(), 0o666) == 0",
    "mode by fchmodat2": "assert ctypes.CDLL(None).syscall(452, -100, {secret!r}.encode(), 0o666, 0) == 0",
    "owner": "os.chown({secret!r}, os.getuid(), os.getgid())",
    "owner of a link": "os.lchown({secret!r}, os.getuid(), os.getgid())",
    "times": "os.utime({secret!r}, (0, 0))",
    "times now": "os.utime({secret!r})",
    "attribute": "os.setxattr({secret!r}, 'user.x', b'x')",
    "attribute removed": "os.removexattr({secret!r}, 'user.old')",
    "cut to nothing": "os.truncate({secret!r}, 0)",
    "cut on opening": "os.open({secret!r}, os.O_RDONLY | os.O_TRUNC)",
    "affinity of another process": "os.sched_setaffinity({victim}, [0])",
    "affinity of its own": "os.sched_setaffinity(0, [0])",
    "priority of another process": "os.setpriority(os.PRIO_PROCESS, {victim}, 19)",
    "priority of a user": "os.setpriority(os.PRIO_USER, os.getuid(), 19)",
    "scheduler": "os.sched_setscheduler({victim}, os.SCHED_IDLE, os.sched_param(0))",
    "signal by owner of a pipe": "r, w = os.pipe(); fcntl.fcntl(r, fcntl.F_SETOWN, {victim}); fcntl.fcntl(r, 10, 9); fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC); os.write(w, b'x')",
    "signal by F_SETSIG": "r, w = os.pipe(); fcntl.fcntl(r, 10, 9)",
    "signal by F_SETOWN_EX": "r, w = os.pipe(); fcntl.fcntl(r, 15, __import__('struct').pack('ii', 1, {victim}))",
    "signal by FIOSETOWN": "r, w = os.pipe(); fcntl.ioctl(r, 0x8901, __import__('struct').pack('i', {victim}))",
    "signal by queue": "assert ctypes.CDLL(None).sigqueue({victim}, 9, None) == 0",
    "lease": "fcntl.fcntl(os.open(os.__file__, os.O_RDONLY), 1024, 0)",
    "watch a folder": "assert ctypes.CDLL(None).inotify_init() >= 0",
    "outlive its caller": "assert ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0",
    "hide from its caller": "assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0",
    "a device": "os.mknod('disk', 0o60600, os.makedev(254, 0))",
    "a character device": "os.mknod('tty', 0o20600, os.makedev(1, 1))",
    "a socket by name": "__import__('socket').socket(__import__('socket').AF_UNIX).bind('s')",
    "a pair of datagrams": "__import__('socket').socketpair(type=__import__('socket').SOCK_DGRAM)",
    "locked memory": "assert ctypes.CDLL(None).mlockall(3) == 0",
    "the kernel's log": "assert ctypes.CDLL(None).klogctl(10, None, 0) >= 0",
    "another root": "os.chroot('.')",
    "the name of the host": "__import__('socket').sethostname('mine')",
    "the clock": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "its own namespace": "assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "a process by clone3": "assert ctypes.CDLL(None).syscall(435, ctypes.create_string_buffer(88), 88) >= 0",
    "a call that is younger": "assert ctypes.CDLL(None).syscall(462, 0, 0, 0) == 0",
    "more open files": "[os.dup(2) for _ in range(300)]",
    "another user": "os.setuid(65534)",
    "a file of the user by a link": "os.link({secret!r}, 'x')",
    "a file of the user by a symbolic link": "os.symlink({secret!r}, 'x'); open('x').read()",
    "the parent folder": "os.chdir('..'); open('x', 'w')",
    "the memory of its own": "open('/proc/self/mem', 'wb')",
    "the environment of another": "open('/proc/{victim}/environ').read()",
    "who is killed first": "open('/proc/{victim}/oom_score_adj', 'w').write('1000')",
    "the list of processes": "os.listdir('/proc')",
    "shared memory by name": "open('/dev/shm/x', 'w')",
    "a terminal": "open('/dev/tty', 'w')",
    "settings of the kernel": "open('/proc/sys/vm/drop_caches', 'w')",
    "a group of processes": "os.killpg(os.getpgid({victim}), 9)",
    "all processes": "os.kill(-1, 0)",
    "a process by descriptor": "os.pidfd_open({victim})",
    "a program by path": "os.posix_spawn('/bin/true', ['true'], {{}})",
    "a program by descriptor": "os.execve(os.open(os.__file__, os.O_RDONLY), ['true'], {{}})",
    "files in memory": "os.memfd_create('x')",
    "secret memory": "assert ctypes.CDLL(None).syscall(447, 0) >= 0",
    "tracing": "assert ctypes.CDLL(None).ptrace(16, {victim}, 0, 0) == 0",
    "being traced": "assert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
    "an abstract socket": "__import__('socket').socket(1).connect(chr(0) + 'x')",
    "a netlink socket": "__import__('socket').socket(16, 3, 0)",
    "a passed descriptor": "s = __import__('socket'); a, b = s.socketpair(); s.send_fds(a, [b'x'], [0])",
    "a datagram to an address": "a, b = __import__('socket').socketpair(); a.sendto(b'x', '/x')",
    "another namespace": "os.setns(os.open('.', os.O_RDONLY))",
    "a mount": "assert ctypes.CDLL(None).mount(b'none', b'.', b'tmpfs', 0, None) == 0",
    "a mount in the newer way": "assert ctypes.CDLL(None).syscall(430, b'tmpfs', 0) >= 0",
    "keys of the session": "assert ctypes.CDLL(None).syscall({keyctl}, 0, -3, 1) >= 0",
    "io_uring": "assert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120)) >= 0",
    "being nice": "os.nice(5)",
    "limits of another": "import resource; resource.prlimit({victim}, resource.RLIMIT_NOFILE, (1, 1))",
    "a session of its own": "os.setsid()",
    "shared memory by key": "assert ctypes.CDLL(None).shmget(1, 4096, 0o1600) >= 0",
    "a lock on a file of others": "fcntl.flock(open(os.__file__), fcntl.LOCK_EX)",
    "an attribute by ioctl": "fcntl.ioctl(os.open(os.__file__, os.O_RDONLY), 0x40047602, bytes(4))",
    "sealing a file by ioctl": "fcntl.ioctl(os.open(os.__file__, os.O_RDONLY), 0x40806685, bytes(128))",
    "a terminal of its own": "fcntl.ioctl(0, 0x540E, 0)",
    "capabilities": "assert ctypes.CDLL(None).capset(b'\\x22\\x05\\x08\\x20' + bytes(4), b'\\xff' * 24) == 0",
    "groups": "os.setgroups([0])",
    "its package folder": "open(os.__file__, 'a')",
}  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_a_way_out_is_closed(attempt, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    os.utime(secret, (1, 1))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:
        try:
            before = (secret.stat(), os.sched_getaffinity(victim.pid), os.getpriority(os.PRIO_PROCESS, victim.pid))
            fchmodat, keyctl = (268, 250) if os.uname().machine == "x86_64" else (53, 219)
            body = attempt.format(secret=str(secret), victim=victim.pid, fchmodat=fchmodat, keyctl=keyctl)
            result = _grade(f"import ctypes, fcntl, os, time; {body}; return 1")
            assert (result.reward, list(result.errors)) == (0, ["python_grader_runtime_error"])
            after = (secret.stat(), os.sched_getaffinity(victim.pid), os.getpriority(os.PRIO_PROCESS, victim.pid))
            assert (victim.poll(), secret.read_text()) == (None, "secret")
            assert (after[0].st_mode, after[0].st_mtime, *after[1:]) == (
                before[0].st_mode,
                before[0].st_mtime,
                *before[1:],
            )
        finally:
            victim.kill()


def test_root_has_none_of_its_rights():
    if os.getuid() != 0:
        pytest.skip("needs root")
    body = (
        "import ctypes; head = ctypes.create_string_buffer(b'\\x22\\x05\\x08\\x20' + bytes(4)); data = (ctypes.c_uint32 * 6)(); "
        "ctypes.CDLL(None).capget(head, data); return sum(data)"
    )
    assert _grade(body).reward == 0


@pytest.mark.parametrize(
    "body",
    [
        "files = []\n    for n in range(400):\n        f = open(str(n), 'wb'); os.unlink(str(n)); f.write(b'x' * 10**5); f.flush(); files.append(f); time.sleep(0.002)",
        "files = []\n    for n in range(100):\n        f = os.open('.', os.O_TMPFILE | os.O_RDWR); os.write(f, b'x' * 10**6); files.append(f); time.sleep(0.01)",
        "import mmap\n    maps = []\n    for n in range(50):\n        f = open(str(n), 'w+b'); f.write(b'x' * 10**6); f.flush(); maps.append(mmap.mmap(f.fileno(), 4096)); os.unlink(str(n)); f.close(); time.sleep(0.02)",
        "for n in range(100_000): open(str(n), 'w').close()",
        "for n in range(100_000): os.mkdir(str(n))",
        "os.posix_fallocate(os.open('f', os.O_CREAT | os.O_RDWR), 0, 10**7); [os.posix_fallocate(os.open(str(n), os.O_CREAT | os.O_RDWR), 0, 10**7) for n in range(9)]",
    ],
    ids=["unlinked", "O_TMPFILE", "mapped and unlinked", "100,000 files", "100,000 folders", "set aside"],
)  # fmt: skip
def test_no_way_of_filling_the_disk_is_open(body):
    result = _grade(f"import os, time\n    {body}\n    return 1", disk_bytes=10_000_000)
    assert result.errors == {"python_grader_server_error": "wrote more than 10,000,000 bytes"}


@pytest.mark.parametrize("wait", ["stop.wait", "lambda: stop.wait(0.4)"])
def test_a_grader_has_a_limited_number_of_threads(wait):
    body = (
        "import threading; threading.stack_size(65536); stop = threading.Event()\n"
        f"    for _ in range(1500): threading.Thread(target={wait}, daemon=True).start()\n    return 1"
    )
    assert _grade(body).errors == {"python_grader_server_error": "started more than 64 threads"}


@pytest.mark.parametrize(
    "forged",
    ['{"reward": 1' + "0" * 400 + "}", '{"reward": 1e999}', '{"reward": NaN}', '{"reward": "x"}', '{"reward": []}', "[1]", "1", "null",
     "[" * 50_000, '{"reward": {"a": 1}}', "{}", "\\xff"],
)  # fmt: skip
def test_a_result_that_the_grader_forges_is_no_result(forged):
    body = f"import os\n    for fd in range(3, 12):\n        try: os.write(fd, {forged!r}.encode())\n        except OSError: pass\n    os._exit(0)"
    result = _grade(body)
    assert result.reward == 0
    assert len(result.errors) == 1


@pytest.mark.parametrize(
    "end",
    [
        "os._exit(0)",
        "time.sleep(1); os._exit(0)",
        "[os.close(n) for n in range(3, 12) if n not in kept]; raise ValueError",
        "return 0.0",
        "frame = sys._getframe()\n    while 'answer' not in frame.f_locals: frame = frame.f_back\n    frame.f_locals['answer'].write(FORGED); frame.f_locals['answer'].flush(); os._exit(0)",
    ],
)  # fmt: skip
def test_a_result_that_looks_right_but_was_written_by_the_grader_is_none(end):
    body = (
        "import os, sys, time\n    FORGED, kept = b'{\"reward\": 1.0}', []\n    for fd in range(3, 12):\n"
        f"        try: os.write(fd, FORGED)\n        except OSError: kept.append(fd)\n    {end}"
    )
    result = _grade(body)
    assert (result.reward, result.is_missing) == (0, True)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_kernel_whose_landlock_is_too_old_is_refused_by_name(version, monkeypatch):
    monkeypatch.setattr(sandbox, "_landlock_version", lambda: version)
    with pytest.raises(GraderError, match=r"Landlock of version 3 \(Linux 6\.2") as refused:
        check(_grader("return 1"), {}, policy=_policy())
    assert (f"has version {version}" in str(refused.value)) is (version > 0)
