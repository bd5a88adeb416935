"""What `ftbridge eval` and `ftbridge report --format` print and write, of answers that the simulator gave."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from rich.console import Console

from ftbridge.errors import FtbridgeError, UsageError
from ftbridge.evaluation.compare import compare
from ftbridge.evaluation.document import Evaluation
from ftbridge.report.formats.tables import csv_text, junit_text, markdown_table
from ftbridge.report.html import write_report
from ftbridge.report.html.contents import contents_of, contents_of_completions
from ftbridge.report.terminal import comparison, evaluation
from ftbridge.report.terminal.comparison import changed
from support.completions_page import evaluated
from support.finished_run import BASE, finished_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, its spec, and a command line that knows its home and service."""
    folder = tmp_path_factory.mktemp("asked")
    with finished_run(folder, r"\d*[0-8]") as run:
        spec = folder / "job.json"
        data = {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")}
        spec.write_text(json.dumps({"name": "numbers", "data": data, "model": {"openai": BASE}}))
        environment = {**os.environ, "COLUMNS": "80"}

        def ask(*words):
            command = [sys.executable, "-m", "ftbridge", *map(str, words)]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)

        yield run, spec, ask


def test_eval_shows_the_first_first_and_the_items_that_changed(runs):
    run, spec, ask = runs
    result = ask("eval", spec, "-c", f"run:{run.id}", "-c", "base", "--provider", "openai")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    places = [next(n for n, line in enumerate(lines) if line.startswith(name)) for name in (f"run:{run.id}", "base")]
    assert places == sorted(places)
    assert "54 items changed, 54 for the worse; those first:" in result.stdout
    assert "and 49 more" in result.stdout
    assert "No idea." in result.stdout


def test_eval_writes_its_formats_to_a_file_and_a_page_beside(runs, tmp_path):
    run, spec, ask = runs
    common = ("eval", spec, "-c", "base", "-c", f"run:{run.id}", "--provider", "openai")
    out, page = tmp_path / "scores.csv", tmp_path / "sub" / "page.html"
    result = ask(*common, "--format", "csv", "--out", out, "--report", page)
    assert (result.returncode, result.stdout) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [(row["candidate"], row["against"], row["verdict"]) for row in rows] == [
        ("base", "", ""),
        (f"run:{run.id}", "base", "better"),
    ]
    assert float(rows[1]["mean"]) == pytest.approx(0.9)
    text = page.read_text()
    assert "Better (54)" in text
    assert "is better than base on exact" in text
    assert "ftbridge eval job.json --candidate base" in text
    suite = ElementTree.fromstring(ask(*common, "--format", "junit").stdout)
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    document = json.loads(ask(*common, "--format", "json").stdout)
    assert document == json.loads(ask(*common, "--json").stdout)
    refused = ask(*common, "--format", "csv", "--out", tmp_path)
    assert refused.returncode == 2
    assert "is a folder" in refused.stderr


def test_a_run_is_reported_in_every_format(runs):
    run, _, ask = runs
    assert "| tuned | **90.0 %** (79.9 to 95.3) |" in ask("report", run.id, "--format", "markdown").stdout
    assert ask("report", run.id, "--format", "csv").stdout.count("\n") == 3
    assert json.loads(ask("report", run.id, "--format", "json").stdout)["items"] == 60
    assert "54 items changed, none for the worse:" in ask("report", run.id, "--format", "text").stdout
    twice = ask("report", run.id, run.id, "--format", "csv")
    assert twice.returncode == 2
    assert "compare" in twice.stderr


@pytest.mark.parametrize(
    "begin", ["=", "+", "-", "@", " =", "\n=", "\t=", "\r=", "\u200b=", "\ufeff@", "＝", "＋", "－", "＠", "\u2212"]
)
def test_a_cell_that_a_spreadsheet_would_reckon_out_is_text_there(begin):
    (_, (cell,)) = csv.reader(io.StringIO(csv_text(["a"], [[f"{begin}cmd|' /C calc'!A0"]])))
    assert cell.startswith("'")


def test_a_cell_stands_in_quotes_where_some_spreadsheet_would_part_it():
    assert csv_text(["a"], [["x;=1"], ["x\t=1"], ['say "hi", twice']]) == 'a\n"x;=1"\n"x\t=1"\n"say ""hi"", twice"\n'
    assert list(csv.reader(io.StringIO(csv_text(["a", "b"], [["x;=1", 0.5]])))) == [["a", "b"], ["x;=1", "0.5"]]


def test_cells_that_another_program_would_take_for_more_than_text_are_escaped():
    rows = [["=HYPERLINK(1)", -0.5], ["+1", None], ["a|b", 1.0]]
    assert csv_text(["name", "@x"], rows) == "name,'@x\n'=HYPERLINK(1),-0.5\n'+1,\na|b,1.0\n"
    table = markdown_table(["a|b"], [["x\n| y | <img>"], ["`code` *b* [l](u)"]])
    assert table == "| a\\|b |\n| --- |\n| x \\| y \\| \\<img\\> |\n| \\`code\\` \\*b\\* \\[l\\](u) |\n"
    suite = ElementTree.fromstring(junit_text('s"<', "c", [("a\x00b\ud800", None), ("x & y", "\x1bno")]))
    assert [case.get("name") for case in suite] == ["a\ufffdb\ufffd", "x & y"]
    assert suite[1][0].get("message") == "\ufffdno"


