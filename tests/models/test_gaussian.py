"""The Gaussian process against one-step kernels, Bayes' rule and integrals, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.stats import norm

from lab.core.errors import LabError
from lab.models.gaussian import (
    GaussianProcess,
    Predicted,
    level_nats,
    split,
    to_numbers,
)
from tests.models.mixture import Mixture

CASES = [("linear", 1000), ("cosine", 1000), ("linear", 30), ("cosine", 30)]
SCHEDULES = ["linear", "cosine"]
MIXTURE = Mixture()


def betas(schedule, steps):
    """Straight from the papers: Ho et al. 2020, section 4; Nichol & Dhariwal 2021, equation 17."""
    if schedule == "linear":
        return np.minimum(
            [(1e-4 + 0.0199 * i / (steps - 1)) * 1000 / steps for i in range(steps)], 1
        )

    def level(t):
        return math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array([min(1 - level(t + 1) / level(t), 0.999) for t in range(steps)])


def kernel(schedule, steps, s, t):
    """(factor, variance) of x_t given x_s: one step is x -> sqrt(1 - beta) x + sqrt(beta) e."""
    factor, variance = 1.0, 0.0
    for beta in betas(schedule, steps)[s:t]:
        factor, variance = factor * math.sqrt(1 - beta), variance * (1 - beta) + beta
    return factor, variance


def bayes(schedule, steps, s, t, x0, x_t):
    """Mean and variance of q(x_s | x_t, x_0): the product of two Gaussians in x_s."""
    (early, early_variance), (late, late_variance) = (
        kernel(schedule, steps, 0, s),
        kernel(schedule, steps, s, t),
    )
    precision = 1 / early_variance + late**2 / late_variance
    return (early * x0 / early_variance + late * x_t / late_variance) / precision, 1 / precision


def times_of(steps):
    return sorted({1, 2, 3, steps // 3, steps // 2, steps - 1, steps})


@pytest.mark.parametrize(("schedule", "steps"), CASES)
def test_the_marginal_is_the_product_of_the_steps(schedule, steps):
    process = GaussianProcess(steps, schedule)
    one = np.ones(1, np.float32)
    for t in times_of(steps):
        factor, variance = kernel(schedule, steps, 0, t)
        signal = process.noised(one, np.array([t]), 0 * one)
        noise = process.noised(0 * one, np.array([t]), one)
        np.testing.assert_allclose(signal, factor, rtol=1e-5)
        np.testing.assert_allclose(noise, math.sqrt(variance), rtol=1e-5)


@pytest.mark.parametrize(("schedule", "steps"), CASES)
def test_the_posterior_is_bayes_rule(schedule, steps):
    process = GaussianProcess(steps, schedule)
    for t in times_of(steps)[1:]:
        factor, variance = kernel(schedule, steps, 0, t)
        x0, e = np.array([-0.7, 1.2, 0.1]), np.array([0.3, -1.8, 0.9])
        x_t = factor * x0 + math.sqrt(variance) * e
        mean, expected = bayes(schedule, steps, t - 1, t, x0, x_t)
        # e from x_t as float32 has it: at the last times x_0 is in its last digits.
        found = process.posterior(np.float32(x_t), np.float32(e), t)
        amplified = 2e-6 * (1 + 1 / math.sqrt(1 - betas(schedule, steps)[t - 1]))
        np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=amplified)
        np.testing.assert_allclose(found.log_variance, math.log(expected), rtol=1e-5, atol=1e-6)


def test_the_variance_goes_from_the_posteriors_to_beta():
    process = GaussianProcess(30, "cosine")
    x, zero = np.zeros(2, np.float32), np.zeros(2, np.float32)
    for t in (2, 11, 30):
        beta = betas("cosine", 30)[t - 1]
        least = bayes("cosine", 30, t - 1, t, 0.0, 0.0)[1]
        found = process.back(x, Predicted(zero, np.float32([0, 1])), t).log_variance
        np.testing.assert_allclose(found, np.log([least, beta]), rtol=1e-5)
        middle = process.back(x, Predicted(zero, np.float32([0.25, 0.25])), t).log_variance
        np.testing.assert_allclose(
            middle, 0.25 * math.log(beta) + 0.75 * math.log(least), rtol=1e-5
        )
    # x_0 itself has no posterior variance: that of t = 2 stands in.
    second = bayes("cosine", 30, 1, 2, 0.0, 0.0)[1]
    np.testing.assert_allclose(process.posterior(x, zero, 1).log_variance, math.log(second), 1e-5)


@pytest.mark.parametrize(
    ("schedule", "kept"),
    [
        ("linear", [0, 1, 18, 34, 50, 67, 84, 100]),  # 0 to 99 in six parts, to the nearest even
        ("cosine", [0, 1, 17, 34, 50, 66, 83, 99]),  # the last beta is capped
    ],
)
def test_a_respaced_process_has_the_kernels_between_kept_steps(schedule, kept):
    process = GaussianProcess(100, schedule).respaced(7)
    assert process.kept == tuple(kept[1:])
    assert process.length == 7
    np.testing.assert_array_equal(process.network_time(jnp.arange(1, 8)), np.array(kept[1:]) - 1)
    x0, e = np.array([-0.4]), np.array([1.1])
    for t in range(2, 8):
        factor, variance = kernel(schedule, 100, 0, kept[t])
        x_t = factor * x0 + math.sqrt(variance) * e
        np.testing.assert_allclose(process.noised(x0, t, e), x_t, rtol=1e-5)
        mean, expected = bayes(schedule, 100, kept[t - 1], kept[t], x0, x_t)
        found = process.posterior(np.float32(x_t), np.float32(e), t)
        np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(found.log_variance, math.log(expected), rtol=1e-5)


def test_respacing_to_all_steps_is_the_process_itself():
    process = GaussianProcess(40, "linear")
    assert process.respaced(0) == process.respaced(40) == process
    assert process.respaced(1).kept == (40,)
    assert process.respaced(39).kept is not None
    np.testing.assert_array_equal(process.network_time(jnp.arange(1, 41)), np.arange(40))


def test_a_chain_starts_before_a_capped_beta():
    process = GaussianProcess(1000, "cosine")
    chain = process.respaced(0)
    assert (process.last, chain.length) == (999, 999)
    assert chain == process.respaced(999) == process.respaced(1000)
    np.testing.assert_array_equal(chain.tables.growth, process.tables.growth[:-1])
    assert float(chain.prior_nats(np.float32(2.0))) < 1e-5
    # Of few steps the one before the last is not noise alone.
    assert GaussianProcess(5, "cosine").last == 5
    assert GaussianProcess(1000, "linear").last == 1000


def test_what_is_not_allowed_is_refused():
    with pytest.raises(LabError, match="diffusion_steps"):
        GaussianProcess(1, "linear")
    with pytest.raises(LabError, match="diffusion_schedule: quartic"):
        GaussianProcess(10, "quartic")
    for count in (-1, 11):
        with pytest.raises(LabError, match="sample.steps"):
            GaussianProcess(10, "cosine").respaced(count)


@pytest.mark.parametrize(("schedule", "steps"), CASES)
def test_the_terms_of_the_bound_are_divergences_of_gaussians(schedule, steps):
    """KL by its formula from means and variances; at t = 1 minus the log density of x_0."""
    process = GaussianProcess(steps, schedule)
    rng = np.random.default_rng(0)
    x0, e, guess = rng.normal(size=(3, 50))
    guess = e + 0.1 * guess
    blend = rng.uniform(-0.5, 1.5, size=50)  # what a network gives is not limited to [0, 1]
    second = bayes(schedule, steps, 1, 2, 0.0, 0.0)[1]
    for t in times_of(steps):
        factor, variance = kernel(schedule, steps, 0, t)
        beta, x_t = betas(schedule, steps)[t - 1], factor * x0 + math.sqrt(variance) * e
        x0_guess = (x_t - math.sqrt(variance) * guess) / factor
        if t > 1:
            mean, true = bayes(schedule, steps, t - 1, t, x0, x_t)
            mean_guess, _ = bayes(schedule, steps, t - 1, t, x0_guess, x_t)
            mine = np.exp(blend * math.log(beta) + (1 - blend) * math.log(true))
            expected = (np.log(mine / true) + (true + (mean - mean_guess) ** 2) / mine - 1) / 2
        else:
            mine = np.exp(blend * math.log(beta) + (1 - blend) * math.log(second))
            expected = -norm.logpdf(x0, x0_guess, np.sqrt(mine))
        found = process.step_nats(
            Predicted(np.float32(guess), np.float32(blend)),
            np.float32(e),
            np.float32(x0),
            t,
            levels=0,
        )
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-6)


def test_the_prior_is_a_divergence_from_the_standard_normal():
    x0 = np.array([-1.0, 0.0, 2.5])
    for schedule in SCHEDULES:
        factor, variance = kernel(schedule, 30, 0, 30)
        expected = ((factor * x0) ** 2 + variance - math.log(variance) - 1) / 2
        found = GaussianProcess(30, schedule).prior_nats(np.float32(x0))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("sigma", [1e-3, 0.02, 0.5, 10.0])
def test_the_probabilities_of_the_levels_sum_to_one(levels, sigma):
    x0 = to_numbers(jnp.arange(levels), levels=levels)
    for mean in (-1.7, -1.0, -0.013, 0.4, 0.999, 3.0):
        nats = level_nats(x0 - mean, jnp.full(levels, 2 * math.log(sigma)), x0, levels=levels)
        assert np.exp(-np.float64(nats)).sum() == pytest.approx(1, abs=2e-4)
        edges = np.linspace(-1, 1, levels + 1) * levels / (levels - 1)
        edges[0], edges[-1] = -np.inf, np.inf
        below, above = (of(edges, mean, sigma) for of in (norm.cdf, norm.sf))
        # Each tail has its digits where it is small.
        expected = np.where(x0 < mean, np.diff(below), -np.diff(above))
        seen = expected > 1e-30
        np.testing.assert_allclose(nats[seen], -np.log(expected[seen]), rtol=2e-3, atol=2e-4)


def test_level_nats_are_finite_far_away_and_so_are_their_gradients():
    x0 = to_numbers(jnp.array([0, 1, 128, 254, 255]), levels=256)
    for mean in (-40.0, 0.1, 40.0):
        for log_variance in (-14.0, 4.0):

            def total(off, logs):
                return jnp.sum(level_nats(off, logs, x0, levels=256))

            logs = jnp.full(5, log_variance)
            value, slopes = jax.value_and_grad(total, argnums=(0, 1))(x0 - mean, logs)
            assert np.isfinite(value)
            assert all(np.isfinite(slope).all() for slope in slopes)


def test_a_networks_output_is_noise_and_then_the_blend():
    predicted = split(jnp.array([[1.0, 2.0, -1.0, 1.0]]))
    np.testing.assert_array_equal(predicted.noise, [[1.0, 2.0]])
    np.testing.assert_array_equal(predicted.blend, [[0.0, 1.0]])


def test_the_loss_is_the_published_one_at_a_thousand_steps():
    """Squared error plus the term of the bound in bits; the bound moves the variance alone."""
    process = GaussianProcess(1000, "linear")
    e, guess, blend = np.float32([0.3, -1.0]), np.float32([0.1, -0.4]), np.float32([0.7, 0.2])
    x0, t = np.float32([0.5, -0.2]), 40

    def loss(guess, blend):
        return process.training_loss(Predicted(guess, blend), e, x0, t, levels=0)

    term = process.step_nats(Predicted(guess, blend), e, x0, t, levels=0)
    expected = (e - guess) ** 2 + np.float64(term) / math.log(2)
    np.testing.assert_allclose(loss(guess, blend), expected, rtol=1e-6)
    of_guess, of_blend = jax.grad(lambda *a: jnp.sum(loss(*a)), argnums=(0, 1))(guess, blend)
    np.testing.assert_allclose(of_guess, 2 * (guess - e), rtol=1e-5)
    assert np.all(np.abs(of_blend) > 1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_network_of_zeros_costs_what_knows_nothing_costs(schedule):
    process, x0 = GaussianProcess(200, schedule), jnp.full(60, 0.3)
    e, share = np.polynomial.hermite_e.hermegauss(60)
    zeros = Predicted(jnp.zeros(60), jnp.full(60, 0.5))

    def at(t):
        return process.training_loss(zeros, jnp.float32(e), x0, t, levels=0)

    loss = jax.lax.map(jax.jit(at), jnp.arange(1, 201))
    expected = np.mean(np.float64(loss) @ (share / share.sum()))
    assert process.uninformed == pytest.approx(expected, rel=1e-4)
    assert process.uninformed == pytest.approx({"linear": 1.01, "cosine": 1.73}[schedule], abs=0.01)


@pytest.mark.parametrize(("schedule", "steps"), CASES)
def test_drawn_times_weigh_each_time_once(schedule, steps):
    process, count = GaussianProcess(steps, schedule), 2_000_000
    share = (np.arange(count, dtype=np.float64) + 0.5) / count
    t, weight = jax.jit(process.drawn_times)(np.float32(share))
    summed = np.bincount(t, np.float64(weight), minlength=steps + 1) / count
    assert summed[0] == 0
    np.testing.assert_allclose(summed[1:], 1, atol=5e-3)
    edges = process.drawn_times(np.float32([0.0, 1.0]))
    np.testing.assert_array_equal(edges.t, [1, steps])


# The exact denoiser of a mixture: what a perfect network would do.


def bound(process, mixture, *, blend, levels=0, points=400):
    """The bound in nats, integrated over x_0 and e, of a network that knows E[e | x_t]."""
    if levels:
        x0, mass = np.array(mixture.means), np.array(mixture.weights)
    else:
        x0 = np.linspace(-4, 4, points)
        mass = mixture.density(x0)
        mass = mass / mass.sum()
    e, share = np.polynomial.hermite_e.hermegauss(60)
    grid_x0, grid_e = (jnp.asarray(a, jnp.float32) for a in np.meshgrid(x0, e, indexing="ij"))
    weight = jnp.asarray(mass[:, None] * share / share.sum(), jnp.float32)
    tables = process.tables
    signals, noises = (jnp.asarray(a, jnp.float32) for a in (tables.signal, tables.noise))

    @jax.jit
    def term(t):
        x_t = process.noised(grid_x0, t, grid_e)
        known = mixture.noise_given(x_t, signals[t], noises[t], xp=jnp)
        predicted = Predicted(known, jnp.full(known.shape, blend))
        return jnp.sum(weight * process.step_nats(predicted, grid_e, grid_x0, t, levels=levels))

    terms = jax.lax.map(term, jnp.arange(1, process.length + 1))
    prior = jnp.sum(jnp.asarray(mass) * process.prior_nats(jnp.float32(x0)))
    return float(np.float64(terms).sum() + prior)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_bound_of_the_exact_denoiser_closes_on_the_entropy(schedule):
    truth = MIXTURE.entropy()
    few, many = (bound(GaussianProcess(n, schedule), MIXTURE, blend=1.0) for n in (50, 400))
    assert truth < many < few
    assert many - truth < 0.02
    assert few - truth > 2 * (many - truth)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_variance_outside_its_range_loosens_the_bound(schedule):
    truth, process = MIXTURE.entropy(), GaussianProcess(100, schedule)
    below, low, high, above = (bound(process, MIXTURE, blend=v) for v in (-2.0, 0.0, 1.0, 3.0))
    assert truth < high < above
    assert truth < low < below


def test_the_bound_of_levels_closes_on_their_entropy():
    codes = Mixture((0.1, 0.2, 0.3, 0.25, 0.15), tuple(np.linspace(-1, 1, 5)), (0.0,) * 5)
    truth = -sum(w * math.log(w) for w in codes.weights)
    few, many = (bound(GaussianProcess(n, "cosine"), codes, blend=0.0, levels=5) for n in (50, 400))
    assert truth < many < few
    assert many - truth < 0.05
    assert few - truth > 5 * (many - truth)


def run(process, mixture, x, kind, *, key=None):
    """From x_T (N,) to x_0 with the exact denoiser."""
    tables = process.tables
    signals, noises = (jnp.asarray(a, jnp.float32) for a in (tables.signal, tables.noise))

    def known(x, t):
        return mixture.noise_given(x, signals[t], noises[t], xp=jnp)

    def step(x, t):
        noise = known(x, t)
        if kind == "ancestral":
            drawn = jax.random.normal(jax.random.fold_in(key, t), x.shape)
            return process.ancestral(x, Predicted(noise, jnp.ones_like(x)), t, drawn), None
        ahead = process.ddim(x, noise, t)
        if kind == "ddim":
            return ahead, None
        early = jnp.maximum(t - 1, 1)
        return process.heun(x, noise, ahead, known(ahead, early), t), None

    chain = jax.jit(lambda x: jax.lax.scan(step, x, jnp.arange(process.length, 0, -1))[0])
    return np.float64(chain(jnp.asarray(x, jnp.float32)))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ancestral_draws_have_the_distribution(schedule):
    process = GaussianProcess(400, schedule).respaced(200)
    start = jax.random.normal(jax.random.key(1), (4000,))
    drawn = run(process, MIXTURE, start, "ancestral", key=jax.random.key(2))
    assert scipy.stats.kstest(drawn, MIXTURE.below).pvalue > 1e-3
    other = Mixture((0.36, 0.64), MIXTURE.means, MIXTURE.stds)
    assert scipy.stats.kstest(drawn, other.below).pvalue < 1e-3


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_flow_keeps_quantiles_and_heun_follows_it_closer(schedule):
    """In one dimension the exact flow takes x_T to the x_0 with the same mass below it."""
    share = np.linspace(0.02, 0.98, 49)
    process, truth = GaussianProcess(1000, schedule), MIXTURE.quantile(share)
    end = process.respaced(0).tables
    start = MIXTURE.noised(end.signal[-1], end.noise[-1]).quantile(share)
    error = {
        (kind, n): np.abs(run(process.respaced(n), MIXTURE, start, kind) - truth).mean()
        for kind, n in (("ddim", 20), ("ddim", 200), ("heun", 20), ("heun", 200))
    }
    assert error["heun", 20] < error["ddim", 20] / 4
    assert error["ddim", 200] < error["ddim", 20] / 5  # first order
    assert error["heun", 200] < error["heun", 20] / 50  # second
    assert error["heun", 200] < 3e-4


def test_both_steps_are_exact_where_the_data_are_a_point():
    """Then x_0 and e stay the same all the way: however few the steps."""
    point = Mixture((1.0,), (0.8,), (0.0,))
    process = GaussianProcess(1000, "cosine").respaced(5)
    x = np.float32([-1.0, 0.2, 1.7])
    for t in (2, 3, 4):
        signal, noise = process.tables.signal[t], process.tables.noise[t]
        e = point.noise_given(x, signal, noise)
        ahead = process.ddim(x, np.float32(e), t)
        expected = process.noised(np.full(3, 0.8), t - 1, e)
        np.testing.assert_allclose(ahead, expected, rtol=1e-5)
        later = point.noise_given(
            np.float64(ahead), process.tables.signal[t - 1], process.tables.noise[t - 1]
        )
        heun = process.heun(x, np.float32(e), ahead, np.float32(later), t)
        np.testing.assert_allclose(heun, expected, rtol=2e-5)
