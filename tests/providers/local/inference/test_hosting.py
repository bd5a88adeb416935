"""Answering many clients at once from one model: joining, leaving, adapters, stops, and a process that dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ftbridge.data.examples import Message
from ftbridge.errors import FtbridgeError, ModelUnavailable, UsageError, WorkerDied
from ftbridge.providers.local.inference import batch, engine
from ftbridge.providers.local.inference.adapters import read_adapter
from ftbridge.providers.local.inference.host import Host
from ftbridge.providers.local.inference.intake import Intake
from ftbridge.providers.local.inference.process import Server
from ftbridge.providers.local.inference.requests import (
    ContextTooLong,
    GenerationRequest,
    StreamDelta,
    StreamEnd,
    StreamStart,
)
from ftbridge.providers.local.inference.row_limit import RowLimit
from ftbridge.providers.local.inference.sampling import Drawing, choose
from ftbridge.providers.local.inference.text import Words
from ftbridge.providers.local.models import load
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.request import SampleRequest
from support import training_requests

# Drawing


def test_greedy_takes_the_most_likely_token():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    assert [choice.token for choice in choose(logits, [Drawing(), Drawing()])] == [1, 0]


def test_a_seed_draws_the_same_again_whatever_else_is_in_the_batch():
    logits = torch.randn(1, 1000, generator=torch.Generator().manual_seed(1))

    def draws(beside: int) -> list[int]:
        ours, others = Drawing(temperature=1.0, seed=7), [Drawing(temperature=1.0) for _ in range(beside)]
        return [choose(logits.expand(beside + 1, -1), [*others, ours])[-1].token for _ in range(20)]

    assert draws(0) == draws(3)
    assert len(set(draws(0))) > 10


def test_the_nucleus_leaves_out_unlikely_tokens_and_always_keeps_the_most_likely():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    drawn = {choose(logits, [drawing])[0].token for drawing in [Drawing(1.0, 0.75, seed) for seed in range(200)]}
    assert drawn == {0, 1}
    assert {choose(logits, [Drawing(1.0, 0.01, seed)])[0].token for seed in range(20)} == {0}


def test_draws_follow_the_probabilities():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    drawing = Drawing(temperature=1.0, seed=3)
    drawn = [choose(logits, [drawing])[0].token for _ in range(3000)]
    assert [drawn.count(token) / 3000 for token in range(3)] == pytest.approx([0.7, 0.2, 0.1], abs=0.03)


def test_logprobs_are_of_the_model_not_of_the_temperature():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    choice = choose(logits, [Drawing(temperature=0.0, logprobs=2)])[0]
    assert choice.logprob == pytest.approx(-0.6931, abs=1e-3)
    assert [round(logprob, 3) for _, logprob in choice.top] == [-0.693, -1.386]


@pytest.mark.parametrize("extreme", [{"temperature": 1e-40}, {"temperature": 1e-4, "repetition_penalty": 1e-30},
                                     {"temperature": 2.0, "min_p": 1.0}, {"temperature": 1.0, "top_p": 1e-6}])  # fmt: skip
def test_extreme_settings_draw_a_token_all_the_same(extreme):
    logits = torch.tensor([[30.0, -30.0, 29.0]])
    (choice,) = choose(logits, [Drawing(seed=1, prompt=frozenset({0}), **extreme)])
    assert (choice.failed, choice.token) == (None, 0)


# What comes in


def test_a_slow_prompt_holds_up_no_cancel_and_one_that_is_cancelled_is_never_answered():
    hold = threading.Event()

    def prepare(one: GenerationRequest) -> Any:
        if one.id == "slow":
            assert hold.wait(10)
        if one.id == "bad":
            raise UsageError("cannot be answered")
        return one.id

    intake = Intake(prepare)
    asks = [ask(name, "x").model_dump(mode="json", exclude_unset=True) for name in ("slow", "gone", "bad", "good")]
    cancels = [{"cancel": name} for name in ("earlier", "gone", "slow")]
    intake.start([json.dumps(line) for line in [*({"ask": one} for one in asks), *cancels]] + ["no JSON"])
    arrivals: list[Any] = []
    while (arrival := intake.arrivals.get(timeout=10)) is not None:
        arrivals.append(arrival)
    assert [type(one).__name__ for one in arrivals] == ["Cancel", "RefusedRequest"]
    hold.set()
    assert intake.arrivals.get(timeout=10).name == "bad"
    assert intake.arrivals.get(timeout=10).prepared == "good"
    assert intake.arrivals.empty()


# Tokens to text


class Letters:
    """A tokenizer whose tokens are bytes, so that characters span tokens."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return bytes(ids).decode(errors="replace")


def streamed(text: str, stops: list[str]) -> tuple[list[str], Words]:
    words = Words(Letters(), stops)
    pieces = []
    for token in text.encode():
        pieces.append(words.add(token))
        if words.stopped:
            break
    pieces.append(words.rest())
    return pieces, words


