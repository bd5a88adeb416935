"""What a scenario can say beside single faults: looks, requests that take effect twice, lists without end, lines of batches."""

from __future__ import annotations

import json

import httpx
import openai
import pytest
from openai import OpenAI

from ftbridge.errors import UsageError
from ftbridge.server import simulating
from support.service import BASE, CHAT, lines
from support.waiting import until_batch, wait_for


def by_looks(*walk, **jobs):
    return {"jobs": {"clock": "looks", "walk": list(walk), "check_data": False, **jobs}}


def statuses(client, job, looks):
    return [client.fine_tuning.jobs.retrieve(job).status for _ in range(looks)]


def test_a_job_by_looks_shows_each_state_as_often_as_its_walk_says(simulator, client, training_file):
    simulator.play(by_looks("validating_files", ["running", 3], "succeeded"))
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file).id
    simulator.advance(1e6)  # time moves nothing, and other requests are no looks
    client.fine_tuning.jobs.list()
    client.fine_tuning.jobs.list_events(job)
    assert statuses(client, job, 6) == ["validating_files", "running", "running", "running", "succeeded", "succeeded"]
    assert client.fine_tuning.jobs.retrieve(job).fine_tuned_model is not None


def test_steps_are_told_look_by_look(simulator, client, training_file):
    simulator.play(by_looks(["running", 4], "succeeded", steps=4))
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file).id

    def steps():
        client.fine_tuning.jobs.retrieve(job)
        return [event.data["step"] for event in client.fine_tuning.jobs.list_events(job) if event.type == "metrics"]

    assert [len(steps()) for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_job_by_looks_pauses_at_the_next_look_and_goes_on_with_what_was_left(simulator, client, training_file):
    simulator.play(by_looks(["running", 3], "succeeded"))
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file).id
    assert statuses(client, job, 2) == ["running", "running"]
    assert client.fine_tuning.jobs.pause(job).status == "pausing"
    assert statuses(client, job, 3) == ["paused", "paused", "paused"]
    assert client.fine_tuning.jobs.resume(job).status == "queued"
    assert statuses(client, job, 2) == ["running", "succeeded"]


def test_a_job_by_looks_has_its_data_checked_before_the_first_one(simulator, client):
    simulator.play(by_looks("validating_files", "running", "succeeded", check_data=True))
    file = client.files.create(file=("few.jsonl", lines(2)), purpose="fine-tune").id
    job = client.fine_tuning.jobs.create(model=BASE, training_file=file).id
    assert statuses(client, job, 1) == ["failed"]


def test_a_request_that_a_proxy_repeats_takes_effect_twice(simulator, client):
    simulator.play({"faults": [{"on": "POST /files", "fault": "twice", "nth": 1}]})
    first = client.files.create(file=("train.jsonl", lines()), purpose="fine-tune")
    client.files.create(file=("train.jsonl", lines()), purpose="fine-tune")
    assert len(simulator.files) == 3
    assert first.id in {file["id"] for file in simulator.files}
    assert {simulator.content(file["id"]) for file in simulator.files} == {lines()}


def test_a_list_without_end_repeats_its_first_page(simulator, client):
    for _ in range(3):
        client.files.create(file=("train.jsonl", lines()), purpose="fine-tune")
    simulator.play({"faults": [{"on": "GET /files", "fault": "endless"}]})
    first = client.files.list(limit=2)
    second = client.files.list(limit=2, after=first.data[-1].id)
    assert [file.id for file in first.data] == [file.id for file in second.data]
    assert (first.has_more, second.has_more) == (True, True)


def test_only_objects_with_certain_values_lag(simulator, client):
    for name in ("late", "early"):
        client.files.create(file=(f"{name}.jsonl", lines()), purpose="fine-tune")
    where = {"filename": "late.jsonl"}
    simulator.play({"faults": [{"on": "GET /files", "fault": "lag", "lists": 2, "where": where}]})
    seen = [sorted(file.filename for file in client.files.list().data) for _ in range(3)]
    assert seen == [["early.jsonl"], ["early.jsonl"], ["early.jsonl", "late.jsonl"]]


