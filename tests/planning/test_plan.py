"""`ftbridge plan`: reckoned in a second, without torch, and told with its evidence."""

from __future__ import annotations

import datetime
import json
import os
import resource
import subprocess
import sys
import time

import pytest

import ftbridge
from ftbridge.errors import UsageError
from ftbridge.planning.memory import CARDS, GIB, largest_pass, memory, read_shape, shape_of
from ftbridge.planning.money import break_even_tokens
from ftbridge.planning.plan import Plan, plan
from ftbridge.prices import PriceList, load_prices
from ftbridge.spec import SpecFile
from ftbridge.spec.sections import LocalSpec, PlanSpec
from support.paths import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "support-triage" / "job.yaml"
BASE = "gpt-4.1-mini-2025-04-14"
LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
LLAMA_70B = {
    **LLAMA_8B,
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}
MISTRAL_7B = {**LLAMA_8B, "vocab_size": 32000}
TODAY = datetime.date(2026, 11, 24)


def lines(count: int, first: int = 0) -> str:
    messages = [
        {"messages": [{"role": "user", "content": f"Number {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
        for n in range(first, first + count)
    ]
    return "".join(json.dumps(line) + "\n" for line in messages)


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines(600))
    (tmp_path / "test.jsonl").write_text(lines(40, 1000))
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    return {
        "name": "numbers",
        "data": {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl"), "validation": 0.1},
        "model": {"openai": BASE, "local": "meta-llama/Llama-3.1-8B-Instruct"},
        "hyperparameters": {"n_epochs": 2, "batch_size": 10},
    }


def planned(spec, tmp_path, **more) -> Plan:
    return plan(SpecFile.of(spec), config=tmp_path / "config.json", today=TODAY, **more)


def ask(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ftbridge", "plan", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


def test_tokens_steps_and_money_follow_from_the_data(spec, tmp_path):
    estimate = planned(spec, tmp_path)
    train = estimate.splits["train"]
    assert (train.examples, estimate.epochs, estimate.steps) == (540, 2, 108)
    assert 0 < train.trained < train.tokens
    money = estimate.openai.money
    assert money.training == pytest.approx(5 * train.tokens * 2 / 1e6)
    assert money.total == (money.training + money.evaluation[0], money.training + money.evaluation[1])
    assert money.serving_per_million == (0.8, 3.2)
    assert (estimate.openai.stops, estimate.openai.days_left) == (datetime.date(2027, 1, 14), 51)


def test_counts_are_those_of_a_run(spec):
    from ftbridge.runner.start import create_run

    run = create_run(SpecFile.of(spec), "openai")
    splits = run.state().data.splits
    estimate = plan(SpecFile.of(spec))
    assert {name: split.tokens for name, split in estimate.splits.items()} == {n: s.tokens for n, s in splits.items()}


def test_a_batch_costs_half_and_few_shot_costs_more(spec, tmp_path):
    plain = planned(spec, tmp_path).openai.money
    batch = planned({**spec, "openai": {"batch": True}}, tmp_path).openai.money
    assert batch.evaluation[1] == pytest.approx(plain.evaluation[1] / 2)
    shots = planned({**spec, "evaluation": {"baselines": ["few_shot"]}}, tmp_path).openai.money
    assert shots.evaluation[0] > plain.evaluation[0]


def test_an_unknown_model_has_no_price_rather_than_a_guess(spec, tmp_path):
    estimate = planned({**spec, "model": {**spec["model"], "openai": "gpt-9-large"}}, tmp_path)
    assert estimate.openai.money.total is None
    assert "No price is known for gpt-9-large" in " ".join(estimate.openai.money.notes)
    held = planned({**spec, "model": {"openai": "gpt-9-large"}, "budget": {"max_usd": 5.0}}, tmp_path)
    assert not held.ok
    assert "no price" in held.gates[0].message


def test_prices_have_an_age_and_can_be_ones_own(spec, tmp_path, monkeypatch):
    assert any("days old" in note for note in planned(spec, tmp_path).openai.money.notes)
    by_name = {"as_of": "2026-11-20", "models": {"gpt-9-large": {"train": 2, "input": 1, "output": 4}}}
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(by_name))
    monkeypatch.setenv("FTBRIDGE_PRICES", str(path))
    estimate = planned({**spec, "model": {"openai": "gpt-9-large-2026-01-01"}}, tmp_path)
    tuned = planned({**spec, "model": {"openai": "ft:gpt-9-large:org::x"}}, tmp_path)
    assert estimate.openai.money.training == tuned.openai.money.training
    assert estimate.openai.money.notes == []
    for wrong in (
        {**by_name, "currency": "EUR"},
        {"models": {}},
        {**by_name, "models": {"m": {"input": -1, "output": 1}}},
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UsageError):
            load_prices()
    with pytest.raises(UsageError, match="cannot be read"):
        load_prices(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("config", "billions"), [(LLAMA_8B, 8.03), (LLAMA_70B, 70.55), (MISTRAL_7B, 7.24)]
)  # fmt: skip
def test_parameters_are_those_that_are_published(config, billions):
    assert shape_of(config).parameters / 1e9 == pytest.approx(billions, abs=0.01)


def test_parameters_and_adapter_of_the_default_model_are_those_on_the_disk(base_model_dir):
    from ftbridge.providers.local.models.find import LocalModel, check_model

    shape = read_shape(base_model_dir)
    facts = check_model(LocalModel(name="m", path=base_model_dir, source="directory", sha256=""))
    assert shape.parameters == facts.parameters
    assert shape.adapter_parameters(16) == 4_884_480  # what a run of the example says it trains


def test_the_seed_figures_hold():
    seven, seventy, local = shape_of(MISTRAL_7B), shape_of(LLAMA_70B), LocalSpec()
    assert largest_pass(seven, local, 24 * GIB) >= 2048
    one_of_two = memory(seventy, local, pass_tokens=512)
    assert 40e9 < one_of_two.total < 2 * 48e9
    assert largest_pass(seventy, local, 24 * GIB) == 0
    full = memory(seven, LocalSpec(tuning="full", quantization="none"), pass_tokens=512)
    assert full.total > 3 * memory(seven, local, pass_tokens=512).total


def test_memory_grows_with_what_it_should():
    shape = shape_of(LLAMA_8B)

    def total(*, pass_tokens: int = 1024, checkpointing: bool = True, trained_share: float = 1.0, **local) -> int:
        return memory(
            shape,
            LocalSpec.model_validate(local),
            pass_tokens=pass_tokens,
            checkpointing=checkpointing,
            trained_share=trained_share,
        ).total

    assert total(quantization="nf4") < total(quantization="int8") < total(quantization="none")
    assert total() < total(pass_tokens=4096) < total(pass_tokens=4096, checkpointing=False)
    assert total(lora={"r": 8}) < total(lora={"r": 64})
    assert total(trained_share=0.02) < total()
    fits = [largest_pass(shape, LocalSpec(), gib * GIB) for gib in CARDS.values()]
    assert fits == sorted(fits)


def test_a_config_that_tells_too_little_is_named(tmp_path):
    for text in ("{}", "[]", "nonsense"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UsageError, match=r"config\.json"):
            read_shape(tmp_path)


def test_without_a_config_memory_is_not_told_and_the_way_to_it_is(spec):
    estimate = plan(SpecFile.of({**spec, "model": {"local": "nobody/gated-model"}}), today=TODAY)
    assert (estimate.local.memory, estimate.local.cards, estimate.openai) == (None, [], None)
    assert any("--config" in note for note in estimate.local.notes)
    assert estimate.local.pace.basis == "none"


def test_hours_and_break_even(spec, tmp_path):
    estimate = planned(spec, tmp_path, gpu_usd_per_hour=0.8)
    assert estimate.local.pace.basis == "published"
    low, high = estimate.local.pace.hours
    assert 0 < low < high
    assert estimate.local.usd == (pytest.approx(low * 0.8), pytest.approx(high * 0.8))
    assert estimate.local.break_even_tokens == 292_000_000
    assert break_even_tokens(0.8, (0.8, 3.2)) == 292_000_000
    assert PlanSpec(watts=350.0, usd_per_kwh=0.3).hour_usd == pytest.approx(0.105)
    assert PlanSpec(watts=350.0).hour_usd is None


def test_gates_of_budget_hours_and_life(spec, tmp_path):
    assert planned({**spec, "budget": {"max_usd": 100.0}, "plan": {"min_life_days": 30}}, tmp_path).ok
    estimate = planned(
        {**spec, "budget": {"max_usd": 0.001, "max_hours": 1e-6}, "plan": {"min_life_days": 365}}, tmp_path
    )
    assert [gate.field for gate in estimate.gates] == ["budget.max_usd", "plan.min_life_days", "budget.max_hours"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"no-baseline"}),
        ({"data": {"train": "SMALL"}}, {"too-few-examples", "no-test", "no-validation", "few-steps"}),
        ({"hyperparameters": {"n_epochs": 9}, "data": {"train": "SMALL"}}, {"many-epochs", "too-few-examples"}),
        ({"local": {"lora": {"r": 64, "alpha": 1}}, "data": {"train": "SMALL"}}, {"rank", "alpha"}),
    ],
)
def test_advice_follows_from_what_is_seen(change, expected, spec, tmp_path):
    (tmp_path / "small.jsonl").write_text(lines(20))
    if "data" in change:
        change = {**change, "data": {"train": str(tmp_path / "small.jsonl")}}
    by_name = {piece.id: piece for piece in planned({**spec, **change}, tmp_path).advice}
    assert expected <= set(by_name)
    assert all(piece.evidence and piece.rule for piece in by_name.values())
    if not change:
        assert set(by_name) == expected


