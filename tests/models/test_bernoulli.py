"""The Bernoulli process against products of its one-step transition matrices, in float64."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.models.bernoulli import BernoulliProcess, balance_odds, class_balance

STEPS = 7
PROCESS = BernoulliProcess(STEPS)


def transitions(s, t):
    """P(x_t | x_s), rows x_s: one step is x -> beta x + (1 - beta) / 2, beta = 1 - 1/(T-t+1)."""
    product = np.eye(2)
    for time in range(s + 1, t + 1):
        beta = 1 - 1 / (STEPS - time + 1)
        product = product @ (beta * np.eye(2) + (1 - beta) / 2)
    return product


def posterior(x_t, prior, t, s):
    """P(x_s = 1 | x_t) and P(x_0 = 1 | x_t) by Bayes' rule over all (x_0, x_s)."""
    joint = np.array([1 - prior, prior])[:, None] * transitions(0, s) * transitions(s, t)[:, x_t]
    joint = joint / joint.sum()
    return joint[:, 1].sum(), joint[1].sum()


def test_the_marginal_is_the_product_of_the_steps():
    for t in range(STEPS + 1):
        expected = transitions(0, t)
        assert PROCESS.flip(t) == pytest.approx(expected[0, 1], abs=1e-12)
        uniform = (np.arange(10_000) + 0.5) / 10_000
        for x0 in (0, 1):
            share = PROCESS.noised(np.full(10_000, x0), t, uniform).mean()
            assert share == pytest.approx(expected[x0, 1], abs=1e-4)


def test_no_bit_flips_at_time_zero_and_all_are_coins_at_the_last():
    edges = np.array([0.0, 1 - 2**-24], np.float32)
    for x0 in (0.0, 1.0):
        np.testing.assert_array_equal(PROCESS.noised(np.full(2, x0), 0, edges), x0)
    assert PROCESS.flip(STEPS) == 0.5


def test_the_posterior_is_bayes_rule():
    cases = [
        (x_t, prior, t, s)
        for t in range(1, STEPS + 1)
        for s in range(t)
        for x_t, prior in itertools.product((0, 1), (0.0, 0.1, 0.5, 0.8, 1.0))
    ]
    expected, given = np.array([posterior(*case) for case in cases]).T
    x_t, _, t, s = np.array(cases).T
    np.testing.assert_allclose(PROCESS.posterior(x_t, given, t, s), expected, atol=1e-12)
    single = PROCESS.posterior(*(jnp.asarray(v, jnp.float32) for v in (x_t, given, t, s)))
    np.testing.assert_allclose(single, expected, atol=2e-6)


def test_going_back_in_two_legs_is_going_back_in_one():
    prior, t, middle, s = 0.3, 6, 4, 1
    for x_t in (0, 1):
        given = posterior(x_t, prior, t, 0)[1]
        at_middle = PROCESS.posterior(np.array(x_t), given, t, middle)
        legs = sum(
            p * PROCESS.posterior(np.array(x), posterior(x, prior, middle, 0)[1], middle, s)
            for x, p in ((0, 1 - at_middle), (1, at_middle))
        )
        assert legs == pytest.approx(PROCESS.posterior(np.array(x_t), given, t, s), abs=1e-12)


def test_the_times_of_a_chain_start_at_the_last_and_end_with_the_step_from_one():
    every = PROCESS.times(0)
    np.testing.assert_array_equal(every.start, np.arange(STEPS, 0, -1))
    np.testing.assert_array_equal(every.end, np.arange(STEPS - 1, -1, -1))
    np.testing.assert_array_equal(PROCESS.times(1).start, [STEPS])
    np.testing.assert_array_equal(PROCESS.times(1).end, [0])
    few = BernoulliProcess(256).times(100)
    assert (few.start[0], few.start[-1], few.end[-1]) == (256, 1, 0)
    np.testing.assert_array_equal(few.start[1:], few.end[:-1])
    assert set(few.start - few.end) <= {1, 2, 3}


@pytest.mark.parametrize("count", [-1, STEPS + 1])
def test_more_steps_than_there_are_is_refused(count):
    with pytest.raises(LabError, match="sample.steps"):
        PROCESS.times(count)


def test_a_process_of_one_step_is_refused():
    with pytest.raises(LabError, match="diffusion_steps"):
        BernoulliProcess(1)


def test_the_balance_weighs_ones_as_much_as_zeros():
    y = np.array([[0, 0, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0]])
    expected = [[0.5, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 0.5], [0.25] * 4]
    np.testing.assert_allclose(class_balance(y), expected)


@pytest.mark.parametrize("rate", [0.002, 0.1, 0.5])
def test_the_balance_raises_the_odds_by_its_factor(rate):
    """Enumerate the other bits: the weighted cross-entropy is least where its slope is zero."""
    bits, chance = 5, 0.2
    weight = {0: 0.0, 1: 0.0}
    for others in itertools.product((0, 1), repeat=bits - 1):
        p = np.prod([rate if bit else 1 - rate for bit in others])
        for y in (0, 1):
            weight[y] += p * class_balance(np.array([[y, *others]]))[0, 0]
    odds = chance * weight[1] / ((1 - chance) * weight[0])
    assert odds == pytest.approx(chance / (1 - chance) * balance_odds(rate, bits), rel=1e-12)
    assert balance_odds(rate, 1) == 1
