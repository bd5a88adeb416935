"""Hours on a CPU from its matrix products: the formula, the measurement that is kept, and what a plan says of it."""

from __future__ import annotations

import json
import math
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from ftbridge.planning import processor
from ftbridge.planning.machine import this_machine
from ftbridge.planning.memory import read_shape
from ftbridge.planning.plan import Plan, plan
from ftbridge.planning.processor import Products, products, tokens_per_second
from ftbridge.providers.local.models.footprint import Job, ModelShape
from ftbridge.spec import SpecFile
from support.paths import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "support-triage" / "job.yaml"
REINFORCEMENT = REPOSITORY / "examples" / "reinforcement" / "job.yaml"
LORA = Job(kind="cpu", compute=4, tuning="lora", quantization="nf4")


def planned(path: Path, overrides: list[str]) -> Plan:
    return plan(SpecFile.of(path, overrides))


def speed(**changes: Any) -> Products:
    usual = {
        "day": "2026-11-01",
        "compute": "float32",
        "threads": 2,
        "torch": "2",
        "flops": {512: 8e10},
        "elements": 4e9,
    }
    return Products.model_validate({**usual, **changes})


@pytest.fixture
def shape(base_model_dir: Path) -> ModelShape:
    return read_shape(base_model_dir)


def test_products_alone_take_the_flops_of_the_formula(shape: ModelShape) -> None:
    only_products = speed(flops={512: 1e9}, elements=1e30)
    length, share = 100.0, 0.25
    width = shape.heads * shape.head_dim
    flops = 4 * shape.linear_parameters + 6 * shape.adapter_parameters(16)
    flops += 4 * share * shape.vocabulary * shape.hidden + 12 * length * width * shape.layers
    rate = tokens_per_second(only_products, shape, LORA, length=length, loss_share=share)
    assert rate == pytest.approx(1e9 / flops)
    full = LORA.model_copy(update={"tuning": "full"})
    flops = (
        6 * shape.linear_parameters + 6 * share * shape.vocabulary * shape.hidden + 12 * length * width * shape.layers
    )
    assert tokens_per_second(only_products, shape, full, length=length, loss_share=share) == pytest.approx(1e9 / flops)


def test_elementwise_work_comes_on_top_by_the_widths_of_the_layers(shape: ModelShape) -> None:
    only_elements = speed(flops={512: 1e30}, elements=1e9)
    through = sum((linear.inputs + linear.outputs) * linear.times for linear in shape.linears)
    rate = tokens_per_second(only_elements, shape, LORA, length=1, loss_share=1)
    assert rate == pytest.approx(1e9 / (processor.PASSES * through))


@pytest.mark.parametrize(
    "slower",
    [{"length": 2000}, {"loss_share": 1.0}, {"checkpointing": True}],
    ids=["long", "all trained", "recomputed"],
)
def test_what_takes_more_work_is_slower(shape: ModelShape, slower: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"length": 100, "loss_share": 0.2}
    assert tokens_per_second(speed(), shape, LORA, **{**usual, **slower}) < tokens_per_second(
        speed(), shape, LORA, **usual
    )


def test_rates_between_measured_widths_lie_between_theirs() -> None:
    one = speed(flops={256: 1e9, 1024: 3e9})
    assert (one.rate(64), one.rate(256), one.rate(1024), one.rate(9000)) == (1e9, 1e9, 3e9, 3e9)
    assert one.rate(512) == pytest.approx(2e9)
    assert math.isclose(speed(flops={512: 5e9}).rate(2), 5e9)


def test_a_plan_of_a_cpu_tells_hours_and_what_they_are_from() -> None:
    estimate = planned(EXAMPLE, ["local.device=cpu"])
    assert estimate.local is not None
    pace = estimate.local.pace
    assert pace.basis == "measured"
    assert pace.hours is not None
    assert pace.tokens_per_second is not None
    low, high = pace.hours
    assert high == pytest.approx(low * 1.5**2)
    assert "80 GFLOP/s in float32 with 2 threads, measured 2026-11-01" in pace.source
    assert estimate.local.whole is not None
    assert estimate.local.whole.hours is not None


