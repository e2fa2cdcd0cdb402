"""Fits: optima against scipy, public tables, certificates, predictions."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special

from analysis import (
    AnalysisError,
    Huber,
    Squares,
    Status,
    fit,
    from_frame,
    read_csv,
    read_runs,
    solver,
)


def synthetic(noise):
    """A 6 by 5 design of N and D with a known law."""
    rng = np.random.default_rng(1)
    n, d = (g.ravel() for g in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e11, 5)))
    loss = (1.8 + 480 * n**-0.35 + 2100 * d**-0.37) * np.exp(noise * rng.standard_normal(30))
    frame = pd.DataFrame({"N": n, "D": d, "L": loss})
    units = {"N": ("N", "count"), "D": ("D", "count"), "loss": ("L", "nats/token")}
    return from_frame(frame, columns=units)


def takano(folder):
    columns = {key: (key, "count") for key in ("N", "D", "C")} | {"loss": ("loss", "nats/token")}
    return read_csv(folder / "takano_llm.csv", columns=columns)


def scipy_optimum(table, delta):
    """Independent minimiser: log parameters, scipy's own Huber, numerical gradients, polished."""
    log_n, log_d, y = np.log(table.variable("N")), np.log(table.variable("D")), np.log(table.loss)

    def value(p):
        parts = (np.full_like(y, p[0]), p[1] - p[3] * log_n, p[2] - p[4] * log_d)
        residual = y - special.logsumexp(np.stack(parts), axis=0)
        return special.huber(delta, residual).sum() if delta else 0.5 * np.sum(residual**2)

    best = np.inf
    for start in ([0.5, 6, 7, 0.35, 0.35], [0.6, 5, 8, 0.3, 0.4]):
        point = np.array(start)
        for _ in range(6):
            found = optimize.minimize(value, point, method="Nelder-Mead", options=OPTIONS)
            point = found.x
        best = min(best, found.fun)
    return best


OPTIONS = {"maxiter": 4000, "xatol": 1e-10, "fatol": 1e-16, "adaptive": True}


@pytest.mark.parametrize("loss", [Squares(), Huber(1e-3)], ids=["squares", "huber"])
def test_public_chinchilla_points_reach_the_optimum_of_scipy(public_tables, loss):
    table = takano(public_tables)
    found = fit("separable", table, loss=loss)
    reference = scipy_optimum(table, getattr(loss, "delta", None))
    assert found.status is Status.CONVERGED
    assert found.estimate.objective <= reference * (1 + 1e-9)
    assert found.estimate.objective >= reference * (1 - 1e-3)
    assert found.estimate.agreeing_starts >= 0.99


def test_synthetic_chinchilla_reaches_the_optimum_of_scipy():
    table = synthetic(noise=0.01)
    found = fit("separable", table)
    reference = scipy_optimum(table, 1e-3)
    assert reference * (1 - 1e-3) <= found.estimate.objective <= reference * (1 + 1e-9)
    assert found.estimate.certificate < 1e-6


def test_weights_follow_the_measurement_errors(ladder):
    table = read_runs(ladder)
    table.runs.loc[0, "loss_se_nats_per_token"] = 1e3  # a run that says nothing
    table.runs.loc[0, "loss_nats_per_token"] *= 1.5
    rest = table.select(np.arange(7) > 0)
    weighted = fit("power_floor_N", table, loss=Squares(), weights="measurement")
    without = fit("power_floor_N", rest, loss=Squares(), weights="measurement")
    for name, value in without.params.items():
        assert weighted.params[name] == pytest.approx(value, rel=1e-4)


def test_prediction_asks_for_the_variables_of_the_form(ladder):
    law = fit("power_floor_N", read_runs(ladder))
    with pytest.raises(AnalysisError, match="N is missing"):
        law.predict()
    with pytest.raises(AnalysisError, match="D is not a variable of"):
        law.predict(N=1e6, D=1e6)
    with pytest.raises(AnalysisError, match="must be finite and above zero"):
        law.predict(N=-1.0)
    with pytest.raises(AnalysisError, match="level 1.5"):
        law.predict(N=1e6, level=1.5)


def test_prediction_contains_its_point_and_grows_with_the_level(ladder):
    law = fit("power_floor_N", read_runs(ladder))
    narrow, wide = (law.predict(N=np.array([2e5, 4e5]), level=level) for level in (0.5, 0.9))
    assert np.all(wide.low < narrow.low) and np.all(narrow.high < wide.high)
    assert np.all((narrow.low <= narrow.loss) & (narrow.loss <= narrow.high))
    np.testing.assert_allclose(wide.distance, np.array([2e5, 4e5]) / 120_000)
    assert list(wide.frame().N) == [2e5, 4e5] and list(wide.frame().low) == list(wide.low)
    assert wide.high[1] - wide.low[1] > wide.high[0] - wide.low[0]


def test_the_package_gives_functions_whatever_is_imported_first():
    code = "{first}\nimport analysis, analysis.fit, analysis.forecast\n"
    code += "assert callable(analysis.fit) and callable(analysis.forecast), analysis.fit"
    for first in ("from analysis.fit import Fit", "from analysis.forecast import freeze", ""):
        subprocess.run([sys.executable, "-c", code.format(first=first)], check=True)


def test_analysis_imports_neither_jax_nor_lab(ladder):
    code = (
        "import sys; from analysis.__main__ import main; main(['report', sys.argv[1]]);"
        "bad = {name.split('.')[0] for name in sys.modules} & {'jax', 'lab', 'tensorflow', 'flax'};"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(ladder)], check=True)


def test_a_fit_without_a_certificate_is_refused(ladder, monkeypatch):
    strict = solver.solve.__kwdefaults__ | {"tolerance": -1.0}
    monkeypatch.setattr(solver.solve, "__kwdefaults__", strict)
    found = fit("power_floor_N", read_runs(ladder))
    assert found.status is Status.UNCONVERGED
    with pytest.raises(AnalysisError, match="unconverged: no start reached a certified minimum"):
        _ = found.params
