"""Recording: what a tuned model returns, once, whatever happens to the process, the batch, the budget or the model."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import GateNotMet, ModelUnavailable, ProviderRefused, UsageError
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.inventory import take_inventory
from ftbridge.migrate.record import Recorded, RecordWish, record
from ftbridge.migrate.recording import Recording, progress_of
from support.kills import kill_at_each_step
from support.recorded_account import KEY, MODEL, account, lamps, playing, write


def begin() -> Migration:
    """A migration with an inventory."""
    migration = Migration.open(create=True)
    take_inventory(migration)
    return migration


def go(migration: Migration, folder: Path, **wish: Any) -> Recorded:
    wishes = {"model": MODEL, "items": folder / "valid.jsonl", "way": "live", "samples": 3, **wish}
    return record(migration, RecordWish(**wishes))


def samples(migration: Migration) -> dict[tuple[str, int], Any]:
    return Recording.of(migration, MODEL).samples


@pytest.mark.parametrize("way", ["live", "batch"])
def test_each_item_has_a_greedy_completion_with_log_probabilities_and_further_ones(tmp_path: Path, way: str) -> None:
    with playing(tmp_path, account(tmp_path, noise=0.5)) as service:
        migration = begin()
        recorded = go(migration, tmp_path, way=way)
        assert recorded.so_far.finished
        recording = Recording.of(migration, MODEL)
        assert len(recording.samples) == 6 * 4
        for item in recording.items:
            greedy, *drawn = recording.of_item(item.key)
            assert greedy.text == (item.expected or {})["content"]
            assert len(drawn) == 3
            assert recording.logprobs(item.key)["content"][0]["token"] == greedy.text
        assert len({sample.text for sample in recording.samples.values() if sample.sample}) > 1
        # Two requests an item: the drawn ones share a prompt's price. Asked again, nothing is missing.
        assert Counter(entry["n"] for entry in service.ledger) == {1: 6, 3: 6}
        go(migration, tmp_path, way=way)
        assert len(service.ledger) == 12
        assert progress_of(migration, MODEL) == recorded.so_far


def test_more_samples_are_drawn_for_the_same_items_and_none_again(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path)) as service:
        migration = begin()
        go(migration, tmp_path, samples=1)
        go(migration, tmp_path, samples=3)
        assert len(samples(migration)) == 6 * 4
        assert sorted(entry["n"] for entry in service.ledger) == [1] * 12 + [2] * 6


def test_a_service_that_returns_one_choice_whatever_n_says_is_asked_for_each_sample(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path, items=2)) as service:
        migration = begin()
        with _one_choice():
            go(migration, tmp_path, samples=3)
        assert len(samples(migration)) == 2 * 4
        assert len(service.ledger) == 2 * (1 + 3)


def _one_choice() -> Any:
    """A service's responses with their first choice alone, as hosts send them that do not take `n`."""
    import contextlib

    from ftbridge.migrate import live

    @contextlib.contextmanager
    def patched() -> Any:
        real = live.samples_of

        def first(request: Any, document: dict[str, Any], **more: Any) -> Any:
            return real(request, {**document, "choices": document["choices"][:1]}, **more)

        live.samples_of = first  # type: ignore[assignment]
        try:
            yield
        finally:
            live.samples_of = real

    return patched()


def test_a_batch_that_does_not_fit_the_queue_is_sent_in_halves(tmp_path: Path) -> None:
    played = account(tmp_path) | {"batches": [{"nth": 1, "ends": "failed"}, {"nth": 2, "ends": "failed"}]}
    with playing(tmp_path, played) as service:
        migration = begin()
        assert go(migration, tmp_path, way="batch").so_far.finished
        assert service.paid_twice() == []
        assert len(samples(migration)) == 6 * 4


def test_what_an_expired_batch_left_open_is_sent_again_and_what_it_did_is_not(tmp_path: Path) -> None:
    played = account(tmp_path) | {"batches": [{"nth": 1, "ends": "expired", "after": 5}]}
    with playing(tmp_path, played) as service:
        migration = begin()
        assert go(migration, tmp_path, way="batch").so_far.finished
        assert service.paid_twice() == []
        assert len(service.ledger) == 12