def test_one_thread_is_written_in_the_singular() -> None:
    assert " with 1 thread, " in speed(threads=1).sentence
    assert " with 2 threads, " in speed(threads=2).sentence


def test_memory_on_a_cpu_is_that_of_a_complete_step_whoever_chose_its_size() -> None:
    chosen, set_to_it, small = (
        planned(EXAMPLE, ["local.device=cpu", *overrides])
        for overrides in ([], ["hyperparameters.batch_size=8"], ["hyperparameters.batch_size=1"])
    )
    memories = [estimate.local and estimate.local.processor_memory for estimate in (chosen, set_to_it, small)]
    assert all(memory is not None for memory in memories)
    tokens = [memory.pass_tokens for memory in memories if memory]
    assert tokens[0] == tokens[1] > 3 * tokens[2]
    totals = [memory.total for memory in memories if memory]
    assert totals[0] == totals[1] > totals[2]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("local.quantization=int8", "products in 8 bits are not measured"),
        ("local.cache_dequantized_weights=false", "dequantizing weights in each pass is not measured"),
    ],
)
def test_what_was_not_measured_gets_no_figure_and_the_reason(setting: str, says: str) -> None:
    estimate = planned(EXAMPLE, ["local.device=cpu", setting])
    assert estimate.local is not None
    assert (estimate.local.pace.basis, estimate.local.pace.hours) == ("none", None)
    assert says in estimate.local.pace.source


def test_reinforcement_is_not_estimated_and_the_plan_says_so() -> None:
    estimate = planned(REINFORCEMENT, ["local.device=cpu"])
    assert estimate.local is not None
    assert estimate.local.pace.hours is None
    assert "the time of drawing completions is not estimated" in estimate.local.pace.source


def test_without_torch_nothing_is_measured_and_the_plan_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(processor, "version", absent)
    estimate = planned(EXAMPLE, ["local.device=cpu"])
    assert estimate.local is not None
    assert estimate.local.pace.basis == "none"
    assert "pip install 'ftbridge[local]'" in estimate.local.pace.source


def test_a_measurement_that_fails_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTBRIDGE_PRODUCTS", str(tmp_path / "products.json"))
    monkeypatch.setattr(processor, "MODULE", "ftbridge.nothing_of_this_name")
    reason = products(this_machine(cards=False))
    assert isinstance(reason, str)
    assert "could not be measured" in reason
    assert "nothing_of_this_name" in reason
    assert not (tmp_path / "products.json").exists()


def test_a_short_product_is_counted_for_the_time_of_all_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts what a thread does on another processor at its ticks alone, here every 10 ms."""
    from ftbridge.providers.local.process import products as measurement

    used = 0.0

    def act() -> None:
        nonlocal used
        used += 0.001

    monkeypatch.setattr(measurement.time, "process_time", lambda: used + math.floor(used / 0.01) * 0.01)
    monkeypatch.setattr(measurement.sys, "platform", "linux")
    assert measurement._seconds(act, 2) == pytest.approx(0.001, rel=0.15)


@pytest.mark.slow
def test_this_machine_is_measured_once_and_the_figures_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "products.json"
    monkeypatch.setenv("FTBRIDGE_PRODUCTS", str(path))
    path.write_text(json.dumps({"another machine": {"kept": True}}))
    machine = this_machine(cards=False)
    measured = products(machine)
    assert isinstance(measured, Products)
    assert all(rate > 0 for rate in measured.flops.values())
    assert measured.compute == ("bfloat16" if machine.compute == 2 else "float32")
    assert json.loads(path.read_text())["another machine"] == {"kept": True}
    monkeypatch.setattr(processor, "MODULE", "ftbridge.nothing_of_this_name")
    assert products(machine) == measured
