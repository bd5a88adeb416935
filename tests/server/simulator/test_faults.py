"""Every fault on order, seen through a real client on a real connection."""

from __future__ import annotations

import base64
import time

import httpx
import openai
import pytest
from openai import OpenAI

from ftbridge.errors import UsageError
from ftbridge.server import simulating
from support.paths import REPOSITORY
from support.service import BASE, CHAT, lines


@pytest.fixture
def play(simulator, client):
    """Play faults, and give the client."""

    def playing(*faults, **scenario):
        simulator.play({"speed": 10, "faults": list(faults), **scenario})
        return client

    return playing


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (408, openai.APIStatusError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_an_error_has_its_status_code_and_message(play, status, kind):
    client = play({"on": "GET /models", "status": status, "code": "c", "message": "m", "param": "p", "type": "t"})
    with pytest.raises(kind) as caught:
        client.models.list()
    assert (caught.value.status_code, caught.value.code, caught.value.param, caught.value.type) == (
        status,
        "c",
        "p",
        "t",
    )


def test_the_nth_the_every_and_the_chance(play, simulator):
    def outcome(client) -> bool:
        try:
            client.models.list()
        except openai.APIError:
            return False
        return True

    client = play({"on": "GET /models", "nth": [2, 4]})
    assert [outcome(client) for _ in range(5)] == [True, False, True, False, True]
    client = play({"on": "GET /models", "every": 3, "times": 1})
    assert [outcome(client) for _ in range(6)] == [True, True, False, True, True, True]
    client = play({"on": "*", "chance": 0.5}, seed=5)
    first = [outcome(client) for _ in range(40)]
    client = play({"on": "*", "chance": 0.5}, seed=5)
    assert [outcome(client) for _ in range(40)] == first
    assert 8 < sum(first) < 32
    assert simulator.requests == {"GET /models": 40}
    assert len(simulator.faults) == 40 - sum(first)


def test_training_not_available(play, training_file, simulator):
    client = play({"on": "POST /fine_tuning/jobs", "fault": "training_not_available"})
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    assert caught.value.code == "training_not_available"
    assert simulator.jobs == []


@pytest.mark.parametrize("fault", ["reset", "error"])
def test_before_nothing_happened_and_after_it_did(play, training_file, simulator, fault):
    expected = openai.APIConnectionError if fault == "reset" else openai.InternalServerError
    for when, jobs in (("before", 0), ("after", 1)):
        client = play({"on": "POST /fine_tuning/jobs", "fault": fault, "when": when})
        with pytest.raises(expected):
            client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
        assert len(simulator.jobs) == jobs


def test_the_sdk_retries_into_a_second_job_unless_it_is_told_not_to(play, simulator, training_file):
    """What makes an ordinary client pay twice."""
    play({"on": "POST /fine_tuning/jobs", "fault": "reset", "when": "after", "nth": 1})
    with OpenAI(base_url=simulator.base_url, api_key="any") as careless:
        careless.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    assert len(simulator.jobs) == 2


def test_an_answer_that_is_cut(play):
    client = play({"on": "GET /models", "fault": "cut"})
    with pytest.raises(openai.APIConnectionError):
        client.models.list()


def test_a_stream_that_is_cut(play):
    client = play({"on": "POST /chat/completions", "fault": "cut"})
    with pytest.raises((openai.APIError, httpx.TransportError, Exception)) as caught:
        list(client.chat.completions.create(model=BASE, messages=CHAT, stream=True))
    assert not isinstance(caught.value, AssertionError)


def test_a_slow_answer(play, simulator):
    play({"on": "GET /models", "fault": "slow", "seconds": 1})
    hasty = OpenAI(base_url=simulator.base_url, api_key="any", max_retries=0, timeout=0.2)
    with pytest.raises(openai.APITimeoutError):
        hasty.models.list()


def test_a_login_page_instead_of_an_answer(play, http):
    play({"on": "GET /models", "fault": "html"})
    response = http.get("/models")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html"
    assert "<html>" in response.text


def test_retry_after_in_seconds_and_as_a_date(play, http):
    play(
        {"on": "GET /models", "status": 429, "retry_after": 2},
        {"on": "GET /files", "status": 503, "retry_after": "date"},
    )
    assert http.get("/models").headers["retry-after"] == "2"
    assert http.get("/files").headers["retry-after"].endswith("GMT")
    play({"on": "GET /models", "status": 429, "retry_after": 0.5, "headers": {"x-should-retry": "false"}})
    assert http.get("/models").headers["x-should-retry"] == "false"


def test_fields_that_are_null_unknown_or_gone(play, training_file):
    client = play(
        {
            "on": "POST /fine_tuning/jobs",
            "fault": "alter",
            "set": {"status": "evaluating", "error": {}, "usage_metrics": None, "method.extra": 5},
            "remove": ["seed"],
        },
        {"on": "GET /files", "fault": "alter", "set": {"data[].status": None}, "remove": ["has_more"]},
    )
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    assert (job.status, job.usage_metrics, getattr(job, "seed", None)) == ("evaluating", None, None)
    assert job.error is not None
    assert [file.status for file in client.files.list()] == [None]


def test_events_out_of_order(play, training_file):
    client = play({"on": "GET /fine_tuning/jobs/{id}/events", "fault": "shuffle"})
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    while client.fine_tuning.jobs.retrieve(job.id).status != "succeeded":
        time.sleep(0.05)
    page = client.fine_tuning.jobs.list_events(job.id, limit=50).data
    steps = [event.data["step"] for event in page if event.type == "metrics"]
    assert steps != sorted(steps, reverse=True)
    assert len(set(steps)) == len(steps)


def test_files_that_are_not_ready_or_could_not_be_read(play):
    for status, code in (("uploaded", "file_not_ready"), ("error", "invalid_file")):
        client = play(file_status=status)
        file = client.files.create(file=("t.jsonl", lines()), purpose="fine-tune")
        assert file.status == status
        with pytest.raises(openai.BadRequestError) as caught:
            client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
        assert caught.value.code == code
    client = play(file_status=None)
    assert client.files.create(file=("t.jsonl", lines()), purpose="fine-tune").status is None


def finished(client, training_file):
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file, metadata={"a": "b"})
    while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.02)
    return job


