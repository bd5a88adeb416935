from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftbridge.errors import DiskFull, JournalCorrupt
from ftbridge.runs.journal import Journal

WRITER = """
import sys
from pathlib import Path
from ftbridge.runs.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    print(journal.append("tick", number=number, writer=sys.argv[3], padding="x" * 300).seq, flush=True)
"""


def writer(path: Path, count: int, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(count), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("created", name="größe\n", figures=[1, 2.5, None])
    journal.append("done", sync=False)
    again = Journal(tmp_path / "journal.jsonl").read()
    assert [(event.seq, event.type) for event in again] == [(1, "created"), (2, "done")]
    assert again[0].data == {"name": "größe\n", "figures": [1, 2.5, None]}
    assert abs(again[0].time - time.time()) < 10


def test_many_processes_write_whole_lines_in_one_sequence(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    writers = [writer(path, 50, str(number)) for number in range(6)]
    assert [one.wait(60) for one in writers] == [0] * 6
    events = Journal(path).read()
    assert [event.seq for event in events] == list(range(1, 301))
    for name in "012345":
        assert [e.data["number"] for e in events if e.data["writer"] == name] == list(range(50))


def test_a_writer_killed_at_any_moment_loses_nothing_it_was_promised(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    drawn = random.Random(1)
    promised = 0
    for _ in range(8):
        one = writer(path, 100_000, "victim")
        assert one.stdout is not None
        first = int(one.stdout.readline())
        assert first == promised + 1 or first == promised + 2  # the last line may have been written but not yet told
        time.sleep(drawn.uniform(0, 0.1))
        one.send_signal(signal.SIGKILL)
        told = [first, *(int(line) for line in one.stdout.read().split("\n")[:-1])]
        one.wait()
        journal = Journal(path)
        assert len(journal.read()) >= told[-1]
        promised = journal.append("survivor").seq
        assert [event.seq for event in Journal(path).read()] == list(range(1, promised + 1))


def test_a_tail_torn_at_any_byte_is_passed_over_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append("first")
    whole = path.read_bytes()
    journal.append("second", text="ü")
    both = path.read_bytes()
    for cut in range(len(whole), len(both)):
        path.write_bytes(both[:cut])
        torn = Journal(path)
        assert [event.type for event in torn.read()] == ["first"]
        torn.append("third")
        assert [event.type for event in Journal(path).read()] == ["first", "third"]


def test_a_tail_of_rubbish_with_a_newline_is_torn_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("first")
    with path.open("ab") as stream:
        stream.write(b'{"seq": 2, "ti\x00\x00\n')
    Journal(path).append("second")
    assert [event.type for event in Journal(path).read()] == ["first", "second"]


def test_damage_in_the_middle_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for name in ("a", "b", "c"):
        Journal(path).append(name)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b"rubbish", *lines[2:]]))
    with pytest.raises(JournalCorrupt, match=r"journal\.jsonl:2 is damaged"):
        Journal(path).read()
    path.write_bytes(b"\n".join([lines[0], *lines[2:]]))
    with pytest.raises(JournalCorrupt, match="lines are missing"):
        Journal(path).read()


def test_refresh_tells_only_what_others_appended_since(tmp_path: Path) -> None:
    reader, other = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    assert reader.refresh() == []
    other.append("one")
    assert [event.type for event in reader.refresh()] == ["one"]
    assert reader.refresh() == []
    reader.append("two")
    other.append("three")
    assert [event.type for event in reader.read()] == ["one", "two", "three"]


def test_a_full_disk_is_a_clear_error_and_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("small")
    size = path.stat().st_size
    child = os.fork()
    if child == 0:  # the limit is for the child alone
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))
        try:
            Journal(path).append("large", text="x" * 1000)
        except DiskFull:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert path.stat().st_size == size
    Journal(path).append("room again")
    assert [event.type for event in Journal(path).read()] == ["small", "room again"]


def test_a_line_is_one_json_object(tmp_path: Path) -> None:
    Journal(tmp_path / "j").append("created", text="a\nb\u2028c")
    (line,) = (tmp_path / "j").read_text().split("\n")[:-1]
    assert json.loads(line)["data"] == {"text": "a\nb\u2028c"}
