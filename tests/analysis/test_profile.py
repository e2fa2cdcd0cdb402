"""Profile intervals against linear regression, scipy and coverage; open ends; the figure."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from analysis import AnalysisError, fit, from_frame, solver
from analysis.amplitude import ByAmplitude
from analysis.bootstrap import Method
from analysis.estimate import Estimate, Points, Status, estimate
from analysis.forms import broken, kaplan, named_forms, power, power_floor, separable
from analysis.losses import Huber, Squares
from analysis.profile import _held, _quantile, profile

CURVE = {"E": 2.0, "A": 9.0, "a": 0.35}
PLANE = {"E": 1.8, "A": 480.0, "a": 0.35, "B": 2000.0, "b": 0.37}


def points(x, loss, weight=None):
    count = len(loss)
    weight = np.ones(count) if weight is None else weight
    names = tuple(map(str, range(count)))
    return Points(x.reshape(count, -1), loss, np.full(count, np.nan), weight, names)


def line(rng, *, loss=None, count=8):
    x = np.geomspace(1e3, 1e6, count)
    data = points(x, 9 * x**-0.1 * np.exp(0.01 * rng.standard_normal(count)))
    return estimate(power(), data, loss=loss or Squares(), pinned={})


def curve(rng, *, count=8, noise=2e-3, loss=None, pinned=None):
    x = np.geomspace(3e3, 2e5, count)
    law = CURVE["E"] + CURVE["A"] * x ** -CURVE["a"]
    data = points(x, law * np.exp(noise * rng.standard_normal(count)))
    return estimate(power_floor(), data, loss=loss or Squares(), pinned=pinned or {})


def plane(rng, *, side=4, loss=None):
    n, d = (
        g.ravel() for g in np.meshgrid(np.geomspace(2e7, 2e9, side), np.geomspace(1e9, 1e11, side))
    )
    law = PLANE["E"] + PLANE["A"] * n ** -PLANE["a"] + PLANE["B"] * d ** -PLANE["b"]
    data = points(np.stack([n, d], -1), law * np.exp(3e-3 * rng.standard_normal(side**2)))
    return estimate(separable(), data, loss=loss or Squares(), pinned={})


def test_a_plain_power_gets_the_student_intervals_of_linear_regression():
    found = line(np.random.default_rng(4))
    known = stats.linregress(np.log(found.points.x[:, 0]), np.log(found.points.loss))
    for level in (0.5, 0.9, 0.99):
        t = stats.t.ppf((1 + level) / 2, 6)
        own = profile(found, "a", level=level)
        assert own.low == pytest.approx(-known.slope - t * known.stderr, rel=1e-6)
        assert own.high == pytest.approx(-known.slope + t * known.stderr, rel=1e-6)
        own = profile(found, "A", level=level)  # the intercept, far from the centre of the data
        assert own.low == pytest.approx(np.exp(known.intercept - t * known.intercept_stderr))
        assert own.high == pytest.approx(np.exp(known.intercept + t * known.intercept_stderr))
    own = profile(found, "a")
    np.testing.assert_allclose(own.root, (own.values - own.fitted) / known.stderr, atol=1e-4)
    assert own.statistic == "F(1, 6)" and own.uncertified == 0 and not own.logarithmic


def by_scipy(data, name, level):
    """F inverted by root finding; at each value the two other parameters by least squares."""
    x, y = data.x[:, 0], np.log(data.loss)
    names = ("E", "A", "a")

    def squares(value=None):
        start = [np.log(v) for k, v in CURVE.items() if value is None or k != name]

        def residual(logs):
            own = iter(np.exp(logs))
            p = {k: value if value is not None and k == name else next(own) for k in names}
            return np.log(p["E"] + p["A"] * x ** -p["a"]) - y

        return (
            2
            * optimize.least_squares(
                residual, start, method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14, max_nfev=20_000
            ).cost
        )

    least, freedom = squares(), len(x) - 3
    most = least * (1 + stats.f.ppf(level, 1, freedom) / freedom)
    return lambda inside, outside: optimize.brentq(
        lambda value: squares(value) - most, inside, outside, xtol=1e-9 * inside
    )


@pytest.mark.parametrize(("name", "reach"), [("E", 1.5), ("A", 9.0), ("a", 2.5)])
def test_a_curved_law_gets_the_interval_that_scipy_finds(name, reach):
    found = curve(np.random.default_rng(1), noise=4e-3)
    own = profile(found, name, level=0.9)
    known = by_scipy(found.points, name, 0.9)
    assert own.low == pytest.approx(known(own.fitted, own.fitted / reach), rel=2e-5)
    assert own.high == pytest.approx(known(own.fitted, own.fitted * reach), rel=2e-5)
    if name == "A":  # the interval of a curved law is not the same to both sides
        assert abs(np.log(own.high / own.fitted) / np.log(own.fitted / own.low) - 1) > 0.02


def test_problems_with_pins_of_their_own_are_solved_as_one_by_one():
    found = plane(np.random.default_rng(0))
    y = np.log(found.points.loss) - found.scale.log_loss
    values = np.array([0.25, 0.3, 0.35, 0.4])
    pinned = np.full((4, 5), np.nan)
    pinned[:, 2] = values
    problem = solver.Problem(found.form, found.problem.z, pinned, Squares())
    starts = np.tile(found.theta, (4, 1))
    together = solver.solve(problem, y=y, w=np.ones(16), starts=starts)
    assert together.certified.all()
    for value, objective in zip(values, together.objective, strict=True):
        alone = estimate(found.form, found.points, loss=Squares(), pinned={"a": value})
        assert objective == pytest.approx(alone.objective, rel=1e-9)
    np.testing.assert_array_equal(together.theta[:, 2], values)


def test_the_quantile_over_resamples_is_that_of_f_for_a_linear_law():
    found = line(np.random.default_rng(4), count=12)
    held = _held(found, "a")
    given = {"method": Method.RESIDUAL, "clusters": None, "draws": 20_000, "seed": 0}
    variance = 2 * found.objective / 10
    for level in (0.5, 0.9):
        known = variance * stats.f.ppf(level, 1, 10)
        assert _quantile(held, level, **given) == pytest.approx(known, rel=0.08)


def test_robust_and_clustered_profiles_say_what_they_compare_with():
    found = plane(np.random.default_rng(2), side=5, loss=Huber())
    own = profile(found, "b", draws=200)
    assert own.statistic == "the drop over its 90% quantile in 200 residual resamples"
    assert own.low < own.fitted < own.high and own.threshold == 1.0
    np.testing.assert_allclose(own.root[np.argmin(np.abs(own.values - own.high))], 1.0, atol=0.02)
    squares = plane(np.random.default_rng(2), side=5)
    wild = profile(squares, "b", method=Method.WILD, draws=200)
    assert "200 wild resamples" in wild.statistic


def test_a_floor_that_the_data_do_not_hold_is_open_below():
    x = np.geomspace(1e4, 1e6, 7)
    rng = np.random.default_rng(0)
    data = points(x, (0.3 + 9 * x**-0.1) * np.exp(0.01 * rng.standard_normal(7)))
    found = estimate(power_floor(), data, loss=Squares(), pinned={})
    own = profile(found, "E")
    assert own.low is None and own.limits[0] == 0.0
    assert own.as_json()["low"] == "open" and "[ open, " in str(own)
    at_zero = estimate(power_floor(), data, loss=Squares(), pinned={"E": 0.0})
    drop = 2 * (at_zero.objective - found.objective) / (2 * found.objective / 4)
    assert drop < stats.f.ppf(0.9, 1, 4)  # so zero is not rejected
    steep = profile(found, "a", level=0.9)
    pinned = estimate(power_floor(), data, loss=Squares(), pinned={"a": 5.0 - 1e-9})
    beyond = 2 * (pinned.objective - found.objective) / (2 * found.objective / 4)
    assert (steep.high is None) == (beyond < stats.f.ppf(0.9, 1, 4))


def test_every_amplitude_of_every_form_can_be_held():
    """Theta there and back, and the slopes of the law by differences."""
    rng = np.random.default_rng(0)
    tried = 0
    for form in named_forms().values():
        log_x = np.sort(rng.uniform(10, 16, (9, len(form.variables))), axis=1)
        if len(form.variables) == 3:
            log_x = log_x[:, [0, 2, 1]]
        scale = form.scale(log_x, np.full(9, 1.0))
        z = log_x - scale.center
        theta = form.starts(z, rng.uniform(0.1, 1.0, 9), 3, rng)
        for index, entry in enumerate(form.entries):
            if entry.kind.name not in ("LEVEL", "RATIO"):
                continue
            by = ByAmplitude(form.name, form.variables, form, index, scale, 0.0)
            outer = by.outer(theta)
            np.testing.assert_allclose(by.inner(outer), theta, atol=1e-9)
            np.testing.assert_allclose(by.log_loss(outer, z), form.log_loss(theta, z), rtol=1e-8)
            public = form.public(theta, scale)[entry.name]
            np.testing.assert_allclose(by.public(outer, scale)[entry.name], public, rtol=1e-8)
            for column in range(theta.shape[1]):
                step = np.zeros(theta.shape[1])
                step[column] = 1e-6
                ahead, behind = (by.log_loss(outer + s * step, z) for s in (1, -1))
                slope = (ahead - behind) / 2e-6
                np.testing.assert_allclose(
                    by.jacobian(outer, z)[..., column], slope, atol=2e-5 * (1 + np.abs(slope).max())
                )
            tried += 1
    assert tried >= 20


def test_what_is_not_fitted_has_no_profile():
    found = curve(np.random.default_rng(0), pinned={"E": 2.0})
    with pytest.raises(AnalysisError, match="profile of 'E': power_floor_N has fitted A, a"):
        profile(found, "E")
    with pytest.raises(AnalysisError, match="'alpha'"):
        profile(found, "alpha")
    with pytest.raises(AnalysisError, match="level 90"):
        profile(found, "a", level=90)
    x = np.geomspace(1e3, 1e6, 8)
    exact = estimate(power(), points(x, 9 * x**-0.1), loss=Huber(), pinned={})
    with pytest.raises(AnalysisError, match="no residual is left"):
        profile(exact, "a", draws=50)
    two = estimate(kaplan(), plane(np.random.default_rng(0)).points, loss=Squares(), pinned={})
    with pytest.raises(AnalysisError, match="profile of 'b': kaplan has fitted E, A, a, R, k"):
        profile(two, "b")


def test_breaks_that_are_told_apart_by_their_place_are_refused():
    x = np.geomspace(1e3, 1e7, 40)
    data = points(x, 1 + 30 * x**-0.2)
    form = broken(breaks=2)
    scale = form.scale(np.log(data.x), np.log(data.loss))
    theta = np.mean(form.bounds(), axis=0)
    found = Estimate(form, data, Squares(), {}, Status.CONVERGED, "", scale, theta)
    with pytest.raises(AnalysisError, match="told apart by their place"):
        profile(found, "x1")


def test_a_fit_at_a_lesser_minimum_is_found_out():
    found = plane(np.random.default_rng(1))
    worse = estimate(found.form, found.points, loss=Squares(), pinned={"a": 0.3})
    lesser = type(found)(**{**found.__dict__, "theta": worse.theta, "objective": worse.objective})
    with pytest.raises(AnalysisError, match="below that of the fit"):
        profile(lesser, "a")


def coverage(make, truth, repetitions, seed):
    rng = np.random.default_rng(seed)
    hits = []
    for index in range(repetitions):
        found = make(rng)
        row = []
        for name, value in truth.items():
            own = profile(found, name, draws=300, seed=index)
            row.append(
                (own.low is None or own.low <= value) and (own.high is None or value <= own.high)
            )
        hits.append(row)
    return np.mean(hits, axis=0)


def test_intervals_of_least_squares_cover_on_a_few_repetitions():
    truth = {name: CURVE[name] for name in ("E", "a")}
    shares = coverage(lambda rng: curve(rng, count=7), truth, 60, seed=3)
    assert np.all(shares >= 0.78) and np.all(shares <= 0.99), shares  # 3 binomial SE


@pytest.mark.slow
@pytest.mark.parametrize("side", [3, 4])
def test_intervals_of_least_squares_cover_90_per_cent(side):
    truth = {name: PLANE[name] for name in ("E", "a", "b")}
    shares = coverage(lambda rng: plane(rng, side=side), truth, 200, seed=side)
    assert np.all(shares >= 0.84) and np.all(shares <= 0.96), shares  # 3 binomial SE


@pytest.mark.slow
def test_intervals_of_huber_cover_about_90_per_cent():
    shares = coverage(lambda rng: curve(rng, count=8, loss=Huber()), CURVE, 80, seed=9)
    assert np.all(shares >= 0.8) and np.all(shares <= 0.99), shares  # 3 binomial SE


def test_the_figure_has_the_curve_the_interval_and_no_number_for_an_open_end(tmp_path):
    x = np.geomspace(1e4, 1e6, 7)
    rng = np.random.default_rng(0)
    loss = (0.3 + 9 * x**-0.1) * np.exp(0.01 * rng.standard_normal(7))
    columns = {"N": ("N", "count"), "loss": ("L", "nats/token")}
    table = from_frame(pd.DataFrame({"N": x, "L": loss}), columns=columns)
    found = fit("power_floor_N", table, loss="squares", level=0.95)
    path = tmp_path / "profile.svg"
    figure = found.plot_profile("E", path)
    text = path.read_text()
    assert text.startswith("<svg") and "signed root of F(1, 4)" in text and "open" in text
    own = found.profile("E")
    assert own.level == 0.95
    (axes,) = figure.axes
    curve_line = axes.lines[1]
    np.testing.assert_array_equal(curve_line.get_xdata(), own.values)
    ends = [ln for ln in axes.lines if ln.get_color() == "#d9822b"]
    assert [end.get_xdata()[0] for end in ends] == [own.high]