@pytest.mark.parametrize("text", ["plain", "größer", "日本語", "🎓🎓", "a\u0301", "\n\n tabs\t"])
def test_text_arrives_whole_and_no_piece_holds_half_a_character(text: str):
    pieces, words = streamed(text, [])
    assert "".join(pieces) == text
    assert not words.stopped
    assert all("\ufffd" not in piece for piece in pieces)


@pytest.mark.parametrize(
    ("text", "stops", "stored"),
    [
        ("one. two", ["."], "one"),
        ("aaab", ["ab"], "aa"),
        ("no end", ["zzz"], "no end"),
        ("end ##", ["###"], "end ##"),
        ("x STOP y", ["STOP", "x S"], ""),
        ("größe", ["ß"], "grö"),
    ],
)
def test_a_stop_string_ends_the_text_before_it_and_is_never_shown_in_part(text: str, stops: list[str], stored: str):
    pieces, words = streamed(text, stops)
    assert "".join(pieces) == stored
    assert words.stopped is any(stop in text for stop in stops)


# Adapters


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
    ],
)
def test_adapters_that_are_more_than_products_are_refused_by_name(tmp_path: Path, config: dict[str, Any], names: str):
    from safetensors.torch import save_file

    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 4, **config}))
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelUnavailable, match=names):
        read_adapter(tmp_path)


def test_a_folder_without_an_adapter_is_said(tmp_path: Path):
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        read_adapter(tmp_path)


# The real model


def sample_request(**changes: Any) -> SampleRequest:
    return SampleRequest(request=training_requests.request(**({"lora_r": 4} | changes)), tuned=None)


@pytest.fixture(scope="module")
def loaded() -> Server:
    return Server(sample_request())


@pytest.fixture
def server(loaded: Server) -> Iterator[Server]:
    """A server in the state in which its process serves."""
    with loaded.engine.generating():
        yield loaded


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, base_model_dir: Path) -> list[str]:
    """Two adapters that change what the model says."""
    folders = []
    for seed in (5, 6):
        request = sample_request().request
        model = load.add_adapter(
            load.load_base(base_model_dir, request, Device(torch.device("cpu"), torch.float32)), request
        )
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
        folder = tmp_path_factory.mktemp("adapter")
        model.save_pretrained(folder)
        folders.append(str(folder))
    return folders


def ask(name: str, text: str, **changes: Any) -> GenerationRequest:
    return GenerationRequest(id=name, messages=[Message(role="user", content=text)], **({"max_tokens": 12} | changes))


def finish(server: Server) -> dict[str, list[str]]:
    """Run to the end; each answer's text."""
    texts: dict[str, dict[int, str]] = {}
    while server.busy:
        for name, result in server.advance():
            if isinstance(result, StreamDelta):
                texts_of = texts.setdefault(name, {})
                texts_of[result.index] = texts_of.get(result.index, "") + result.text
    return {name: [texts_of[index] for index in sorted(texts_of)] for name, texts_of in texts.items()}


PROMPTS = [
    "Name a colour.",
    "What is the capital of France, and why is it well known all over the world?",
    "Count to five.",
]


@pytest.mark.slow
def test_answers_are_the_same_alone_together_and_joined_midway(server: Server, adapters: list[str]):
    asks = [ask(f"{i}{j}", text, adapter=adapter)
            for i, text in enumerate(PROMPTS) for j, adapter in enumerate([None, *adapters])]  # fmt: skip
    alone = {}
    for one in asks:
        server.take(one)
        alone |= finish(server)
    said_by = {tuple(alone[f"{i}{j}"][0] for i in range(3)) for j in range(3)}
    assert len(said_by) == 3, "each adapter says something else"
    for one in asks:
        server.take(one)
    assert finish(server) == alone
    joined: dict[str, str] = {}
    waiting = list(asks)
    while waiting or server.busy:
        if waiting:
            server.take(waiting.pop())
        for name, result in server.advance():
            if isinstance(result, StreamDelta):
                joined[name] = joined.get(name, "") + result.text
    assert {name: [text] for name, text in joined.items()} == alone


@pytest.mark.slow
def test_a_row_of_a_batch_says_what_peft_says_with_its_adapter(
    server: Server, adapters: list[str], base_model_dir: Path
):
    from peft import PeftModel

    request = sample_request().request
    model = load.load_base(base_model_dir, request, Device(torch.device("cpu"), torch.float32))
    model = PeftModel.from_pretrained(model, adapters[0]).eval()
    prompt = server.renderer.prompt([Message(role="user", content=PROMPTS[0])])
    with torch.no_grad():
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0, use_cache=True)
    new = ids[0, len(prompt) :].tolist()
    wanted = server.tokenizer.decode(new, skip_special_tokens=True)
    server.take(ask("beside", PROMPTS[1]))
    server.take(ask("ours", PROMPTS[0], adapter=adapters[0]))
    assert finish(server)["ours"] == [wanted]


