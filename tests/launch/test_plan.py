"""Plans of sweeps: counts, times and budgets, against arithmetic by hand."""

import dataclasses
import itertools
import json

import pytest

from lab.core.errors import LabError
from lab.launch import calibration
from lab.launch.calibration import Measured
from lab.launch.plan_runs import (
    Budget,
    Cost,
    PlannedRun,
    chosen,
    duration_text,
    makespan_s,
    parse_budget,
    with_measured,
    with_report,
)
from tests.launch.commands import TINY, command, place, refused

BASE = PlannedRun(
    name="a",
    identity="a",
    rung="",
    program="p",
    params={"blocks": 100, "head": 10},
    parameters=100,
    tokens=2000,
    flops=1e6,
    epochs=0.5,
    steps=10,
    own_steps=10,
    evaluations=2,
    state_bytes=1320,
    trunk=None,
    batch_images=4,
    layout="ddp",
    evaluation_images=10,
)


def planned(name, seconds, *, trunk=None, rung="", flops=1e6):
    cost = Cost(low_s=seconds / 2, high_s=seconds)
    return dataclasses.replace(
        BASE, name=name, identity=name, seconds=cost, trunk=trunk, rung=rung, flops=flops
    )


def span(runs, workers=2):
    return makespan_s(runs, workers=workers, startup_s=1.0)


def test_the_clock_of_workers():
    runs = [planned("a", 5), planned("b", 3), planned("c", 4)]
    assert span(runs) == 1 + 3 + 4
    assert span(runs, workers=1) == 1 + 12
    assert span(runs, workers=5) == 1 + 5
    assert makespan_s(runs, workers=1, startup_s=0, high=False) == 6
    assert span([]) == 0


def test_branches_wait_for_their_trunk_and_let_others_pass():
    runs = [
        planned("t", 5),
        planned("x", 2, trunk="t"),
        planned("o", 3),
        planned("y", 1, trunk="t"),
    ]
    assert span(runs) == 1 + 5 + 2
    assert span(runs, workers=1) == 1 + 5 + 2 + 3 + 1
    assert span(runs, workers=9) == 1 + 5 + 2
    assert span([planned("x", 2, trunk="elsewhere")]) == 1 + 2


def test_one_unknown_time_makes_the_whole_unknown():
    assert span([planned("a", 5), dataclasses.replace(BASE, name="b", identity="b")]) is None


def test_a_measured_run():
    found = Measured(
        program="p",
        machine="m",
        workers=1,
        update_s=0.5,
        compile_s=7.0,
        evaluation_s=2.0,
        step_bytes=99,
        startup_s=3.0,
    )
    branch = dataclasses.replace(BASE, own_steps=4)
    timed = with_measured(branch, found)
    assert timed.seconds == Cost(low_s=7 + 2 + 4, high_s=13.0)
    assert (timed.step_bytes, timed.own_flops) == (99, 4e5)
    assert with_measured(BASE, None) == BASE


def test_a_pods_report():
    update = {"low": 0.1, "high": 0.2}
    report = {
        "params": {"blocks": 100, "head": 10, "total": 110},
        "batch_images": 4,
        "steps": [
            {"step": "train", "images": 4, "seconds": update, "memory": {"needed": 5.0}},
            {"step": "evaluate", "images": 3, "seconds": {"low": 1.0, "high": 2.0}},
        ],
    }
    timed = with_report(BASE, [report])
    assert timed.seconds == Cost(low_s=10 * 0.1 + 2 * 4 * 1.0, high_s=10 * 0.2 + 2 * 4 * 2.0)
    assert timed.step_bytes == 5
    for other in ({"batch_images": 8}, {"params": {"blocks": 101, "head": 10}}):
        assert with_report(BASE, [{**report, **other}]) == BASE


def test_the_largest_part_is_that_of_an_exhaustive_search():
    """Of all sets of whole rungs that fit, none has more rungs; the kept ones are the cheapest."""
    costs = {"r1": [3, 1], "r2": [2], "r3": [5, 5], "r4": [1, 1, 1]}
    runs = [
        planned(f"{rung}-{i}", 1, rung=rung, flops=cost)
        for rung, each in costs.items()
        for i, cost in enumerate(each)
    ]
    sums = {rung: sum(each) for rung, each in costs.items()}
    for amount in range(2, 25):
        kept = chosen(runs, Budget(amount, "flops"), workers=1, startup_s=0)
        most = max(
            size
            for size in range(1, 5)
            for rungs in itertools.combinations(sums, size)
            if sum(sums[rung] for rung in rungs) <= amount
        )
        rungs = {run.rung for run in kept}
        assert len(rungs) == most and sum(run.flops for run in kept) <= amount
        assert len(kept) == sum(len(costs[rung]) for rung in rungs), "whole rungs"
        assert [run for run in runs if run in kept] == kept, "in the sweep's order"
    with pytest.raises(LabError, match="cheapest rung, r2"):
        chosen(runs, Budget(1, "flops"), workers=1, startup_s=0)


