"""The Gaussian diffusion head against sums over all times in float64, and on a known mixture."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lab.core.errors import LabError
from lab.layers.parameters import Init
from lab.models.drawing import Drawing
from lab.models.gaussian_head import GaussianDiffusionHead
from lab.models.objective import Likelihood
from tests.models.mixture import Mixture
from tests.models.test_gaussian import bayes, betas, bound, kernel
from tests.models.worlds import drawn

CHANNELS, WIDTH, POSITIONS, STEPS = 2, 8, 3, 5
MIXTURE = Mixture()


def head(
    key,
    *,
    steps=STEPS,
    positions=POSITIONS,
    channels=CHANNELS,
    repeats=2,
    norm="layer",
    width=16,
):
    return GaussianDiffusionHead(
        key,
        channels=channels,
        width=WIDTH,
        positions=positions,
        depth=1,
        denoiser_width=width,
        steps=steps,
        schedule="cosine",
        repeats=repeats,
        norm=norm,
        norm_epsilon=1e-6,
        init=Init(rule="mup", std=1.0),
    )


def moved(make, size):
    """What `make` gives of a key, every parameter drawn anew: nothing is zero or one any more.

    NumPy draws: XLA on CPU compiles each draw of its own, which takes seconds.
    """
    rng = np.random.default_rng(7)
    shapes = jax.eval_shape(make, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, size, x.shape), x.dtype), shapes)


def shaken(size=0.3, **settings):
    """A head of which every parameter counts."""
    return moved(lambda key: head(key, **settings), size)


class Oracle:
    """In place of the network: E[e | x_t] of a mixture, and the largest variance."""

    def __init__(self, process, mixture):
        self.process, self.mixture = process, mixture

    def __call__(self, x_NC, time_N, z_NC, placed=None):
        signal, noise = (
            jnp.asarray(table, jnp.float32)[time_N + 1][:, None, None]
            for table in (self.process.tables.signal, self.process.tables.noise)
        )
        known = self.mixture.noise_given(x_NC, signal, noise, xp=jnp)
        return jnp.concatenate([known, jnp.ones_like(known)], axis=-1)


def knowing(**settings):
    """A head whose network is the oracle."""
    made = shaken(channels=1, **settings)
    made.network = Oracle(made.process, MIXTURE)
    return made


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def features(images, seed=3, positions=POSITIONS):
    return jax.random.normal(jax.random.key(seed), (images, positions, WIDTH))


def latents(images, seed=4, positions=POSITIONS, channels=CHANNELS):
    return jax.random.normal(jax.random.key(seed), (images, positions, channels))


def reference(made, x_TD, x0_TC, *, draws=4000):
    """Of each (t, draw): squared errors and terms of the bound (T, n, positions, C) in float64."""
    rng, tables = np.random.default_rng(1), []
    run = jax.jit(made.network)
    z = np.repeat(np.asarray(jax.jit(made.condition)(x_TD[None])), draws, axis=0).reshape(-1, WIDTH)
    x0 = np.float64(x0_TC)[None]
    for t in range(1, STEPS + 1):
        factor, variance = kernel("cosine", STEPS, 0, t)
        e = rng.normal(size=(draws, *x0_TC.shape))
        x_t = factor * x0 + math.sqrt(variance) * e
        rows = jnp.float32(x_t.reshape(-1, CHANNELS))
        out = np.float64(run(rows, jnp.full(len(rows), t - 1), z)).reshape(*e.shape[:2], -1)
        guess, blend = out[..., :CHANNELS], (out[..., CHANNELS:] + 1) / 2
        beta = betas("cosine", STEPS)[t - 1]
        true = bayes("cosine", STEPS, max(t, 2) - 1, max(t, 2), 0.0, 0.0)[1]
        mine = np.exp(blend * math.log(beta) + (1 - blend) * math.log(true))
        off = (e - guess) * beta / math.sqrt((1 - beta) * variance)
        if t > 1:
            term = (np.log(mine / true) + (true + off**2) / mine - 1) / 2
        else:
            term = (np.log(2 * math.pi * mine) + off**2 / mine) / 2
        tables.append((np.square(e - guess), term))
    return np.array([squares for squares, _ in tables]), np.array([terms for _, terms in tables])


def agree(found_NT, expected_TnT):
    """Whether the mean of draws is the mean over times of the mean of reference draws."""
    expected = expected_TnT.mean(axis=(0, 1))
    errors = expected_TnT.var(axis=1).mean(axis=0) / expected_TnT[0].shape[0] / len(expected_TnT)
    error = np.sqrt(found_NT.var(axis=0) / len(found_NT) + errors)
    return np.abs(found_NT.mean(axis=0) - expected) < 4 * error


@pytest.fixture(scope="module")
def small():
    """A head, an image, draws of loss and nats, and the reference."""
    made, x_TD, x0_TC = shaken(0.1), features(1)[0], latents(1)[0]
    images = 10_000
    x_BTD, x0_BTC = (jnp.broadcast_to(a[None], (images, *a.shape)) for a in (x_TD, x0_TC))
    loss = np.float64(jax.jit(made.loss)(x_BTD, x0_BTC, keys(images)))
    nats = np.float64(jax.jit(made.nats)(x_BTD, x0_BTC, keys(images, 1)))
    return made, x0_TC, loss, nats, reference(made, x_TD, x0_TC)


def test_the_mean_of_the_loss_is_the_mean_over_all_times(small):
    _, _, loss, _, (squares, terms) = small
    hybrid = (squares + 0.001 * STEPS * terms / math.log(2)).mean(axis=-1)
    assert agree(loss, hybrid).all()
    assert not agree(loss * 1.15, hybrid).all()
    single = hybrid.var(axis=1).mean(axis=0) + hybrid.mean(axis=1).var(axis=0)
    np.testing.assert_allclose(loss.var(axis=0), single / 2, rtol=0.2)  # two repeats


def test_the_mean_of_the_nats_is_the_bound(small):
    _, x0_TC, _, nats, (_, terms) = small
    factor, variance = kernel("cosine", STEPS, 0, STEPS)
    prior = ((factor * np.float64(x0_TC)) ** 2 + variance - math.log(variance) - 1) / 2
    expected = (STEPS * terms + prior).sum(axis=-1)
    assert agree(nats, expected).all()
    assert not agree(nats * 1.15, expected).all()


def test_the_times_of_an_image_are_spread_evenly_over_its_positions():
    made = shaken(steps=6)
    timed = jax.jit(jax.vmap(lambda key: made._spread_times(key, 50)))(keys(600))
    chance = made.process.tables.chance[1:]
    for t in range(1, 7):
        counts = np.asarray(timed.t == t)
        assert np.abs(counts.sum(axis=1) - 50 * chance[t - 1]).max() < 2  # in an image
        assert np.abs(counts.mean(axis=0) - chance[t - 1]).max() < 0.1  # at a position


def test_an_image_has_the_same_loss_and_nats_in_every_batch():
    made, x_BTD, x0_BTC = shaken(), features(3), latents(3)
    both = jax.jit(lambda *batch: jnp.stack([made.loss(*batch), made.nats(*batch)]))
    here, there = jnp.array([0, 1, 2]), jnp.array([2, 0, 0])
    whole = both(x_BTD, x0_BTC, keys(3))
    other = both(x_BTD[there], x0_BTC[there], keys(3)[there])
    np.testing.assert_allclose(other, whole[:, there], rtol=2e-5, atol=1e-6)
    assert not np.isclose(whole[:, here[:2]], whole[:, here[1:]], rtol=1e-2).all(axis=2).any()


def test_the_nats_of_the_exact_denoiser_are_its_bound():
    made = knowing(steps=100, positions=64)
    rng = np.random.default_rng(0)
    images, positions = 1000, 64
    part = rng.choice(2, p=MIXTURE.weights, size=(images, positions))
    x0 = rng.normal(np.array(MIXTURE.means)[part], np.array(MIXTURE.stds)[part])[..., None]
    x_BTD = jnp.zeros((images, positions, WIDTH))
    found = np.float64(jax.jit(made.nats)(x_BTD, jnp.float32(x0), keys(images))).mean(axis=1)
    expected = bound(made.process.respaced(0), MIXTURE, blend=1.0)
    error = found.std() / math.sqrt(images)
    assert abs(found.mean() - expected) < 4 * error < 0.15
    assert expected > MIXTURE.entropy()


def test_proposals_of_the_exact_denoiser_have_the_distribution():
    made = knowing(steps=200, positions=3000)
    propose = jax.jit(
        lambda key: made.propose(jnp.zeros((3000, WIDTH)), None, 1.0, key, Drawing(steps=100))
    )
    found = propose(jax.random.key(5))
    tokens = np.float64(found.tokens_TS[:, 0])
    assert scipy.stats.kstest(tokens, MIXTURE.below).pvalue > 1e-3
    other = Mixture((0.36, 0.64), MIXTURE.means, MIXTURE.stds)
    assert scipy.stats.kstest(tokens, other.below).pvalue < 1e-3
    assert found.tokens_TS.dtype == jnp.float32
    np.testing.assert_array_equal(found.confidence_T, np.zeros(3000))


def by_hand(made, z_TD, null_z_TD, guidance, start, kept):
    """Ancestral sampling without noise in float64: the mean of each posterior through x_0."""
    x, times = np.float64(start), [0, *kept]
    run = jax.jit(made.network)
    for number in range(len(kept), 0, -1):
        s, t = times[number - 1], times[number]
        given, null = (
            np.float64(run(jnp.float32(x), jnp.full(len(x), t - 1), z)[:, :CHANNELS])
            for z in (z_TD, null_z_TD)
        )
        noise = null + guidance * (given - null)
        factor, variance = kernel("cosine", made.process.steps, 0, t)
        x0 = (x - math.sqrt(variance) * noise) / factor
        x = bayes("cosine", made.process.steps, s, t, x0, x)[0] if s else x0
    return x


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 2.5])
def test_a_draw_without_noise_is_the_chain_of_means(guidance):
    made = shaken(steps=20)
    x_TD, null_TD = features(2)
    drawing = Drawing(steps=4, temperature=0.0)
    key = jax.random.key(9)
    found = jax.jit(lambda s: made.propose(x_TD, null_TD, s, key, drawing))(guidance).tokens_TS
    start = jax.random.normal(jax.random.split(key)[0], (POSITIONS, CHANNELS))
    z_TD, null_z_TD = jax.jit(made.condition)(jnp.stack([x_TD, null_TD]))
    expected = by_hand(made, z_TD, null_z_TD, guidance, start, [1, 7, 13, 19])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_the_norm_is_that_of_the_backbone():
    x_BTD = features(2)
    plain = np.float64(x_BTD)
    centred = plain - plain.mean(axis=-1, keepdims=True)
    for norm, expected in (("rms", plain), ("layer", centred)):
        made = drawn(functools.partial(head, norm=norm), noise=0.0)
        expected = expected / np.sqrt(np.square(expected).mean(axis=-1, keepdims=True))
        np.testing.assert_allclose(jax.jit(made.condition)(x_BTD), expected, rtol=1e-4, atol=1e-5)


def test_guidance_one_is_none():
    made = shaken()
    x_TD, null_TD = features(2)
    key = jax.random.key(2)
    with_null = jax.jit(lambda n: made.propose(x_TD, n, 1.0, key, Drawing()))(null_TD)
    without = jax.jit(lambda: made.propose(x_TD, None, 1.0, key, Drawing()))()
    scale = np.abs(without.tokens_TS).max()
    np.testing.assert_allclose(with_null.tokens_TS, without.tokens_TS, atol=1e-3 * scale)


def test_the_temperature_multiplies_the_noise():
    """A network of zeros makes the draw linear in the noise."""
    made, x_TD = drawn(head, noise=0.0), features(1)[0]
    key = jax.random.key(2)
    draw = jax.jit(lambda t: made.propose(x_TD, None, 1.0, key, Drawing(temperature=t)).tokens_TS)
    cold, warm, hot = (draw(temperature) for temperature in (0.0, 1.0, 2.0))
    assert np.abs(warm - cold).max() > 0.1
    np.testing.assert_allclose(hot - cold, 2 * (warm - cold), rtol=1e-3, atol=1e-3)


def test_a_position_alone_has_its_own_place():
    made, x_BTD = shaken(), features(2)
    condition = jax.jit(made.condition)
    whole = condition(x_BTD)
    for at in range(POSITIONS):
        alone = condition(x_BTD[:, at : at + 1], at)
        np.testing.assert_allclose(alone[:, 0], whole[:, at], rtol=1e-5, atol=1e-6)
    assert np.abs(alone[:, 0] - whole[:, 0]).max() > 1e-3


def test_the_loss_reaches_every_parameter():
    made, x_BTD, x0_BTC = shaken(), features(4), latents(4)
    grads = jax.jit(jax.grad(lambda m: jnp.sum(m.loss(x_BTD, x0_BTC, keys(4)))))(made)
    leaves = jax.tree.leaves(grads)
    assert len(leaves) > 15
    assert all(np.abs(leaf).max() > 0 for leaf in leaves)


def test_a_new_head_predicts_nothing_and_its_loss_is_by_its_own_name():
    made = jax.eval_shape(head, jax.random.key(0))
    z_TD, noisy_TC = features(1)[0], latents(1)[0]

    @jax.jit
    def predicted(key):
        return head(key).predicted(z_TD, noisy_TC, jnp.arange(POSITIONS))

    found = predicted(jax.random.key(0))
    np.testing.assert_array_equal(found.noise, np.zeros((POSITIONS, CHANNELS)))
    np.testing.assert_array_equal(found.blend, np.full((POSITIONS, CHANNELS), 0.5))
    assert made.objective.key == "loss_noise_mse"
    assert made.objective.uninformed == made.process.uninformed
    assert made.likelihood is Likelihood.BOUND


def test_flops_are_what_xla_counts():
    made = jax.eval_shape(lambda: head(jax.random.key(0), repeats=3, width=256))
    spec = jax.ShapeDtypeStruct((4, POSITIONS, WIDTH), jnp.float32)
    x0 = jax.ShapeDtypeStruct((4, POSITIONS, CHANNELS), jnp.float32)
    loss = jax.jit(lambda m, x, c, k: m.loss(x, c, jax.random.split(k, 4)))
    key = jax.eval_shape(lambda: jax.random.key(0))
    counted = loss.lower(made, spec, x0, key).compile().cost_analysis()["flops"]
    ours = 4 * POSITIONS * made.forward_flops_per_position
    assert ours < counted < 1.1 * ours


def test_more_steps_than_were_trained_are_refused():
    with pytest.raises(LabError, match="sample.steps: 6"):
        shaken().propose(features(1)[0], None, 1.0, jax.random.key(0), Drawing(steps=6))
