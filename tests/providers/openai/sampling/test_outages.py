"""A service that gives no answer at all: it is waited for a few minutes, whatever the number of prompts, and people see it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftbridge import http
from ftbridge.cli import main
from ftbridge.cli.progress import TerminalWatcher
from ftbridge.data.examples import Message
from ftbridge.errors import ServiceUnavailable
from ftbridge.http import Retry, on_retry
from ftbridge.providers.base import Completion, Prompt
from ftbridge.providers.openai.errors import ServiceFault
from ftbridge.providers.openai.retry import ATTEMPTS
from ftbridge.providers.openai.sampling.patience import BACKOFF_SECONDS, Patience
from ftbridge.providers.openai.sampling.sampler import endpoint_sampler
from support.jobs import write_job
from support.service_faults import fault
from support.simulated_service import Service

CHAT = "POST /chat/completions"
LOST, SLOW_DOWN = ServiceFault("lost", "Connection error."), ServiceFault("later", "slow down", 429)


def prompts(count: int) -> list[Prompt]:
    return [Prompt(key=f"k{n}", messages=(Message(role="user", content=f"item {n}"),)) for n in range(count)]


@pytest.fixture
def retries() -> Iterator[list[Retry]]:
    notices: list[Retry] = []
    with on_retry(notices.append):
        yield notices


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.mark.parametrize("at_once", [1, 4, 16])
@pytest.mark.parametrize("count", [1, 12, 60])
def test_an_address_where_nobody_listens_ends_after_as_many_tries_for_any_number_of_prompts(
    closed_port: int, retries: list[Retry], count: int, at_once: int
) -> None:
    sampler = endpoint_sampler(f"http://127.0.0.1:{closed_port}/v1", "m")
    with pytest.raises(ServiceUnavailable, match="generating completions with m"):
        list(sampler.generate(prompts(count), max_tokens=5, batch_size=at_once))
    sampler.close()
    assert [retry.attempt for retry in retries] == list(range(1, ATTEMPTS))
    assert sum(retry.seconds for retry in retries) <= 127


def test_an_outage_in_the_middle_keeps_what_came_before(service: Service, retries: list[Retry]) -> None:
    service.meets(fault(CHAT, "reset_before", range(6, 1000)))
    sampler = endpoint_sampler(service.base_url, "gpt-test")
    came: list[Completion] = []
    with pytest.raises(ServiceUnavailable):
        came.extend(sampler.generate(prompts(40), max_tokens=5, batch_size=4))
    sampler.close()
    assert len(came) == 5
    assert len(retries) < 2 * ATTEMPTS  # a response that was still on its way may begin the count again


def test_one_outage_that_fails_all_in_flight_is_waited_out_once(service: Service, retries: list[Retry]) -> None:
    service.meets(fault(CHAT, "reset_before", range(1, 9)))
    sampler = endpoint_sampler(service.base_url, "gpt-test")
    assert len(list(sampler.generate(prompts(20), max_tokens=5, batch_size=8))) == 20
    sampler.close()
    assert 1 <= len(retries) < ATTEMPTS


@pytest.mark.parametrize("at_once", [1, 4])
def test_several_prompts_that_always_fail_are_given_up_alone(service: Service, at_once: int) -> None:
    """Together they fail more often than an outage is borne; each failed while others were completed."""
    bad = [{"on": CHAT, "body": f'"item {n}"', "status": 500} for n in (0, 3, 5, 7)]
    service.meets(*bad)
    sampler = endpoint_sampler(service.base_url, "gpt-test")
    match = {result.key: result for result in sampler.generate(prompts(20), max_tokens=5, batch_size=at_once)}
    sampler.close()
    assert sorted(key for key, result in match.items() if result.error) == ["k0", "k3", "k5", "k7"]


@pytest.mark.parametrize("times", [12, 40])
def test_a_healthy_service_that_says_slow_down_is_waited_for(service: Service, times: int) -> None:
    service.meets(fault(CHAT, "429", range(1, times + 1)))
    sampler = endpoint_sampler(service.base_url, "gpt-test")
    assert len(list(sampler.generate(prompts(6), max_tokens=5, batch_size=4))) == 6
    sampler.close()


def test_any_response_begins_the_count_of_all_requests_again() -> None:
    patience = Patience("the service", "asking")
    for _ in range(3):
        for _ in range(ATTEMPTS - 1):
            patience.bear(LOST, 0, {"lost"}, patience.round)
        patience.over()
    patience.bear(SLOW_DOWN, 0, {"lost"}, patience.round)
    for _ in range(ATTEMPTS - 1):
        patience.bear(LOST, 0, {"lost"}, patience.round)
    with pytest.raises(ServiceUnavailable):
        patience.bear(LOST, 0, {"lost"}, patience.round)


def test_requests_that_note_no_round_are_borne_for_so_long_together(retries: list[Retry]) -> None:
    patience = Patience("the service", "recording")
    with pytest.raises(ServiceUnavailable):
        any(patience.bear(LOST, 0, {"lost"}) > 1 for _ in range(10_000))
    assert BACKOFF_SECONDS <= sum(retry.seconds for retry in retries) < BACKOFF_SECONDS + 60


def test_people_see_what_is_waited_for_once_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalWatcher():
        for attempt in (1, 2):
            http.notify(Retry("generating completions with m", attempt, "Connection error.", 1.0))
        assert capsys.readouterr().err == ""
        for attempt in (3, 4):
            http.notify(Retry("generating completions with m", attempt, "Connection error.", 4.0))
        line = "  generating completions with m: try 3 failed (Connection error); waiting 4 s to try again\n"
        assert capsys.readouterr().err == line
    http.notify(Retry("generating completions with m", 5, "Connection error.", 60.0))
    assert capsys.readouterr().err == ""


def test_an_evaluation_of_an_endpoint_where_nobody_listens_says_so_and_ends(
    closed_port: int, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_job(tmp_path, test=12)
    with pytest.raises(SystemExit) as left:
        main(["eval", str(tmp_path / "job.yaml"), "-c", f"http://127.0.0.1:{closed_port}/v1#m"])
    captured = capsys.readouterr()
    assert (left.value.code, captured.out) == (1, "")
    assert "generating completions with m: try 3 failed (Connection error" in captured.err
    assert "error: generating completions with m: the endpoint" in captured.err
