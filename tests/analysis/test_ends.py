"""Losses that a run could end with: schedules of records, ends of runs that cool down, words."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import read_runs
from analysis.__main__ import main
from analysis.ends import End, annealed, curves_of_ends
from analysis.envelope import envelope
from analysis.frontier import Standing
from analysis.importers import import_runs
from analysis.optimum import optimum
from analysis.report import write_report
from analysis.run_table import read_table, write_table
from analysis.schedule import cools_down, schedule_of
from analysis.table import Table
from analysis.token_cost import Flops
from tests.analysis.laws import Truth, curves_table, ends_table

RECORDS = Path(__file__).parents[2] / "experiments" / "06_surface" / "results"


def config(schedule: str, fraction: str = "0.2") -> dict[str, str]:
    return {"optimizer.schedule": schedule, "optimizer.cooldown_fraction": fraction}


@pytest.mark.parametrize(
    "recipe, expected",
    [
        (config("wsd"), "wsd"),
        (config("wsd", "0.0"), "constant"),
        (config("wsd", "0.001"), "constant"),  # not one of 320 updates
        (config("cosine"), "cosine"),
        (config("constant"), "constant"),
        ({}, ""),
    ],
)
def test_the_schedule_of_a_config(recipe, expected):
    assert schedule_of(recipe, 320) == expected
    assert cools_down(expected) is (expected in ("wsd", "cosine"))


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_points_before_a_cooldown_do_not_move_the_envelope(schedule):
    truth = Truth()
    roads = [
        envelope(ends_table(truth, before=before, schedule=schedule), targets=(1e20,), draws=60)
        for before in (-0.3, 0.05)
    ]
    assert roads[0] == roads[1]
    assert roads[0].exponent_n.value == pytest.approx(truth.exponent, abs=2e-3)
    n = roads[0].places[0].require().parameters.value
    assert n == pytest.approx(truth.best_n(1e20), rel=0.02)
    assert roads[0].how == "crossings of the ends of runs"
    assert f"40 {schedule}" in roads[0].notes[0] and "80 evaluations" in roads[0].notes[0]


def test_read_as_if_runs_could_end_anywhere_the_exponent_is_another():
    truth = Truth()
    unknown = ends_table(truth, schedule=None)
    road = envelope(unknown, draws=60)
    assert abs(road.exponent_n.value - truth.exponent) > 0.1
    assert "40 runs without a schedule" in road.notes[0]
    asked = envelope(unknown, ends_only=True, draws=60)
    assert asked.exponent_n == envelope(ends_table(truth), draws=60).exponent_n
    assert "40 by request" in asked.notes[0]


def test_every_point_of_a_constant_rate_counts():
    plain = curves_table(Truth(), noise=0.001)
    constant = replace(plain, runs=plain.runs.assign(schedule="constant"))
    one, other = (envelope(table, draws=60, ends_only=True) for table in (constant, constant))
    assert one == other and one.notes == ()
    assert one.exponent_n == envelope(plain, draws=60).exponent_n


def test_curves_and_ends_stand_in_one_envelope():
    truth = Truth()
    curves, ends = curves_table(truth, sizes=4, last=1e19), ends_table(truth)
    runs = pd.concat([curves.runs.assign(schedule="constant"), ends.runs], ignore_index=True)
    rows = pd.concat([curves.evaluations, ends.evaluations], ignore_index=True)
    road = envelope(Table(runs, rows, "blocks", "both"), draws=60)
    assert road.exponent_n.value == pytest.approx(truth.exponent, abs=0.05)
    assert road.how == "crossings of training curves and the ends of runs"


def test_ends_of_a_size_at_one_compute_are_averaged():
    ends = [End(1.0, c, loss) for c, loss in ((3.0, 0.4), (2.0, 0.6), (2.0, 0.8), (4.0, 0.3))]
    (curve,) = curves_of_ends(ends)
    np.testing.assert_allclose(curve.log_c, [2.0, 3.0, 4.0])
    np.testing.assert_allclose(curve.log_loss, [0.7, 0.4, 0.3])
    assert curves_of_ends(ends[:3]) == ()


def test_intervals_of_resampled_ends_cover_the_exponent():
    truth, hits, count = Truth(), 0, 25
    for seed in range(count):
        slope = envelope(ends_table(truth, noise=0.002, seed=seed), draws=60, seed=seed).exponent_n
        hits += slope.low <= truth.exponent <= slope.high
    assert hits / count >= 0.9 - 3 * np.sqrt(0.9 * 0.1 / count)


def test_a_ladder_of_one_length_is_refused_by_name_with_its_note(tmp_path):
    table = ends_table(Truth(), lengths=1)
    found = optimum(table, draws=50)
    road = found.road("envelope")
    assert road.standing is Standing.TOO_FEW_POINTS and "none of 8 sizes ends at 3" in road.reason
    said = "16 evaluations before a cooldown had ended left out"
    assert said in road.notes[0] and said in found.summary()
    assert said in json.dumps(found.as_json()["roads"])


def surface(study: Path, run_writer) -> Path:
    """Three sizes at three lengths under wsd, as records."""
    optimizer = {"schedule": "wsd", "cooldown_fraction": 0.2, "learning_rate": 0.01}
    for n in (3000, 9000, 27000):
        for tokens in (1_000_000, 2_000_000, 4_000_000):
            run = run_writer(study, n=n, tokens=tokens)
            path = run / "config.json"
            written = json.loads(path.read_text()) | {"config": {"optimizer": optimizer}}
            path.write_text(json.dumps(written))
    return study


def test_terminal_json_and_report_say_what_was_left_out(tmp_path, run_writer, capsys):
    study = surface(tmp_path / "surface", run_writer)
    said = "(9 wsd): 9 evaluations before a cooldown had ended left out"
    assert main(["optimum", str(study)]) == 0
    assert said in capsys.readouterr().out
    assert main(["optimum", str(study), "--json"]) == 0
    roads = json.loads(capsys.readouterr().out)["roads"]
    assert said in roads[0]["notes"][0] and roads[0]["status"] == "TOO_FEW_POINTS"
    assert said in write_report(read_runs(study), tmp_path / "report.html").read_text()


def test_a_written_table_keeps_the_schedules(tmp_path, run_writer):
    table = read_runs(surface(tmp_path / "surface", run_writer))
    assert set(table.runs["schedule"]) == {"wsd"}
    again = read_table(write_table(table, tmp_path / "table.csv"))
    assert list(again.runs["schedule"]) == list(table.runs["schedule"])
    assert annealed(again, Flops.SIX_ND).notes == annealed(table, Flops.SIX_ND).notes


def test_a_csv_may_name_the_schedule_of_each_run(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("n,d,l,lr\n1e6,1e8,3.0,cosine\n1e6,2e8,2.9,\n1e6,4e8,2.8,constant\n")
    columns = "loss=l:nats/token,N=n:count,D=d:count,C=6ND,schedule=lr"
    table = import_runs(path, kind="csv", columns=columns)
    assert list(table.runs["schedule"]) == ["cosine", "", "constant"]
    found = annealed(table, Flops.SIX_ND)
    assert dict(found.ends_of) == {"cosine": 1} and len(found.ends) == 1


def test_the_surface_of_eurosat_says_that_it_does_not_hold_the_optimum():
    table = read_runs(RECORDS / "surface_eurosat")
    road = envelope(table)
    assert road.standing is Standing.TOO_FEW_POINTS and "0 times" in road.reason
    blind = replace(table, runs=table.runs.drop(columns="schedule"))
    assert envelope(blind, draws=100).exponent_n.value == pytest.approx(1.02, abs=0.01)
