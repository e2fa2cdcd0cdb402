"""Rolling origins against single fits by scipy; windows by their definition."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from analysis import forward
from analysis.estimate import Points
from analysis.forms import broken, power, power_floor, separable
from analysis.losses import Squares


def points_of(x, loss):
    x = np.asarray(x, dtype=float).reshape(len(loss), -1)
    names = tuple(map(str, range(len(loss))))
    return Points(x, loss, loss * np.nan, np.ones(len(loss)), names)


def curve(count=24, noise=0.0, seed=0, span=1e4):
    x = np.geomspace(1e3, 1e3 * span, count)
    loss = 1.5 + 30 * x**-0.4
    return x, loss * np.exp(noise * np.random.default_rng(seed).normal(size=count))


def test_windows_step_back_to_a_tenth_and_look_a_decade_ahead():
    size = np.geomspace(1.0, 1e6, 61)
    seen = forward.windows(size)
    assert [round(1e6 / w.reached, 2) for w in seen] == [2.0, 3.16, 6.31, 10.0]  # steps of the grid
    for window in seen:
        assert window.reached == size[window.kept].max()
        assert not (window.kept & window.ahead).any()
        assert size[window.ahead].max() <= 10.01 * window.reached
        assert (window.kept | window.ahead).sum() == len(size)
    narrow = forward.windows(np.geomspace(1.0, 16.0, 41))
    assert max(16 / w.reached for w in narrow) == pytest.approx(4.0)  # the middle of the range


def test_windows_need_runs_on_both_sides():
    assert forward.windows(np.geomspace(1, 100, 5)) == ()
    assert forward.windows(np.full(20, 3.0)) == ()


@pytest.mark.parametrize("local", [0.0, 1.0])
def test_each_origin_is_a_weighted_fit_of_what_it_saw(local):
    x, loss = curve(noise=0.003)
    seen = forward.windows(x)
    made = forward.roll(power_floor("N"), points_of(x, loss), x, seen, loss=Squares(), local=local)
    masks = [np.ones(len(x), bool), *(w.kept for w in seen)]
    assert made.certified.all() and len(masks) == 5
    for row, kept in enumerate(masks):
        root = np.sqrt((x[kept] / x[kept].max()) ** local)

        def miss(p, kept=kept, root=root):
            law = np.exp(p[0]) + np.exp(p[1]) * (x[kept] / 1e5) ** -np.exp(p[2])
            return root * (np.log(loss[kept]) - np.log(law))

        tries = [
            least_squares(miss, start, xtol=1e-15, ftol=1e-15, gtol=1e-15)
            for start in ([0.3, -1.0, -1.0], [-3.0, 0.0, -1.5], [0.0, 0.0, -0.5])
        ]
        best = min(tries, key=lambda found: found.cost)
        law = np.exp(best.x[0]) + np.exp(best.x[1]) * (x / 1e5) ** -np.exp(best.x[2])
        np.testing.assert_allclose(made.error[row], np.log(loss) - np.log(law), atol=2e-6)
        w, j = np.diag(root**2), best.jac / root[:, None]
        used = np.trace(np.linalg.inv(j.T @ w @ j) @ j.T @ w @ w @ j)
        sd = np.sqrt(np.sum(miss(best.x) ** 2) / (np.sum(root**2) - used))
        assert made.residual_rms[row] == pytest.approx(sd, rel=1e-3)


@pytest.mark.parametrize("local", [0.0, 1.0])
def test_the_residual_sd_is_unbiased(local):
    """400 ladders of 14 runs: the mean variance is that of the noise, within 4 standard errors."""
    found = []
    for seed in range(400):
        x, loss = curve(count=14, noise=0.01, seed=seed, span=30)
        law = forward.roll(
            power("N"), points_of(x, pure(x, loss)), x, (), loss=Squares(), local=local
        )
        found.append(law.residual_rms[0] ** 2)
    assert np.mean(found) == pytest.approx(1e-4, abs=4 * np.std(found) / 20)


def pure(x, loss):
    """The noise of a curve on a power law without a floor."""
    return loss / (1.5 + 30 * x**-0.4) * 9.0 * x**-0.1


def test_an_origin_that_sees_one_size_has_no_law():
    x = np.r_[np.full(8, 1e3), np.full(4, 3e3), np.full(4, 6e3)]
    loss = 3.0 * x**-0.05 * np.exp(0.01 * np.random.default_rng(0).normal(size=16))
    seen = forward.windows(x)
    made = forward.roll(power("N"), points_of(x, loss), x, seen, loss=Squares(), local=1.0)
    alone = [len(np.unique(x[w.kept])) < 2 for w in seen]
    assert any(alone) and not made.certified[1:][alone].any() and made.certified[0]


def test_a_true_law_forecasts_without_error():
    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(1e6, 1e8, 5), np.geomspace(1e8, 1e10, 5)))
    loss = 1.7 + 300 * n**-0.33 + 900 * d**-0.36
    seen = forward.windows(n * d)
    made = forward.roll(
        separable(), points_of(np.stack([n, d], 1), loss), n * d, seen, loss=Squares(), local=1.0
    )
    assert len(seen) == 2 and np.abs(made.error).max() < 1e-7
    ahead = made.log_loss(np.array([[1e9, 1e11]]))
    assert np.exp(ahead[0]) == pytest.approx(1.7 + 300 * 1e9**-0.33 + 900 * 1e11**-0.36, rel=1e-7)


def test_rows_that_cannot_be_fitted_hold_nothing():
    x, loss = curve(count=8, noise=0.01)
    seen = forward.windows(x)
    made = forward.roll(broken("N"), points_of(x, loss), x, seen, loss=Squares(), local=1.0)
    few = [w.kept.sum() <= 6 for w in seen]
    assert any(few)
    assert not made.certified[1:][few].any()
    assert np.isnan(made.error[1:][few]).all()
    line = forward.roll(power("N"), points_of(x, loss), x, seen, loss=Squares(), local=1.0)
    assert line.certified.all()