def test_hostile_names_survive_every_export(tmp_path):
    name = '=cmd|"x"\n</testsuite><b>\x01'
    _, _, result = evaluated(tmp_path, [("q", "a"), ("r", "b")], {"base": ["a", "b"], name: ["x", "b"]})
    rows = list(csv.reader(io.StringIO(evaluation.as_csv(result))))
    assert [row[0] for row in rows[1:]] == ["base", "'" + name.replace("\x01", "␁")]
    rows = [line for line in evaluation.as_markdown(result).splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    (case,) = ElementTree.fromstring(evaluation.as_junit(result))
    assert "</testsuite><b>\ufffd" in case.get("name")


def test_the_items_where_most_is_lost_come_first(tmp_path):
    outputs = {"base": ["a", "x", "c"], "tuned": ["a", "b", "x"]}
    items, predictions, result = evaluated(tmp_path, [("p1", "a"), ("p2", "b"), ("p3", "c")], outputs)
    from support.completions_page import EXACT

    shown = changed(contents_of_completions("t", items, predictions, [EXACT], result, {}))
    console = Console(width=60, color_system=None)
    with console.capture() as captured:
        console.print(*shown, sep="\n")
    text = captured.get()
    assert text.index("line 3") < text.index("line 2")
    assert "2 items changed, 1 for the worse" in text


def test_the_best_is_bold_whatever_its_name(tmp_path):
    from ftbridge.report.terminal.tables import evaluation_table

    _, _, result = evaluated(tmp_path, [("q", "a"), ("r", "b")], {"base": ["a", "b"], "tuned": ["a", "x"]})
    console = Console(width=80, force_terminal=True, color_system="standard", no_color=False)
    with console.capture() as captured:
        console.print(evaluation_table(result))
    base, tuned = (line for line in captured.get().splitlines() if "%" in line and "Note:" not in line)
    assert "\x1b[1mbase" in base
    assert "\x1b[1m" not in tuned


def test_a_comparison_has_the_better_mean_in_bold(runs):
    run, _, _ = runs
    result = compare(run, run, candidates=("tuned", "base"))
    assert "| exact | **90.0 %** | 0.0 % | -90.0 (-95.3 to -78.2) | 0 / 54 | worse |" in comparison.as_markdown(result)


# Bad input


def test_a_page_cannot_be_written_to_a_folder_or_where_nothing_can_be(runs, tmp_path):
    run, _, ask = runs
    with pytest.raises(UsageError, match="is a folder"):
        write_report([run], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        write_report([run], tmp_path / "file" / "page.html")
    result = ask("report", run.id, "--out", tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_the_same_run_twice_is_named(runs):
    run, _, _ = runs
    with pytest.raises(UsageError, match=f"named twice: {run.id}"):
        contents_of([run, run])


def test_a_candidate_with_answers_missing_is_left_out_of_the_page_and_the_rest_stands(runs):
    run, _, _ = runs
    path = run.predictions("tuned")
    text = path.read_bytes()
    path.write_bytes(b"".join(text.splitlines(keepends=True)[:30]))
    try:
        contents = contents_of([run])
        assert [column.label for column in contents.columns] == ["base"]
        assert any("tuned" in note and "30 of 60" in note for note in contents.notes)
        path.unlink()
        assert [column.label for column in contents_of([run]).columns] == ["base"]
    finally:
        path.write_bytes(text)


def test_a_judges_error_with_markup_is_text(runs, tmp_path):
    run, _, _ = runs
    path = run.predictions("tuned")
    content = path.read_text()
    first, *rest = content.splitlines(keepends=True)
    path.write_text(json.dumps({**json.loads(first), "error": "<script>alert(1)</script> 500"}) + "\n" + "".join(rest))
    try:
        text = write_report([run], tmp_path / "page.html").read_text()
        assert "&lt;script&gt;alert(1)&lt;/script&gt; 500" in text
        assert text.count("<script>") == 1
        assert "Cut off or not graded (1)" in text
    finally:
        path.write_text(content)


def test_an_evaluation_of_an_older_version_reads_and_a_broken_one_says_what_to_do(runs):
    run, _, ask = runs
    text = run.evaluation_path.read_text()
    document = json.loads(text)
    try:
        old = {name: document[name] for name in ("items", "graders", "candidates")}
        run.evaluation_path.write_text(json.dumps(old))
        assert Evaluation.model_validate(old).verdicts == {}
        assert "tuned is better than base" in write_report([run], run.path / "old.html").read_text()
        assert "| tuned | **90.0 %** (79.9 to 95.3) |  |  |  |" in ask("report", run.id, "--format", "markdown").stdout
        assert ask("report", run.id, "--format", "junit").returncode == 0
        run.evaluation_path.write_text('{"items": "many"')
        with pytest.raises(FtbridgeError, match="cannot be read"):
            contents_of([run])
    finally:
        run.evaluation_path.write_text(text)
