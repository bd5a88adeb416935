"""A scripted account over HTTP: keys, scopes, projects, stored completions, limits, batches that end badly, the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from ftbridge.errors import UsageError
from ftbridge.server import Simulator, simulating
from ftbridge.server.simulator.account import load_account, understand_account
from support.paths import REPOSITORY

ONE, TWO, ADMIN = "sk-one-key-0000001", "sk-two-key-0000002", "sk-admin-key-0000003"
MODEL = "ft:gpt-4.1-mini-2025-04-14:acme:a:one1"


def account(folder: Path, **more: Any) -> dict[str, Any]:
    lines = [
        {"messages": [{"role": "user", "content": f"Question {n}"}, {"role": "assistant", "content": f"Reply {n}"}]}
        for n in range(20)
    ]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {
        "keys": {ONE: {"project": "proj_one"}, TWO: {"project": "proj_two", "without": ["api.files.read"]}, ADMIN: {"admin": True}},
        "jobs": [
            {"id": "ftjob-one1", "project": "proj_one", "suffix": "a", "training": data, "results": "base64"},
            {"id": "ftjob-two1", "project": "proj_two", "training": data, "training_is": "refused"},
        ],
        "models": {"ftjob-one1": {"completions": data, "noise": 0.5}},
        "stored": [{"model": "ftjob-one1", "prompts": data, "count": 5, "metadata": {"team": "x"}}],
        "use": [{"model": "ftjob-one1", "requests": 7, "first": -40, "last": -1}],
        **more,
    }  # fmt: skip


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Simulator]:
    with simulating(account=account(tmp_path)) as simulator:
        yield simulator


def get(service: Simulator, path: str, key: str = ONE, **params: Any) -> httpx.Response:
    return httpx.get(service.base_url + path, params=params, headers={"Authorization": f"Bearer {key}"}, timeout=30)


def ask(service: Simulator, text: str = "Question 3", **body: Any) -> httpx.Response:
    message = {"role": "user", "content": text}
    return httpx.post(
        f"{service.base_url}/chat/completions", json={"model": MODEL, "messages": [message], **body},
        headers={"Authorization": f"Bearer {ONE}"}, timeout=30,
    )  # fmt: skip


def test_a_key_sees_the_objects_of_its_project_alone(service: Simulator) -> None:
    assert [job["id"] for job in get(service, "/fine_tuning/jobs").json()["data"]] == ["ftjob-one1"]
    assert [job["id"] for job in get(service, "/fine_tuning/jobs", TWO).json()["data"]] == ["ftjob-two1"]
    assert MODEL in {model["id"] for model in get(service, "/models").json()["data"]}
    assert MODEL not in {model["id"] for model in get(service, "/models", TWO).json()["data"]}
    assert get(service, "/models").headers["openai-project"] == "proj_one"


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/models", "sk-unknown-key-00", 401),
        ("/files", TWO, 403),
        ("/models", ADMIN, 403),
        ("/organization/projects", ONE, 403),
        (f"/fine_tuning/checkpoints/{MODEL}/permissions", ONE, 403),
        (f"/fine_tuning/checkpoints/{MODEL}/permissions", ADMIN, 200),
        ("/organization/usage/completions", ADMIN, 400),
    ],
)
def test_what_a_key_may_not_do_is_refused_with_the_scope_that_it_lacks(
    service: Simulator, path: str, key: str, status: int
) -> None:
    reply = get(service, path, key)
    assert reply.status_code == status
    if status == 403:
        assert "Missing scopes: api." in reply.json()["error"]["message"]


def test_files_are_plain_base64_or_refused(service: Simulator) -> None:
    assert get(service, "/files/file-one1training/content").text.startswith('{"messages"')
    assert get(service, "/files/file-one1results/content").text.startswith("c3RlcC")
    refused = httpx.get(
        f"{service.base_url}/files/file-two1training/content", headers={"Authorization": f"Bearer {ONE}"}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "download_disabled")


def test_stored_completions_are_paged_filtered_and_come_without_their_inputs(service: Simulator) -> None:
    first = get(service, "/chat/completions", limit=2, model=MODEL).json()
    assert first["has_more"]
    assert "messages" not in first["data"][0]
    rest = get(service, "/chat/completions", limit=9, model=MODEL, after=first["last_id"]).json()
    assert len(rest["data"]) == 3
    created = [one["created"] for one in [*first["data"], *rest["data"]]]
    assert created == sorted(created)
    assert get(service, "/chat/completions", model="another").json()["data"] == []
    messages = get(service, f"/chat/completions/{first['data'][0]['id']}/messages").json()["data"]
    assert [message["content"] for message in messages] == ["Question 0"]


def test_a_completion_that_is_stored_now_is_found_by_its_metadata(service: Simulator) -> None:
    document = ask(service, store=True, metadata={"mark": "m1"}).json()
    ask(service, "Question 4", store=True, metadata={"mark": "m2"})
    ask(service, "Question 5")
    result = get(service, "/chat/completions", **{"metadata[mark]": "m1"}).json()["data"]
    assert [one["id"] for one in result] == [document["id"]]
    assert result[0]["choices"][0]["message"]["content"] == "Reply 3"


def test_a_model_answers_as_its_data_and_varies_only_where_it_is_sampled(service: Simulator) -> None:
    def texts(**body: Any) -> list[str]:
        return [choice["message"]["content"] for choice in ask(service, **body).json()["choices"]]

    assert set(texts(temperature=0, n=8)) == {"Reply 3"}
    assert len(set(texts(temperature=1, n=8))) > 1
    assert texts(temperature=1, n=8) == texts(temperature=1, n=8)


def test_the_ledger_holds_each_request_that_was_answered(service: Simulator) -> None:
    for _ in range(2):
        ask(service, temperature=0)
    ask(service, "Question 9", temperature=0)
    httpx.post(f"{service.base_url}/chat/completions", json={"model": MODEL, "messages": []}, timeout=30)
    ledger = service.ledger
    assert [entry["prompt"] for entry in ledger] == ["Question 3", "Question 3", "Question 9"]
    assert len({entry["key"] for entry in ledger}) == 2


def test_use_is_a_bucket_a_day_over_pages(service: Simulator) -> None:
    start = (int(time.time()) // 86_400 - 45) * 86_400
    params = {"start_time": start, "limit": 31, "group_by[]": ["model", "project_id"]}
    first = get(service, "/organization/usage/completions", ADMIN, **params).json()
    second = get(service, "/organization/usage/completions", ADMIN, **params, page=first["next_page"]).json()
    assert (first["has_more"], second["has_more"]) == (True, False)
    results = [result for bucket in [*first["data"], *second["data"]] for result in bucket["results"]]
    assert sum(result["num_model_requests"] for result in results) == 7 * 40
    assert {result["model"] for result in results} == {MODEL}


def test_a_limit_is_stated_in_headers_and_enforced_until_its_minute_is_over(tmp_path: Path) -> None:
    limits = [{"model": "ftjob-one1", "requests_per_minute": 2, "tokens_per_minute": 5_000}]
    with simulating(account=account(tmp_path, limits=limits, minute=0.4)) as service:
        first = ask(service)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        ask(service)
        refused = ask(service)
        assert refused.status_code == 429
        time.sleep(float(refused.headers["retry-after"]) + 0.05)
        assert ask(service).status_code == 200
        assert len(service.ledger) == 3


def test_a_model_stops_after_so_many_answers_or_on_its_day(tmp_path: Path) -> None:
    more = {"models": {"ftjob-one1": {"stops_after": 2}, "ftjob-two1": {"shutdown": 1}}}
    with simulating(account=account(tmp_path, **more)) as service:
        assert [ask(service).status_code for _ in range(3)] == [200, 200, 404]
        assert MODEL not in {model["id"] for model in get(service, "/models").json()["data"]}
        [tuned] = [model for model in get(service, "/models", TWO).json()["data"] if model["id"].endswith(":two1")]
        assert "shutdown_date" in tuned
        service.advance(2 * 86_400)
        assert not [model for model in get(service, "/models", TWO).json()["data"] if model["id"].endswith(":two1")]


def test_batches_expire_fail_and_overflow_the_queue(tmp_path: Path) -> None:
    limits = [{"model": "ftjob-one1", "batch_queue_tokens": 60}]
    batches = [{"nth": 1, "ends": "expired", "after": 1}]
    with simulating(account=account(tmp_path, limits=limits, batches=batches)) as service:
        client = OpenAI(base_url=service.base_url, api_key=ONE, max_retries=0)

        def ended(count: int) -> Any:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Question 1"}]}
            line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
            content = "".join(json.dumps({"custom_id": str(n), **line}) + "\n" for n in range(count))
            file = client.files.create(file=("b.jsonl", content.encode()), purpose="batch")
            response = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            while (shown := client.batches.retrieve(response.id)).status in ("validating", "in_progress", "finalizing"):
                time.sleep(0.05)
            return shown

        expired = ended(3)
        assert expired.status == "expired"
        assert len(client.files.content(expired.output_file_id).text.splitlines()) == 1
        errors = [json.loads(line) for line in client.files.content(expired.error_file_id).text.splitlines()]
        assert {line["error"]["code"] for line in errors} == {"batch_expired"}
        assert ended(2).status == "completed"
        overflowed = ended(30)
        assert overflowed.status == "failed"
        assert overflowed.errors.data[0].code == "token_limit_exceeded"
        assert len(service.ledger) == 1 + 2


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"jobs": [{"id": "job-1"}]}, r"jobs\[0\]\.id"),
        ({"colour": 1}, "colour"),
        ({"jobs": [{"id": "ftjob-a", "training": "absent.jsonl"}]}, "absent.jsonl"),
        ({"models": {"m": {"noise": 2}}}, "noise"),
    ],
)
def test_an_account_that_cannot_be_played_names_what_is_wrong(document: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        understand_account(document)


def test_the_account_of_the_example_can_be_played() -> None:
    path = REPOSITORY / "examples" / "leave-openai" / "account.yaml"
    with simulating(account=load_account(path)) as service:
        assert len(service.jobs) == 7