def test_a_time_budget_counts_workers():
    runs = [planned(f"a{i}", 10, rung=str(i), flops=i + 1) for i in range(6)]
    assert len(chosen(runs, Budget(25, "s"), workers=1, startup_s=1)) == 2
    assert len(chosen(runs, Budget(25, "s"), workers=2, startup_s=1)) == 4
    with pytest.raises(LabError, match="is not known"):
        chosen([BASE], Budget(25, "s"), workers=1, startup_s=0)


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("2h", 7200, "s"),
        ("90m", 5400, "s"),
        ("90min", 5400, "s"),
        ("45s", 45, "s"),
        ("1.5d", 129600, "s"),
        ("1e17flops", 1e17, "flops"),
    ],
)
def test_budgets(text, amount, unit):
    assert parse_budget(text) == Budget(amount, unit)


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "infh", "nanh", "0s", "2 weeks", "flops"])
def test_bad_budgets(text):
    with pytest.raises(LabError, match="--budget"):
        parse_budget(text)


def test_durations_for_people():
    found = [duration_text(s) for s in (45, 720, 12240, 200000)]
    assert found == ["45 s", "12 min", "3.4 h", "2.31 d"]


def test_a_calibration_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "calibration.jsonl"
    assert calibration.read(path) == {}
    path.write_text('{"schema": "lab.calibration/0"}\n')
    with pytest.raises(LabError, match="line 1"):
        calibration.read(path)


SWEEP = """
from lab.core.designs import cooldowns
from lab.core.sweep import product

def sweep():
    made = cooldowns("configs/elm.py", ["s1", "s2"], [480, 960], fraction=0.25)
    return product(made, [{"study": "tiny"}])
"""


@pytest.fixture
def arguments(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text(SWEEP)
    return (path, *TINY, *place(tmp_path))


def test_counted_measured_cut_and_trained(tmp_path, arguments):
    """Of 96 tokens a step: 5 and 10 updates, of which the branches make 1 and 2 themselves."""
    counted = command("-m", "lab.launch.plan", *arguments, "--json")
    assert counted.returncode == 0, counted.stderr
    plan = json.loads(counted.stdout)
    runs = {run["name"]: run for run in plan["runs"]}
    assert (runs["s1-trunk"]["steps"], runs["s1-0.00048M"]["steps"]) == (8, 5)
    own = [runs[name]["own_steps"] for name in ("s1-trunk", "s1-0.00048M", "s1-0.00096M")]
    assert own == [8, 1, 2]
    one = runs["s1-0.00096M"]
    assert (one["tokens"], one["epochs"]) == (960, 10 * 8 / 64)
    assert one["parameters"] == one["params"]["blocks"]
    assert plan["total"]["wall_s"] is None and one["seconds"] is None
    both = sum(run["own_flops"] for run in plan["runs"])
    assert plan["total"]["flops"] == pytest.approx(both)
    short = command("-m", "lab.launch.plan", *arguments, "--budget", f"{both * 0.9}flops")
    assert "left out: s2, 3 runs" in short.stdout, short.stdout + short.stderr
    assert "more than once" in short.stdout
    measured = command("-m", "lab.launch.plan", *arguments, "--calibrate", "--json")
    assert measured.returncode == 0, measured.stderr
    timed = json.loads(measured.stdout)["total"]
    assert 0 < timed["startup_s"] < timed["wall_s"]["low"] == timed["wall_s"]["high"]
    budget = ("--budget", f"{both * 0.9}flops", "--json")
    trained = command("-m", "lab.launch.sweep", *arguments, *budget)
    assert trained.returncode == 0, trained.stderr
    assert [run["name"] for run in json.loads(trained.stdout)["runs"]] == [
        "s1-trunk",
        "s1-0.00048M",
        "s1-0.00096M",
    ]
    abouts = sorted(path.read_text() for path in tmp_path.glob("runs/tiny/*/branch.json"))
    assert [json.loads(text)["step"] for text in abouts] == [4, 8]


def test_refusals(tmp_path, arguments):
    plan = ("-m", "lab.launch.plan", *arguments)
    refused(command(*plan, "--budget", "soon"), "--budget soon", "2h")
    refused(command(*plan, "--budget", "2h"), "--calibrate", "s1-trunk")
    refused(command(*plan, "--budget", "1flops"), "cheapest rung, s1")
    refused(command(*plan, "--workers", "0"), "--workers 0")
    (tmp_path / "x.json").write_text("{}")
    refused(command(*plan, "--report", tmp_path / "x.json"), "x.json", "lab.launch.compile")
