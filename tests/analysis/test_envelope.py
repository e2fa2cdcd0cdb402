"""The envelope road: crossings of known curves, exact laws, coverage, refusals by name."""

from dataclasses import replace

import numpy as np
import pytest

from analysis import AnalysisError, read_runs
from analysis.ends import Curve, annealed
from analysis.envelope import crossings, envelope
from analysis.frontier import Standing
from analysis.token_cost import Flops
from tests.analysis.laws import Truth, curves_table, isoflop_table


def power(log_n, height, slope, low, high, count=60):
    """log loss = height - slope log C."""
    log_c = np.linspace(low, high, count)
    return Curve(log_n, log_c, height - slope * log_c)


def test_a_crossing_is_where_two_power_laws_meet():
    found = crossings([power(10.0, 5.0, 0.1, 30, 60), power(12.0, 7.0, 0.15, 30, 60)])
    np.testing.assert_allclose(found.log_c, [40.0], atol=1e-6)
    np.testing.assert_allclose(found.log_n, [11.0])


def test_the_end_of_a_curve_is_no_crossing():
    found = crossings([power(10.0, 5.0, 0.1, 30, 38), power(12.0, 7.0, 0.15, 30, 60)])
    assert len(found.log_c) == 0
    late = crossings([power(10.0, 5.0, 0.1, 30, 60), power(12.0, 7.0, 0.15, 42, 60)])
    assert len(late.log_c) == 0


@pytest.mark.parametrize("heights", [(5.5, 5.0), (5.0, 5.5)])
def test_the_lowest_run_of_a_size_stands_for_it(heights):
    seeds = [power(10.0, height, 0.1, 30, 60) for height in heights]
    found = crossings([*seeds, power(12.0, 7.0, 0.15, 30, 60)])
    np.testing.assert_allclose(found.log_c, [40.0], atol=1e-6)


def test_without_noise_the_exponent_and_places_are_those_of_the_law():
    truth = Truth()
    road = envelope(curves_table(truth), targets=(1e20, 1e22), draws=100)
    assert road.exponent_n.value == pytest.approx(truth.exponent, abs=1e-3)
    assert road.exponent_d.value == pytest.approx(1 - truth.exponent, abs=1e-3)
    for place in road.places:
        best, n = place.require(), truth.best_n(place.budget_flops)
        assert best.parameters.value == pytest.approx(n, rel=0.02)
        assert best.tokens.value == pytest.approx(place.budget_flops / 6 / n, rel=0.02)
        assert best.tokens.low <= best.tokens.value <= best.tokens.high
    assert [place.standing for place in road.places] == [Standing.FOUND, Standing.EXTRAPOLATED]


def test_counted_flops_move_the_frontier_by_their_factor():
    truth = Truth()
    table = curves_table(truth, cost=9.0)
    road = envelope(table, targets=(1.5e20,), flops="counted", draws=50)
    best = road.places[0].require()
    assert best.parameters.value == pytest.approx(truth.best_n(1e20), rel=0.02)
    assert best.tokens.value == pytest.approx(1e20 / 6 / truth.best_n(1e20), rel=0.02)


def test_intervals_of_resampled_runs_cover_the_exponent():
    """At least nominal less three binomial deviations; few runs err to the wide side."""
    truth, hits, count = Truth(), 0, 60
    for seed in range(count):
        table = curves_table(truth, noise=0.001, seed=seed)
        slope = envelope(table, draws=100, seed=seed).exponent_n
        hits += slope.low <= truth.exponent <= slope.high
    assert hits / count >= 0.9 - 3 * np.sqrt(0.9 * 0.1 / count)


def test_a_table_without_curves_is_named():
    road = envelope(isoflop_table(Truth(), [1e18, 1e19, 1e20]), targets=(1e20,))
    assert road.standing is Standing.NO_CURVES and road.places == ()
    with pytest.raises(AnalysisError, match="no training curves"):
        road.exponent_d  # noqa: B018


def test_few_crossings_are_named():
    road = envelope(curves_table(Truth(), sizes=3), targets=(1e20,))
    assert road.standing is Standing.TOO_FEW_POINTS and "3 sizes" in road.reason
    assert "2 times" in road.reason


def test_curves_of_a_study_are_those_of_its_records(ladder):
    table = read_runs(ladder)
    runs = table.evaluations
    for step, tokens in ((80, 1e6), (240, 3e6)):  # records of the fixture have two late evaluations
        extra = runs[runs["step"] == 160].assign(step=step, tokens=tokens, flops=np.nan)
        runs = type(runs)(np.concatenate([runs, extra]), columns=runs.columns).infer_objects()
    found = annealed(replace(table, evaluations=runs), Flops.SIX_ND).curves
    assert len(found) == len(table)
    np.testing.assert_allclose([own.log_n for own in found], np.log(table.variable("N")))
    np.testing.assert_allclose(
        found[0].log_c, np.log(6 * table.variable("N")[0] * 1e6 * np.arange(1, 5))
    )
    assert annealed(table, Flops.SIX_ND).curves == ()
