"""The two classifiers: shapes, what they compute against float64 NumPy, their counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.extractors.classifier import (
    Classifier,
    ClassifierSpec,
    InputScale,
    Levels,
    Running,
    builder,
    patches,
)

LEVELS = Levels(mean=[90.0, 98.0, 104.0], std=[52.0, 35.0, 30.0])
SHAPE = {"resolution": 16, "channels": 3, "classes": 5}
SPECS = {
    "conv": ClassifierSpec(
        kind="conv", width=8, depth=2, patch=2, multipliers=(1, 2), groups=4, heads=0,
        mlp_hidden=0, **SHAPE,
    ),
    "patch": ClassifierSpec(
        kind="patch", width=8, depth=3, patch=4, multipliers=(), groups=0, heads=2, mlp_hidden=24,
        **SHAPE,
    ),
}  # fmt: skip


@functools.cache
def made(kind, **running):
    return jax.jit(builder(SPECS[kind], Running(**running), LEVELS))(jax.random.key(0))


@jax.jit
def features_of(model, x):
    return model.features(x)


def images(count=4):
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)


@pytest.mark.parametrize(("kind", "features"), [("conv", 16), ("patch", 8)])
def test_features_and_logits(kind, features):
    model = made(kind)
    assert SPECS[kind].features == features
    found = features_of(model, images())
    assert found.shape == (4, features) and found.dtype == jnp.float32
    assert np.asarray(found).std(axis=0).min() > 1e-4  # images differ in every feature
    logits = jax.jit(lambda m, x: m.logits(x))(model, found)
    np.testing.assert_array_equal(logits, np.zeros((4, 5)))  # the head starts at zero


@pytest.mark.parametrize("kind", SPECS)
def test_an_image_is_alone_in_its_batch(kind):
    """Neither the images beside it count nor its place."""
    other = 255 - images()
    other[0] = images()[2]
    whole, alone = (features_of(made(kind), x) for x in (images(), other))
    np.testing.assert_allclose(whole[2], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SPECS)
def test_bfloat16_stays_near(kind):
    one, other = made(kind), made(kind, compute_dtype="bfloat16")
    exact, near = (np.asarray(features_of(model, images())) for model in (one, other))
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.slow
def test_remat_and_the_scan_change_nothing():
    gradient = jax.jit(jax.grad(lambda m, x: jnp.sum(jnp.square(m.features(x)))))
    plain = gradient(made("patch"), images())
    for running in ({"remat": "full"}, {"unroll": True}):
        other = gradient(made("patch", **running), images())
        for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_input_scale_starts_at_standard_levels():
    x = np.random.default_rng(1).normal(size=(2, 5, 5, 3)) * LEVELS.std + LEVELS.mean
    found = InputScale(LEVELS)(jnp.asarray(x, jnp.float32))
    wanted = (x - LEVELS.mean) / LEVELS.std
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_patches_are_the_squares_of_an_image_in_raster_order():
    x = np.arange(1 * 6 * 4 * 2).reshape(1, 6, 4, 2)
    found = np.asarray(patches(jnp.asarray(x), side=2))
    assert found.shape == (1, 6, 8)
    for number in range(6):
        row, column = divmod(number, 2)
        square = x[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(found[0, number], square.reshape(-1))


def test_one_patch_block_against_float64():
    """x + attention(norm(x)), then x + mlp(norm(x)), one head at a time."""
    trunk = made("patch").trunk
    block = jax.tree.map(lambda leaf: np.asarray(leaf)[1], trunk.layers)
    x = np.random.default_rng(2).normal(size=(1, 6, 8))

    def value(param):
        return np.asarray(param[...], np.float64)

    def norm(layer, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
        return scaled * value(layer.scale) + value(layer.bias)

    def affine(layer, x):
        return x @ value(layer.weight) + value(layer.bias)

    a, normed = block.attention, norm(block.first_norm, x)
    q, k, v = (affine(part, normed) for part in (a.query, a.key, a.value))
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        logits = q[0, :, part] @ k[0, :, part].T / 4**0.5
        weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        heads.append(weights @ v[0, :, part])
    y = x + affine(a.out, np.concatenate(heads, axis=-1)[None])
    hidden = affine(block.mlp.up, norm(block.second_norm, y))
    tanh = np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3))
    wanted = y + affine(block.mlp.down, 0.5 * hidden * (1 + tanh))
    found = jax.jit(lambda block, x: block(x))(block, jnp.float32(x))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", SPECS)
def test_counts_are_those_of_the_leaves_and_of_xla(kind):
    """XLA leaves out what is multiplied with the zeros around an image, and counts norms."""
    model = made(kind, unroll=True)  # of a loop it counts one turn
    leaves = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert sum(model.parameters().values()) == leaves
    assert model.parameters()["head"] == SPECS[kind].features * 5 + 5

    def logits(model: Classifier, x):
        return model.logits(model.features(x))

    cost = jax.jit(logits).lower(model, images(1)).cost_analysis()
    ours = sum(model.forward_flops().values())
    assert 0.8 < cost["flops"] / ours < 1.5, cost["flops"] / ours
    if kind == "conv":  # in full: every convolution's kernel at every place
        stem = 3 * 3 * 3 * 8 * 64
        fine, down = 4 * 9 * 8 * 8 * 64, 9 * 8 * 8 * 16
        coarse = (9 * 8 * 16 + 3 * 9 * 16 * 16 + 8 * 16) * 16
        assert model.forward_flops()["trunk"] == 2 * (stem + fine + down + coarse)
