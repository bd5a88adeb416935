"""The HTML report of real runs: what it says, that nothing in an answer is more than text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import ftbridge
from ftbridge import migrate, report
from ftbridge.errors import UsageError
from ftbridge.report.html import write_report
from ftbridge.report.html.completions import Segment, differing
from ftbridge.report.html.contents import contents_of
from ftbridge.report.html.curves import loss_curves
from ftbridge.report.html.rendering import render
from ftbridge.report.html.sources import Curve
from ftbridge.runner import drive
from ftbridge.runner.start import create_run
from ftbridge.server import api, simulating
from ftbridge.spec import SpecFile

BASE = "gpt-4.1-mini-2025-04-14"
HOSTILE = (
    '</script></p><img src="https://evil.example/x.png" onerror="alert(1)"><script>document.title="owned"</script>'
)


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-reported")
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0")
    monkeypatch.setattr(drive, "POLL_SECONDS", 0.02)
    with simulating({"speed": 50}) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        yield running


def _lines(first, count):
    lines = [
        {"messages": [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(first, first + count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def run(service, tmp_path):
    """A finished run whose tuned model is right where `right` matches; base answers with markup."""

    def finished(right, *, test=(100, 60), **more):
        outputs = [
            {"model": "ft:*", "match": rf"Number ({right})\?", "reply": r"It is \1."},
            {"model": "*", "reply": HOSTILE},
        ]
        service.play({"speed": 50, "answers": outputs})
        (tmp_path / "train.jsonl").write_text(_lines(0, 12))
        data = {"train": str(tmp_path / "train.jsonl")}
        if test:
            (tmp_path / "test.jsonl").write_text(_lines(*test))
            data["test"] = str(tmp_path / "test.jsonl")
        started = create_run(
            SpecFile.of({"name": "numbers", "data": data, "model": {"openai": BASE}, **more}), "openai"
        )
        drive.drive(started)
        return started

    return finished


class _Page(HTMLParser):
    """Tags and attributes of a page, as a parser that knows HTML sees them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _read(path):
    return _Page(path.read_text(encoding="utf-8"))


def test_the_page_tells_verdict_scores_answers_data_and_how_to_make_it_again(run):
    result = run(r"\d*[0-8]", metadata={"note": "<b>"})
    page = _read(write_report([result]))
    text = " ".join(" ".join(page.text).split())
    assert page.open == []
    assert "tuned is better than base on exact (+90.0 points" in text
    assert "60 items show a difference of" in text
    assert "steps, training" in text
    assert "Worse (0)" in text
    assert "Better (54)" in text
    assert "Unchanged (6)" in text
    assert "It is 100." in text
    assert result.state().data.splits["train"].sha256 in text
    assert "ftbridge run spec.json --provider openai" in text
    assert '"note": "<b>"' in result.spec_path.read_text()
    assert '"note": "<b>"' in text
    assert "translated" in text


def test_markup_in_answers_stays_text_and_the_page_needs_nothing_from_outside(run):
    result = run(r"1\d*")
    path = write_report([result])
    page = _read(path)
    assert HOSTILE in "".join(page.text)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    links = [
        value for name, value in page.attributes if name in ("src", "href", "action", "style") or name.startswith("on")
    ]
    assert [link for link in links if not link.startswith("#")] == []
    (policy,) = [value for name, value in page.attributes if name == "content" and "default-src" in value]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_several_runs_stand_side_by_side_and_the_later_is_judged_against_the_first(run):
    good, half = run(r"\d+"), run(r"\d+[02468]")
    contents = contents_of([good, half])
    assert [pair.verdicts["exact"].verdict for pair in contents.pairs] == ["worse", "better", "better"]
    assert len(contents.columns) == 4
    assert len(contents.rows) == 60
    text = " ".join(_read(write_report([good, half])).text)
    assert re.search(r"tuned · openai \w{4} is worse than tuned · openai \w{4} on exact \(-50\.0 points", text)
    assert "Worse (30)" in text
    assert "All runs were trained on the same bytes." in text
    with pytest.raises(UsageError, match="shows each run once"):
        contents_of([good, good])


def test_other_test_items_leave_those_that_both_have_and_say_so(run):
    first, second = run(r"\d+"), run(r"\d+", test=(130, 60))
    contents = contents_of([first, second])
    assert len(contents.rows) == 30
    assert any("the page shows the 30 that they share" in note for note in contents.notes)
    apart = contents_of([first, run(r"\d+", test=(900, 20))])
    assert (apart.rows, apart.pairs) == ((), ())


def test_a_run_without_test_items_still_has_its_losses_and_data(run):
    text = " ".join(_read(write_report([run(r"\d+", test=None)])).text)
    assert "Nothing was compared: there are no test items." in text
    assert "steps, training" in text


def test_the_command_and_the_sdk_write_the_file_and_tell_where(run, tmp_path):
    shown = run(r"\d+")
    command = [sys.executable, "-m", "ftbridge", "report", shown.id]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == str(shown.path / "report.html")
    out = tmp_path / "sub" / "page.html"
    result = subprocess.run(
        [*command, "--out", str(out), "--json"], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(result.stdout) == {"path": str(out), "bytes": out.stat().st_size}
    assert ftbridge.load_run(shown.id).report() == shown.path / "report.html"
    missing = subprocess.run([*command[:-1], "nothing"], capture_output=True, text=True, timeout=60, check=False)
    assert missing.returncode == 2


def test_only_the_packaged_style_and_script_are_shown_unescaped():
    templates = [
        path
        for package in (report.html, migrate, api)
        for path in Path(package.__file__).parent.rglob("templates/**/*.j2")
    ]
    assert len(templates) > 20
    texts = {path.name: path.read_text(encoding="utf-8") for path in templates}
    assert [name for name, text in texts.items() if re.search(r"\bsafe\b|autoescape", text)] == ["document.html.j2"]
    assert re.findall(r"{{[^}]*\bsafe\b[^}]*}}", texts["document.html.j2"]) == [
        "{{ style | safe }}",
        "{{ script | safe }}",
    ]


def test_a_template_that_lacks_a_value_is_an_error_instead_of_a_gap():
    with pytest.raises(UndefinedError, match="contents"):
        render("report.html.j2")


def test_words_that_differ_are_marked_on_their_side_and_unlike_texts_are_not():
    first, second = differing("It is a red lamp.", "It is a blue lamp.")
    assert first == [Segment("It is a "), Segment("red", "del"), Segment(" lamp.")]
    assert second == [Segment("It is a "), Segment("blue", "ins"), Segment(" lamp.")]
    assert differing("one", "x <y>") == ([Segment("one")], [Segment("x <y>")])


def test_curves_of_any_length_and_height_stay_inside_the_drawing():
    long = Curve("long", tuple((step, 3.0 / step) for step in range(1, 5000)), ((2500, 0.5),))
    flat = Curve("flat", ((1, 0.0),), ())
    for curves in ([long], [flat], [long, flat]):
        drawing = loss_curves(curves).drawing
        lines = [line for series in drawing.series for line in (series.train, series.valid)]
        points = [[float(number) for number in point.split(",")] for line in lines for point in line.split()]
        assert 0 < len(points) < 1500
        assert all(0 <= x <= drawing.WIDTH and 0 <= y <= drawing.HEIGHT for x, y in points)
    assert loss_curves([]) is None
