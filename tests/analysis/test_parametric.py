"""The parametric road against the closed form and against scipy, and its refusals by name."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

from analysis import AnalysisError, fit, from_frame
from analysis.frontier import Standing
from analysis.parametric import optima, parametric
from analysis.token_cost import Flops, TokenCost, token_cost
from tests.analysis.laws import COLUMNS, Truth, isoflop_table

BUDGETS = tuple(np.geomspace(1e18, 1e21, 6))
SIX = TokenCost(Flops.SIX_ND)
GRID = np.linspace(np.log(1e5), np.log(1e13), 200)


@dataclass(frozen=True)
class Known:
    """A law whose theta (B, 5) are E, log A, log B, a, b."""

    theta: np.ndarray = field(default_factory=lambda: np.empty(0))

    def predict(self, x, theta=None):
        theta = self.theta if theta is None else theta
        log_n, log_d = np.log(x).T
        e, a, b = theta[..., :1], theta[..., 3:4], theta[..., 4:5]
        return np.log(e + np.exp(theta[..., 1:2] - a * log_n) + np.exp(theta[..., 2:3] - b * log_d))


def theta_of(truth):
    return np.array([truth.E, np.log(truth.A), np.log(truth.B), truth.a, truth.b])


def law_of(theta, draws, *, variables=("N", "D"), refused=False):
    """What the road asks of a fit."""
    return SimpleNamespace(
        form=SimpleNamespace(formula="L(N, D)", variables=variables),
        status=SimpleNamespace(refused=refused, value="under-determined"),
        reason="one ray" if refused else "",
        estimate=Known(theta),
        draws=SimpleNamespace(theta=draws),
    )


def random_thetas(count):
    rng = np.random.default_rng(0)
    columns = [
        rng.uniform(0.5, 2.5, count), rng.uniform(4, 8, count), rng.uniform(5, 9, count),
        rng.uniform(0.2, 0.6, count), rng.uniform(0.2, 0.6, count),
    ]  # fmt: skip
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("budget", [1e17, 1e20, 1e23])
def test_minima_of_many_draws_are_the_closed_form(budget):
    """Hoffmann et al. 2022, equation 4."""
    theta = random_thetas(300)
    _, log_a, log_b, a, b = theta.T
    exact = (np.log(a / b) + log_a - log_b + b * np.log(budget / 6)) / (a + b)
    found = optima(Known(), theta, budget, SIX, np.linspace(exact.min() - 2, exact.max() + 2, 400))
    np.testing.assert_allclose(found.log_n, exact, atol=1e-6)
    assert found.share == 1.0


def test_the_road_of_a_separable_law_is_the_closed_form():
    truth, table = Truth(), isoflop_table(Truth(), BUDGETS)
    spread = theta_of(truth) + 0.01 * np.random.default_rng(0).standard_normal((400, 5))
    road = parametric(table, law_of(theta_of(truth), spread), targets=(1e20, 1e23), level=0.8)
    ratios = spread[:, 4] / (spread[:, 3] + spread[:, 4])
    slope = road.exponent_n
    assert slope.value == pytest.approx(truth.exponent, abs=1e-6)
    np.testing.assert_allclose([slope.low, slope.high], np.quantile(ratios, [0.1, 0.9]), atol=1e-6)
    assert road.exponent_d.value == pytest.approx(1 - truth.exponent, abs=1e-6)
    _, log_a, log_b, a, b = spread.T
    exact = (np.log(a / b) + log_a - log_b + b * np.log(1e20 / 6)) / (a + b)
    n = road.places[0].require().parameters
    np.testing.assert_allclose([n.low, n.high], np.exp(np.quantile(exact, [0.1, 0.9])), rtol=1e-5)
    for place in road.places:
        best, n = place.require(), truth.best_n(place.budget_flops)
        assert best.parameters.value == pytest.approx(n, rel=1e-6)
        assert best.tokens.value == pytest.approx(place.budget_flops / 6 / n, rel=1e-6)
        assert best.tokens_per_parameter.value == pytest.approx(
            place.budget_flops / 6 / n**2, rel=1e-6
        )
    assert [place.standing for place in road.places] == [Standing.FOUND, Standing.EXTRAPOLATED]


def test_an_optimum_beyond_the_sizes_of_the_data_is_extrapolated_at_any_budget():
    truth, table = Truth(A=20.0), isoflop_table(Truth(), BUDGETS)
    draws = np.tile(theta_of(truth), (10, 1))
    (place,) = parametric(table, law_of(theta_of(truth), draws), targets=(1e18,)).places
    assert place.standing is Standing.EXTRAPOLATED and "beyond the data" in place.reason
    smallest = table.variable("N").min()
    assert place.distance == pytest.approx(smallest / truth.best_n(1e18), rel=1e-5)


def test_a_fit_of_exact_runs_gives_the_frontier_of_their_law():
    truth = Truth()
    law = fit("separable", isoflop_table(truth, BUDGETS), draws=50)
    road = parametric(law.table, law, targets=(1e22,))
    assert road.exponent_n.value == pytest.approx(truth.exponent, rel=1e-4)
    assert road.places[0].require().parameters.value == pytest.approx(truth.best_n(1e22), rel=1e-3)


def test_counted_flops_are_minimised_as_scipy_minimises_them():
    truth, budget = Truth(), 1e20
    cost = TokenCost(Flops.COUNTED, a=6.0, b=9.0, log_center=np.log(1e9), least=0.1)

    def loss(log_n):
        n = np.exp(log_n)
        return truth.loss(n, budget / n / (6 + 9 * np.sqrt(1e9 / n)))

    exact = minimize_scalar(loss, bounds=(15, 27), method="bounded", options={"xatol": 1e-9}).x
    found = optima(Known(), theta_of(truth)[None], budget, cost, GRID)
    assert found.log_n[0] == pytest.approx(exact, abs=1e-5)
    assert found.log_n[0] != pytest.approx(np.log(truth.best_n(budget)), abs=0.01)


def test_the_counted_cost_of_a_token_is_read_from_the_runs():
    n = np.geomspace(1e6, 1e9, 6)
    d, c = 1e9 * np.ones(6), (6 + 40 * np.sqrt(1e6 / n)) * n * 1e9
    table = from_frame(pd.DataFrame({"N": n, "D": d, "C": c, "loss": 3.0}), columns=COLUMNS)
    cost = token_cost(table, Flops.COUNTED)
    np.testing.assert_allclose(cost.per_parameter(np.log(n)) * n * d, c, rtol=1e-9)
    assert cost.misfit < 1e-9
    step = 1e-6
    slope = np.log(cost.per_parameter(np.log(n) + step) / cost.per_parameter(np.log(n))) / step
    np.testing.assert_allclose(cost.slope(np.log(n)), slope, atol=1e-5)
    assert token_cost(table, Flops.SIX_ND).per_parameter(np.log(n)) == pytest.approx(6.0)


def refused(law, standing, word):
    road = parametric(isoflop_table(Truth(), BUDGETS), law, targets=(1e20,))
    assert road.standing is standing and word in road.reason
    assert road.frontier is None and road.places == ()
    with pytest.raises(AnalysisError, match=standing.value):
        road.exponent_n  # noqa: B018


def test_refused_laws_and_laws_of_other_variables_give_no_frontier():
    theta = theta_of(Truth())
    draws = np.tile(theta, (10, 1))
    refused(law_of(theta, draws, refused=True), Standing.NO_LAW, "under-determined: one ray")
    refused(law_of(theta, draws, variables=("N",)), Standing.NO_LAW, "N and D")
    refused(law_of(theta, draws[:0]), Standing.NO_LAW, "certified")


def test_a_law_that_falls_for_ever_with_size_has_no_minimum():
    theta = theta_of(Truth(B=1e-30))
    draws = np.tile(theta, (10, 1))
    refused(law_of(theta, draws), Standing.NO_INTERIOR_MINIMUM, "no minimum over N")
    sound = theta_of(Truth())
    refused(law_of(sound, draws), Standing.NO_INTERIOR_MINIMUM, "100% of the draws")


def test_one_ray_of_runs_is_refused_by_the_fit_and_so_by_the_road():
    n = np.geomspace(1e7, 1e9, 8)
    runs = {"N": n, "D": 20 * n, "C": 120 * n**2, "loss": Truth().loss(n, 20 * n)}
    table = from_frame(pd.DataFrame(runs), columns=COLUMNS)
    road = parametric(table, fit("separable", table), targets=(1e20,))
    assert road.standing is Standing.NO_LAW and "ray" in road.reason
