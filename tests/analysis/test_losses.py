"""Losses: derivatives, and fits against linear programs and scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares, linprog

from analysis import AnalysisError, fit, flags, from_frame
from analysis.losses import NAMED, Asymmetric, Huber, Lad, SoftL1, Squares, loss_named

ALL = [Squares(), Huber(1e-2), SoftL1(1e-2), Lad(1e-3), Asymmetric(delta=1e-2, below=4.0)]


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_psi_and_curvature_are_the_derivatives(loss):
    residual = np.concatenate([-np.geomspace(1e-4, 1, 12), np.geomspace(1e-4, 1, 12)]) * 1.01
    step = 1e-6 * np.abs(residual)
    slope = (loss.rho(residual + step) - loss.rho(residual - step)) / (2 * step)
    np.testing.assert_allclose(loss.psi(residual), slope, rtol=1e-5, atol=1e-9)
    bend = (loss.psi(residual + step) - loss.psi(residual - step)) / (2 * step)
    np.testing.assert_allclose(loss.curvature(residual), bend, rtol=1e-5, atol=1e-6)


def power_table(seed=0, count=15, noise=0.05):
    """L = 12 x^-0.2 with Student noise: in logs a straight line."""
    rng = np.random.default_rng(seed)
    x = np.geomspace(1e3, 1e6, count)
    y = 12 * x**-0.2 * np.exp(noise * rng.standard_t(3, count))
    frame = pd.DataFrame({"x": x, "y": y})
    return from_frame(frame, columns={"N": ("x", "count"), "loss": ("y", "nats/token")})


def quantile_line(table, above: float, below: float) -> tuple[float, float]:
    """Minimise above * positive + below * negative residuals of a line, by linear programming."""
    design = np.stack([np.ones(len(table)), -np.log(table.variable("N"))], axis=1)
    count = len(design)
    eye = np.eye(count)
    result = linprog(
        np.concatenate([np.zeros(2), np.full(count, above), np.full(count, below)]),
        A_eq=np.hstack([design, eye, -eye]),
        b_eq=np.log(table.loss),
        bounds=[(None, None)] * 2 + [(0, None)] * (2 * count),
    )
    return np.exp(result.x[0]), result.x[1]


@pytest.mark.parametrize("seed", range(4))
def test_least_absolute_deviations_solve_the_linear_program(seed):
    table = power_table(seed)
    found = fit("power_N", table, loss="lad")
    amplitude, exponent = quantile_line(table, 1.0, 1.0)
    assert found.params["a"] == pytest.approx(exponent, rel=1e-5)
    assert found.params["A"] == pytest.approx(amplitude, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_asymmetric_loss_is_a_quantile_and_follows_the_lower_envelope(seed):
    table = power_table(seed)
    found = fit("power_N", table, loss=Asymmetric(delta=1e-7, below=10.0))
    amplitude, exponent = quantile_line(table, 1.0, 10.0)
    assert found.params["a"] == pytest.approx(exponent, rel=1e-4)
    assert found.params["A"] == pytest.approx(amplitude, rel=1e-4)
    assert np.mean(found.residuals < -1e-6) <= 1 / 11 + 1e-9  # 10 : 1 is the quantile 1 / 11


def test_soft_l1_agrees_with_scipy():
    table = power_table(3)
    found = fit("power_N", table, loss=SoftL1(0.02))
    z, y = np.log(table.variable("N")), np.log(table.loss)
    reference = least_squares(
        lambda p: p[0] - p[1] * z - y, [2.0, 0.2], loss="soft_l1", f_scale=0.02, xtol=1e-15,
        ftol=1e-15, gtol=1e-15,
    )  # fmt: skip
    assert found.params["a"] == pytest.approx(reference.x[1], rel=1e-6)
    assert np.log(found.params["A"]) == pytest.approx(reference.x[0], rel=1e-6)


def test_names_and_refusals():
    assert set(NAMED) == {"squares", "huber", "soft_l1", "lad", "asymmetric"}
    assert tuple(NAMED) == flags.LOSSES  # what the command line offers
    assert loss_named("huber", 0.1) == Huber(0.1)
    for name, delta, words in (
        ("cubes", None, "'cubes': allowed are squares"),
        ("squares", 0.1, "'squares' has none"),
        ("huber", -1.0, "must be finite and above zero"),
    ):
        with pytest.raises(AnalysisError, match=words):
            loss_named(name, delta)
