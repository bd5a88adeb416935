"""The proof: a replacement is compared with a recording alone, by a rule that the recording settles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import UsageError
from ftbridge.migrate.agreement import deciding, shape_of
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.inventory import take_inventory
from ftbridge.migrate.items import RecordedItem
from ftbridge.migrate.proof_page import page
from ftbridge.migrate.prove import ProofWish, prove
from ftbridge.migrate.questions import readable
from ftbridge.migrate.record import RecordWish, record
from ftbridge.migrate.retrain import RetrainWish, plan, start
from ftbridge.runner import drive
from ftbridge.runs.run import Run
from support.kills import kill_again_and_again
from support.recorded_account import MODEL, NAMES_THE_COLOUR, Played, account, lamps, playing, write

HOSTED = "gpt-4.1-mini-2025-04-14"


@contextmanager
def replaced(
    folder: Path, *, items: int = 40, samples: int = 3, good: bool = True, apart: bool = False, **more: Any
) -> Iterator[tuple[Migration, Run, Played]]:
    """A recorded model and a finished run in its place, which names colours (`good`) or repeats its prompt."""
    played = account(folder, items, noise=0.3)
    scenario = {"speed": 100, "answers": [NAMES_THE_COLOUR] if good else []}
    with playing(folder, played, scenario, apart=apart) as service:
        migration = Migration.open(create=True)
        take_inventory(migration)
        items_file = more.pop("items_file", folder / "valid.jsonl")
        record(migration, RecordWish(model=MODEL, items=items_file, samples=samples, way="live"))
        stand_ins = {"ftjob-desk1": folder / "train.jsonl"}
        wish = RetrainWish(model=MODEL, provider="openai", base=HOSTED, stand_ins=stand_ins, **more)
        run = start(migration, plan(migration, wish), wish)
        drive.drive(run)
        yield migration, run, service


def test_a_replacement_that_agrees_as_well_as_the_model_with_itself_is_not_worse(tmp_path: Path) -> None:
    with replaced(tmp_path) as (migration, run, _):
        proof = prove(migration, ProofWish(model=MODEL), run)
    decides = proof.measures[0]
    assert proof.ok
    assert (decides.name, decides.decides) == ("exact", True)
    assert decides.replacement.mean == 1.0
    assert decides.recorded is not None
    assert 0.5 < decides.recorded.mean < 1.0
    assert decides.noise == pytest.approx(1 - decides.recorded.mean)
    assert json.loads((migration.folder("proofs", MODEL, run.id) / "proof.json").read_text())["ok"]


def test_a_replacement_that_repeats_its_prompt_is_worse_and_the_worst_items_are_shown(tmp_path: Path) -> None:
    with replaced(tmp_path, good=False) as (migration, run, _):
        proof = prove(migration, ProofWish(model=MODEL), run)
    assert not proof.ok
    decides = proof.measures[0]
    assert decides.judged is not None
    assert decides.judged.verdict == "worse"
    assert proof.worst
    assert proof.worst[0].recorded in ("amber", "blue", "green", "violet")
    html = page(proof)
    assert "It is not shown that the replacement is not worse" in html
    assert "http" not in html.replace("http-equiv", "")  # self-contained


def test_the_proof_needs_nothing_of_the_old_service(tmp_path: Path) -> None:
    with replaced(tmp_path) as (migration, run, service):
        before = len([entry for entry in service.ledger if entry["model"] == MODEL])
        requests = service.state["requests"]
        prove(migration, ProofWish(model=MODEL), run)
        after = service.state["requests"]
        assert len([entry for entry in service.ledger if entry["model"] == MODEL]) == before
        changed = {route for route, count in after.items() if count != requests.get(route, 0)}
        assert changed == {"POST /chat/completions"}  # the replacement's own


def test_proved_again_a_replacement_is_asked_nothing(tmp_path: Path) -> None:
    with replaced(tmp_path, items=12) as (migration, run, service):
        first = prove(migration, ProofWish(model=MODEL), run)
        paid = len(service.ledger)
        second = prove(migration, ProofWish(model=MODEL), run)
        assert len(service.ledger) == paid
    assert first.measures == second.measures
    assert any("few" in note for note in first.notes)


def test_without_further_completions_nothing_is_claimed(tmp_path: Path) -> None:
    with replaced(tmp_path, items=12, samples=0) as (migration, run, _):
        proof = prove(migration, ProofWish(model=MODEL), run)
    assert not proof.ok
    assert proof.measures[0].judged is None
    assert any("--samples" in note for note in proof.notes)


def test_items_that_the_run_was_trained_on_are_left_out(tmp_path: Path) -> None:
    settings = write(tmp_path / "own.jsonl", lamps(24, first=500))
    with replaced(tmp_path, items=24, items_file=settings, distil=True) as (migration, run, _):
        proof = prove(migration, ProofWish(model=MODEL), run)
    assert proof.left_out["the run was trained on them"] > 0
    assert proof.items + proof.left_out["the run was trained on them"] == 24


def test_where_the_spec_has_graders_they_decide(tmp_path: Path) -> None:
    grader = {
        "type": "string_check",
        "name": "right colour",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.reference}}",
    }
    (tmp_path / "graders.json").write_text(json.dumps([grader]))
    with replaced(tmp_path, graders=tmp_path / "graders.json") as (migration, run, _):
        proof = prove(migration, ProofWish(model=MODEL, margin=0.1), run)
    assert proof.by_graders
    assert [(one.name, one.decides) for one in proof.measures] == [("right colour", True)]
    measured = proof.measures[0]
    assert measured.recorded is not None
    assert measured.recorded.mean == measured.replacement.mean == 1.0
    assert measured.noise is not None
    assert measured.noise > 0.1  # what the model does from one completion to another
    assert proof.ok


def test_a_run_without_a_model_and_a_model_without_a_recording_are_named(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path)):
        migration = Migration.open(create=True)
        take_inventory(migration)
        wish = RetrainWish(model=MODEL, base="b", stand_ins={"ftjob-desk1": tmp_path / "train.jsonl"})
        run = start(migration, plan(migration, wish), wish, lint=False)
        with pytest.raises(UsageError, match="no completions of .* are recorded"):
            prove(migration, ProofWish(model=MODEL), run)
        record(migration, RecordWish(model=MODEL, items=tmp_path / "valid.jsonl", samples=0, way="live"))
        with pytest.raises(UsageError, match="has no tuned model"):
            prove(migration, ProofWish(model=MODEL), run)


def test_items_with_images_are_left_out_for_models_that_do_not_read_them() -> None:
    text = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]
    items = [
        RecordedItem(key=str(where), source="file", origin="f", request={"messages": messages})
        for where, messages in enumerate((text, image, text))
    ]
    readable_items, refusals, left_out = readable(items, items[1:], {"not recorded": 1})
    assert ([item.key for item in readable_items], [item.key for item in refusals]) == (["0", "2"], ["2"])
    assert left_out == {"not recorded": 1, "contain input that local models cannot read": 1}
    with pytest.raises(UsageError, match="every recorded item contains images"):
        readable(items[1:2], [], {})


@pytest.mark.parametrize(
    ("names", "agreement", "decides"),
    [
        (["exact", "similarity"], {"exact": 0.9}, "exact"),
        (["exact", "similarity"], {"exact": 0.2}, "similarity"),
        (["exact", "similarity"], {"exact": None}, "similarity"),
        (["structured", "exact", "similarity"], {"exact": 0.9}, "structured"),
        (["exact", "similarity", "judge"], {"exact": 0.9}, "judge"),
    ],
)
def test_which_measure_decides_is_settled_by_the_recording_alone(
    names: list[str], agreement: dict[str, float | None], decides: str
) -> None:
    assert deciding(names, agreement) == decides


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ('{"a": 1}', "fields"),
        ('[{"type": "function", "function": {"name": "f", "arguments": "{}"}}]', "calls"),
        ("[1, 2]", "text"),
        ("{not json", "text"),
        ("amber", "text"),
    ],
)
def test_the_shape_of_a_completion(text: str, shape: str) -> None:
    assert shape_of(text) == shape


@pytest.mark.slow
def test_killed_at_its_journal_steps_a_proof_resumes_and_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with replaced(tmp_path, items=8, apart=True) as (_, run, service):
        folder = run.path

        def work() -> None:
            prove(Migration.open(), ProofWish(model=MODEL), Run.open(folder))

        kills = kill_again_and_again(work)
        assert kills >= 1
        work()
        assert service.paid_twice() == []
