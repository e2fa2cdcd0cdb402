"""How a measurement narrows a forecast: Bayesian regression, block Gaussians and brute force."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from analysis.belief import (
    Belief,
    best_portfolio,
    conditioned,
    gains,
    greedy,
    reweighted,
    variance_after,
)
from analysis.drift import Walk, rate_of
from analysis.origins import ForwardError


def linear_belief(rng, *, runs=12, candidates=6, parameters=3, drift=None):
    """A linear law with a flat prior: exact posterior by sigma points, and the design matrices."""
    sd = 0.02
    design = rng.standard_normal((runs, parameters))
    ahead = rng.standard_normal((1 + candidates, parameters)) * 3
    posterior = sd**2 * np.linalg.inv(design.T @ design)
    root = np.linalg.cholesky(posterior) * np.sqrt(parameters)
    theta = rng.standard_normal(parameters) + np.concatenate([root.T, -root.T])
    none = np.zeros(1 + candidates)
    belief = Belief(
        theta @ ahead.T, np.ones(2 * parameters), none + sd, none if drift is None else drift
    )
    return belief, design, ahead, sd


def regression_variance(design, ahead, sd, runs):
    """Bayesian linear regression with the runs added: variance of the law at the target."""
    rows = np.concatenate([design, ahead[list(runs)]])
    return sd**2 * ahead[0] @ np.linalg.solve(rows.T @ rows, ahead[0])


@pytest.mark.parametrize("seed", range(3))
def test_expected_narrowing_of_a_linear_law_is_that_of_bayesian_regression(seed):
    belief, design, ahead, sd = linear_belief(np.random.default_rng(seed))
    before = regression_variance(design, ahead, sd, [])
    gain = gains(belief.covariance, belief.noise_variance)
    for run in range(1, 7):
        after = regression_variance(design, ahead, sd, [run])
        assert gain[run] == pytest.approx(before - after, rel=1e-9)
    for runs in ((1, 2, 3), (4, 4, 4, 1), (6,)):
        exact = regression_variance(design, ahead, sd, runs)
        assert variance_after(belief, runs) == pytest.approx(exact, rel=1e-9)


def test_drift_is_a_random_walk_and_runs_on_the_way_measure_a_part_of_it():
    rng = np.random.default_rng(3)
    drift = np.array([0.05, 0.0, 0.01, 0.02, 0.03, 0.04, 0.05])
    belief, design, ahead, sd = linear_belief(rng, drift=drift)
    posterior = sd**2 * np.linalg.inv(design.T @ design)
    full = ahead @ posterior @ ahead.T + np.minimum.outer(drift**2, drift**2)
    runs = [2, 5, 5]
    seen = full[np.ix_(runs, runs)] + sd**2 * np.eye(3)
    exact = full[0, 0] - full[0, runs] @ np.linalg.solve(seen, full[runs, 0])
    assert variance_after(belief, runs) == pytest.approx(exact, rel=1e-9)
    flat = Belief(np.zeros((2, 7)), np.ones(2), belief.noise_sd, drift)
    assert np.argmax(gains(flat.covariance, flat.noise_variance)[1:]) == 5  # the farthest


def test_reweighting_the_draws_agrees_with_the_gaussian_where_the_law_is_linear():
    rng = np.random.default_rng(4)
    sigma, design, ahead, sd = linear_belief(rng, parameters=2)
    posterior = sd**2 * np.linalg.inv(design.T @ design)
    theta = rng.multivariate_normal(np.zeros(2), posterior, size=4000)
    belief = Belief(theta @ ahead.T, np.ones(4000), sigma.noise_sd, sigma.drift_sd)
    found = reweighted(belief, [2], 0.9, outcomes=300)
    after = regression_variance(design, ahead, sd, [2])
    width = 2 * NormalDist().inv_cdf(0.95) * math.sqrt(after + sd**2)
    assert found.trusted
    assert found.width_log == pytest.approx(width, rel=0.03)
    low, high = belief.quantiles(0.9)
    before = math.sqrt(regression_variance(design, ahead, sd, []) + sd**2)
    assert high - low == pytest.approx(2 * NormalDist().inv_cdf(0.95) * before, rel=0.04)


def test_runs_that_tell_two_laws_apart_rank_first():
    """Two laws without spread of their own: half a gap apart from their mean, weights 1 and 3."""
    gap = np.array([0.1, 0.0, 0.02, 0.06])
    laws = np.concatenate([np.zeros((100, 4)), np.tile(gap, (100, 1))])
    weight = np.repeat([0.25 / 100, 0.75 / 100], 100)
    noise = np.full(4, 0.004)
    belief = Belief(laws, weight, noise, np.zeros(4))
    variance = 0.25 * 0.75 * gap**2
    exact = 0.25 * 0.75 * gap[0] * gap
    exact = exact**2 / (variance + noise**2)
    np.testing.assert_allclose(gains(belief.covariance, noise**2), exact, atol=1e-18)
    after = reweighted(belief, [3], 0.9)
    alone = 2 * NormalDist().inv_cdf(0.95) * 0.004
    assert after.width_log == pytest.approx(alone, rel=1e-6)  # one law is left
    same = reweighted(belief, [1], 0.9)
    assert same.width_log > 0.1  # nothing was learned


def test_an_outcome_does_not_vouch_for_the_draw_that_it_came_from():
    """Of two draws the other one alone is left, however near they are."""
    belief = Belief(np.array([[0.0, 0.0], [1.0, 0.01]]), np.ones(2), np.ones(2), np.zeros(2))
    found = reweighted(belief, [1], 0.9)
    assert found.effective_draws == 1.0 and not found.trusted
    assert found.width_log == pytest.approx(2 * NormalDist().inv_cdf(0.95), rel=1e-6)


def test_portfolios_stay_in_the_budget_and_come_near_the_best_of_all():
    rng = np.random.default_rng(5)
    shares = []
    for _ in range(20):
        belief, *_ = linear_belief(rng, candidates=7)
        cost = np.concatenate([[np.inf], np.exp(rng.uniform(0, 2, 7))])
        chosen = best_portfolio(belief, cost, 8.0, most=3)
        assert (
            0 < len(set(chosen)) == len(chosen) <= 3
            and cost[list(chosen)].sum() <= 8.0
            and 0 not in chosen
        )
        every = [
            runs
            for count in (1, 2, 3)
            for runs in itertools.combinations(range(1, 8), count)
            if cost[list(runs)].sum() <= 8.0
        ]
        before = belief.covariance[0, 0]
        best = min(variance_after(belief, runs) for runs in every)
        shares.append((before - variance_after(belief, chosen)) / (before - best))
    assert np.mean(shares) > 0.95 and min(shares) > 1 - 1 / math.e


def test_conditioning_does_not_depend_on_the_order_and_costs_decide_the_choice():
    belief, *_ = linear_belief(np.random.default_rng(6))
    one = conditioned(
        conditioned(belief.covariance, 1, belief.noise_variance), 4, belief.noise_sd**2
    )
    two = conditioned(
        conditioned(belief.covariance, 4, belief.noise_variance), 1, belief.noise_sd**2
    )
    np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-15)
    cost = np.concatenate([[np.inf], np.full(6, 5.0)])
    assert greedy(belief, cost, 4.9, most=3, per_cost=True) == ()
    assert len(greedy(belief, cost, 10.0, most=3, per_cost=True)) == 2
    cheap = cost.copy()
    cheap[3] = 1e-6
    assert greedy(belief, cheap, 10.0, most=1, per_cost=True) == (3,)


def test_the_walk_is_the_excess_of_the_forward_errors_over_log_distance():
    errors = (
        ForwardError("a", 8, math.e, 0.05, 0.03),
        ForwardError("b", 8, math.e**3, -0.13, 0.05),
    )
    rate = (0.05**2 - 0.03**2 + 0.13**2 - 0.05**2) / 4
    assert rate_of(errors) == pytest.approx(rate, rel=1e-12)
    assert rate_of((ForwardError("a", 8, 3.0, 0.01, 0.03),)) == 0.0
    assert rate_of(()) == 0.0
    x = np.array([[2.0, 5.0], [10.0, math.e], [1.0, 1.0]])
    np.testing.assert_allclose(Walk(0.04, 10.0)(x), [0.0, 0.2, 0.0], atol=1e-12)