def test_a_model_that_stops_half_way_leaves_what_was_recorded(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path, items=24, stops_after=36)):
        migration = begin()
        with pytest.raises(ModelUnavailable, match="is no longer available") as stopped:
            go(migration, tmp_path)
        assert "prove" in (stopped.value.hint or "")
        recorded = samples(migration)
        assert (
            sum(sample == 0 for _, sample in recorded) >= 22
        )  # greedy completions come first, but for what was in flight
        so_far = progress_of(migration, MODEL)
        assert so_far is not None
        assert not so_far.finished


def test_a_model_that_is_gone_is_named_and_nothing_is_paid(tmp_path: Path) -> None:
    played = account(tmp_path)
    played["models"]["gpt-4.1-mini-2025-04-14"] = {"shutdown": -3}
    with playing(tmp_path, played) as service:
        migration = begin()
        items: list[str] = []
        with pytest.raises(ModelUnavailable, match="is no longer available"):
            record(
                migration,
                RecordWish(model=MODEL, items=tmp_path / "valid.jsonl"),
                agree=lambda estimate, notes: items.extend(notes),
            )
        assert any("is not in the service's list of models" in note for note in items)
        assert service.ledger == []


def test_the_budget_stops_before_it_is_passed_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path)) as service:
        migration = begin()
        with pytest.raises(GateNotMet, match=r"budget of \$0\.0002 is used up"):
            go(migration, tmp_path, max_usd=0.0002)
        some = len(service.ledger)
        assert 0 < some < 12
        assert go(migration, tmp_path, max_usd=1).so_far.finished
        assert service.paid_twice() == []


def test_a_batch_holds_what_the_budget_pays_for_and_the_rest_waits_for_a_larger_one(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path)) as service:
        migration = begin()
        with pytest.raises(GateNotMet, match="is used up"):
            go(migration, tmp_path, way="batch", max_usd=0.0001)
        assert 0 < len(service.ledger) < 12
        assert go(migration, tmp_path, way="batch", max_usd=1).so_far.finished
        assert service.paid_twice() == []


def test_a_batch_that_was_paid_for_is_waited_for_before_anything_is_asked_live(tmp_path: Path) -> None:
    played = account(tmp_path) | {"batch_seconds": 0.5}
    with playing(tmp_path, played) as service:
        migration = begin()

        def stop(text: str) -> None:
            raise KeyboardInterrupt  # as Ctrl-C while the batch is under way

        wish = RecordWish(model=MODEL, items=tmp_path / "valid.jsonl", way="batch")
        with pytest.raises(KeyboardInterrupt):
            record(migration, wish, tell=stop)
        assert go(migration, tmp_path, way="live").so_far.finished
        assert len(service.ledger) == 12


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"choices[].message.content": None, "choices[].message.refusal": "I may not."}, "refusal"),
        ({"choices[].message.content": None, "choices[].finish_reason": "content_filter"}, "no_content"),
    ],
)
def test_refusals_and_empty_content_are_recorded_as_such_and_not_asked_again(
    tmp_path: Path, changed: dict[str, Any], outcome: str
) -> None:
    fault = {"on": "POST /chat/completions", "fault": "alter", "set": changed}
    with playing(tmp_path, account(tmp_path, items=2), {"faults": [fault]}) as service:
        migration = begin()
        go(migration, tmp_path, samples=1)
        assert {sample.outcome for sample in samples(migration).values()} == {outcome}
        paid = len(service.ledger)
        go(migration, tmp_path, samples=1)
        assert len(service.ledger) == paid


def test_a_request_that_the_service_declines_holds_up_no_other(tmp_path: Path) -> None:
    declines = {"on": "POST /chat/completions", "nth": 1, "status": 400, "code": "content_policy", "message": "no"}
    with playing(tmp_path, account(tmp_path), {"faults": [declines]}):
        migration = begin()
        recorded = go(migration, tmp_path)
        assert (recorded.so_far.refused, recorded.so_far.complete) == (1, 6)
        recorded_samples = samples(migration)
        counts = Counter(sample.outcome for sample in recorded_samples.values())
        # Whichever request arrives first is declined: the greedy one of an item, or that of its further completions.
        assert len({item for (item, _), sample in recorded_samples.items() if sample.outcome == "declined"}) == 1
        assert counts["completion"] >= 5 * 4


