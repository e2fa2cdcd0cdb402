"""Forms: gradients against a complex step, exact recovery, designs that are refused."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq

from analysis import AnalysisError, Huber, Squares, Status, fit, forward, from_frame
from analysis.form import Form
from analysis.forms import form_named, named_forms, sigmoid

TRUTH = {
    "power_floor": {"E": 1.7, "A": 25.0, "a": 0.4},
    "power": {"A": 12.0, "a": 0.12},
    "saturating": {"A": 12.0, "a": 0.2, "x0": 3e5},
    "sigmoid": {"E": 0.3, "A": 40.0, "a": 0.5, "h": 0.7},
    "broken1": {"E": 1.0, "A": 30.0, "a": 0.2, "c1": 0.4, "x1": 3e4, "f1": 0.3},
    "broken2": {
        "E": 0.2, "A": 60.0, "a": 0.1, "c1": 0.3, "x1": 1.2e4, "f1": 0.2, "c2": 0.5, "x2": 7e4,
        "f2": 0.15,
    },
    "separable": {"E": 1.7, "A": 25.0, "a": 0.33, "B": 90.0, "b": 0.37},
    "shared_exponent": {"E": 1.7, "A": 25.0, "B": 90.0, "a": 0.33},
    "skaling": {"E": 1.5, "A": 40.0, "a": 0.6, "b": 0.7, "R": 12.0, "k": 0.55},
    "repeats": {"E": 1.7, "A": 25.0, "a": 0.33, "B": 90.0, "b": 0.37, "RD": 12.0, "RN": 4.0},
    "repeats_excess": {
        "E": 1.7, "A": 25.0, "a": 0.33, "B": 90.0, "b": 0.37, "RD": 12.0, "RN": 4.0, "G": 0.2,
        "g": 1.5, "M": 0.05, "h": 0.5,
    },
    "kaplan": {"E": 1.5, "A": 40.0, "a": 0.8, "R": 200.0, "k": 0.4},
}  # fmt: skip
CHANCE = 2.5  # the top of the sigmoid


def by_formula(name: str, p: dict[str, float], x: dict[str, np.ndarray]) -> np.ndarray:
    """The laws written out once more, in public parameters."""
    n, d = x["N"], x["D"]
    kind = kind_of(name)
    v = n if kind == name else x[name[-1]]
    if kind == "saturating":
        return p["A"] * (1 / v + 1 / p["x0"]) ** p["a"]
    if kind == "sigmoid":
        return np.array(
            [
                brentq(
                    lambda y, t=t: (y - p["E"]) - p["A"] * t ** -p["a"] * (CHANCE - y) ** p["h"],
                    p["E"], CHANCE, xtol=1e-15, rtol=1e-14,
                )
                for t in v
            ]
        )  # fmt: skip
    if kind.startswith("broken"):
        term = p["A"] * v ** -p["a"]
        for i in range(1, int(kind[-1]) + 1):
            bend = 1 + (v / p[f"x{i}"]) ** (1 / p[f"f{i}"])
            term = term * bend ** (-p[f"c{i}"] * p[f"f{i}"])
        return p["E"] + term
    if kind in ("skaling", "kaplan"):
        return p["E"] + p["A"] * (n ** -p["a"] + p["R"] * d ** -p.get("b", 1.0)) ** p["k"]
    if kind.startswith("repeats"):
        u = x["U"]
        again = np.maximum(d / u - 1, 0)
        worth_d = u * (1 + p["RD"] * (1 - np.exp(-again / p["RD"])))
        best = (p["a"] * p["A"] / (p["b"] * p["B"]) * u ** p["b"]) ** (1 / p["a"])
        used = np.minimum(n, best)
        worth_n = used * (1 + p["RN"] * (1 - np.exp(-(n / used - 1) / p["RN"])))
        loss = p["E"] + p["A"] * worth_n ** -p["a"] + p["B"] * worth_d ** -p["b"]
        if kind == "repeats":
            return loss
        return loss + p["G"] * again ** p["h"] / (1 + (p["M"] * u / n) ** p["g"])
    if kind in ("separable", "shared_exponent"):
        return p["E"] + p["A"] * n ** -p["a"] + p["B"] * d ** -p.get("b", p["a"])
    return p.get("E", 0.0) + p["A"] * v ** -p["a"]


def kind_of(name: str) -> str:
    """The name of a form without its variable."""
    return name[:-2] if name[-2:] in ("_N", "_D", "_C") else name


def truth_of(form: Form) -> dict[str, float]:
    return TRUTH[kind_of(form.name)]


def law_named(name: str) -> Form:
    """The form; the sigmoid with its top known."""
    return sigmoid(name[-1], chance=CHANCE) if name.startswith("sigmoid") else form_named(name)


def table_of(n, d, loss, c=None, u=None):
    """N, D, C = 6 N D unless given, and U where given."""
    c = 6.0 * np.asarray(n) * np.asarray(d) if c is None else c
    frame = pd.DataFrame({"n": n, "d": d, "c": c, "l": loss})
    frame = frame if u is None else frame.assign(u=u)
    columns = {key: (key.lower(), "count") for key in ("N", "D", "C", *(["U"] * (u is not None)))}
    return from_frame(frame, columns=columns | {"loss": ("l", "nats/token")})


def noiseless(form: Form, params: dict[str, float], count: int = 5):
    """The law on a grid of `count` sizes and four token counts, without noise."""
    n, d = (
        grid.ravel()
        for grid in np.meshgrid(np.geomspace(3e3, 2e5, count), np.geomspace(1e6, 1e8, 4))
    )
    if "U" in form.variables:
        n, d, u = (
            axis.ravel()
            for axis in np.meshgrid(
                np.geomspace(3e3, 2e6, 6), np.geomspace(1e6, 1e8, 5), np.geomspace(1e5, 1e7, 4)
            )
        )
        kept = u <= d
        x = {"N": n[kept], "D": d[kept], "U": u[kept]}
        return table_of(x["N"], x["D"], by_formula(form.name, params, x), u=x["U"])
    if form.variables != ("N", "D"):  # one variable, from 3e3 to 2e5 whatever its name
        n = np.geomspace(3e3, 2e5, 20)
        x = dict.fromkeys("NDC", n)
        return table_of(n, n, by_formula(form.name, params, x), c=n)
    return table_of(n, d, by_formula(form.name, params, {"N": n, "D": d}))


@pytest.mark.parametrize("name", named_forms())
def test_jacobian_is_the_derivative(name):
    """Against central differences: a step of 1e-5 leaves errors of about 1e-9."""
    form = form_named(name)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(9, len(form.variables)))
    theta = form.starts(z, np.log(np.linspace(1, 1.4, 9)), 6, rng)
    lower, upper = form.bounds()
    theta = np.clip(theta, lower + 1e-3, upper - 1e-3)
    if name.startswith("sigmoid"):
        theta[:, 4] = np.maximum(theta[:, 4], 1.2)  # the top above the floor
    near = [1e-5 * unit for unit in np.eye(theta.shape[1])]
    slopes = [(form.log_loss(theta + e, z) - form.log_loss(theta - e, z)) / 2e-5 for e in near]
    np.testing.assert_allclose(
        form.jacobian(theta, z), np.stack(slopes, axis=-1), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", named_forms())
def test_public_parameters_are_those_of_the_formula(name):
    """Theta of random starts, read as public numbers and put into the formula, gives the law."""
    form, rng = law_named(name), np.random.default_rng(1)
    log_x = np.log(rng.uniform(2e3, 3e5, (8, len(form.variables))))
    log_loss = np.log(rng.uniform(1.5, 2.3, 8))
    scale = form.scale(log_x, log_loss)
    z = log_x - scale.center
    theta = form.starts(z, log_loss - scale.log_loss, 5, rng)
    pinned = form.pin({}, scale)
    theta = np.where(np.isnan(pinned), theta, pinned)
    public = form.public(theta, scale)
    x = dict.fromkeys("NDCU", np.exp(log_x[:, 0]))
    x |= dict(zip(form.variables, np.exp(log_x).T, strict=True))
    for row in range(5):
        own = {key: float(values[row]) for key, values in public.items()}
        with np.errstate(over="ignore"):
            expected = by_formula(name, own, x)
        law = np.exp(form.log_loss(theta[row], z) + scale.log_loss)
        kept = np.isfinite(expected)
        assert kept.sum() >= 4
        np.testing.assert_allclose(law[kept], expected[kept], rtol=1e-8)


@pytest.mark.parametrize("loss", [Squares(), Huber(1e-3)], ids=["squares", "huber"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow) if n == "repeats_excess" else n
        for n in named_forms()
    ],
)
def test_exact_recovery_of_a_noiseless_law(name, loss):
    form = law_named(name)
    truth = truth_of(form)
    found = fit(form, noiseless(form, truth), loss=loss)
    if name.startswith("broken2") and found.status is Status.UNDER_DETERMINED:
        points = found.estimate.points  # nine parameters are confounded: the law must be right
        law = forward.roll(form, points, points.x[:, 0], (), loss=loss, local=0.0)
        assert law.residual_rms[0] < 1e-6
        return
    assert found.status is Status.CONVERGED, found.reason
    close = 1e-4 if name == "repeats_excess" else 1e-5  # eleven parameters
    for key, value in truth.items():
        assert found.params[key] == pytest.approx(value, rel=close), key
    np.testing.assert_allclose(found.residuals, 0.0, atol=1e-9)


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


def test_unique_tokens_are_at_most_the_tokens():
    table = noiseless(form_named("repeats"), TRUTH["repeats"])
    found = fit("repeats", table)
    with pytest.raises(AnalysisError, match="U = 1e.11: allowed is at most D = 1e.10"):
        found.predict(N=1e6, D=1e10, U=1e11)
    wrong = table_of([1e6] * 3, [1e8] * 3, [3.0, 2.9, 2.8], u=[1e7, 1e8, 1e9])
    with pytest.raises(AnalysisError, match="U = 1e.09: allowed is at most D"):
        fit("repeats", wrong)


def test_a_constant_of_a_form_is_not_pinned():
    with pytest.raises(AnalysisError, match="pinned 'b': kaplan can pin E, a, k"):
        fit("kaplan", noiseless(form_named("kaplan"), TRUTH["kaplan"]), pinned={"b": 0.5})
