"""Three roads from one table, their disagreement, conventions, text, JSON, figures, command."""

import argparse
import json

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, from_frame, optimum_command, read_runs
from analysis.frontier import RoadName, Standing, Value
from analysis.optimum import optimum
from analysis.sensitivity import recounted, sensitivity
from analysis.table import Table
from tests.analysis.laws import COLUMNS, Truth, curves_table, isoflop_table

TARGETS = (1e20, 1e23)


@pytest.fixture(scope="module")
def table() -> Table:
    """Bowls at six budgets with training curves of eight other sizes, and the roles of N."""
    bowls = isoflop_table(Truth(), np.geomspace(1e18, 1e21, 6), noise=3e-4)
    with_curves = curves_table(Truth(), noise=3e-4)
    runs = pd.concat([bowls.runs.assign(name="bowl"), with_curves.runs], ignore_index=True)
    n = runs["N"].to_numpy()
    roles = {
        "params_embedding": 30 * np.sqrt(n),
        "params_blocks": n,
        "params_head": 50 * np.sqrt(n),
    }
    counted = runs["D_tokens"] * (6 * n + 6 * roles["params_head"])
    runs = runs.assign(**roles, C_flops=counted)
    return Table(runs, with_curves.evaluations, "blocks", "three roads")


@pytest.fixture(scope="module")
def found(table):
    return optimum(table, targets=TARGETS, draws=200)


def test_three_roads_agree_with_the_law_and_each_other(found):
    truth = Truth()
    assert [road.name for road in found.roads] == list(RoadName)
    for road in found.roads:
        assert road.exponent_n.value == pytest.approx(truth.exponent, abs=0.03)
        for place in road.places:
            n = place.require().parameters
            assert n.value == pytest.approx(truth.best_n(place.budget_flops), rel=0.25)
    assert len(found.disagreements) == 6
    for pair in found.disagreements:
        one, other = (
            found.road(name).place(pair.budget_flops).require().parameters
            for name in (pair.first, pair.second)
        )
        assert pair.ratio == one.value / other.value
        assert pair.overlap is (one.low <= other.high and other.low <= one.high)


def test_intervals_overlap_where_they_share_a_number():
    assert Value(1.0, 0.0, 2.0).overlaps(Value(3.0, 2.0, 4.0))
    assert Value(3.0, 2.0, 4.0).overlaps(Value(1.0, 0.0, 2.0))
    assert not Value(1.0, 0.0, 2.0).overlaps(Value(3.0, 2.1, 4.0))


def test_the_frame_has_a_row_for_each_road_and_target(found):
    rows = found.frame()
    assert len(rows) == 6 and set(rows["road"]) == {"envelope", "isoFLOP", "parametric"}
    np.testing.assert_allclose(rows["D_tokens"] * rows["N"] * 6, rows["budget_flops"], rtol=1e-2)
    assert (rows["N_low"] <= rows["N"]).all() and (rows["N"] <= rows["N_high"]).all()
    assert (rows["status"] == ["found", "extrapolated"] * 3).all()


def test_the_text_says_roads_places_and_disagreement(found):
    text = found.summary()
    for word in ("envelope", "isoFLOP", "parametric", "beyond the data", "overlap", "C is 6ND"):
        assert word in text


def test_json_has_numbers_with_units_and_no_nan(found):
    data = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert [road["status"] for road in data["roads"]] == ["FOUND"] * 3
    first = data["roads"][1]["places"][0]
    best = found.road("isoFLOP").place(1e20).require()
    assert first["N"] == best.parameters.value and first["D_tokens_low"] == best.tokens.low
    assert (
        data["exponent_N_by_interpolant"]["cubic"]["low"]
        < data["exponent_N_by_interpolant"]["cubic"]["high"]
    )
    assert len(data["disagreements"]) == 6


def test_refusals_carry_reasons_and_never_numbers(ladder):
    """Seven sizes at one D: one run a budget, no curves, one value of D."""
    table = read_runs(ladder)
    found = optimum(table, targets=(1e15,), draws=50)
    assert all(road.standing.refused and road.reason for road in found.roads)
    assert found.road(RoadName.ISOFLOP).standing is Standing.TOO_FEW_POINTS
    assert found.road(RoadName.ENVELOPE).standing is Standing.NO_CURVES
    assert found.road(RoadName.PARAMETRIC).standing is Standing.NO_LAW
    assert found.disagreements == ()
    assert found.frame().drop(columns=["road", "budget_flops", "status"]).isna().all(axis=None)
    data = found.as_json()
    for road in data["roads"]:
        assert set(road) == {"road", "how", "status", "reason", "notes"}
    for budget in data["isoflop_budgets"]:
        assert set(budget) == {"budget_flops", "sizes", "status", "reason"}
    assert "fewer than two roads" in found.summary()