def test_a_response_that_was_lost_is_found_at_the_service_and_not_paid_again(tmp_path: Path) -> None:
    lost = {"on": "POST /chat/completions", "nth": [2, 5], "fault": "reset", "when": "after"}
    with playing(tmp_path, account(tmp_path), {"faults": [lost]}) as service:
        migration = begin()
        assert go(migration, tmp_path).so_far.finished
        assert service.paid_twice() == []


def test_limits_of_few_requests_a_minute_are_kept_and_not_run_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = {"model": "gpt-4.1-mini-2025-04-14", "requests_per_minute": 2}
    played = account(tmp_path, items=2) | {"limits": [limit], "minute": 0.4}
    with playing(tmp_path, played) as service:
        migration = begin()
        monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "1")
        assert go(migration, tmp_path, samples=1).so_far.finished
        assert service.state["requests"]["POST /chat/completions"] <= 6


def test_a_quota_that_is_used_up_ends_the_recording_for_good(tmp_path: Path) -> None:
    poor = {
        "on": "POST /chat/completions",
        "nth": [4, 5, 6, 7, 8, 9, 10, 11, 12],
        "status": 429,
        "code": "insufficient_quota",
    }
    with playing(tmp_path, account(tmp_path), {"faults": [poor]}):
        migration = begin()
        with pytest.raises(ProviderRefused):
            go(migration, tmp_path)
        assert samples(migration)


def test_without_anything_but_training_lines_nothing_is_recorded(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path)) as service:
        migration = begin()
        with pytest.raises(UsageError, match=r"no prompts to record"):
            go(migration, tmp_path, items=None)
        assert service.ledger == []


def test_a_missing_key_is_named_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with playing(tmp_path, account(tmp_path)) as service:
        migration = begin()
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
            go(migration, tmp_path)
        assert service.ledger == []
        monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_a_key_without_the_scope_to_ask_models_is_refused_with_the_scopes_name(tmp_path: Path) -> None:
    played = account(tmp_path)
    played["keys"][KEY]["without"] = ["api.model.request"]
    with playing(tmp_path, played):
        migration = begin()
        with pytest.raises(ProviderRefused, match=r"api\.model\.request"):
            go(migration, tmp_path)


def test_without_a_price_a_budget_cannot_be_kept_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = {"as_of": "2026-01-01", "models": {}}
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    played = account(tmp_path)
    played["jobs"][0]["model"] = "gpt-9-2026-01-01"
    played["models"]["gpt-9-2026-01-01"] = {"shutdown": 49}
    with playing(tmp_path, played, {"models": ["gpt-9-2026-01-01"]}):
        migration = begin()
        with pytest.raises(UsageError, match="no price is known"):
            go(migration, tmp_path, model="desk1", max_usd=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["live", "batch"])
