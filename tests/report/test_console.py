"""Tables as people see them: at 80 columns, without colour, nothing cut."""

import time

import pytest
from rich.console import Console

from ftbridge.evaluation.evaluate import Difference, Evaluation, Score
from ftbridge.evaluation.retention.judge import Retention
from ftbridge.lowering import FieldReport, Lowering
from ftbridge.report.console import evaluation_table, lowering_table, retention_table, run_panel, runs_table
from ftbridge.runs.run import RunState


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


def _difference(value, low, high, better, worse):
    return Difference(difference=value, ci95=(low, high), n=90, better=better, worse=worse, same=90 - better - worse)


def _evaluation(graders=("exact",), paired=None, notes=(), **candidates):
    scores = candidates or {"tuned": _score(0.878, 0.794, 0.930), "base": _score(0.167, 0.104, 0.257)}
    return Evaluation(
        items=90,
        graders=list(graders),
        candidates={name: dict.fromkeys(graders, score) for name, score in scores.items()},
        paired={pair: dict.fromkeys(graders, found) for pair, found in (paired or {}).items()},
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


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            _difference(0.711, 0.602, 0.795, 65, 1),
            "tuned is 71.1 points above base on exact (95 % interval 60.2 to 79.5, 90 items; 65 better, 1 worse).",
        ),
        (
            _difference(-0.2, -0.3, -0.1, 2, 20),
            "tuned is 20.0 points below base on exact (95 % interval 10.0 to 30.0, 90 items; 2 better, 20 worse).",
        ),
        (
            _difference(0.022, -0.031, 0.075, 5, 3),
            "tuned and base cannot be told apart on exact: +2.2 points "
            "(95 % interval -3.1 to +7.5, 90 items; 5 better, 3 worse).",
        ),
    ],
)
def test_a_sentence_says_what_the_interval_allows(found, sentence):
    assert sentence in _joined(_shown(evaluation_table(_evaluation(paired={"tuned-base": found}))))


def test_zero_shot_gets_a_row_but_no_second_sentence():
    score, found = _score(0.5, 0.4, 0.6), _difference(0.1, 0.02, 0.2, 9, 0)
    evaluation = _evaluation(
        paired={"tuned-base": found, "tuned-zero_shot": found}, base=score, zero_shot=score, tuned=score
    )
    text = _shown(evaluation_table(evaluation))
    assert "zero_shot  " in text
    assert text.count("points above") == 1


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
    known = {"id": "support-triage-local-20261123-1a2b", "provider": "local", "created": now - 400, "updated": now}
    return RunState(**{**known, **fields})


def test_runs_are_one_line_each():
    training = _run(state="running", stage="training", metrics={"step": 12, "total_steps": 57, "train_loss": 0.4321})
    old = _run(id="x", state="succeeded", stage="done", created=time.time() - 3 * 86400, metrics={"valid_loss": 0.2})
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
                data={"splits": {"train": {"examples": 1297}, "test": {"examples": 90}}},
                metrics={"step": 57, "total_steps": 57, "train_loss": 0.1, "valid_loss": 0.25},
                tuned={"id": "runs/x/adapter"},
            )
        )
    )
    for told in ("succeeded", "train 1,297 · test 90", "57 of 57", "train 0.100 · validation 0.250", "runs/x/adapter"):
        assert told in text
    assert "6 min 40 s" in text


def test_a_failed_run_shows_why_and_what_to_do():
    error = {
        "kind": "out_of_memory",
        "message": "memory ran out [at step 3]",
        "hint": "Set local.tokens_per_pass: 256.",
    }
    text = _shown(run_panel(_run(state="failed", stage="training", error=error)))
    assert "memory ran out [at step 3]" in text
    assert "Set local.tokens_per_pass: 256." in text


def test_a_lowering_report_tells_each_field_by_section():
    fields = [
        FieldReport(field="name", outcome="exact", asked="triage", given="triage"),
        FieldReport(
            field="hyperparameters.learning_rate_multiplier",
            outcome="translated",
            asked=5.0,
            given=0.001,
            how="multiplier x base = 5 x 0.0002",
        ),
        FieldReport(field="hyperparameters.beta", outcome="unused", asked=None),
        FieldReport(field="fallback", outcome="refused", asked="openai", how="not in this version"),
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
    told = Retention.model_validate(
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
    text = _shown(retention_table(told))
    assert all(kind in text for kind in kinds)
    assert "tuned still knows what base knew: +1.0 points" in _joined(text)
