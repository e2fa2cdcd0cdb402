"""Minima of isoFLOP bowls against brute force, and every refusal by name."""

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator

from analysis.bowl import Bowl, Interpolant, minimum
from analysis.frontier import Standing
from tests.analysis.laws import Truth

X = np.log(np.array([1e6, 2.3e6, 4e6, 9e6, 1.6e7, 3.1e7, 7e7]))
SMOOTH = 0.05 * (X - 16.2) ** 2 - 0.004 * (X - 16.2) ** 3 + 1.0
QUIET = np.zeros((7, 50))


def bowl(loss, x=X, se=0.0):
    return Bowl(1e18, x, np.asarray(loss, float), np.full(len(x), se))


def test_akima_is_the_lowest_point_of_scipys_interpolant():
    rough = SMOOTH + 0.004 * np.random.default_rng(0).standard_normal(7)
    found = minimum(bowl(rough), Interpolant.AKIMA, noise=QUIET)
    grid = np.linspace(X[0], X[-1], 400_001)
    values = Akima1DInterpolator(X, rough)(grid)
    assert found.standing is Standing.FOUND
    assert found.log_n == pytest.approx(grid[np.argmin(values)], abs=2e-5)
    assert found.log_loss == pytest.approx(values.min(), abs=1e-9)


def test_the_cubic_is_exact_for_a_cubic_and_the_parabola_for_a_parabola():
    cubic = minimum(bowl(SMOOTH), Interpolant.CUBIC, noise=QUIET)
    assert cubic.log_n == pytest.approx(16.2, abs=1e-8)
    even = minimum(bowl(0.05 * (X - 16.2) ** 2), Interpolant.PARABOLA, noise=QUIET)
    assert even.log_n == pytest.approx(16.2, abs=1e-8)
    skew = minimum(bowl(SMOOTH), Interpolant.PARABOLA, noise=QUIET)
    assert abs(skew.log_n - 16.2) > 0.01


def test_far_sizes_on_one_side_do_not_move_the_cubic():
    x = np.concatenate([X, X[-1] + np.array([1.0, 2.0, 3.0, 4.0])])
    loss = np.concatenate([SMOOTH, [9.0, 4.0, 12.0, 3.0]])
    lowest = np.argmin(SMOOTH)
    assert lowest + 3 < len(X)
    near = minimum(
        bowl(SMOOTH[: lowest + 4], X[: lowest + 4]), Interpolant.CUBIC, noise=QUIET[: lowest + 4]
    )
    far = minimum(bowl(loss, x), Interpolant.CUBIC, noise=np.zeros((11, 50)))
    assert far.log_n == pytest.approx(near.log_n, abs=1e-9)


def test_the_standard_error_is_that_of_the_delta_method():
    """For a parabola with noise s the vertex -b / 2c has a known first-order standard error."""
    s, c = 1e-4, 0.05
    noise = np.random.default_rng(1).standard_normal((7, 20_000))
    found = minimum(bowl(c * (X - 16.2) ** 2, se=s), Interpolant.PARABOLA, noise=noise)
    design = np.vander(X - 16.2, 3, increasing=True)
    slope_se = s * np.sqrt(np.linalg.inv(design.T @ design)[1, 1])
    assert found.log_se == pytest.approx(slope_se / (2 * c), rel=0.03)
    assert found.stable == 1.0


CASES = [
    (Interpolant.AKIMA, SMOOTH[:4], X[:4], 0.0, Standing.TOO_FEW_POINTS, "4 sizes"),
    (Interpolant.CUBIC, SMOOTH[:1], X[:1], 0.0, Standing.TOO_FEW_POINTS, "1 size;"),
    (Interpolant.AKIMA, np.exp(X / 40), X, 0.0, Standing.NO_INTERIOR_MINIMUM, "smallest"),
    (Interpolant.AKIMA, np.exp(-X / 40), X, 0.0, Standing.NO_INTERIOR_MINIMUM, "largest"),
    (Interpolant.CUBIC, X + 0.01 * (X - 16) ** 3, X, 0.0, Standing.CONCAVE, "downwards"),
    (Interpolant.AKIMA, 1 - 0.05 * (X - 16.2) ** 2, X, 0.0, Standing.CONCAVE, "downwards"),
    (Interpolant.CUBIC, 1 - 0.05 * (X - 16.2) ** 2, X, 0.0, Standing.CONCAVE, "downwards"),
    (Interpolant.CUBIC, 0.05 * (X - 19.0) ** 2, X, 0.0, Standing.MINIMUM_OUTSIDE, "largest"),
    (Interpolant.CUBIC, 0.05 * (X - 13.0) ** 2, X, 0.0, Standing.MINIMUM_OUTSIDE, "smallest"),
    (Interpolant.PARABOLA, 0.05 * (X - 19.0) ** 2, X, 0.0, Standing.MINIMUM_OUTSIDE, "largest"),
    (Interpolant.AKIMA, SMOOTH, X, 50.0, Standing.LOST_IN_NOISE, "noise draws"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "loss", "x", "se", "standing", "word"), CASES)
def test_every_refusal_is_named_and_has_no_numbers(how, loss, x, se, standing, word):
    noise = np.random.default_rng(0).standard_normal((len(x), 400))
    found = minimum(bowl(loss, x, se), how, noise=noise)
    assert found.standing is standing and found.standing.refused and word in found.reason
    assert np.isnan([found.log_n, found.log_loss, found.log_se]).all()


@pytest.mark.parametrize("side", ["smallest", "largest"])
def test_a_dip_between_the_sizes_is_no_minimum_where_an_end_is_lower(side):
    loss = np.array([1.9, 1.5, 1.3, 1.05, 1.10, 1.02, 0.90])
    order = slice(None) if side == "largest" else slice(None, None, -1)
    x = X if side == "largest" else -X[::-1] + X[0] + X[-1]
    found = minimum(bowl(loss[order], x), Interpolant.AKIMA, noise=QUIET)
    assert found.standing is Standing.NO_INTERIOR_MINIMUM and side in found.reason


def test_a_cubic_dip_is_no_minimum_where_an_end_is_lower():
    x = np.arange(5.0)
    falls = (x - 1) * (x - 1.5) * (3.5 - x)  # turns near 1.2, and is lower at 4
    assert falls[4] < falls[1]
    found = minimum(bowl(falls, x), Interpolant.CUBIC, noise=np.zeros((5, 10)))
    assert found.standing.refused


@pytest.mark.parametrize(("first", "standing"), [(0.87, "FOUND"), (1.15, "NO_INTERIOR_MINIMUM")])
def test_an_optimum_just_inside_the_first_size_is_found_and_one_outside_is_not(first, standing):
    """The lowest measured size is the first one in both."""
    truth, c = Truth(), 1e20
    n = truth.best_n(c) * first * 2.0 ** np.arange(7)
    found = minimum(
        bowl(np.log(truth.loss(n, c / 6 / n)), np.log(n)), Interpolant.AKIMA, noise=QUIET
    )
    assert np.argmin(found.bowl.log_loss) == 0 and found.standing is Standing[standing]
    if standing == "FOUND":
        assert found.log_n == pytest.approx(np.log(truth.best_n(c)), abs=0.01)
