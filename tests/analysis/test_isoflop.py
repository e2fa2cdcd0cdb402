"""The isoFLOP road: exact laws, simulated coverage, Porian's ten exponents, refusals by name."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import AnalysisError, from_frame
from analysis.frontier import Standing
from analysis.isoflop import bowls, isoflop, noise_sd
from benchmarks import fitting_isoflop
from tests.analysis.laws import COLUMNS, Truth, isoflop_table

BUDGETS = tuple(np.geomspace(1e18, 1e21, 7))
SKEW = Truth(a=0.25, b=0.55, A=60.0, B=90_000.0)


def test_without_noise_the_exponent_is_that_of_the_law_where_the_parabola_is_biased():
    """Bowls whose middle drifts away from the optimum: the bias of Czech 2026."""
    table = isoflop_table(SKEW, BUDGETS, sizes=9, step=2.0, drift=0.3)
    found = isoflop(table, targets=(1e20,), draws=100).compared
    off = {name: abs(value.value - SKEW.exponent) for name, value in found.items()}
    assert off["akima"] < 3e-4 and off["cubic"] < 1.5e-3 and off["parabola"] > 2.5e-3


@pytest.mark.parametrize("how", ["akima", "cubic"])
def test_without_noise_the_places_are_those_of_the_law(how):
    truth = Truth()
    road = isoflop(isoflop_table(truth, BUDGETS), targets=(1e20, 1e23), how=how, draws=100).road
    for place in road.places:
        best, n = place.require(), truth.best_n(place.budget_flops)
        assert best.parameters.value == pytest.approx(n, rel=0.01)
        assert best.tokens.value == pytest.approx(place.budget_flops / 6 / n, rel=0.01)
        assert best.tokens_per_parameter.value == pytest.approx(
            place.budget_flops / 6 / n**2, rel=0.02
        )
    assert [place.standing for place in road.places] == [Standing.FOUND, Standing.EXTRAPOLATED]
    assert road.places[1].distance == pytest.approx(100.0)
    assert road.exponent_n.value + road.exponent_d.value == pytest.approx(1.0)


# Ways differ in where a bowl has its minimum, and not in what is made of its minima.
@pytest.mark.parametrize("how", ["akima", pytest.param("cubic", marks=pytest.mark.slow)])
def test_intervals_cover_the_truth_as_often_as_they_say(how):
    truth, level, count = Truth(), 0.9, 200
    hits = {"exponent": 0, "N": 0}
    for seed in range(count):
        table = isoflop_table(truth, BUDGETS, noise=0.002, seed=seed)
        road = isoflop(table, targets=(1e22,), how=how, level=level, draws=100, seed=seed).road
        slope, n = road.exponent_n, road.places[0].require().parameters
        hits["exponent"] += slope.low <= truth.exponent <= slope.high
        hits["N"] += n.low <= truth.best_n(1e22) <= n.high
    low, high = stats.binom.interval(0.998, count, level)
    assert all(low <= hit <= high for hit in hits.values()), (hits, low, high)


def test_the_noise_around_smooth_bowls_is_found_whatever_their_shape():
    truth = Truth()
    quiet = noise_sd(bowls(isoflop_table(truth, BUDGETS)))
    found = [
        noise_sd(bowls(isoflop_table(truth, BUDGETS, noise=0.003, seed=seed))) for seed in range(40)
    ]
    assert quiet < 2e-4
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.003, rel=0.06)


def test_runs_of_nearly_one_compute_are_one_budget():
    n = np.array([1e6, 2e6, 4e6, 1e6, 2e6])
    c = np.array([1.00, 1.01, 1.02, 5.0, 5.1]) * 1e18
    frame = pd.DataFrame({"N": n, "D": c / 6 / n, "C": c, "loss": [3.0, 2.9, 3.1, 2.5, 2.4]})
    found = bowls(from_frame(frame, columns=COLUMNS), tolerance=0.02)
    assert [len(bowl.log_n) for bowl in found] == [3, 2]
    assert found[0].budget_flops == pytest.approx(np.exp(np.log(c[:3]).mean()))
    given = bowls(from_frame(frame, columns=COLUMNS), budgets=[5.05e18], tolerance=0.02)
    assert [bowl.budget_flops for bowl in given] == [5.05e18] and len(given[0].log_n) == 2


def test_seeds_of_one_size_are_averaged_with_their_standard_error():
    frame = pd.DataFrame({"N": [1e6, 1e6, 2e6], "D": [2e9, 2e9, 1e9], "C": 1.2e16})
    frame = frame.assign(loss=[np.exp(1.0), np.exp(1.2), 3.0], loss_se=[0.1, 0.2, 0.3])
    columns = COLUMNS | {"loss_se": ("loss_se", "nats/token")}
    (found,) = bowls(from_frame(frame, columns=columns))
    np.testing.assert_allclose(found.log_loss, [1.1, np.log(3.0)])
    both = np.hypot(0.1 / np.exp(1.0), 0.2 / np.exp(1.2)) / 2
    np.testing.assert_allclose(found.log_se, [both, 0.1])


def test_counted_flops_are_those_of_the_column():
    table = isoflop_table(Truth(), BUDGETS)
    counted = table.runs.assign(C_flops=2.0 * table.runs["C_flops"])
    doubled = from_frame(
        counted.rename(columns={"D_tokens": "D", "C_flops": "C", "loss_nats_per_token": "loss"}),
        columns=COLUMNS,
    )
    plain = isoflop(table, targets=(1e20,), draws=50).road.places[0].require()
    road = isoflop(doubled, targets=(2e20,), flops="counted", draws=50).road
    same = road.places[0].require()
    assert same.parameters.value == pytest.approx(plain.parameters.value, rel=1e-6)
    assert same.tokens.value == pytest.approx(plain.tokens.value, rel=1e-6)


def _refused(table, **options):
    road = isoflop(table, targets=(1e20,), draws=200, **options).road
    assert road.standing.refused and road.frontier is None and road.places == ()
    with pytest.raises(AnalysisError, match=road.standing.value):
        road.exponent_n  # noqa: B018
    return road


def test_two_budgets_are_no_line():
    road = _refused(isoflop_table(Truth(), BUDGETS[:2]))
    assert road.standing is Standing.TOO_FEW_BUDGETS and "2 of 2" in road.reason


def test_bowls_of_four_sizes_are_too_few_points():
    assert _refused(isoflop_table(Truth(), BUDGETS, sizes=4)).standing is Standing.TOO_FEW_POINTS


def test_bowls_beside_the_optimum_have_no_interior_minimum():
    runs = isoflop_table(Truth(), BUDGETS, sizes=15, step=2.0)
    n, c = runs.variable("N"), runs.variable("C")
    above = runs.select(n > 2.5 * Truth().best_n(c))
    road = _refused(above)
    assert road.standing is Standing.NO_INTERIOR_MINIMUM and "0 of 7" in road.reason


def test_concave_bowls_and_lost_ones_are_named():
    table = isoflop_table(Truth(), BUDGETS)
    n, c = table.variable("N"), table.variable("C")
    hill = 3.0 - 0.01 * np.log(n / Truth().best_n(c)) ** 2
    upside_down = table.runs.assign(loss_nats_per_token=hill)
    concave = type(table)(upside_down, table.evaluations, "as given", "hills")
    assert _refused(concave).standing is Standing.CONCAVE
    noisy = np.exp(0.5 * np.random.default_rng(0).standard_normal(len(table)))
    lost = type(table)(
        table.runs.assign(loss_nats_per_token=3.0 * noisy), table.evaluations, "as given", "noise"
    )
    assert _refused(lost).standing is Standing.LOST_IN_NOISE


def test_a_budget_without_runs_is_too_few_points():
    table = isoflop_table(Truth(), BUDGETS)
    found = isoflop(table, budgets=(1e10, *BUDGETS), targets=(1e20,), draws=50)
    assert found.minima[0].standing is Standing.TOO_FEW_POINTS
    assert "0 sizes" in found.road.notes[0]
    assert found.road.exponent_n.value == pytest.approx(Truth().exponent, abs=5e-3)
    assert found.frame()["N"].isna().tolist() == [True] + 7 * [False]


def test_recorded_errors_shake_the_bowls_where_they_are_asked_for():
    table = isoflop_table(Truth(), BUDGETS)
    runs = table.runs.assign(loss_se_nats_per_token=1e-3 * table.loss)
    told = type(table)(runs, table.evaluations, "as given", "told")
    recorded = isoflop(told, noise="recorded", draws=400)
    assert recorded.noise_sd == pytest.approx(1e-3)
    half = isoflop(
        type(table)(
            runs.assign(loss_se_nats_per_token=5e-4 * table.loss), told.evaluations, "as given", "t"
        ),
        noise="recorded", draws=400,
    )  # fmt: skip
    ratio = [one.log_se / two.log_se for one, two in zip(recorded.minima, half.minima, strict=True)]
    assert np.mean(ratio) == pytest.approx(2.0, rel=0.15)


def test_losses_that_are_no_losses_are_errors():
    table = isoflop_table(Truth(), BUDGETS)
    runs = table.runs.assign(loss_nats_per_token=-1.0)
    with pytest.raises(AnalysisError, match="loss must be finite"):
        isoflop(type(table)(runs, table.evaluations, "as given", "negative"))


def test_bad_arguments_are_errors():
    table = isoflop_table(Truth(), BUDGETS)
    for options, word in (
        ({"how": "spline"}, "akima, cubic, parabola"),
        ({"noise": "white"}, "residual, recorded"),
        ({"noise": "recorded"}, "standard error"),
        ({"flops": "7ND"}, "6ND, counted"),
    ):
        with pytest.raises(AnalysisError, match=word):
            isoflop(table, **options)


def test_porians_ten_exponents_are_reproduced(public_tables):
    found = fitting_isoflop.exponents(public_tables)
    assert len(found) == 10
    assert max(abs(exponent.difference()) for exponent in found) < 0.015
    assert sum(exponent.inside() for exponent in found) >= 9
    assert max(abs(exponent.difference("parabola")) for exponent in found) > 0.015
    assert all(row.met for row in fitting_isoflop.benchmark_rows(public_tables))
