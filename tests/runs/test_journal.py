from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ftbridge.errors import DiskFull, JournalCorrupt, RunBusy
from ftbridge.runs.journal import Journal

WRITER = """
import sys
from pathlib import Path
from ftbridge.runs.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    event = journal.append("tick", sync=number % 10 == 0, number=number, writer=sys.argv[3], padding="x" * 300)
    print(event.seq, flush=True)
"""


def writer(path: Path, count: int, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(count), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def types(path: Path) -> list[str]:
    return [event.type for event in Journal(path).read()]


def write_three(path: Path) -> list[bytes]:
    for name in ("a", "b", "c"):
        Journal(path).append(name)
    return path.read_bytes().splitlines(keepends=True)


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    written = [
        journal.append("created", name="größe\n", figures=[1, 2.5, None], type="its own"),
        journal.append("done", sync=False),
    ]
    again = Journal(tmp_path / "journal.jsonl").read()
    assert again == written
    assert [(event.seq, event.type) for event in again] == [(1, "created"), (2, "done")]
    assert again[0].data == {"name": "größe\n", "figures": [1, 2.5, None], "type": "its own"}
    assert abs(again[0].time - time.time()) < 10


def test_a_line_is_one_compact_json_object_in_utf_8(tmp_path: Path) -> None:
    Journal(tmp_path / "j").append("created", text="ä\n\r\u2028\x85b")
    (line,) = (tmp_path / "j").read_bytes().split(b"\n")[:-1]
    assert json.loads(line)["data"] == {"text": "ä\n\r\u2028\x85b"}
    assert line.startswith(b'{"seq":1,"time":')
    assert "ä".encode() in line
    assert Journal(tmp_path / "j").read()[0].data == {"text": "ä\n\r\u2028\x85b"}


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (("a", Path("b")), ["a", "b"]),
        ("odd name \udce4", "odd name \udce4"),  # what os.fsdecode makes of a file name that is not UTF-8
    ],
)
def test_what_json_has_no_word_for_is_written_all_the_same(tmp_path: Path, value: object, stored: object) -> None:
    event = Journal(tmp_path / "j").append("told", value=value)
    assert event.data == {"value": stored}
    assert Journal(tmp_path / "j").read() == [event]
    json.loads((tmp_path / "j").read_text("utf-8"), parse_constant=pytest.fail)


