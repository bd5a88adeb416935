"""Tables as people see them: at 80 columns, without colour, nothing cut."""

import time
from pathlib import Path

import pytest
from rich.console import Console

from ftbridge.data.manifest import Manifest, Split
from ftbridge.evaluation.document import Evaluation, Score
from ftbridge.evaluation.retention.measure import Retention
from ftbridge.evaluation.verdict import compare_family
from ftbridge.evaluation.wording import distinct_rivals, power_words, sentence, summary
from ftbridge.report.terminal.evaluation import as_markdown
from ftbridge.report.terminal.runs import run_panel, runs_table
from ftbridge.report.terminal.tables import evaluation_table, lowering_table, retention_table
from ftbridge.runs.metrics import Metrics
from ftbridge.runs.records import TunedModel
from ftbridge.runs.run import RunState
from ftbridge.spec.lowering import FieldReport, Lowering
from support.snapshots import require_snapshot


def _shown(renderable, width=80):
    console = Console(width=width, no_color=True, highlight=False, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    text = captured.get()
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    return text


def _joined(text):
    return " ".join(text.split())


def _score(mean, low, high):
    return Score(mean=mean, ci95=(low, high), n=90)


def _evaluation(graders=("exact",), notes=(), **candidates):
    scores = candidates or {"tuned": _score(0.878, 0.794, 0.930), "base": _score(0.167, 0.104, 0.257)}
    return Evaluation(
        items=90,
        graders=list(graders),
        candidates={name: dict.fromkeys(graders, score) for name, score in scores.items()},
        notes=list(notes),
    )


def test_candidates_stand_base_first_tuned_last_with_their_intervals():
    others = {
        "zero_shot": _score(0.5, 0.4, 0.6),
        "tuned": _score(0.878, 0.794, 0.930),
        "base": _score(0.167, 0.104, 0.257),
    }
    lines = _shown(evaluation_table(_evaluation(**others))).splitlines()
    assert [line.split()[0] for line in lines] == ["candidate", "base", "zero_shot", "tuned"]
    assert "16.7 %  [10.4, 25.7]" in lines[1]
    assert "87.8 %  [79.4, 93.0]" in lines[3]
    assert lines[1].index("●") < lines[2].index("●") < lines[3].index("●")


def _judged_evaluation(graders, **rivals):
    """An evaluation of binary scores: by candidate, how many items of 60 it gets right, alike for all graders."""
    right = {name: [float(where < count) for where in range(60)] for name, count in rivals.items()}
    scored = {name: dict.fromkeys(graders, values) for name, values in right.items()}
    others = [name for name in rivals if name != "tuned"]
    verdicts = compare_family({f"tuned-{name}": (scored[name], scored["tuned"]) for name in others}, 0.1)
    scores = {name: _score(sum(values) / 60, 0.0, 1.0) for name, values in right.items()}
    evaluation = _evaluation(graders, **scores)
    lines = summary(distinct_rivals(evaluation.candidates, verdicts))
    return evaluation.model_copy(update={"verdicts": verdicts, "summary": lines, "items": 60})


def test_a_rival_that_wins_is_the_first_line_and_every_verdict_has_a_row():
    text = _shown(evaluation_table(_judged_evaluation(("exact", "fields"), base=10, few_shot=50, tuned=30)))
    lines = [line for line in text.splitlines() if line]
    assert lines[0] == "few_shot is better than tuned on exact and fields."
    assert lines[1] == "tuned is better than base on exact and fields."
    rows = [line.split() for line in lines if line.startswith(("exact", "fields"))]
    assert [row[-1] for row in rows if row[-1] in ("worse", "better")] == ["worse", "worse", "better", "better"]
    assert all("0/20" in row for row in rows[:2])
    assert all("20/0" in row for row in rows[2:4])


def test_sentences_are_those_of_the_result_and_shown_when_they_are_wanted():
    evaluation = _judged_evaluation(("exact",), base=29, tuned=30)
    wanted = sentence("exact", evaluation.verdicts["tuned-base"]["exact"], candidate="tuned", baseline="base")
    assert wanted.startswith("tuned is not worse than base on exact by more than 10 points (+1.7 points")
    assert wanted in _joined(_shown(evaluation_table(evaluation, sentences=True)))
    assert wanted not in _joined(_shown(evaluation_table(evaluation)))
    for result in (
        evaluation.summary[0],
        *map(_joined, (as_markdown(evaluation), _shown(evaluation_table(evaluation)))),
    ):
        assert "tuned is not worse than base by more than 10 points on exact." in result


def test_where_interval_and_test_disagree_nothing_is_claimed():
    evaluation = _judged_evaluation(("exact",), base=0, tuned=5)
    result = evaluation.verdicts["tuned-base"]["exact"]
    assert result.ci95[0] > 0
    assert result.p_adjusted > 0.05
    text = _shown(evaluation_table(evaluation, sentences=True))
    assert "above" not in text
    assert "tuned is better" not in text


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_six_graders_keep_their_names_at_any_width(width):
    graders = ("exact", "queue named", "fields", "wording of the reply", "weighted", "short")
    lines = _shown(evaluation_table(_judged_evaluation(graders, base=10, tuned=50)), width).splitlines()
    rows = [line for line in lines if "[" in line and "/" in line]
    assert [row.split()[0] for row in rows] == [grader.split()[0] for grader in graders]


def test_zero_shot_that_is_base_gets_a_row_but_no_second_verdict():
    text = _shown(evaluation_table(_judged_evaluation(("exact",), base=10, zero_shot=10, tuned=50)))
    assert "zero_shot  " in text
    assert text.count("tuned is better") == 1
    assert text.count("tuned against") == 1


def test_notes_are_shown():
    assert "Note: 12 items are few." in _shown(evaluation_table(_evaluation(notes=["12 items are few."])))


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_many_graders_are_never_cut(count, width):
    graders = [f"grader_{number}" for number in range(count)]
    full = _score(1.0, 0.957, 1.0)
    text = _shown(evaluation_table(_evaluation(graders, base=full, tuned=full)), width)
    assert text.count("100.0 %  [95.7, 100.0]") == 2 * count
    assert all(grader in text for grader in graders)


def test_names_from_outside_are_shown_as_they_are():
    score = _score(0.5, 0.4, 0.6)
    assert "[red]model[/red]" in _shown(evaluation_table(_evaluation(graders=("[b]g",), **{"[red]model[/red]": score})))


def _run(**fields):
    now = time.time()
    by_name = {"id": "support-triage-local-20261123-1a2b", "provider": "local", "created": now - 400, "updated": now}
    return RunState(**{**by_name, **fields})


def _split(examples):
    return Split(examples=examples, tokens=100 * examples, sha256="", sources=[])


def test_runs_are_one_line_each():
    training = _run(state="running", stage="training", metrics=Metrics(step=12, total_steps=57, train_loss=0.4321))
    old = _run(
        id="x",
        state="succeeded",
        stage="done",
        created=time.time() - 3 * 86400,
        metrics=Metrics(step=57, valid_loss=0.2),
    )
    lines = _shown(runs_table([training, old])).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == [training.id, "running", "step", "12/57", "0.432", "6", "min", "ago"]
    assert lines[2].split() == ["x", "succeeded", "done", "0.200", "3", "days", "ago"]


def test_a_run_shows_its_figures_and_where_its_model_is():
    text = _shown(
        run_panel(
            _run(
                state="succeeded",
                stage="done",
                finished=time.time(),
                data=Manifest(splits={"train": _split(1297), "test": _split(90)}, notes=[], recipe="", lines_sha256=""),
                metrics=Metrics(step=57, total_steps=57, train_loss=0.1, valid_loss=0.25),
                tuned=TunedModel(provider="local", id="runs/x/adapter", base="smollm2-135m-instruct"),
            )
        )
    )
    for result in (
        "succeeded",
        "train 1,297 · test 90",
        "57 of 57",
        "train 0.100 · validation 0.250",
        "runs/x/adapter",
    ):
        assert result in text
    assert "6 min 40 s" in text


def test_a_failed_run_shows_why_and_what_to_do():
    error = {
        "kind": "out_of_memory",
        "message": "memory ran out [at step 3]",
        "hint": "Set local.max_tokens_per_microbatch: 256.",
    }
    text = _shown(run_panel(_run(state="failed", stage="training", error=error)))
    assert "memory ran out [at step 3]" in text
    assert "Set local.max_tokens_per_microbatch: 256." in text


def test_a_lowering_report_tells_each_field_by_section():
    fields = [
        FieldReport(field="name", outcome="exact", requested="triage", sent="triage"),
        FieldReport(
            field="hyperparameters.learning_rate_multiplier",
            outcome="translated",
            requested=5.0,
            sent=0.001,
            how="multiplier x base = 5 x 0.0002",
        ),
        FieldReport(field="hyperparameters.beta", outcome="unused", requested=None),
        FieldReport(field="fallback", outcome="refused", requested="openai", how="not in this version"),
    ]
    text = _shown(lowering_table(Lowering(provider="local", request={}, fields=fields)))
    flat = _joined(text)
    assert "hyperparameters learning_rate_multiplier translated 5 → 0.001: multiplier x base = 5 x 0.0002" in flat
    assert "beta unused not set" in flat
    assert "fallback refused openai: not in this version" in flat
    assert text.splitlines()[-1] == "local: 1 exact, 1 translated, 1 refused, 1 unused."


def test_what_was_kept_fits_80_columns_and_says_its_verdict():
    kinds = ["fact", "arithmetic", "instruction", "format", "nonsense", "canary"]
    score = {"mean": 0.5, "ci95": [0.4, 0.6], "n": 20}
    result = Retention.model_validate(
        {
            "items": 120,
            "margin": 0.05,
            "baseline": "base",
            "kinds": kinds,
            "candidates": {name: dict.fromkeys([*kinds, "all"], score) for name in ("base", "tuned")},
            "verdicts": {
                "tuned": {"verdict": "kept", "difference": 0.01, "ci95": [-0.02, 0.04], "gained": 3, "lost": []}
            },
        }
    )
    text = _shown(retention_table(result))
    assert all(kind in text for kind in kinds)
    assert "tuned still knows what base knew: +1.0 points" in _joined(text)


def test_items_too_few_to_show_anything_are_said_to_show_nothing():
    few = compare_family({"tuned-base": ({"a": [0.0] * 4}, {"a": [1.0] * 4})})
    many = compare_family({"tuned-base": ({"a": [0.0, 1.0] * 40}, {"a": [1.0, 1.0] * 40})})
    assert power_words(4, few.values()) == "4 items show no difference on a four times in five, however large."
    assert power_words(80, many.values()).startswith("80 items show a difference of ")
    assert "smaller ones are often missed" in power_words(80, many.values())


SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.mark.parametrize("width", [80, 120])
def test_an_evaluation_with_rivals_and_notes_looks_as_it_was_reviewed(width: int) -> None:
    evaluation = _judged_evaluation(("exact", "fields"), base=10, few_shot=50, tuned=30)
    evaluation = evaluation.model_copy(update={"notes": ["12 items are few."]})
    require_snapshot(_shown(evaluation_table(evaluation, sentences=True), width), SNAPSHOTS / f"evaluation-{width}.txt")


def test_an_evaluation_in_markdown_looks_as_it_was_reviewed() -> None:
    evaluation = _judged_evaluation(("exact", "fields"), base=10, few_shot=50, tuned=30)
    require_snapshot(as_markdown(evaluation), SNAPSHOTS / "evaluation.md")