def batch_of(client, *prompts):
    """The answers to a batch by their `custom_id`."""
    bodies = [{"model": BASE, "messages": [{"role": "user", "content": prompt}]} for prompt in prompts]
    requests = [
        {"custom_id": f"line{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    content = "".join(json.dumps(request) + "\n" for request in requests).encode()
    file = client.files.create(file=("batch.jsonl", content), purpose="batch").id
    batch = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
    done = until_batch(client, batch.id)
    results = {}
    for name in (done.output_file_id, done.error_file_id):
        for line in client.files.content(name).text.splitlines() if name else ():
            result = json.loads(line)
            results[result["custom_id"]] = result["response"]
    return results


def test_lines_of_a_batch_fail_and_are_altered_alone(simulator, client):
    line = "LINE /chat/completions"
    simulator.play(
        {
            "faults": [
                {"on": line, "body": '"bad"', "status": 400, "code": "content_filter"},
                {"on": line, "body": '"odd"', "fault": "alter", "set": {"choices": []}},
                {"on": "POST /chat/completions", "status": 503},
            ]
        }
    )
    results = batch_of(client, "good", "bad", "odd")
    assert [results[f"line{number}"]["status_code"] for number in range(3)] == [200, 400, 200]
    assert results["line0"]["body"]["choices"][0]["message"]["content"] == "good"
    assert results["line1"]["body"]["error"]["code"] == "content_filter"
    assert results["line2"]["body"]["choices"] == []
    assert simulator.requests[line] == 3
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=BASE, messages=CHAT)


def test_a_fault_of_every_request_is_none_of_a_batchs_lines(simulator, client):
    simulator.play({"faults": [{"on": "*", "status": 503, "model": BASE}]})
    assert batch_of(client, "good")["line0"]["status_code"] == 200


@pytest.mark.parametrize(
    "fault",
    [
        {"on": "LINE /chat/completions", "fault": "reset"},
        {"on": "GET /files", "fault": "shuffle", "where": {"id": "x"}},
    ],
)
def test_a_fault_that_cannot_be_acted_out_is_refused(simulator, fault):
    with pytest.raises(UsageError):
        simulator.play({"faults": [fault]})


def test_a_walk_needs_a_state_before_its_end(simulator):
    with pytest.raises(UsageError, match="a state must come before failed"):
        simulator.play({"jobs": {"walk": ["failed"]}})


def test_what_clients_sent_can_be_read(simulator, client, training_file):
    client.fine_tuning.jobs.create(model=BASE, training_file=training_file, suffix="mine")
    body = {"model": BASE, "training_file": training_file, "suffix": "mine"}
    assert simulator.bodies("POST /fine_tuning/jobs") == [body]
    shown = httpx.get(f"{simulator.base_url.removesuffix('/v1')}/simulator/bodies").json()
    assert shown == [{"route": "POST /fine_tuning/jobs", "body": body}]


def test_some_keys_of_a_scenario_change_and_the_others_stay(simulator, client, training_file):
    simulator.play(by_looks(["running", 9], "succeeded"))
    simulator.change(jobs={"keeps_metadata": False}, faults=[{"on": "GET /models", "status": 503}])
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file, metadata={"a": "b"})
    assert (job.status, job.metadata) == ("running", None)
    with pytest.raises(openai.InternalServerError):
        client.models.list()
    with pytest.raises(UsageError):
        simulator.change(jobs={"walk": "none"})


@pytest.mark.parametrize("from_outside", [False, True], ids=["in Python", "over HTTP"])
def test_a_reset_simulator_is_as_a_new_one(simulator, client, training_file, from_outside):
    client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    simulator.advance(1000)
    chosen = {"seed": 5, "models": ["gpt-other"]}
    if from_outside:
        root = simulator.base_url.removesuffix("/v1")
        assert httpx.post(f"{root}/simulator/reset", json=chosen).json()["seed"] == 5
        assert httpx.post(f"{root}/simulator/reset", json={"jobs": 5}).status_code == 400
    else:
        simulator.reset(chosen)
        with pytest.raises(UsageError, match="jobs"):
            simulator.reset({"jobs": 5})
    assert (simulator.jobs, simulator.files, simulator.requests) == ([], [], {})
    assert [model.id for model in client.models.list()] == ["gpt-other"]
    with pytest.raises(openai.NotFoundError):
        client.files.content(training_file)
    assert client.files.create(file=("train.jsonl", lines()), purpose="fine-tune").id != training_file


def test_a_scripted_account_is_not_reset(tmp_path):
    with (
        simulating(account={"keys": {"sk-one": {}}}) as simulator,
        pytest.raises(UsageError, match="cannot be reset"),
    ):
        simulator.reset()


def test_a_client_that_goes_away_does_not_hold_up_the_server(simulator):
    simulator.play({"faults": [{"on": "GET /models", "fault": "slow", "when": "after", "seconds": 3600}]})
    impatient = OpenAI(base_url=simulator.base_url, api_key="any", max_retries=0, timeout=0.2)
    with impatient, pytest.raises(openai.APITimeoutError):
        impatient.models.list()
    metrics = f"{simulator.base_url.removesuffix('/v1')}/metrics"
    wait_for(lambda: 'route="GET /models"' in httpx.get(metrics).text)
