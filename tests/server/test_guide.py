"""The server as OpenAI's guide uses it: unmodified SDK code, from upload to delete; and lists that many clients read."""

from __future__ import annotations

import json
import threading
import time

import httpx
import openai
import pytest

from ftbridge.server import simulating
from support.service import BASE, CHAT, lines
from support.waiting import until


def test_the_guide_from_upload_to_delete(client):
    file = client.files.create(file=("train.jsonl", lines()), purpose="fine-tune")
    assert client.files.wait_for_processing(file.id, poll_interval=0.01).status == "processed"
    job = client.fine_tuning.jobs.create(training_file=file.id, model=BASE, suffix="Support Desk!")
    assert job.status == "validating_files"
    done = until(client, job.id)

    assert done.status == "succeeded"
    assert done.fine_tuned_model.startswith(f"ft:{BASE}:ftbridge:support-desk:")
    assert done.hyperparameters.n_epochs == 8
    assert done.trained_tokens > 1000
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=7))
    steps = [event.data["step"] for event in events if event.type == "metrics"]
    assert steps == list(range(96, 0, -1))
    assert events[-1].message.startswith("Created fine-tuning job")
    points = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [point.step_number for point in points] == [96, 84, 72]
    figures = client.files.content(done.result_files[0]).text.splitlines()
    assert figures[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert len(figures) == 97
    for model in (done.fine_tuned_model, points[1].fine_tuned_model_checkpoint):
        assert client.chat.completions.create(model=model, messages=CHAT).choices[0].message.content == "Which colour?"
    assert client.models.delete(done.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=done.fine_tuned_model, messages=CHAT)


def test_a_job_with_bad_data_fails_later_with_the_services_code(client):
    few = client.files.create(file=("few.jsonl", lines(3)), purpose="fine-tune")
    result = until(client, client.fine_tuning.jobs.create(training_file=few.id, model=BASE).id)
    assert (result.status, result.error.code, result.error.param) == ("failed", "invalid_n_examples", "training_file")

    broken = lines(11) + b'{"messages": [{"role": "user", "content": "no answer"}]}\n'
    bad = client.files.create(file=("bad.jsonl", broken), purpose="fine-tune")
    good = client.files.create(file=("good.jsonl", lines()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=good.id, validation_file=bad.id, model=BASE)
    result = until(client, job.id)
    assert (result.status, result.error.param) == ("failed", "validation_file")
    assert "Line 12" in result.error.message


def test_cancel_pause_and_resume(client, training_file):
    with simulating({"jobs": {"walk": [["running", 60], "succeeded"]}}) as slow:
        patient = openai.OpenAI(base_url=slow.base_url, api_key="any", max_retries=0)
        file = patient.files.create(file=("t.jsonl", lines()), purpose="fine-tune").id
        job = patient.fine_tuning.jobs.create(training_file=file, model=BASE)
        slow.advance(30)
        assert patient.fine_tuning.jobs.pause(job.id).status == "pausing"
        slow.advance(1)
        assert patient.fine_tuning.jobs.retrieve(job.id).status == "paused"
        slow.advance(3600)
        with pytest.raises(openai.BadRequestError, match="paused"):
            patient.fine_tuning.jobs.pause(job.id)
        assert patient.fine_tuning.jobs.resume(job.id).status == "queued"
        slow.advance(15)
        assert patient.fine_tuning.jobs.retrieve(job.id).status == "running"
        slow.advance(30)
        assert patient.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
        steps = [
            event.data["step"] for event in patient.fine_tuning.jobs.list_events(job.id) if event.type == "metrics"
        ]
        assert steps == list(range(96, 0, -1))

    job = client.fine_tuning.jobs.create(training_file=training_file, model=BASE)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.fine_tuning.jobs.cancel(job.id)


def test_a_tuned_model_can_be_tuned_again(client, training_file):
    first = until(client, client.fine_tuning.jobs.create(training_file=training_file, model=BASE).id)
    again = client.fine_tuning.jobs.create(training_file=training_file, model=first.fine_tuned_model, suffix="two")
    assert until(client, again.id).fine_tuned_model.startswith(f"ft:{BASE}:ftbridge:two:")


def test_jobs_are_found_by_their_metadata(client, training_file):
    items = [
        client.fine_tuning.jobs.create(training_file=training_file, model=BASE, metadata=metadata).id
        for metadata in ({"team": "a", "run": "1"}, {"team": "a", "run": "2"}, {"team": "b"}, None)
    ]
    jobs = client.fine_tuning.jobs
    assert [job.id for job in jobs.list(metadata={"team": "a"})] == [items[1], items[0]]
    assert [job.id for job in jobs.list(metadata={"team": "a", "run": "1"})] == [items[0]]
    assert [job.id for job in jobs.list(metadata={"team": "c"})] == []
    assert [job.id for job in jobs.list(extra_query={"metadata": "null"})] == [items[3]]


def test_two_clients_see_consistent_lists_while_one_of_them_creates(client, simulator, training_file):
    first = [client.fine_tuning.jobs.create(training_file=training_file, model=BASE).id for _ in range(10)]
    seen: list[list[str]] = []

    def read() -> None:
        with openai.OpenAI(base_url=simulator.base_url, api_key="other", max_retries=0) as other:
            for _ in range(10):
                seen.append([job.id for job in other.fine_tuning.jobs.list(limit=3)])

    reader = threading.Thread(target=read)
    reader.start()
    later = [client.fine_tuning.jobs.create(training_file=training_file, model=BASE).id for _ in range(10)]
    reader.join()
    items = [*reversed(later), *reversed(first)]
    for ids in seen:
        assert len(ids) == len(set(ids))
        assert ids == items[items.index(ids[0]) :]


def test_a_thousand_jobs_list_quickly(client, simulator, training_file):
    simulator.play({"jobs": {"walk": [["queued", 1e9], "succeeded"], "check_data": False}})
    items = [client.fine_tuning.jobs.create(training_file=training_file, model=BASE).id for _ in range(1000)]
    began = time.perf_counter()
    listed = [job.id for job in client.fine_tuning.jobs.list(limit=100)]
    assert time.perf_counter() - began < 3
    assert listed == items[::-1]


def test_a_restarted_simulator_goes_on(tmp_path):
    walk = {"jobs": {"walk": [["running", 0.6], "succeeded"]}}
    with simulating(walk, folder=tmp_path) as first:
        client = openai.OpenAI(base_url=first.base_url, api_key="any")
        file = client.files.create(file=("t.jsonl", lines()), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(training_file=file.id, model=BASE)
    with simulating(walk, folder=tmp_path) as second:
        client = openai.OpenAI(base_url=second.base_url, api_key="any")
        assert until(client, job.id).status == "succeeded"
        assert client.files.create(file=("t.jsonl", lines()), purpose="fine-tune").id != file.id
        assert client.files.content(file.id).read() == lines()


def test_answers_come_from_the_script(simulator, client, http):
    simulator.play(
        {
            "answers": [
                {"match": r"the (\w+) lamp", "reply": r"It is \1.", "model": "gpt-4o*"},
                {"match": "weather", "tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]},
            ]
        }
    )
    ask = client.chat.completions.create
    lamp = [{"role": "user", "content": "Take the red lamp."}]
    assert ask(model="gpt-4o-mini-2024-07-18", messages=lamp).choices[0].message.content == "It is red."
    assert ask(model=BASE, messages=lamp).choices[0].message.content == "Take the red lamp."
    called = ask(model=BASE, messages=[{"role": "user", "content": "The weather?"}]).choices[0]
    assert called.finish_reason == "tool_calls"
    assert json.loads(called.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
    stream = list(ask(model=BASE, messages=[{"role": "user", "content": "The weather?"}], stream=True))
    assert stream[-1].choices[0].finish_reason == "tool_calls"
    cut = ask(model=BASE, messages=lamp, max_tokens=2, n=3)
    assert [choice.message.content for choice in cut.choices] == ["Take the"] * 3
    assert {choice.finish_reason for choice in cut.choices} == {"length"}
    stopped = ask(model=BASE, messages=lamp, stop=[" red"])
    assert stopped.choices[0].message.content == "Take the"
    shaped = ask(model=BASE, messages=lamp, response_format={"type": "json_object"})
    assert json.loads(shaped.choices[0].message.content) == {"text": "Take the red lamp."}


def test_a_batch_answers_every_line_once(client):
    requests = [
        {
            "custom_id": f"n{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": CHAT},
        }
        for n, model in enumerate([BASE, BASE, "no-such-model", BASE])
    ]
    content = "".join(json.dumps(line) + "\n" for line in requests).encode()
    file = client.files.create(file=("asked.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    while (batch := client.batches.retrieve(batch.id)).status not in ("completed", "failed"):
        time.sleep(0.02)
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (4, 3, 1)
    messages = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert {line["custom_id"] for line in messages} == {"n0", "n1", "n3"}
    (wrong,) = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
    assert wrong["response"]["body"]["error"]["code"] == "model_not_found"
    assert batch.usage.total_tokens == 3 * messages[0]["response"]["body"]["usage"]["total_tokens"]


def test_a_batch_with_bad_lines_fails_and_says_which(client):
    content = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n' * 2
    file = client.files.create(file=("asked.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while (batch := client.batches.retrieve(batch.id)).status == "validating":
        time.sleep(0.02)
    assert batch.status == "failed"
    assert [(error.line, "twice" in error.message) for error in batch.errors.data] == [(2, True)]


def test_a_cancelled_batch_keeps_what_was_answered(simulator, client):
    simulator.play({"chat": {"first_token_seconds": 0.05}})
    body = {"model": BASE, "messages": CHAT}
    requests = [
        {"custom_id": f"{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(400)
    ]
    content = "".join(json.dumps(line) + "\n" for line in requests).encode()
    file = client.files.create(file=("asked.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    while client.batches.retrieve(batch.id).request_counts.completed < 40:
        time.sleep(0.01)
    assert client.batches.cancel(batch.id).status == "cancelling"
    while (batch := client.batches.retrieve(batch.id)).status == "cancelling":
        time.sleep(0.02)
    assert batch.status == "cancelled"
    result = client.files.content(batch.output_file_id).text.splitlines()
    assert 40 <= len(result) == batch.request_counts.completed < 400


def test_large_files_come_in_parts_in_any_order(client, simulator):
    complete = lines(40)
    cuts = [complete[:1000], complete[1000:1500], complete[1500:]]
    upload = client.uploads.create(filename="t.jsonl", purpose="fine-tune", bytes=len(complete), mime_type="text/jsonl")
    parts = {where: client.uploads.parts.create(upload.id, data=cuts[where]).id for where in (2, 0, 1)}
    done = client.uploads.complete(upload.id, part_ids=[parts[0], parts[1], parts[2]])
    assert done.status == "completed"
    assert client.files.content(done.file.id).read() == complete
    assert list(simulator.service.incoming.iterdir()) == []
    chunked = client.uploads.upload_file_chunked(
        file=complete,
        filename="c.jsonl",
        bytes=len(complete),
        mime_type="text/jsonl",
        purpose="fine-tune",
        part_size=1000,
    )
    assert client.files.content(chunked.file.id).read() == complete


def test_health_and_headers(http, simulator):
    root = simulator.base_url.removesuffix("/v1")
    document = httpx.get(f"{root}/health").json()
    assert (document["status"], document["engine"]) == ("ok", "scripted")
    response = http.get("/models")
    assert response.headers["x-request-id"].startswith("req_")
    assert float(response.headers["openai-processing-ms"]) >= 0