@pytest.mark.slow
def test_memory_that_runs_out_loses_no_answer(server: Server, monkeypatch: pytest.MonkeyPatch):
    for index, text in enumerate(PROMPTS):
        server.take(ask(str(index), text))
    wanted = finish(server)
    for index, text in enumerate(PROMPTS):
        server.take(ask(str(index), text))
    texts: dict[str, str] = {}
    passes = 0
    while server.busy:
        passes += 1
        if passes == 5:
            assert server.engine.reduce()
        for name, result in server.advance():
            if isinstance(result, StreamDelta):
                texts[name] = texts.get(name, "") + result.text
    assert server.engine.row_limit < len(PROMPTS)
    server.engine.limit = RowLimit()
    assert {name: [text] for name, text in texts.items()} == wanted


@pytest.mark.slow
def test_cancelled_answers_leave_and_others_go_on(server: Server):
    server.take(ask("gone", PROMPTS[1], max_tokens=400))
    server.take(ask("stays", PROMPTS[0]))
    server.advance()
    server.cancel("gone")
    assert set(finish(server)) <= {"stays"}
    assert not server.engine.batch.rows


@pytest.mark.slow
def test_what_the_model_cannot_read_is_refused_before_it_runs(server: Server):
    with pytest.raises(ContextTooLong, match="maximum context length is 8,192"):
        server.take(ask("long", "word " * 9000))
    with pytest.raises(ContextTooLong, match="9,000 in the answer"):
        server.take(ask("long", "word", max_tokens=9000))
    assert not server.busy


@pytest.mark.slow
def test_prompts_are_read_in_passes_of_a_bounded_size(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine, "PREFILL_TOKENS", 150)
    for index, word in enumerate(["red", "tree", "house", "river", "seven"]):  # no beginning that another has read
        server.take(ask(str(index), f"{word} " * 60, max_tokens=1))
    sizes = []
    while server.busy:
        sizes.append(len({name for name, result in server.advance() if isinstance(result, StreamEnd)}))
    assert sum(sizes) == 5
    assert max(sizes) <= 2


@pytest.mark.slow
def test_a_long_prompts_probabilities_are_those_of_one_pass(loaded: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch, "_SCORED_TOKENS", 32)
    prompt = loaded.tokenizer("A long text of many words. " * 12)["input_ids"]
    with torch.no_grad():
        complete = torch.log_softmax(loaded.model(input_ids=torch.tensor([prompt])).logits[0].float(), -1)
    with loaded.engine.generating():
        result = loaded.engine.score(prompt, None, 1)
    assert len(result) == len(prompt) - 1 > 64
    for where in range(len(prompt) - 1):
        assert result[where].token == prompt[where + 1]
        assert result[where].logprob == pytest.approx(float(complete[where, prompt[where + 1]]), abs=1e-3)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(sample_request(), tmp_path / "host.log")


async def collect(host: Host, one: GenerationRequest) -> tuple[str, list[StreamEnd], int]:
    text, ends, prompt = "", [], 0
    async for event in host.generate(one):
        if isinstance(event, StreamStart):
            prompt = event.prompt_tokens
        elif isinstance(event, StreamDelta):
            text += event.text
        else:
            ends.append(event)
    return text, ends, prompt


@pytest.mark.slow
def test_a_host_answers_side_by_side_refuses_alone_and_comes_back_after_a_kill(host: Host):
    async def story() -> None:
        try:
            several, refused = await asyncio.gather(
                asyncio.gather(*(collect(host, ask(str(i), PROMPTS[i % 3], n=2, stop=["."])) for i in range(4))),
                asyncio.gather(collect(host, ask("long", "word " * 9000)), return_exceptions=True),
            )
            assert isinstance(refused[0], UsageError)
            for text, ends, prompt in several:
                assert text
                assert len(ends) == 2
                assert prompt > 10
                assert "." not in text
            assert host._process is not None
            if Path("/proc/self/environ").exists():  # its threads must not spin while other processes use the cores
                assert b"OMP_WAIT_POLICY=" in Path(f"/proc/{host._process.pid}/environ").read_bytes()
            doomed = asyncio.gather(collect(host, ask("doomed", PROMPTS[1], max_tokens=500)), return_exceptions=True)
            await asyncio.sleep(0.5)
            os.kill(host._process.pid, signal.SIGKILL)
            (error,) = await doomed
            assert isinstance(error, WorkerDied)
            assert "signal 9" in str(error)
            text, ends, _ = await collect(host, ask("again", PROMPTS[0]))
            assert text
            assert ends[0].completion_tokens <= 12
        finally:
            await host.close()

    asyncio.run(story())


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_told_to_who_asks(tmp_path: Path):
    async def story() -> FtbridgeError:
        host = Host(sample_request(model=str(tmp_path / "nothing")), tmp_path / "host.log")
        try:
            with pytest.raises(FtbridgeError) as error:
                await host.start()
            return error.value
        finally:
            await host.close()

    assert "nothing" in str(asyncio.run(story()))