def test_result_files_in_base64(play, training_file):
    client = play(jobs={"base64_results": True, "steps": 5})
    job = finished(client, training_file)
    result = client.files.content(job.result_files[0]).read()
    assert base64.b64decode(result).startswith(b"step,train_loss")


def test_a_fresh_model_that_is_not_loaded_yet(play, training_file):
    client = play(chat={"not_loaded": 2}, jobs={"steps": 5})
    model = finished(client, training_file).fine_tuned_model
    for _ in range(2):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=model, messages=CHAT)
    assert client.chat.completions.create(model=model, messages=CHAT).choices


def test_walks_that_end_otherwise_and_pass_unknown_states(play, training_file):
    client = play(jobs={"walk": [["validating_files", 0.01], ["safety_review", 1e6], "succeeded"]})
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    while (seen := client.fine_tuning.jobs.retrieve(job.id).status) == "validating_files":
        time.sleep(0.02)
    assert seen == "safety_review"
    client = play(
        jobs={"walk": [["running", 0.01], "failed"], "error": {"code": "moderation", "message": "No.", "param": None}}
    )
    assert finished(client, training_file).error.code == "moderation"
    client = play(jobs={"walk": [["running", 0.01], "cancelled"]})
    assert finished(client, training_file).status == "cancelled"


def test_a_gateway_without_metadata_and_an_error_of_nulls(play, training_file):
    client = play(jobs={"keeps_metadata": False, "healthy_error": "object_of_nulls", "steps": 3})
    job = finished(client, training_file)
    assert job.metadata is None
    assert job.status == "succeeded"


def test_more_chats_at_once_than_the_service_takes(play, simulator):
    import concurrent.futures

    client = play(chat={"at_once": 4, "first_token_seconds": 0.2})

    def ask(_: int) -> bool:
        try:
            client.chat.completions.create(model=BASE, messages=CHAT)
        except openai.RateLimitError:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        listing = list(pool.map(ask, range(12)))
    assert 4 <= sum(listing) < 12
    assert httpx.get(simulator.base_url.removesuffix("/v1") + "/simulator").json()["most_answering"] == 4


def test_the_simulator_is_moved_from_outside(simulator, client, training_file):
    root = simulator.base_url.removesuffix("/v1")
    scenario = {"jobs": {"walk": [["running", 1000], "succeeded"]}}
    assert httpx.put(f"{root}/simulator/scenario", json=scenario).status_code == 200
    assert httpx.put(f"{root}/simulator/scenario", json={"jobs": 5}).status_code == 400
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    assert httpx.post(f"{root}/simulator/clock", json={"advance": 1001}).status_code == 200
    assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
    document = httpx.get(f"{root}/simulator").json()
    assert document["requests"]["POST /fine_tuning/jobs"] == 1
    assert [names["id"] for names in document["jobs"]] == [job.id]


