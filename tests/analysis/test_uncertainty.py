"""Intervals: coverage on laws with known truth, agreement with linear theory, forward errors."""

import time

import numpy as np
import pytest
from scipy import stats

from analysis import bootstrap, origins, prediction, solver
from analysis.errors import AnalysisError
from analysis.estimate import Points, Status, estimate
from analysis.forms import power, power_floor, separable
from analysis.losses import Huber, Squares
from analysis.solver import solve

TRUTH = {"E": 2.0, "A": 9.0, "a": 0.35}
AHEAD = np.array([2.0, 4.0])


def curve(x):
    return TRUTH["E"] + TRUTH["A"] * x ** -TRUTH["a"]


def points(x, loss):
    count = len(loss)
    names = tuple(f"s{index}" for index in range(count))
    return Points(x.reshape(count, -1), loss, np.full(count, np.nan), np.ones(count), names)


def ladder(count, noise, rng):
    x = np.geomspace(3e3, 2e5, count)
    return points(x, curve(x) * np.exp(noise * rng.standard_normal(count)))


def coverage(*, repetitions, count, loss, noise, seed):
    """Share of repetitions in which each 90 % interval holds the truth or the new run."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(5)
    for repetition in range(repetitions):
        fit = estimate(power_floor(), ladder(count, noise, rng), loss=loss, pinned={})
        draws = bootstrap.bootstrap(fit, draws=400, seed=repetition)
        intervals = bootstrap.parameter_intervals(fit, draws, 0.9)
        hits[:3] += [low <= TRUTH[name] <= high for name, (low, high) in intervals.items()]
        x = fit.points.x[-1, 0] * AHEAD
        found = prediction.predict(
            fit, x[:, None], draws=draws, errors=origins.rolling_origin(fit), level=0.9
        )
        new = curve(x) * np.exp(noise * rng.standard_normal(2))
        hits[3:] += (found.low <= new) & (new <= found.high)
    return hits / repetitions


@pytest.mark.slow
@pytest.mark.parametrize("loss", [Squares(), Huber(1e-3)], ids=["squares", "huber"])
@pytest.mark.parametrize("count", [6, 7, 8])
def test_90_per_cent_intervals_cover_about_90_per_cent(count, loss):
    shares = coverage(repetitions=400, count=count, loss=loss, noise=2e-3, seed=11)
    assert np.all(shares >= 0.85) and np.all(shares <= 0.97), shares


def test_90_per_cent_intervals_cover_on_a_few_repetitions():
    shares = coverage(repetitions=60, count=7, loss=Squares(), noise=2e-3, seed=5)
    assert np.all(shares >= 0.78), shares  # three binomial standard errors below 0.9
    assert np.all(shares <= 0.99), shares


def test_a_pairs_bootstrap_collapses_where_the_residual_one_does_not():
    fit = estimate(
        power_floor(), ladder(7, 2e-3, np.random.default_rng(2)), loss=Huber(), pinned={}
    )
    widths = {}
    for method in (bootstrap.Method.RESIDUAL, bootstrap.Method.PAIRS):
        draws = bootstrap.bootstrap(fit, method=method, draws=600)
        low, high = bootstrap.parameter_intervals(fit, draws, 0.9)["E"]
        widths[method] = high - low
        assert draws.certified + draws.uncertified == 600
    pairs = bootstrap.bootstrap(fit, method=bootstrap.Method.PAIRS, draws=600)
    few = stats.multinomial(7, np.full(7, 1 / 7)).rvs(4000, random_state=0)
    share = np.mean((few > 0).sum(axis=1) <= 3)
    assert pairs.uncertified / 600 >= 0.5 * share  # resamples of three distinct points are no fits


def test_a_linear_law_gets_the_student_intervals_of_linear_regression():
    rng = np.random.default_rng(4)
    x = np.geomspace(1e3, 1e6, 8)
    fit = estimate(
        power(), points(x, 9 * x**-0.1 * np.exp(0.01 * rng.standard_normal(8))),
        loss=Squares(), pinned={},
    )  # fmt: skip
    line = stats.linregress(np.log(x), np.log(fit.points.loss))
    draws = bootstrap.bootstrap(fit, draws=20_000)
    low, high = bootstrap.parameter_intervals(fit, draws, 0.9)["a"]
    half = stats.t.ppf(0.95, 6) * line.stderr
    assert (low, high) == pytest.approx((-line.slope - half, -line.slope + half), abs=0.12 * half)
    assert bootstrap.residual_sd(fit) == pytest.approx(
        np.sqrt(
            np.sum((np.log(fit.points.loss) - line.intercept - line.slope * np.log(x)) ** 2) / 6
        )
    )
    new = prediction.predict(fit, np.array([[3e5]]), draws=draws, errors=(), level=0.9)
    gap = np.log(3e5) - np.log(x).mean()
    sd = bootstrap.residual_sd(fit) * np.sqrt(1 + 1 / 8 + gap**2 / np.sum(
        (np.log(x) - np.log(x).mean()) ** 2
    ))  # fmt: skip
    width = np.log(new.high[0] / new.low[0])
    assert width == pytest.approx(2 * stats.t.ppf(0.95, 6) * sd, rel=0.1)


def test_leverage_sums_to_the_number_of_parameters():
    fit = estimate(
        power_floor(), ladder(8, 2e-3, np.random.default_rng(0)), loss=Squares(), pinned={}
    )
    assert bootstrap.leverage(fit).sum() == pytest.approx(3.0, rel=1e-9)


@pytest.mark.parametrize("loss", [Squares(), Huber(1e-3)], ids=["squares", "huber"])
def test_warm_refits_are_run_to_convergence(loss):
    """A fast bootstrap that stops early understates the errors; compare with cold starts."""
    fit = estimate(power_floor(), ladder(8, 2e-3, np.random.default_rng(1)), loss=loss, pinned={})
    rng = np.random.default_rng(9)
    problem, y = fit.problem, np.log(fit.points.loss) - fit.scale.log_loss
    for _ in range(20):
        target = y + 2e-3 * rng.standard_normal(8)
        warm = solve(problem, y=target, w=np.ones(8), starts=fit.theta[None])
        cold = solve(
            problem, y=target, w=np.ones(8), starts=fit.form.starts(fit.z(fit.points.x), y, 30, rng)
        )
        assert warm.certified.all()
        assert warm.objective[0] <= cold.objective.min() * (1 + 1e-9)


def test_a_thousand_refits_take_less_than_three_seconds():
    fit = estimate(
        power_floor(), ladder(8, 2e-3, np.random.default_rng(1)), loss=Huber(), pinned={}
    )
    start = time.process_time()
    draws = bootstrap.bootstrap(fit, draws=1000)
    assert time.process_time() - start < 3.0
    assert draws.certified >= 990


def test_uncertified_refits_are_counted_and_not_used(monkeypatch):
    """Every other resample is told that it found nothing."""
    fit = estimate(
        power_floor(), ladder(8, 2e-3, np.random.default_rng(1)), loss=Huber(), pinned={}
    )
    whole = bootstrap.bootstrap(fit, draws=20)
    refits = bootstrap.refits

    def half(*arguments):
        theta, certified = refits(*arguments)
        return theta, certified & (np.arange(len(theta)) % 2 == 0)

    monkeypatch.setattr(bootstrap, "refits", half)
    draws = bootstrap.bootstrap(fit, draws=20)
    assert (draws.certified, draws.uncertified) == (10, 10)
    np.testing.assert_array_equal(draws.theta, whole.theta[::2])
    monkeypatch.setattr(bootstrap, "refits", lambda *a: (refits(*a)[0], np.zeros(20, bool)))
    with pytest.raises(AnalysisError, match="no bootstrap refit converged"):
        bootstrap.parameter_intervals(fit, bootstrap.bootstrap(fit, draws=20), 0.9)


def test_refits_that_crawl_are_tried_from_random_starts(monkeypatch):
    """With two steps a warm start certifies few refits; the retries reach the same optima."""
    fit = estimate(
        power_floor(), ladder(8, 2e-3, np.random.default_rng(1)), loss=Squares(), pinned={}
    )
    whole = bootstrap.bootstrap(fit, draws=30)
    solve = solver.solve

    def short(problem, **given):
        return solve(problem, **given | ({"limit": 2} if "limit" not in given else {}))

    monkeypatch.setattr(solver, "solve", short)
    again = bootstrap.bootstrap(fit, draws=30)
    assert again.certified == whole.certified == 30
    np.testing.assert_allclose(again.theta, whole.theta, rtol=1e-4, atol=1e-6)


def test_forward_errors_are_those_of_fits_without_the_largest():
    data = ladder(8, 2e-3, np.random.default_rng(3))
    fit = estimate(power_floor(), data, loss=Squares(), pinned={})
    errors = origins.rolling_origin(fit)
    assert [error.points_used for error in errors] == [7, 6, 6, 5, 5, 5, 4, 4, 4, 4]
    small = estimate(power_floor(), data.take(np.arange(6)), loss=Squares(), pinned={})
    expected = np.log(data.loss[7]) - small.predict(data.x[7:8])[0]
    (found,) = [e for e in errors if e.points_used == 6 and e.label == "s7"]
    assert found.log_error == pytest.approx(expected, rel=1e-6)
    assert found.distance == pytest.approx(data.x[7, 0] / data.x[5, 0])


def test_six_points_leave_four_at_the_last_origin():
    fit = estimate(
        power_floor(), ladder(6, 2e-3, np.random.default_rng(3)), loss=Squares(), pinned={}
    )
    assert {error.points_used for error in origins.rolling_origin(fit)} == {5, 4}


def test_a_wrong_form_is_widened_and_the_right_one_hardly():
    x = np.geomspace(3e3, 2e6, 10)
    rng = np.random.default_rng(0)
    noise = np.exp(1e-4 * rng.standard_normal(10))
    bent = points(x, (curve(x) - 0.02 * np.log(x / 3e3) ** 1.5 / 4) * noise)
    right = points(x, curve(x) * noise)
    widths = {}
    for name, data in (("bent", bent), ("right", right)):
        fit = estimate(power(), data, loss=Squares(), pinned={})
        widths[name] = origins.widening(origins.rolling_origin(fit))
        good = estimate(power_floor(), data, loss=Squares(), pinned={})
        widths[name + " with floor"] = origins.widening(origins.rolling_origin(good))
    assert widths["right with floor"] < 1.6 < widths["right"]


def test_widening_starts_at_one_at_the_edge_of_the_data():
    fit = estimate(power(), ladder(8, 1e-3, np.random.default_rng(0)), loss=Squares(), pinned={})
    errors = origins.rolling_origin(fit)
    draws = bootstrap.bootstrap(fit, draws=100)
    edge, ahead = np.array([[2e5]]), np.array([[2e7]])
    inside = prediction.predict(fit, edge, draws=draws, errors=errors, level=0.9)
    beyond = prediction.predict(fit, ahead, draws=draws, errors=errors, level=0.9)
    assert inside.widening[0] == pytest.approx(1.0, abs=1e-6)
    assert beyond.widening[0] == pytest.approx(origins.widening(errors)) and (
        origins.widening(errors) > 1.5
    )


def test_other_images_add_the_measurement_error_in_quadrature():
    data = ladder(8, 1e-3, np.random.default_rng(0))
    se = Points(data.x, data.loss, 0.05 * data.loss, data.weight, data.labels)
    fit = estimate(power_floor(), se, loss=Squares(), pinned={})
    draws = bootstrap.bootstrap(fit, draws=4000)
    wide = prediction.predict(
        fit, np.array([[1e5]]), draws=draws, errors=(), level=0.9, images=prediction.Images.OTHER
    )
    assert np.log(wide.high[0] / wide.low[0]) == pytest.approx(2 * 1.645 * 0.05, rel=0.06)
    bare = estimate(power_floor(), data, loss=Squares(), pinned={})
    with pytest.raises(AnalysisError, match="needs standard errors"):
        prediction.predict(
            bare, data.x, draws=draws, errors=(), level=0.9, images=prediction.Images.OTHER
        )


def test_a_law_of_two_variables_at_a_bound_gives_no_prediction():
    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(1e3, 1e6, 4), np.geomspace(1e6, 1e9, 4)))
    data = points(np.stack([n, d], axis=-1), 5 * n**-0.05 + 5 * d**-0.05 - 1.2)
    fit = estimate(separable(), data, loss=Squares(), pinned={})
    assert fit.status is Status.AT_BOUND
    draws = bootstrap.bootstrap(fit, draws=20)
    with pytest.raises(AnalysisError, match="no prediction at a bound: the floor E is at zero"):
        prediction.predict(fit, data.x, draws=draws, errors=(), level=0.9)


def _regression(x, y):
    """Independent least squares of y on log x: residuals, hat matrix, covariance over sigma^2."""
    design = np.stack([np.ones_like(x), np.log(x)], axis=-1)
    inverse = np.linalg.inv(design.T @ design)
    hat = design @ inverse @ design.T
    return y - hat @ y, hat, inverse


def test_resampled_residuals_are_corrected_for_leverage_and_degrees_of_freedom():
    rng = np.random.default_rng(8)
    x = np.array([1e3, 2e3, 3e3, 4e3, 5e3, 1e6])  # the last has a leverage near one
    data = points(x, 9 * x**-0.1 * np.exp(0.01 * rng.standard_normal(6)))
    fit = estimate(power(), data, loss=Squares(), pinned={})
    residual, hat, _ = _regression(x, np.log(data.loss))
    raw = residual / np.sqrt(1 - np.diag(hat))
    raw -= raw.mean()
    expected = raw * np.sqrt(np.sum(residual**2) / 4 / np.mean(raw**2))
    np.testing.assert_allclose(bootstrap.noise_pool(fit), expected, rtol=1e-5)


def test_the_expected_forward_error_is_that_of_linear_regression():
    rng = np.random.default_rng(8)
    x = np.geomspace(1e3, 1e6, 8)
    data = points(x, 9 * x**-0.1 * np.exp(0.01 * rng.standard_normal(8)))
    fit = estimate(power(), data, loss=Squares(), pinned={})
    residual, _, _ = _regression(x, np.log(data.loss))
    _, _, inverse = _regression(x[:6], np.log(data.loss[:6]))
    ahead = np.array([1.0, np.log(x[7])])
    sd = np.sqrt(np.sum(residual**2) / 6 * (1 + ahead @ inverse @ ahead))
    (found,) = [e for e in origins.rolling_origin(fit) if (e.points_used, e.label) == (6, "s7")]
    assert found.expected_sd == pytest.approx(sd, rel=1e-6)
