"""Diffusion of whole images against sums over all times, a known mixture and published sizes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from lab.layers.modulation import TimeEmbedding
from lab.layers.parameters import Init
from lab.models.dit import DiTBackbone
from lab.models.embeddings import ClassEmbedding
from lab.models.gaussian import GaussianProcess, Predicted, to_codes, to_numbers
from lab.models.generator import Generator
from lab.models.joint import FinalLayer, JointOrder, PatchEmbedding, patchify, unpatchify
from lab.models.objective import Likelihood
from tests.models.mixture import Mixture
from tests.models.test_gaussian import bayes, betas, bound, kernel
from tests.models.test_gaussian_head import moved

INIT = Init(rule="mup", std=1.0)
GRID, PATCH, CHANNELS, STEPS, CLASSES = (4, 2), 2, 2, 5, 3


def order(*, levels=0, steps=STEPS, schedule="cosine", channels=CHANNELS, grid=GRID, patch=PATCH):
    return JointOrder(
        process=GaussianProcess(steps, schedule),
        grid=grid,
        patch=patch,
        levels=levels,
        channels=channels,
    )


def model(of, *, width=16, depth=1, heads=2, classes=CLASSES, drop_rate=0.0, key=None):
    """The parts of a DiT around an order."""
    keys = jax.random.split(jax.random.key(0) if key is None else key, 4)
    return Generator(
        classes=ClassEmbedding(
            keys[0], classes=classes, width=width, init=INIT, drop_rate=drop_rate
        ),
        embedding=PatchEmbedding(
            keys[1],
            patch=of.patch,
            grid=of.grid,
            channels=of.channels,
            width=width,
            init=INIT,
        ),
        backbone=DiTBackbone(
            keys[2],
            depth=depth,
            width=width,
            heads=heads,
            mlp_hidden=4 * width,
            grid=(of.grid[0] // of.patch, of.grid[1] // of.patch),
            init=INIT,
            platform="cpu",
            remat="none",
            unroll=True,
        ),
        head=FinalLayer(keys[0], width=width, outputs=2 * of.channels * of.patch**2),
        order=of,
        compute_dtype="float32",
        time=TimeEmbedding(keys[3], width=width),
    )


def shaken(of, size=0.1, **settings):
    """A model of which every parameter counts."""
    return moved(lambda key: model(of, key=key, **settings), size)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def latents(images, seed=4):
    return jax.random.normal(jax.random.key(seed), (images, GRID[0] * GRID[1], CHANNELS))


def repeated(x, count):
    return jnp.broadcast_to(x[None], (count, *x.shape))


def test_patches_are_squares_of_cells_in_raster_order():
    x = np.arange(2 * 6 * 4 * 3).reshape(2, 24, 3)
    found = np.asarray(patchify(jnp.asarray(x), grid=(6, 4), patch=2))
    image = x.reshape(2, 6, 4, 3)
    expected = [image[:, r : r + 2, c : c + 2].reshape(2, -1) for r in (0, 2, 4) for c in (0, 2)]
    np.testing.assert_array_equal(found, np.stack(expected, axis=1))
    np.testing.assert_array_equal(unpatchify(jnp.asarray(found), grid=(6, 4), patch=2), x)


def test_an_embedding_is_affine_in_its_patch():
    of = moved(
        lambda key: PatchEmbedding(key, patch=2, grid=(4, 4), channels=3, width=8, init=INIT), 0.1
    )
    x = jax.random.normal(jax.random.key(1), (2, 16, 3))
    weight, offset = np.float64(of.project.weight[...]), np.float64(of.project.bias[...])
    expected = np.float64(patchify(x, grid=(4, 4), patch=2)) @ weight + offset
    np.testing.assert_allclose(of(x), expected, rtol=1e-4, atol=1e-5)
    assert of.forward_flops_per_position == 2 * 12 * 8


def test_the_final_layer_is_zero_at_first_and_then_modulated():
    layer = FinalLayer(jax.random.key(0), width=8, outputs=6)
    x, c = (
        jax.random.normal(jax.random.key(1), (2, 3, 8)),
        jax.random.normal(jax.random.key(2), (2, 8)),
    )
    np.testing.assert_array_equal(layer.noise(x, c), np.zeros((2, 3, 6)))
    layer = moved(lambda key: FinalLayer(key, width=8, outputs=6), 0.3)
    matrix, offset, out, last = (
        np.float64(leaf[...])
        for part in (layer.modulation.project, layer.out)
        for leaf in (part.weight, part.bias)
    )
    silu = np.float64(c) / (1 + np.exp(-np.float64(c)))
    shift, scale = np.split((silu @ matrix + offset)[:, None], 2, axis=-1)
    normed = np.float64(x) - np.float64(x).mean(axis=-1, keepdims=True)
    normed = normed / np.sqrt(np.square(normed).mean(axis=-1, keepdims=True) + 1e-6)
    expected = (normed * (1 + scale) + shift) @ out + last
    np.testing.assert_allclose(layer.noise(x, c), expected, rtol=1e-3, atol=1e-5)


def test_slots_of_a_cell_are_channels_and_codes_come_back():
    of = order(levels=256, channels=3)
    codes = jax.random.randint(jax.random.key(0), (2, 24, 1), 0, 256)
    x = of.numbers(codes)
    assert x.shape == (2, 8, 3)
    np.testing.assert_allclose(x[0, 1], np.asarray(codes[0, 3:6, 0]) / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(of.tokens(x, numbers=1), codes)
    same = latents(2)
    np.testing.assert_array_equal(order().tokens(order().numbers(same), numbers=2), same)


def test_codes_come_back_from_their_numbers():
    codes = jnp.arange(256)
    x = to_numbers(codes, levels=256)
    assert (float(x[0]), float(x[-1])) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_codes(x + 0.003, levels=256), codes)
    np.testing.assert_array_equal(to_codes(jnp.array([-3.0, 3.0]), levels=256), [0, 255])


def terms(of, made, x0_PC, label, *, levels, draws=400):
    """Of each (t, draw, cell, channel): squared error and term of the bound, in float64."""
    rng, found = np.random.default_rng(1), []
    run = jax.jit(lambda x, t: of.predicted(made, x, t, jnp.full(draws, label)))
    for t in range(1, STEPS + 1):
        factor, variance = kernel("cosine", STEPS, 0, t)
        e = rng.normal(size=(draws, *x0_PC.shape))
        x_t = factor * np.float64(x0_PC) + math.sqrt(variance) * e
        guess, blend = (np.float64(a) for a in run(jnp.float32(x_t), jnp.full(draws, t - 1)))
        beta = betas("cosine", STEPS)[t - 1]
        true = bayes("cosine", STEPS, max(t, 2) - 1, max(t, 2), 0.0, 0.0)[1]
        mine = np.exp(blend * math.log(beta) + (1 - blend) * math.log(true))
        off = (guess - e) * beta / math.sqrt((1 - beta) * variance)
        if t > 1:
            term = (np.log(mine / true) + (true + off**2) / mine - 1) / 2
        elif not levels:
            term = (np.log(2 * math.pi * mine) + off**2 / mine) / 2
        else:
            term = -np.log(level_probability(off, np.sqrt(mine), np.float64(x0_PC), levels))
        found.append((np.square(guess - e), term))
    return np.array([squares for squares, _ in found]), np.array([term for _, term in found])


def level_probability(off, sigma, x0, levels):
    """Of the level of x_0, with a mean that is `off` below it."""
    high = np.where(x0 > 0.999, np.inf, off + 1 / (levels - 1))
    low = np.where(x0 < -0.999, -np.inf, off - 1 / (levels - 1))
    return scipy.special.ndtr(high / sigma) - scipy.special.ndtr(low / sigma)


def agree(found_N, expected_Tn):
    """Whether the mean of draws is the mean over times of the mean of reference draws."""
    error = found_N.var() / len(found_N)
    error += expected_Tn.var(axis=1).mean() / expected_Tn.size
    return abs(found_N.mean() - expected_Tn.mean()) < 4 * math.sqrt(error)


@pytest.mark.parametrize("levels", [0, 4])
def test_loss_and_nats_are_sums_over_all_times(levels):
    of = order(levels=levels)
    made, images, label = shaken(of), 2000, 1
    if levels:
        tokens = jax.random.randint(jax.random.key(4), (8, CHANNELS), 0, levels)
        x0 = to_numbers(tokens, levels=levels)
    else:
        tokens = x0 = latents(1)[0]
    batch, labels = repeated(tokens, images), jnp.full(images, label)
    training = jax.jit(of.training)(made, batch, labels, jax.random.key(3))
    nats = jax.jit(of.nats, static_argnums=4)
    squares, bounds = terms(of, made, x0, label, levels=levels)
    hybrid = (squares + 0.001 * STEPS * bounds / math.log(2)).mean(axis=(2, 3))
    loss = np.float64(training.loss_B) / training.positions
    assert agree(loss, hybrid)
    assert not agree(loss * 1.1, hybrid)

    factor, variance = kernel("cosine", STEPS, 0, STEPS)
    prior = ((factor * np.float64(x0)) ** 2 + variance - math.log(variance) - 1) / 2
    expected = (STEPS * bounds + prior).sum(axis=(2, 3))
    found = np.float64(nats(made, batch, labels, keys(images), 3))
    assert agree(found, expected)
    assert not agree(found * 1.15, expected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knowing(JointOrder):
    """With E[e | x_t] of cells that are draws from a mixture in place of a model."""

    mixture: Mixture
    blend: float

    def predicted(self, model, x_BPC, time_B, label_B, key=None):
        signal, noise = (
            jnp.asarray(table, jnp.float32)[time_B + 1][:, None, None, None]
            for table in (self.process.tables.signal, self.process.tables.noise)
        )
        known = self.mixture.noise_given(x_BPC, signal, noise, xp=jnp)
        return Predicted(known, jnp.full(known.shape, self.blend))


CODES = Mixture((0.1, 0.2, 0.3, 0.25, 0.15), tuple(np.linspace(-1, 1, 5)), (0.0,) * 5)


@pytest.mark.parametrize(
    ("levels", "mixture", "blend", "truth"),
    [
        (0, Mixture(), 1.0, Mixture().entropy()),
        (5, CODES, 0.0, -sum(w * math.log(w) for w in CODES.weights)),
    ],
)
def test_the_nats_of_the_exact_denoiser_are_close_above_the_entropy(levels, mixture, blend, truth):
    of = Knowing(
        process=GaussianProcess(100, "cosine"),
        grid=(8, 8),
        patch=1,
        levels=levels,
        channels=1,
        mixture=mixture,
        blend=blend,
    )
    rng, images = np.random.default_rng(0), 300
    part = rng.choice(len(mixture.weights), p=mixture.weights, size=(images, 64, 1))
    drawn = rng.normal(np.array(mixture.means)[part], np.array(mixture.stds)[part])
    tokens = jnp.asarray(part, jnp.int32) if levels else jnp.asarray(drawn, jnp.float32)
    nats = jax.jit(of.nats, static_argnums=(0, 4))
    found = np.float64(nats(None, tokens, None, keys(images), 20)) / 64
    expected = bound(of.process.respaced(0), mixture, blend=blend, levels=levels)
    error = found.std() / math.sqrt(images)
    assert abs(found.mean() - expected) < 4 * error < 0.15
    assert truth < expected < truth + 0.25


def test_an_image_has_the_same_nats_in_every_batch():
    of = order()
    made, x0, label = shaken(of), latents(3), jnp.arange(3)
    nats = jax.jit(of.nats, static_argnums=4)
    whole = nats(made, x0, label, keys(3), 2)
    there = jnp.array([2, 0, 0])
    other = nats(made, x0[there], label[there], keys(3)[there], 2)
    np.testing.assert_allclose(other, whole[there], rtol=2e-5)
    assert not np.isclose(nats(made, x0, label[::-1], keys(3), 2)[0], whole[0], rtol=1e-3)


def test_classes_are_dropped_in_training_alone():
    of = order()
    made, x0 = shaken(of, drop_rate=1.0), latents(3)
    train = jax.jit(
        lambda label, dropout: (
            of.training(made, x0, label, jax.random.key(0), dropout=dropout).loss_B
        ),
        static_argnums=1,
    )
    null = jnp.full(3, made.classes.null)
    dropped, kept = train(jnp.arange(3), True), train(jnp.arange(3), False)
    np.testing.assert_allclose(dropped, train(null, False), rtol=1e-5)
    assert np.all(np.abs(dropped - kept) > 1e-5)


def test_the_loss_reaches_every_parameter():
    of = order()
    made = shaken(of)
    loss = jax.jit(
        jax.grad(lambda m: jnp.sum(of.training(m, latents(4), jnp.arange(4), jax.random.key(0))[0]))
    )
    grads = loss(made)
    named = jax.tree_util.tree_leaves_with_path(grads)
    # A bias of the keys adds the same to every score of a query: softmax takes no notice.
    still = [jax.tree_util.keystr(path) for path, leaf in named if np.abs(leaf).max() < 1e-8]
    assert all("key" in name and "bias" in name for name in still), still
    assert len(named) > 20


def test_a_joint_order_is_a_bound_by_its_own_name():
    of = order(steps=1000, schedule="linear")
    made = jax.eval_shape(lambda key: model(of, key=key), jax.random.key(0))
    assert made.likelihood is Likelihood.BOUND
    assert made.objective.key == "loss_noise_mse"
    assert made.objective.uninformed == of.process.uninformed


PUBLISHED = {
    "S": (12, 384, 6, 32.9),
    "B": (12, 768, 12, 130.3),
    "L": (24, 1024, 16, 457.8),
    "XL": (28, 1152, 16, 674.8),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_published_sizes_have_their_parameters(size):
    depth, width, heads, millions = PUBLISHED[size]
    of = order(grid=(32, 32), channels=4, steps=1000, schedule="linear")
    made = jax.eval_shape(
        lambda key: model(of, width=width, depth=depth, heads=heads, classes=1000, key=key),
        jax.random.key(0),
    )
    assert round(made.parameters().total / 1e6, 1) == millions


def test_flops_are_what_xla_counts():
    of = order(grid=(16, 16), channels=4)
    made = jax.eval_shape(lambda key: model(of, width=128, key=key), jax.random.key(0))
    x0 = jax.ShapeDtypeStruct((2, 256, 4), jnp.float32)
    label = jax.ShapeDtypeStruct((2,), jnp.int32)
    loss = jax.jit(lambda m, x, c: of.training(m, x, c, jax.random.key(0)).loss_B)
    counted = loss.lower(made, x0, label).compile().cost_analysis()["flops"]
    ours = 2 * of.forward_flops(made).total
    assert ours < counted < 1.1 * ours
