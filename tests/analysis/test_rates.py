"""Rates of updates against the trainer's own, S and R against the loops of their definition."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from analysis import AnalysisError
from analysis.rates import Schedule, schedule_of_run
from analysis.records import Run, read_run
from lab.core.config import OptimizerConfig
from lab.core.units import StepSize, parse_duration, to_steps
from lab.train.optimizer import learning_rate
from tests.analysis.curves import areas

RECORDS = Path(__file__).parents[2] / "experiments" / "06_surface" / "results"
PEAK = 0.006


def finished(path: Path) -> Run:
    """The run of a record, which has finished."""
    run = read_run(path)
    assert isinstance(run, Run)
    return run


def optimizer(name: str, cooldown: float, final: float) -> OptimizerConfig:
    """The fields of an optimiser that its rates depend on."""
    fields = {"learning_rate": PEAK, "schedule": name}
    fields |= {"cooldown_fraction": cooldown, "final_fraction": final}
    return cast(OptimizerConfig, SimpleNamespace(**fields))


@pytest.mark.parametrize("name", ["constant", "wsd", "cosine"])
@pytest.mark.parametrize("cooldown, final", [(0.2, 0.0), (0.37, 0.1), (0.0, 0.0)])
@pytest.mark.parametrize("warmup, steps", [(0, 7), (20, 651), (1, 1), (20, 20), (13, 326)])
def test_rates_are_those_of_the_trainer(name, cooldown, final, warmup, steps):
    made = optimizer(name, cooldown, final)
    if warmup + (round(cooldown * steps) if name == "wsd" else 0) > steps:
        with pytest.raises(AnalysisError, match="too few"):
            Schedule(name, steps, 1536, warmup, cooldown, final)
        return
    own = Schedule(name, steps, 1536, warmup, cooldown, final).rates()
    lab = [learning_rate(made, i, total_steps=steps, warmup_steps=warmup) for i in range(steps)]
    np.testing.assert_allclose(own * PEAK, lab, rtol=1e-13, atol=1e-18)


@pytest.mark.parametrize("name", ["constant", "wsd", "cosine"])
@pytest.mark.parametrize("memory", [1.0, 7.0, 300.0])
def test_s_and_r_are_the_two_areas_of_tissue(name, memory):
    schedule = Schedule(name, 90, 1536.0, 9, 0.3, 0.05)
    rates = PEAK * schedule.rates()
    rates[:9] = PEAK  # the paper counts a warm-up at the peak
    steps = np.array([1, 9, 40, 75, 90])
    s, r = schedule.seen(steps, memory)
    momentum = 1 - 1 / memory
    for at, own_s, own_r in zip(steps, s, r, strict=True):
        s1, s2 = areas(rates[:at], momentum)
        assert own_s == pytest.approx(1536.0 * s1 / PEAK, rel=1e-12)
        assert own_r == pytest.approx(1 - (1 - momentum) * s2 / PEAK, rel=1e-9)


def test_a_constant_rate_has_all_its_tokens_and_r_one():
    s, r = Schedule("constant", 50, 100.0, 5).seen(np.array([1, 50]), 10.0)
    np.testing.assert_allclose(s, [100.0, 5000.0])
    np.testing.assert_allclose(r, 1.0)


def test_records_log_the_rates_that_are_derived_from_their_config():
    seen = set()
    for path in sorted((RECORDS / "surface_eurosat").glob("*/record.jsonl"))[:8]:
        schedule = schedule_of_run(finished(path))
        rates = PEAK * schedule.rates()
        for row in map(json.loads, path.read_text().splitlines()):
            if row["kind"] == "train":
                assert rates[row["step"] - 1] == pytest.approx(row["learning_rate"], rel=1e-5)
                seen.add(schedule.name)
    assert seen == {"constant", "wsd"}


@pytest.mark.parametrize(
    "text",
    [
        "20 steps",
        "0 steps",
        "160 examples",
        "0.01 epochs",
        "3e4 tokens",
        "0.5 tokens_per_parameter",
    ],
)
def test_a_warm_up_is_counted_as_the_trainer_counts_it(text):
    run = finished(next((RECORDS / "surface_eurosat").glob("*/record.jsonl")))
    run.recipe["optimizer.warmup"] = text
    header = run.header
    size = StepSize(
        8, header["data"]["train_examples"], 192, 0.0, float(header["params"]["blocks"])
    )
    expected = to_steps(parse_duration(text, path="x"), size)
    assert schedule_of_run(run).warmup_steps == expected


@pytest.mark.parametrize(
    "change, message",
    [
        ({"optimizer.warmup": "20 hours"}, "optimizer.warmup '20 hours': allowed is an amount"),
        ({"optimizer.warmup": "many steps"}, "optimizer.warmup 'many steps'"),
        ({"optimizer.schedule": "linear"}, "schedule 'linear': allowed are constant, wsd, cosine"),
        ({"optimizer.final_fraction": "1.5"}, "final_fraction = 1.5"),
    ],
)
def test_a_config_that_is_not_understood_is_named(change, message):
    run = finished(next((RECORDS / "surface_eurosat").glob("*/record.jsonl")))
    run.recipe.update(change)
    with pytest.raises(AnalysisError, match=message):
        schedule_of_run(run)


def test_a_record_without_a_config_is_named(run_writer, tmp_path):
    run = finished(run_writer(tmp_path, n=3000) / "record.jsonl")
    with pytest.raises(AnalysisError, match="no config.optimizer.schedule"):
        schedule_of_run(run)


@pytest.mark.parametrize("steps, memory", [([0], 2.0), ([11], 2.0), ([5], 0.5)])
def test_updates_that_are_not_there_are_refused(steps, memory):
    with pytest.raises(AnalysisError, match="allowed is"):
        Schedule("constant", 10, 1.0).seen(np.array(steps), memory)
