"""Forms: gradients against a complex step, exact recovery, designs that are refused."""

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, Huber, Squares, Status, fit, from_frame
from analysis.forms import Form, form_named, named_forms

TRUTH = {
    "power_floor": {"E": 1.7, "A": 25.0, "a": 0.4},
    "power": {"A": 12.0, "a": 0.12},
    "separable": {"E": 1.7, "A": 25.0, "a": 0.33, "B": 90.0, "b": 0.37},
}


def truth_of(form: Form) -> dict[str, float]:
    return TRUTH[form.name.rsplit("_", 1)[0] if form.name != "separable" else form.name]


def table_of(n, d, loss):
    """N, D, C = 6 N D."""
    frame = pd.DataFrame({"n": n, "d": d, "c": 6.0 * np.asarray(n) * np.asarray(d), "l": loss})
    columns = {key: (key.lower(), "count") for key in ("N", "D", "C")}
    return from_frame(frame, columns=columns | {"loss": ("l", "nats/token")})


def noiseless(form: Form, params: dict[str, float]):
    n, d = (
        grid.ravel() for grid in np.meshgrid(np.geomspace(3e3, 2e5, 5), np.geomspace(1e6, 1e8, 4))
    )
    x = {"N": n, "D": d, "C": 6 * n * d}
    loss = np.full(len(n), params.get("E", 0.0))
    for variable, amplitude, exponent in zip(form.variables, "AB", "ab", strict=False):
        loss = loss + params[amplitude] * x[variable] ** -params[exponent]
    return table_of(n, d, loss)


@pytest.mark.parametrize("name", named_forms())
def test_jacobian_is_the_derivative(name):
    form = form_named(name)
    rng = np.random.default_rng(0)
    theta = form.starts(np.log(np.linspace(1, 1.4, 9)), 6, rng)
    z = rng.normal(size=(9, len(form.variables)))
    np.testing.assert_allclose(
        form.jacobian(theta, z), Form.jacobian(form, theta, z), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("loss", [Squares(), Huber(1e-3)], ids=["squares", "huber"])
@pytest.mark.parametrize("name", named_forms())
def test_exact_recovery_of_a_noiseless_law(name, loss):
    form = form_named(name)
    truth = truth_of(form)
    found = fit(form, noiseless(form, truth), loss=loss)
    assert found.status is Status.CONVERGED
    for key, value in truth.items():
        assert found.params[key] == pytest.approx(value, rel=1e-6), key
    np.testing.assert_allclose(found.residuals, 0.0, atol=1e-10)


def test_pinned_asymptote_stays_and_the_rest_is_recovered():
    form = form_named("power_floor_N")
    table = noiseless(form, TRUTH["power_floor"])
    found = fit(form, table, pinned={"E": 1.7})
    assert found.params["E"] == pytest.approx(1.7, rel=1e-14)
    assert found.params["a"] == pytest.approx(0.4, rel=1e-8)
    assert "E" not in found.intervals
    zero = fit(form, noiseless(form, {"E": 0.0, "A": 12.0, "a": 0.12}), pinned={"E": 0.0})
    assert zero.status is Status.CONVERGED and zero.params["A"] == pytest.approx(12.0, rel=1e-8)


@pytest.mark.parametrize("pinned", [{"A": 1.0}, {"E": 50.0}, {"q": 1.0}])
def test_bad_pins_are_refused(pinned):
    form = form_named("power_floor_N")
    with pytest.raises(AnalysisError, match="pinned"):
        fit(form, noiseless(form, TRUTH["power_floor"]), pinned=pinned)


def test_unknown_form_lists_the_names():
    with pytest.raises(AnalysisError, match="'cubic': allowed are power_floor_N"):
        form_named("cubic")


def _separable(n, d):
    n, d = np.asarray(n, float), np.asarray(d, float)
    return table_of(n, d, 1.7 + 25 * n**-0.33 + 90 * d**-0.37)


SIZES = np.geomspace(3e3, 3e5, 9)
BAD_DESIGNS = {
    "one ray D = 20 N": (_separable(SIZES, 20 * SIZES), "move together"),
    "nearly one ray": (
        _separable(SIZES, 20 * SIZES * np.tile([0.97, 1.0, 1.03], 3)),
        "move together",
    ),
    "one D": (_separable(SIZES, np.full(9, 1e7)), "1 value of D"),
    "two D": (_separable(SIZES, np.tile([1e6, 1e7], 5)[:9]), "2 values of D"),
    "one N": (_separable(np.full(9, 1e5), SIZES * 50), "1 value of N"),
}


@pytest.mark.parametrize("design", BAD_DESIGNS)
def test_designs_that_do_not_identify_the_law_are_refused_and_carry_no_numbers(design):
    table, words = BAD_DESIGNS[design]
    found = fit("separable", table)
    assert found.status is Status.UNDER_DETERMINED and words in found.reason
    for ask in (
        lambda: found.params,
        lambda: found.intervals,
        lambda: found.residuals,
        lambda: found.forward_errors,
        lambda: found.predict(N=1e6, D=1e8),
    ):
        with pytest.raises(AnalysisError, match="under-determined"):
            ask()
    assert "params" not in found.as_json() and words in found.summary()


def test_three_points_are_too_few_for_three_parameters():
    table = table_of([1e3, 1e4, 1e5], [1e6] * 3, [3.0, 2.5, 2.2])
    found = fit("power_floor_N", table)
    assert found.status is Status.TOO_FEW_POINTS
    with pytest.raises(AnalysisError, match="3 points for 3 free parameters"):
        _ = found.params


@pytest.mark.parametrize(
    "loss, words",
    [
        (8.0 * SIZES**-0.1 * np.exp(0.02 * np.log(SIZES / 3e4) * -np.log(SIZES / 3e4)), "at zero"),
        (np.where(SIZES < 3.1e3, 3.0, 2.0 + 1e-3 * np.tile([1, -1, 0], 3)), "plateau|limit"),
    ],
    ids=["floor at zero", "plateau"],
)
def test_a_degenerate_floor_is_at_a_bound_and_predicts_with_a_note(loss, words):
    found = fit("power_floor_N", table_of(SIZES, np.full(9, 1e6), loss))
    assert found.status is Status.AT_BOUND
    assert any(word in found.reason for word in words.split("|")), found.reason
    assert found.reason in found.predict(N=6e5).notes


def test_losses_must_be_positive_and_named():
    with pytest.raises(AnalysisError, match="row 1: loss -2.0 must be finite and above zero"):
        fit("power_N", table_of([1.0, 2.0, 3.0], [1.0] * 3, [3.0, -2.0, 1.0]))
