"""Taking the inventory of scripted accounts over HTTP: what is found, what is not seen, and bad input."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftbridge.errors import DiskFull, ProviderRefused, UsageError
from ftbridge.migrate.account import Inventory
from ftbridge.migrate.cost import recording_cost
from ftbridge.migrate.folder import Migration
from ftbridge.migrate.inventory import take_inventory
from ftbridge.migrate.loading import load_inventory
from ftbridge.migrate.objects import Job, MigrationKey, suffix_of
from ftbridge.migrate.page import inventory_page
from ftbridge.migrate.stored import StoredCompletion
from ftbridge.migrate.summary import summarize
from ftbridge.prices import load_prices
from ftbridge.providers.openai.calendar import shutdown
from ftbridge.server import Simulator, simulating
from support.acme_account import ADMIN, SUPPORT, TRIAGE, acme

LETTERS = "ft:gpt-4o-2024-08-06:acme:letters:letters1"


def taken(simulator: Simulator, *keys: str, **options: Any) -> tuple[Migration, Inventory]:
    migration = Migration.open(create=True)
    return migration, take_inventory(migration, keys, base_url=simulator.base_url, **options)


def test_several_keys_merge_into_one_inventory_ranked_by_use(service: Simulator, keys: tuple[str, str]) -> None:
    _, result = taken(service, *keys)
    assert [model.id for model in result.models[:2]] == [LETTERS, TRIAGE]
    triage, letters = result.model("triage"), result.model(LETTERS)
    assert {job.id for job in result.jobs} >= {"ftjob-triage1", "ftjob-letters1"}
    assert letters.use is not None
    assert letters.use.requests == 900 * 59
    assert letters.method == "dpo"
    assert triage.use is not None
    assert set(triage.use.projects) == {"proj_support", "proj_billing"}
    assert triage.shared_with == ("proj_billing",)
    assert [point.step for point in triage.checkpoints] == [10, 20, 30]
    assert triage.days_left(result.today) == 49
    assert {source.project for source in result.sources if source.kind == "project"} == {"proj_support", "proj_billing"}
    assert all(job.organization == "org-acme" for job in result.jobs)
    assert triage.features.names == ("tools", "images")
    limit = result.limit(TRIAGE)
    assert limit is not None
    assert limit.tokens_per_minute == 300_000


def test_a_chain_of_jobs_is_followed_to_its_first_base(service: Simulator, keys: tuple[str, str]) -> None:
    _, result = taken(service, *keys)
    second = result.model("triage-v2")
    assert second.base == "gpt-4.1-mini-2025-04-14"
    assert second.chain == ("ftjob-triage1", "ftjob-triage2")
    assert second.continues == TRIAGE
    assert [need.role for need in second.files] == ["training", "validation", "result", "training", "result"]


def test_a_model_that_has_stopped_is_shown_as_gone_with_its_missing_file(
    service: Simulator, keys: tuple[str, str]
) -> None:
    _, result = taken(service, *keys)
    old = result.models[-1]
    assert old.base == "gpt-3.5-turbo-0125"
    assert not old.listed
    assert not old.is_available(result.today)
    # The service no longer lists it, so its last day comes from OpenAI's calendar.
    assert old.shutdown == shutdown(old.base)
    assert old.days_left(result.today) == (datetime.date(2026, 10, 23) - result.today).days
    assert [need.state for need in old.files] == ["gone", "gone"]


def test_running_it_again_reads_nothing_and_refresh_reads_everything(service: Simulator, keys: tuple[str, str]) -> None:
    migration, first = taken(service, *keys)
    before = sum(service.requests.values())
    again = take_inventory(migration)  # the keys are known from the first time
    assert sum(service.requests.values()) == before
    assert again.models == first.models
    fresh = take_inventory(migration, fresh=True)
    assert fresh.models == first.models
    assert sum(service.requests.values()) > before + 10


def test_a_project_without_a_key_is_named_as_not_seen(service: Simulator, keys: tuple[str, str]) -> None:
    _, result = taken(service, "SUPPORT_KEY")
    unseen = {one.what for one in result.unseen}
    assert any("Billing" in what for what in unseen)
    assert any("Laboratory" in what for what in unseen)
    assert not any("Support" in what for what in unseen)


def test_without_an_admin_key_use_is_unknown_and_that_is_told(
    service: Simulator, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_ADMIN_KEY")
    _, result = taken(service, *keys)
    assert all(model.use is None for model in result.models)
    assert any("OPENAI_ADMIN_KEY" in one.why for one in result.unseen)


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_scope_is_listed_and_read_once_it_is_granted(
    tmp_path: Path, keys: tuple[str, str], status: int
) -> None:
    account = acme(tmp_path / "account")
    account["keys"][SUPPORT] |= {"without": ["api.files.read", "api.chat.completions.read"], "status": status}
    with simulating(account=account) as service:
        migration, result = taken(service, "SUPPORT_KEY")
        scopes = {one.scope for one in result.unseen}
        assert {"api.files.read", "api.chat.completions.read"} <= scopes
        assert result.model("triage").files[0].state == "unknown"
        assert service.requests["GET /chat/completions"] == 1  # refused once, not asked for every model
        state = service.service.account
        assert state is not None
        granted = state.account.keys[SUPPORT].model_copy(update={"without": []})
        state.account.keys[SUPPORT] = granted
        again = take_inventory(migration)
        assert not {"api.files.read", "api.chat.completions.read"} & {one.scope for one in again.unseen}
        assert again.model("triage").files[0].state == "there"


def test_a_key_that_may_read_nothing_stops_with_what_to_grant(tmp_path: Path, keys: tuple[str, str]) -> None:
    account = acme(tmp_path / "account")
    account["keys"][SUPPORT] |= {"without": ["api.files.read", "api.model.read", "api.fine_tuning.jobs.read"]}
    with (
        simulating(account=account) as service,
        pytest.raises(ProviderRefused, match=r"SUPPORT_KEY may read neither.*\n.*read permission"),
    ):
        taken(service, "SUPPORT_KEY")


def test_no_key_says_which_variable_to_set(service: Simulator, keys: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=r"OPENAI_API_KEY is not set.*\n.*export OPENAI_API_KEY"):
        taken(service)


def test_an_unknown_key_is_refused_with_its_variable(
    service: Simulator, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPPORT_KEY", "sk-nobody-knows-this-key")
    with pytest.raises(ProviderRefused, match="SUPPORT_KEY.*does not accept the API key") as refused:
        taken(service, "SUPPORT_KEY")
    assert "sk-nobody" not in str(refused.value)


def test_an_admin_key_in_the_place_of_a_project_key_is_told_apart(
    service: Simulator, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPPORT_KEY", ADMIN)
    with pytest.raises(UsageError, match=r"holds an admin key.*\n.*OPENAI_ADMIN_KEY"):
        taken(service, "SUPPORT_KEY")


def test_an_account_without_fine_tunes_has_nothing_to_lose(keys: tuple[str, str]) -> None:
    with simulating(account={"keys": {SUPPORT: {"project": "proj_support"}}}) as service:
        os.environ.pop("OPENAI_ADMIN_KEY")
        _, result = taken(service, "SUPPORT_KEY")
    assert result.models == ()
    assert "nothing will stop" in inventory_page(summarize(result, load_prices()))


def test_days_are_counted_by_the_services_clock_when_this_machines_is_wrong(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    account = acme(tmp_path / "account") | {"ahead": 30 * 86_400}
    account["models"]["gpt-4.1-mini-2025-04-14"]["shutdown"] = datetime.date.today() + datetime.timedelta(days=40)
    with simulating(account=account) as service:
        _, result = taken(service, "SUPPORT_KEY")
    assert result.clock_skew > 29 * 86_400
    assert result.model("triage").days_left(result.today) in (9, 10)


def test_one_request_a_minute_is_obeyed_without_a_refusal(tmp_path: Path, keys: tuple[str, str]) -> None:
    account = acme(tmp_path / "account") | {"minute": 0.15}
    account["limits"].append({"model": "*", "requests_per_minute": 1})
    with simulating(account=account, faults=[]) as service:
        _, result = taken(service, "SUPPORT_KEY")
        assert len(result.models) == 3
        assert service.requests["GET /models"] == 1  # waited before each request, so that none was refused with 429
        assert service.requests["GET /fine_tuning/jobs"] == 1


def test_lists_that_break_off_are_gone_on_with(
    tmp_path: Path, keys: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTBRIDGE_WAIT_SCALE", "0.001")
    account = acme(tmp_path / "account") | {"filler_jobs": 950}
    broken = [
        {"on": "GET /fine_tuning/jobs", "fault": "reset", "nth": 4},
        {"on": "GET /models", "fault": "cut", "nth": 1},
    ]
    with simulating(account=account, faults=broken) as service:
        _, result = taken(service, "SUPPORT_KEY")
        assert service.requests["GET /fine_tuning/jobs"] == 11
    assert len(result.jobs) == 953


@pytest.mark.slow
def test_fifty_thousand_jobs_are_listed_and_loaded(tmp_path: Path, keys: tuple[str, str]) -> None:
    with simulating(account=acme(tmp_path / "account") | {"filler_jobs": 50_000}) as service:
        migration, result = taken(service, "SUPPORT_KEY")
        assert service.requests["GET /fine_tuning/jobs"] == 501
    assert len(result.jobs) == 50_003
    assert load_inventory(migration).models == result.models


def test_a_full_disk_is_said_and_nothing_read_is_lost(service: Simulator, keys: tuple[str, str], home: Path) -> None:
    code = (
        "import resource, signal, sys\n"
        "from ftbridge.migrate.folder import Migration\n"
        "from ftbridge.migrate.inventory import take_inventory\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "migration = Migration.open(create=True)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "take_inventory(migration, ['SUPPORT_KEY'], base_url=sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, service.base_url], capture_output=True, text=True, env=os.environ
    )
    assert DiskFull.__name__ in done.stderr
    read = service.requests["GET /models"]
    _, result = taken(service, "SUPPORT_KEY")
    assert len(result.models) == 3
    assert service.requests["GET /models"] <= read + 1


def test_the_command_prints_one_document_and_writes_the_page(
    service: Simulator, keys: tuple[str, str], home: Path
) -> None:
    command = [sys.executable, "-m", "ftbridge", "migrate", "inventory", "--base-url", service.base_url, "--json"]
    arguments = [part for key in keys for part in ("--key-env", key)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=os.environ, check=True)
    document = json.loads(done.stdout)
    assert [row["id"] for row in document["models"]][:2] == [LETTERS, TRIAGE]
    assert document["models"][1]["recording"]["live_usd"] > document["models"][1]["recording"]["batch_usd"]
    page = (home / "migrations" / "openai" / "inventory.html").read_text()
    assert TRIAGE in page
    assert "http-equiv" in page
    assert not any(mark in page for mark in ("<script", "<img", "src="))
    for key in (SUPPORT, ADMIN):
        assert key not in page + done.stderr + done.stdout
        for path in (home / "migrations").rglob("*"):
            assert not path.is_file() or key.encode() not in path.read_bytes()


SOURCE = MigrationKey(id="0", variable="OPENAI_API_KEY")


def test_a_job_of_the_old_shape_is_read_like_a_new_one() -> None:
    old = Job.of({"id": "a", "model": "m", "hyperparameters": {"n_epochs": 3}, "error": {}, "seed": None}, SOURCE)
    assert (old.method, old.hyperparameters, old.old_shape, old.error) == ("supervised", {"n_epochs": 3}, True, None)
    section = {"hyperparameters": {"n_epochs": "auto", "beta": 0.2}}
    new = Job.of({"id": "b", "hyperparameters": {"n_epochs": 2}, "method": {"type": "dpo", "dpo": section}}, SOURCE)
    assert (new.method, new.hyperparameters, new.old_shape) == ("dpo", {"n_epochs": 2, "beta": 0.2}, False)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("ft:m:org:triage:x", "triage"),
        ("ft:m:org::x", None),
        ("ft:m:org:a:x:ckpt-step-3", "a"),
        ("curie:ft-org", None),
        (None, None),
    ],
)
def test_suffixes_are_read_from_names(name: str | None, suffix: str | None) -> None:
    assert suffix_of(name) == suffix


@pytest.mark.parametrize(
    ("messages", "missing"),
    [
        ([{"role": "user", "content": "Hello"}], None),
        ([{"role": "user", "content": None}], "the content is null"),
        ([], "stored no input"),
        ([{"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}], None),
        ([{"role": "assistant", "content": None, "refusal": "No."}], None),
        (
            [{"role": "user", "content": "", "content_parts": [{"type": "image_url", "image_url": {"url": None}}]}],
            "did not store the image",
        ),
    ],
)
def test_an_input_that_cannot_be_used_says_why(messages: list[dict[str, Any]], missing: str | None) -> None:
    stored = StoredCompletion.of({"id": "c", "choices": [{"message": {"content": None}}]}, "0", tuple(messages))
    assert (stored.missing is None) if missing is None else (missing in str(stored.missing))


def test_the_cost_of_a_recording_is_the_stated_arithmetic(service: Simulator, keys: tuple[str, str]) -> None:
    _, result = taken(service, *keys)
    model = result.model(LETTERS)
    cost = recording_cost(
        model, load_prices(), result.limit(LETTERS), items=2_000, samples=3, prompt_tokens=600, completion_tokens=150
    )
    assert (cost.requests, cost.input_tokens, cost.output_tokens) == (4_000, 2_400_000, 1_200_000)
    assert cost.live_usd == pytest.approx(2.4 * 3.75 + 1.2 * 15)
    assert cost.batch_usd == pytest.approx((2.4 * 3.75 + 1.2 * 15) / 2)
    assert cost.live_hours == pytest.approx(2)  # 3.6 M tokens at 30,000 a minute
    assert cost.batches == 27  # 2.4 M input tokens through a queue of 90,000