def test_many_processes_write_whole_lines_in_one_sequence(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    reader, seen = Journal(path), []
    writers = [writer(path, 200, str(number)) for number in range(8)]
    while any(one.poll() is None for one in writers):
        seen += reader.refresh()
        time.sleep(0.005)
    seen += reader.refresh()
    assert [one.wait() for one in writers] == [0] * 8
    for one in writers:
        assert one.stdout is not None
        one.stdout.close()
    assert seen == Journal(path).read()
    assert [event.seq for event in seen] == list(range(1, 1601))
    assert path.read_bytes().count(b"\n") == 1600
    for name in "01234567":
        assert [e.data["number"] for e in seen if e.data["writer"] == name] == list(range(200))


def test_threads_may_share_one_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    writers = [
        threading.Thread(target=lambda: [(journal.append("x", sync=False), journal.read()) for _ in range(40)])
        for _ in range(4)
    ]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert [event.seq for event in journal.read()] == list(range(1, 161))


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_loses_nothing_it_was_promised(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    drawn = random.Random(1)
    survivors = 0
    for _ in range(25):
        one = writer(path, 100_000, "victim")
        assert one.stdout is not None
        first = int(one.stdout.readline())
        time.sleep(drawn.uniform(0, 0.05))
        one.send_signal(signal.SIGKILL)
        output = [first, *(int(line) for line in one.stdout.read().split("\n")[:-1])]
        one.wait()
        one.stdout.close()
        assert first == survivors + 1
        assert output == list(range(first, output[-1] + 1))
        events = Journal(path).read()
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert len(events) - output[-1] in (0, 1)  # the last line may have been written but not yet told
        survivors = Journal(path).append("survivor").seq
        assert survivors == len(events) + 1
        assert [event.type for event in Journal(path).read()[-2:]] == ["tick", "survivor"]


def test_a_tail_torn_at_any_byte_is_passed_over_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("first")
    text = path.read_bytes()
    Journal(path).append("second", text="ü")
    both = path.read_bytes()
    for cut in range(len(text), len(both)):
        path.write_bytes(both[:cut])
        torn = Journal(path)
        assert [event.type for event in torn.read()] == ["first"]
        assert path.read_bytes() == both[:cut]
        torn.append("third", sync=False)
        assert [event.type for event in torn.read()] == ["first", "third"]
        assert types(path) == ["first", "third"]


@pytest.mark.parametrize(
    "rubbish", [b'{"seq": 2, "ti\x00\x00\n', b"\n", b"\x00" * 5000, b"\xff\r\xfe", b"[" * 9000 + b"\n"]
)
def test_a_tail_of_rubbish_is_torn_too(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("first")
    with path.open("ab") as stream:
        stream.write(rubbish)
    assert types(path) == ["first"]
    Journal(path).append("second")
    assert types(path) == ["first", "second"]


def test_a_file_that_holds_nothing_but_a_torn_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"seq":1,"ti')
    assert Journal(path).read() == []
    assert Journal(path).append("first").seq == 1
    assert types(path) == ["first"]


@pytest.mark.parametrize("size", [60_000, 65_500, 70_000, 300_000])
@pytest.mark.parametrize("torn", [b"", b"x" * 70_000])
def test_an_append_finds_the_end_behind_lines_of_any_length(tmp_path: Path, size: int, torn: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("first")
    Journal(path).append("long", text="x" * size)
    with path.open("ab") as stream:
        stream.write(torn)
    assert Journal(path).append("last").seq == 3
    assert types(path) == ["first", "long", "last"]


DAMAGE = [
    ([0, b"rubbish\n", 2], r"journal\.jsonl:2 is damaged: it is not JSON"),
    ([0, b'{"seq":2,"time":1}\n', 2], r"journal\.jsonl:2 is damaged: type: is missing"),
    ([0, 1, b'{"seq":3,"time":1}\n'], r"journal\.jsonl:3 is damaged: type: is missing"),  # whole, but no event
    ([0, 1, b"7\n"], r"journal\.jsonl:3 is damaged"),
    ([b"\n", 0, 1, 2], r"journal\.jsonl:1 is damaged"),
    ([0, 2], r"journal\.jsonl:2 has seq 3: lines are missing"),
    ([0, 1, 1, 2], r"journal\.jsonl:3 has seq 2: lines are missing or come twice"),
    ([0, 1, b"rubbish\n", b'{"seq'], r"journal\.jsonl:3 is damaged"),
    ([0, 1, b"rubbish\n", b"rubbish too\n"], r"journal\.jsonl:3 is damaged"),
]


@pytest.mark.parametrize(("lines", "message"), DAMAGE)
def test_damage_elsewhere_is_named_with_its_line(tmp_path: Path, lines: list[int | bytes], message: str) -> None:
    path = tmp_path / "journal.jsonl"
    three = write_three(path)
    path.write_bytes(b"".join(three[line] if isinstance(line, int) else line for line in lines))
    with pytest.raises(JournalCorrupt, match=message) as caught:
        Journal(path).read()
    assert "backup" in str(caught.value)


@pytest.mark.parametrize("rubbish", [b'{"seq":4,"time":1}\n', b"rubbish\nrubbish too\n", b'rubbish\n{"seq'])
def test_an_append_never_cuts_off_what_a_reader_would_call_damage(tmp_path: Path, rubbish: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    write_three(path)
    with path.open("ab") as stream:
        stream.write(rubbish)
    before = path.read_bytes()
    with pytest.raises(JournalCorrupt, match=r"journal\.jsonl:4 is damaged"):
        Journal(path).append("more")
    assert path.read_bytes() == before


def test_refresh_tells_what_anyone_appended_since(tmp_path: Path) -> None:
    reader, other = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    assert reader.refresh() == []
    other.append("one")
    assert [event.type for event in reader.refresh()] == ["one"]
    assert reader.refresh() == []
    other.append("two")
    reader.append("three")
    assert [event.type for event in reader.refresh()] == ["two", "three"]
    assert [event.type for event in reader.read()] == ["one", "two", "three"]
    assert reader.refresh() == []


def test_a_line_that_a_failed_append_took_back_is_forgotten_by_who_saw_it(tmp_path: Path) -> None:
    path = tmp_path / "j"
    reader = Journal(path)
    reader.append("first")
    reader.append("unflushed")
    assert len(reader.read()) == 2
    first, _ = path.read_bytes().splitlines(keepends=True)
    os.truncate(path, len(first))
    assert [event.type for event in reader.read()] == ["first"]
    Journal(path).append("second")
    assert [event.type for event in reader.refresh()] == ["second"]
    assert [event.type for event in reader.read()] == ["first", "second"]


@pytest.mark.parametrize("change", [lambda path: os.truncate(path, 3), lambda path: path.unlink()])
def test_a_journal_cut_or_removed_under_its_reader_is_an_error(tmp_path: Path, change) -> None:
    reader = Journal(tmp_path / "j")
    write_three(tmp_path / "j")
    reader.read()
    change(tmp_path / "j")
    with pytest.raises(JournalCorrupt, match="is shorter than it was|is gone"):
        reader.refresh()


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").symlink_to("/dev/full")  # writes there fail as on a full disk
    with pytest.raises(DiskFull, match=r"no room left on the disk that holds .*journal\.jsonl"):
        Journal(tmp_path / "journal.jsonl").append("created")


@pytest.mark.parametrize("room", [0, 1, 10, 900])
def test_a_disk_that_fills_up_within_a_line_leaves_the_whole_lines(tmp_path: Path, room: int) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append("small")
    size = path.stat().st_size
    child = os.fork()
    if child == 0:  # the limit is for the child alone
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, size + room))
        try:
            Journal(path).append("large", text="x" * 1000)
        except DiskFull:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert path.stat().st_size == size
    assert Journal(path).append("room again").seq == 2
    assert types(path) == ["small", "room again"]


def test_a_writer_that_stands_still_with_the_lock_is_told_not_waited_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path).hold(), pytest.raises(RunBusy, match=r"held the journal's lock for 0\.1 s"):
        Journal(path, lock_seconds=0.1).append("x")
    assert Journal(path, lock_seconds=0.1).append("x").seq == 1


def test_the_cost_of_an_append_does_not_grow_with_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    line = '{{"seq":{},"time":1.0,"type":"metrics","data":{{"padding":"{}"}}}}\n'
    path.write_text("".join(line.format(number, "x" * 500) for number in range(1, 100_001)))
    limit = 2_000_000  # bytes read by 20 appends to a file of 57 MB
    before = bytes_read()
    for _ in range(20):
        Journal(path).append("metrics", sync=False, step=1)
    assert bytes_read() - before < limit
    assert path.stat().st_size > 10 * limit


def bytes_read() -> int:
    """Bytes this process has read, from the kernel's own count."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("this system does not count what a process reads")
    return int(counters.read_text().split("rchar: ")[1].split()[0])