def test_killed_at_each_journal_step_a_recording_resumes_and_pays_for_nothing_twice(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = account(tmp_path, items=3)
    if way == "batch":  # the first batch of each recording is too long for the queue, its halves are not
        played["limits"] = [{"model": "gpt-4.1-mini-2025-04-14", "batch_queue_tokens": 100}]
    with playing(tmp_path, played, apart=True) as service:
        begun = begin().path
        warm = tmp_path / "warm"
        shutil.copytree(begun, warm / "migrations" / begun.name)
        monkeypatch.setenv("FTBRIDGE_HOME", str(warm))
        go(Migration.open(), tmp_path, way=way)  # so that no process imports anything anew
        monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0.02")  # what was in flight at a kill shows a moment later

        def prepared(step: int) -> Any:
            home = tmp_path / f"home-{step}"
            shutil.copytree(begun, home / "migrations" / begun.name)
            monkeypatch.setenv("FTBRIDGE_HOME", str(home))
            items = write(tmp_path / f"items-{step}.jsonl", lamps(3, first=1000 * step))
            return lambda: go(Migration.open(), tmp_path, items=items, way=way)

        def check(step: int) -> None:
            assert service.paid_twice() == []
            assert len(samples(Migration.open())) == 3 * 4

        assert kill_at_each_step(prepared, check) >= 12


def test_the_written_items_are_those_of_a_file_once_each_and_without_training_lines(tmp_path: Path) -> None:
    with playing(tmp_path, account(tmp_path)):
        migration = begin()
        settings = write(tmp_path / "own.jsonl", [*lamps(3, first=700), *lamps(2, first=700)])
        go(migration, tmp_path, items=settings, samples=0)
        assert [item.origin for item in Recording.of(migration, MODEL).items] == [
            f"own.jsonl, line {n}" for n in (1, 2, 3)
        ]


@pytest.mark.parametrize("way", ["live", "batch"])
def test_a_smaller_limit_and_fewer_samples_are_followed_once_a_recording_has_begun(tmp_path: Path, way: str) -> None:
    with playing(tmp_path, account(tmp_path)) as service:
        migration = begin()
        with pytest.raises(GateNotMet):
            go(migration, tmp_path, way=way, max_usd=0.00005)
        paid = len(service.ledger)
        assert 0 < paid < 6
        recorded = go(migration, tmp_path, way=way, limit=paid + 1, samples=0)
        assert (recorded.so_far.items, recorded.so_far.finished) == (paid + 1, True)
        assert len(service.ledger) == paid + 1
        assert any(f"Only the first {paid + 1} of the recording's 6 items" in note for note in recorded.notes)
        assert progress_of(migration, MODEL) == recorded.so_far
        go(migration, tmp_path, way=way, limit=1, samples=1)
        assert len(service.ledger) == paid + 2
        assert go(migration, tmp_path, way=way).so_far.items == 6
        assert len(samples(migration)) == 6 * 4
        assert service.paid_twice() == []


def test_fewer_items_and_samples_leave_what_is_recorded_and_a_proof_uses_all_of_it(tmp_path: Path) -> None:
    from ftbridge.migrate.items import RecordedItem
    from ftbridge.migrate.questions import Question, recorded_predictions

    def question(item: RecordedItem) -> Any:
        return type("Asked", (), {"key": item.key, "index": 0})()

    with playing(tmp_path, account(tmp_path)) as service:
        migration = begin()
        go(migration, tmp_path)
        recorded = go(migration, tmp_path, limit=2, samples=0)
        assert len(service.ledger) == 12
    recording = Recording.of(migration, MODEL)
    assert (recorded.so_far.items, recorded.so_far.finished, len(recording.samples)) == (2, True, 6 * 4)
    questions: list[Question] = [question(item) for item in recording.items]
    assert len(recorded_predictions(questions, recording)) == 1 + 3


def test_a_dry_run_with_a_smaller_limit_changes_nothing_even_where_all_of_it_is_recorded(tmp_path: Path) -> None:
    def stop(estimate: Any, notes: Any) -> None:
        raise KeyboardInterrupt

    with playing(tmp_path, account(tmp_path)):
        migration = begin()
        go(migration, tmp_path, samples=0)
        before = Recording.of(migration, MODEL).settings
        with pytest.raises(KeyboardInterrupt):
            record(migration, RecordWish(model=MODEL, limit=2, samples=0, way="live"), agree=stop)
        assert Recording.of(migration, MODEL).settings == before


@pytest.mark.parametrize(
    ("option", "wish"), [("--temperature", {"temperature": 0.3}), ("--max-tokens", {"max_completion_tokens": 7})]
)
def test_what_would_draw_completions_otherwise_is_refused_before_anything_is_paid(
    tmp_path: Path, option: str, wish: dict[str, Any]
) -> None:
    with playing(tmp_path, account(tmp_path)) as service:
        migration = begin()
        go(migration, tmp_path, samples=0)
        paid = len(service.ledger)
        with pytest.raises(UsageError, match=f"{option} .* would mix them with others"):
            go(migration, tmp_path, **wish)
        assert len(service.ledger) == paid
        assert go(migration, tmp_path, temperature=1.0).so_far.finished


def test_a_batch_of_more_items_and_samples_than_are_wanted_now_is_still_read(tmp_path: Path) -> None:
    def stop(text: str) -> None:
        raise KeyboardInterrupt  # as Ctrl-C while the batch is under way

    played = account(tmp_path) | {"batch_seconds": 0.5}
    with playing(tmp_path, played) as service:
        migration = begin()
        wish = RecordWish(model=MODEL, items=tmp_path / "valid.jsonl", way="batch")
        with pytest.raises(KeyboardInterrupt):
            record(migration, wish, tell=stop)
        assert go(migration, tmp_path, limit=2, samples=0).so_far.finished
        assert len(samples(migration)) == 6 * 4
        assert len(service.ledger) == 12