def test_the_same_seed_gives_the_same_ids_and_figures():
    messages = []
    for _ in range(2):
        with simulating({"seed": 3, "speed": 50, "jobs": {"steps": 4}}) as running:
            client = OpenAI(base_url=running.base_url, api_key="any")
            file = client.files.create(file=("t.jsonl", lines()), purpose="fine-tune").id
            job = finished(client, file)
            messages.append((file, job.id, job.seed, client.files.content(job.result_files[0]).text))
    assert messages[0] == messages[1]


EXAMPLES = sorted((REPOSITORY / "examples" / "faults").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_scenarios_of_the_examples_do_what_they_say(path):
    with simulating(path) as running:
        client = OpenAI(base_url=running.base_url, api_key="any", max_retries=5, timeout=20)
        jobs, refused = [], None
        for _ in range(6):  # an ordinary client, which asks again
            try:
                file = client.files.create(file=("t.jsonl", lines()), purpose="fine-tune")
                jobs.append(client.fine_tuning.jobs.create(model=BASE, training_file=file.id))
                break
            except openai.APIError as error:
                refused = error
        match path.stem:
            case "lost-answer":
                assert len(running.jobs) == 2
            case "closing":
                assert (refused.code, running.jobs) == ("training_not_available", [])
            case "bad-day":
                assert jobs
                assert running.faults
            case "surprises":
                assert jobs[0].error is not None
                assert file.status is None


def test_the_examples_were_found():
    assert len(EXAMPLES) == 4


def test_a_list_lacks_a_new_job_for_as_many_lists_as_it_lags(play, training_file):
    client = play({"on": "GET /fine_tuning/jobs", "fault": "lag", "lists": 2})
    first = client.fine_tuning.jobs.create(model=BASE, training_file=training_file)

    def listed() -> list[str]:
        return [job.id for job in client.fine_tuning.jobs.list(limit=10).data]

    assert [listed(), listed()] == [[], []]
    assert listed() == [first.id]
    second = client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    assert [listed(), listed()] == [[first.id]] * 2, "each object lags by itself"
    assert listed() == [second.id, first.id]
    assert client.fine_tuning.jobs.retrieve(second.id).id == second.id


def test_a_moved_service_sends_clients_on_with_path_and_query(play, simulator):
    play({"on": "GET /models", "fault": "redirect", "to": "http://127.0.0.1:9/elsewhere", "nth": 1})
    address = f"{simulator.base_url}/models?limit=3"
    moved = httpx.get(address, headers={"authorization": "Bearer any"})
    assert (moved.status_code, moved.headers["location"]) == (307, "http://127.0.0.1:9/elsewhere/models?limit=3")
    with OpenAI(base_url=simulator.base_url, api_key="any") as client:
        assert client.models.list().data


def test_a_fault_is_for_requests_that_say_something(play):
    client = play(
        {
            "on": "POST /chat/completions",
            "body": r'"temperature"\s*:\s*0\.',
            "status": 400,
            "code": "unsupported_value",
            "param": "temperature",
        }
    )
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=BASE, messages=CHAT, temperature=0.5)
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "temperature")
    assert client.chat.completions.create(model=BASE, messages=CHAT).choices[0].message.content


def test_a_model_is_named_some_looks_after_its_job_succeeded(play, training_file, simulator):
    late = {"status": "succeeded"}
    client = play(
        {
            "on": "GET /fine_tuning/jobs/{id}", "fault": "alter", "where": late, "set": {"fine_tuned_model": None}, "times": 2,
        },
        jobs={"walk": ["validating_files", "succeeded"], "check_data": False},
    )  # fmt: skip
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    end = time.monotonic() + 10
    names = []
    while len(names) < 3 and time.monotonic() < end:
        seen = client.fine_tuning.jobs.retrieve(job.id)
        if seen.status == "succeeded":
            names.append(seen.fine_tuned_model)
    assert names[:2] == [None, None], "looks before the end do not count"
    assert names[2].startswith("ft:")


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ({"fault": "redirect"}, "needs `to`"),
        ({"fault": "reset", "to": "http://x"}, "needs `to`"),
        ({"fault": "html", "where": {"status": "x"}}, "where belongs to alter"),
        ({"body": "("}, "not a regular expression"),
    ],
)
def test_a_fault_that_cannot_be_played_is_refused(simulator, fault, problem):
    with pytest.raises(UsageError, match=problem):
        simulator.play({"faults": [fault]})
