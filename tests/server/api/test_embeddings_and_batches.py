"""Embeddings as clients ask for them, and batches of everything that answers."""

from __future__ import annotations

import base64
import json
import math
import struct

import pytest
from openai import BadRequestError, NotFoundError

from support.service import BASE, CHAT
from support.waiting import until_batch


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_texts_that_share_words_are_near_each_other(client):
    texts = ["the red lamp is broken", "the red lamp is missing", "please refund my order"]
    response = client.embeddings.create(model=BASE, input=texts)
    red, missing, refund = (entry.embedding for entry in response.data)
    assert [entry.index for entry in response.data] == [0, 1, 2]
    assert dot(red, missing) > 0.5 > dot(red, refund)
    assert math.isclose(dot(red, red), 1.0, abs_tol=1e-5)
    assert response.usage.total_tokens == response.usage.prompt_tokens > 0


def test_embeddings_have_the_asked_form_and_size(http):
    def embed(**body):
        response = http.post("/embeddings", json={"model": BASE, **body})
        assert response.status_code == 200, response.text
        return response.json()["data"]

    (plain,) = embed(input="a text", dimensions=8)
    (packed,) = embed(input="a text", dimensions=8, encoding_format="base64")
    assert struct.unpack("<8f", base64.b64decode(packed["embedding"])) == pytest.approx(plain["embedding"], abs=1e-6)
    assert len(embed(input=[1, 2, 3])) == 1
    assert len(embed(input=[[1, 2], [3]])) == 2


@pytest.mark.parametrize("wrong", ["", [], ["a", ""], [[]], ["a"] * 2049])
def test_input_without_text_is_refused(client, wrong):
    with pytest.raises(BadRequestError) as caught:
        client.embeddings.create(model=BASE, input=wrong)
    assert caught.value.param == "input"


def test_an_unknown_model_embeds_nothing(client):
    with pytest.raises(NotFoundError):
        client.embeddings.create(model="no-such-model", input="x")


ENDPOINTS = {
    "/v1/chat/completions": {"messages": CHAT},
    "/v1/responses": {"input": "Which colour?"},
    "/v1/completions": {"prompt": "Which colour?"},
    "/v1/embeddings": {"input": "Which colour?"},
}


def batch_of(client, endpoint: str, requests: list[tuple[str, dict]]):
    lines = [
        {"custom_id": str(where), "method": "POST", "url": url, "body": {"model": BASE, **body}}
        for where, (url, body) in enumerate(requests)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")
    return until_batch(client, batch.id)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_batch_answers_lines_of_every_kind(client, endpoint):
    body = ENDPOINTS[endpoint]
    batch = batch_of(client, endpoint, [(endpoint, body), (endpoint, {**body, "no_such_field": 1})])
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    (line,) = client.files.content(batch.output_file_id).text.splitlines()
    response_body = json.loads(line)["response"]["body"]
    alone = client.post(endpoint.removeprefix("/v1"), body={"model": BASE, **body}, cast_to=dict)
    assert response_body.keys() == alone.keys()
    assert response_body["usage"] == alone["usage"]
    assert batch.usage.total_tokens == response_body["usage"]["total_tokens"] > 0


def test_a_batch_takes_azures_addresses_and_no_line_for_another_endpoint(client):
    short = "/chat/completions"
    good = batch_of(client, short, [(short, {"messages": CHAT}), (f"/v1{short}", {"messages": CHAT})])
    assert good.request_counts.completed == 2
    bad = batch_of(client, "/v1/responses", [("/v1/chat/completions", {"messages": CHAT})])
    assert (bad.status, bad.errors.data[0].line) == ("failed", 1)
    with pytest.raises(BadRequestError, match="endpoint"):
        batch_of(client, "/v1/images", [("/v1/images", {})])


def test_a_line_that_wants_a_stream_fails_alone(client):
    url = "/v1/responses"
    batch = batch_of(client, url, [(url, {"input": "x", "stream": True}), (url, {"input": "x"})])
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    assert "stream" in client.files.content(batch.error_file_id).text


def test_a_batch_that_the_server_cannot_work_on_fails_and_does_not_stay_in_progress(client, simulator):
    (simulator.service.folder / "batches").write_text("a file where the folder of responses has to be")
    batch = batch_of(client, "/v1/chat/completions", [("/v1/chat/completions", {"model": BASE, "messages": CHAT})])
    assert (batch.status, batch.errors.data[0].code) == ("failed", "server_error")
