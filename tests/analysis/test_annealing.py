"""The law of whole curves: gradients, the equation of the paper, recovery, refused designs."""

import numpy as np
import pytest

from analysis import AnalysisError, Huber, Squares, Status, fit_curves, form_named
from analysis.fit import fit
from analysis.forms import curve_forms
from analysis.rates import Schedule
from tests.analysis.curves import TOKENS, CurveTruth, areas, branches

FORMS = tuple(curve_forms())


@pytest.mark.parametrize("name", FORMS)
def test_jacobian_is_the_derivative(name):
    form, rng = curve_forms()[name], np.random.default_rng(0)
    z = rng.normal(size=(9, len(form.variables)))
    theta = form.starts(z, np.log(np.linspace(1, 1.4, 9)), 6, rng)
    near = [1e-5 * unit for unit in np.eye(theta.shape[1])]
    slopes = [(form.log_loss(theta + e, z) - form.log_loss(theta - e, z)) / 2e-5 for e in near]
    own = form.jacobian(theta, z)
    np.testing.assert_allclose(own, np.stack(slopes, axis=-1), rtol=1e-6, atol=1e-7)
    complex_step = super(type(form), form).jacobian(theta, z)
    np.testing.assert_allclose(own, complex_step, rtol=1e-12)


@pytest.mark.parametrize("name", FORMS)
def test_public_parameters_are_those_of_the_formula(name):
    form, rng = curve_forms()[name], np.random.default_rng(1)
    x = np.stack([*rng.uniform(2e3, 3e5, (len(form.variables) - 1, 8)), rng.uniform(0.01, 1, 8)], 1)
    log_loss = np.log(rng.uniform(1.5, 2.3, 8))
    scale = form.scale(np.log(x), log_loss)
    z = np.log(x) - scale.center
    theta = form.starts(z, log_loss - scale.log_loss, 5, rng)
    public = form.public(theta, scale)
    by_name = dict(zip(form.variables, x.T, strict=True))
    for row in range(5):
        p = {key: values[row] for key, values in public.items()}
        expected = p["E"] + p["B"] * by_name["S"] ** -p["b"] + p["C"] * by_name["R"]
        expected = expected + (p["A"] * by_name["N"] ** -p["a"] if "N" in by_name else 0.0)
        np.testing.assert_allclose(
            np.exp(form.log_loss(theta[row], z) + scale.log_loss), expected, rtol=1e-10
        )


def test_the_law_is_that_of_the_paper():
    """L0 + A' S1^-a - C' S2 by its own loops equals the law in S and R, numbers converted."""
    truth, peak, momentum = CurveTruth(H=25.0), 0.006, 1 - 1 / 25.0
    schedule = Schedule("cosine", 120, TOKENS, 6, 0.0, 0.1)
    steps = np.array([10, 60, 120])
    rates = peak * schedule.rates()
    rates[:6] = peak
    for at, own in zip(steps, truth.loss(1e5, schedule, steps), strict=True):
        s1, s2 = areas(rates[:at], momentum)
        of_s1 = truth.B * (TOKENS / peak) ** -truth.b
        c = truth.C * (1 - momentum) / peak
        floor = truth.E + truth.C + truth.A * 1e5**-truth.a
        assert own == pytest.approx(floor + of_s1 * s1**-truth.b - c * s2, rel=1e-12)


@pytest.mark.parametrize("loss", [Squares(), Huber(1e-3)], ids=["squares", "huber"])
def test_exact_recovery_of_a_noiseless_law(loss):
    truth = CurveTruth()
    found = fit_curves(branches(truth), loss=loss, starts=20)
    assert found.status is Status.CONVERGED
    for key, value in found.params.items():
        assert value == pytest.approx(getattr(truth, key), rel=1e-5), key


def test_exact_recovery_of_one_size():
    truth = CurveTruth(A=0.0)
    found = fit_curves(branches(truth, sizes=1), "annealing_S", starts=20)
    for key in ("E", "B", "b", "C", "H"):
        assert found.params[key] == pytest.approx(getattr(truth, key), rel=1e-5), key
    with pytest.raises(AnalysisError, match="is of runs of one size"):
        fit_curves(branches(truth), "annealing_S")


@pytest.mark.parametrize(
    "keep, words",
    [
        (lambda rows: rows["identity"].str.contains("constant"), "at one relative rate R"),
        (lambda rows: rows["N"] < 2e4, "2 values of N"),
        (lambda rows: rows["step"] == 160, "1 value of S"),
    ],
    ids=["no cooldown", "two sizes", "one length"],
)
def test_designs_that_do_not_identify_the_law_are_refused(keep, words):
    curves = branches(CurveTruth())
    found = fit_curves(curves.select(keep(curves.points).to_numpy()), memory_steps=10, starts=4)
    assert found.status is Status.UNDER_DETERMINED and words in found.reason
    assert "params" not in found.as_json() and words in found.summary()
    for ask in (lambda: found.params, lambda: found.draws, lambda: found.intervals):
        with pytest.raises(AnalysisError, match="under-determined"):
            ask()


def test_a_pinned_floor_stays():
    found = fit_curves(branches(CurveTruth()), memory_steps=10, pinned={"E": 1.05}, starts=8)
    assert found.params["E"] == pytest.approx(1.05, rel=1e-12)
    assert found.params["b"] == pytest.approx(0.44, rel=1e-6)


def test_a_table_of_runs_is_told_where_the_law_of_curves_is():
    with pytest.raises(AnalysisError, match="of whole curves; fit_curves"):
        form_named("annealing")
    with pytest.raises(AnalysisError, match="no variable 'D' of curves; there are N, S, R"):
        fit("separable", branches(CurveTruth()).table(10.0))
    with pytest.raises(AnalysisError, match="form 'separable' of curves: allowed are annealing"):
        fit_curves(branches(CurveTruth()), "separable")