def processor_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_the_command_is_fast_light_and_keeps_its_gate(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    more = ["--set", "model.local=meta-llama/Llama-3.1-8B-Instruct", "--config", str(tmp_path / "config.json")]
    ask(str(EXAMPLE))
    before = processor_seconds_of_children()
    done = ask(str(EXAMPLE), *more, "--set", f"model.openai={BASE}", "--json")
    assert processor_seconds_of_children() - before < 5  # about 1 s; of the processor, whatever else runs on it
    assert done.returncode == 0, done.stderr
    result = Plan.model_validate_json(done.stdout)
    assert set(result.lowering) == {"openai", "local"}
    assert 8e9 < result.local.parameters < 8.1e9
    gated = ask(str(EXAMPLE), "--set", f"model.openai={BASE}", "--set", "plan.min_life_days=10000")
    assert gated.returncode == 4
    assert "stop in" in gated.stderr
    shown = ask(str(EXAMPLE), *more, "--fields")
    assert "5.7 GB" in " ".join(shown.stdout.split())
    assert "translated" in shown.stdout
    for wrong in ("budget.max_usd=-5", "budget.max_usd=nan", "plan.watts=0"):
        assert ask(str(EXAMPLE), "--set", wrong).returncode == 2
    assert ask("absent.yaml").returncode == 2
    code = (
        "import sys, ftbridge; ftbridge.plan(sys.argv[1]); print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    light = subprocess.run([sys.executable, "-c", code, str(EXAMPLE)], capture_output=True, text=True, check=True)
    assert light.stdout.strip() == "[]"


def test_own_runs_tell_the_pace(spec, tmp_path, monkeypatch):
    from ftbridge.runner.start import create_run

    spec = {**spec, "model": {"local": "my-model"}}
    run = create_run(SpecFile.of(spec), "local")
    figures = {"step": 1, "tokens_per_second": 300.0}
    run.append("job_event", id="1", time=0, message="m", type="metrics", metrics=figures)
    run.append("succeeded")
    estimate = ftbridge.plan(spec)
    assert estimate.local.pace.basis == "own runs"
    assert estimate.local.pace.tokens_per_second == (200.0, 450.0)
    assert run.id in estimate.local.pace.source


def test_a_price_list_finds_dated_names():
    listed = PriceList.model_validate({"as_of": "2026-01-01", "models": {"gpt-4o": {"input": 1, "output": 1}}})
    assert listed.of("gpt-4o-2024-08-06") is not None
    assert listed.of("gpt-4o-mini") is None


def test_a_large_sum_is_asked_about_before_anything_is_sent(spec, tmp_path, monkeypatch):
    from ftbridge.server import simulating

    price = {"train": 1e6, "input": 1, "output": 1}
    (tmp_path / "prices.json").write_text(json.dumps({"as_of": "2026-11-20", "models": {BASE: price}}))
    (tmp_path / "job.json").write_text(json.dumps({**spec, "model": {"openai": BASE}}))
    with simulating({"speed": 50}) as service:
        monkeypatch.setenv("OPENAI_BASE_URL", service.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-spending")
        monkeypatch.setenv("FTBRIDGE_PRICES", str(tmp_path / "prices.json"))

        def run(*more: str) -> subprocess.CompletedProcess[str]:
            command = [
                sys.executable,
                "-m",
                "ftbridge",
                "run",
                str(tmp_path / "job.json"),
                "--provider",
                "openai",
                *more,
            ]
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                stdin=subprocess.DEVNULL,
                env={**os.environ},
            )

        refused = run()
        assert refused.returncode == 2
        assert "there is no terminal to confirm that on" in refused.stderr
        assert service.requests == {}
        done = run("--yes", "-q")
        assert done.returncode == 0, done.stderr
        assert len(service.jobs) == 1


def test_finished_runs_at_the_service_tell_how_long_it_takes(spec, tmp_path):
    from ftbridge.runner.start import create_run

    estimate = ftbridge.plan({**spec, "model": {"openai": BASE}})
    assert estimate.openai.pace.hours is None
    run = create_run(SpecFile.of({**spec, "model": {"openai": BASE}}), "openai")
    run.append("submitted", handle={"provider": "openai", "id": "ftjob-x", "folder": str(run.path)})
    time.sleep(0.3)
    tuned = {"provider": "openai", "id": "ft:x", "base": BASE}
    event = run.append("result", model=tuned, trained_tokens=1000)
    rate = 1000 / (event.time - next(e.time for e in run.journal.read() if e.type == "submitted"))
    estimate = ftbridge.plan({**spec, "model": {"openai": BASE}})
    low, high = estimate.openai.pace.tokens_per_second
    assert (low, high) == (pytest.approx(rate / 1.5), pytest.approx(rate * 1.5))
    assert run.id in estimate.openai.pace.source


def test_tools_are_counted_in_prompts_as_they_are_in_the_file(tmp_path):
    from ftbridge.data.tokens import encoding_for
    from ftbridge.evaluation.items import load_items
    from ftbridge.planning.tokens import prompt_tokens, split_tokens

    tool = {
        "type": "function",
        "function": {"name": "look_up", "description": "Finds an order. " * 20, "parameters": {}},
    }
    chat = {"messages": [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "Here."}]}
    for name, line in (("plain", chat), ("tools", {**chat, "tools": [tool] * 3})):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    encoding = encoding_for(BASE)
    read = {}
    for name in ("plain", "tools"):
        path = tmp_path / f"{name}.jsonl"
        read[name] = prompt_tokens(load_items(path), encoding)[0]
        split = split_tokens(path, encoding, None)
        assert read[name] == split.tokens - split.trained + 3  # the priming of the reply belongs to the prompt
    assert read["tools"] - read["plain"] > 150