def test_a_table_without_tokens_is_read_by_its_compute():
    runs = isoflop_table(Truth(), np.geomspace(1e18, 1e21, 5)).runs
    frame = runs.rename(columns={"C_flops": "C", "loss_nats_per_token": "loss"})
    columns = {name: COLUMNS[name] for name in ("N", "C", "loss")}
    found = optimum(from_frame(frame, columns=columns), targets=TARGETS, draws=50)
    assert found.road("isoFLOP").exponent_n.value == pytest.approx(Truth().exponent, abs=5e-3)
    assert found.road("parametric").standing is Standing.NO_LAW
    assert "'D'" in found.road("parametric").reason


def test_default_targets_are_the_largest_budget_and_ten_times_it():
    table = isoflop_table(Truth(), np.geomspace(1e18, 1e21, 5))
    assert optimum(table, draws=20).targets == pytest.approx((1e21, 1e22))


def test_bad_arguments_are_errors(table, found):
    for options, word in (
        ({"targets": [-1.0]}, "above zero"),
        ({"level": 1.0}, "between 0 and 1"),
        ({"tolerance": -0.1}, "zero or more"),
        ({"flops": "7ND"}, "6ND, counted"),
        ({"form": "chinchila"}, "separable"),
    ):
        with pytest.raises(AnalysisError, match=word):
            optimum(table, **options)
    with pytest.raises(AnalysisError, match="envelope, isoFLOP, parametric"):
        found.road("shortcut")


def test_sensitivity_is_a_table_over_both_conventions(table):
    rows = sensitivity(table, targets=(1e20,), draws=30)
    assert len(rows) == 3 * 2 * 3
    total = recounted(table, "total")
    roles = ["params_embedding", "params_blocks", "params_head"]
    np.testing.assert_allclose(total.variable("N"), table.runs[roles].sum(axis=1))
    key = rows.set_index(["convention", "flops", "road"])
    envelope = [key.loc[(way, "counted", "envelope"), "N"] for way in ("blocks", "blocks+head")]
    heads = 50 * np.sqrt(envelope[0])
    assert envelope[1] == pytest.approx(envelope[0] + heads, rel=0.02)


def test_the_figures_show_minima_roads_and_intervals(found, tmp_path):
    (axes,) = found.plot(tmp_path / "frontier.svg").axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == [road.name.value for road in found.roads]
    (axes,) = found.plot_bowls(tmp_path / "bowls.svg").axes
    kept = [one for one in found.isoflop.minima if not one.standing.refused]
    dots = axes.containers[0].lines[0]
    np.testing.assert_allclose(dots.get_xdata(), np.exp([one.log_n for one in kept]))
    for name in ("frontier", "bowls"):
        assert (tmp_path / f"{name}.svg").read_text().startswith("<svg")


def test_a_figure_of_refusals_says_so(ladder):
    (axes,) = optimum(read_runs(ladder), targets=(1e15,), draws=20).plot().axes
    assert [text.get_text() for text in axes.texts] == ["no road has numbers"]


def asked(*flags):
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    optimum_command.add_arguments(parser)
    return parser.parse_args(flags)


def test_the_command_answers_in_text_and_in_json(table, tmp_path):
    plain = asked("--target", "1e20", "--plot", str(tmp_path / "a.svg"))
    assert "at 1e+20 FLOPs" in optimum_command.run(plain, table)
    assert (tmp_path / "a.svg").is_file()
    flags = ("--target", "1e20", "--json", "--flops", "counted", "--level", "0.8")
    data = json.loads(optimum_command.run(asked(*flags), table))
    assert data["flops"] == "counted" and data["level"] == 0.8


def test_the_command_writes_the_figure_of_the_sensitivity(table, tmp_path):
    flags = ("--target", "1e20", "--plot-sensitivity", str(tmp_path / "s.svg"))
    assert "sensitivity to conventions" in optimum_command.run(asked(*flags), table)
    assert (tmp_path / "s.svg").read_text().startswith("<svg")
