"""The blocks of DiT against float64 NumPy, at the start, and their published sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.layers.parameters import Init
from lab.layers.positions import sinusoids
from lab.models.dit import DiTBackbone
from tests.layers import transformer_reference as ref

GRID = (2, 3)


def make(**changes):
    base = {
        "depth": 2,
        "width": 16,
        "heads": 2,
        "mlp_hidden": 24,
        "grid": GRID,
        "init": Init(rule="mup", std=1.0),
        "platform": "cpu",
        "remat": "none",
        "unroll": False,
    }
    return functools.partial(DiTBackbone, **{**base, **changes})


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def features(x, condition, backbone, seen_by=None):
    """One image (T, D); `seen_by` gets the input and the attention weights of each block."""
    x = x + sinusoids(*GRID, width=16)
    for index in range(backbone.spec.depth):
        block = ref.layer(backbone.layers, index)
        six = ref.affine(ref.silu(condition), block.modulation.project).reshape(6, -1)
        h = ref.standard(x, 1e-6) * (1 + six[1]) + six[0]
        if seen_by is not None:
            seen_by.append((x, ref.vit_weights(h, block.attention)))
        x = x + six[2] * ref.vit_attention(h, block.attention)
        h = ref.standard(x, 1e-6) * (1 + six[4]) + six[3]
        inner = ref.gelu_tanh(ref.affine(h, block.mlp.up))
        x = x + six[5] * ref.affine(inner, block.mlp.down)
    return x


@pytest.mark.parametrize("unroll", [False, True])
def test_against_a_reference(unroll):
    backbone = ref.random(make(unroll=unroll))
    x_BTD, condition_BD = draw(0, 2, 6, 16), draw(1, 2, 16)
    got = jax.jit(lambda m, *given: m(*given))(backbone, x_BTD, condition_BD)
    images = zip(ref.f64(x_BTD), ref.f64(condition_BD), strict=True)
    want = np.stack([features(x, c, backbone) for x, c in images])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-4)


def test_observed_inputs_and_weights_against_a_reference():
    backbone = ref.random(make())
    x_BTD, condition_BD = draw(0, 2, 6, 16), draw(1, 2, 16)

    def observe(m, x, c):
        return m.observe(x, c, lambda x, weights: (x, weights()))

    out, (inputs, weights_NBHQK) = jax.jit(observe)(backbone, x_BTD, condition_BD)
    for image in range(2):
        want = []
        last = features(ref.f64(x_BTD[image]), ref.f64(condition_BD[image]), backbone, want)
        np.testing.assert_allclose(out[image], last, rtol=1e-4, atol=2e-4)
        for layer, (x, weights) in enumerate(want):
            np.testing.assert_allclose(inputs[layer, image], x, rtol=1e-4, atol=2e-4)
            np.testing.assert_allclose(weights_NBHQK[layer, image], weights, rtol=1e-3, atol=1e-5)
    assert len(want) == len(inputs) == 2


def test_the_start_is_the_identity_after_the_positions():
    x_BTD = draw(0, 2, 6, 16)
    start = jax.jit(lambda key, x, c: make(depth=1)(key)(x, c, None))
    got = start(jax.random.key(0), x_BTD, draw(1, 2, 16))
    positions_TD = jnp.asarray(sinusoids(*GRID, width=16), jnp.float32)
    np.testing.assert_array_equal(got, x_BTD + positions_TD[None])


PUBLISHED = {  # depth, width, heads, millions in all
    "S": (12, 384, 6, 32.9),
    "B": (12, 768, 12, 130.3),
    "L": (24, 1024, 16, 457.8),
    "XL": (28, 1152, 16, 674.8),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    """With patches of 2 x 2 x 4 in, 2 x 2 x 8 out, the time and 1001 classes (by arithmetic)."""
    depth, width, heads, published = PUBLISHED[name]
    sizes = {"depth": depth, "width": width, "heads": heads, "mlp_hidden": 4 * width}
    backbone = jax.eval_shape(make(grid=(16, 16), **sizes), jax.random.key(0))
    patches, time = (16 + 1) * width, (256 + 1) * width + (width + 1) * width
    final = (width + 1) * 2 * width + (width + 1) * 32
    total = ref.size_of(backbone) + patches + time + 1001 * width + final
    assert round(total / 1e6, 1) == published


def test_flops_against_xla():
    wide = {"width": 128, "heads": 1, "mlp_hidden": 512, "grid": (4, 4), "unroll": True}
    backbone = jax.eval_shape(make(**wide), jax.random.key(0))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 16, 128), (1, 128))]
    call = jax.jit(lambda m, *given: m(*given))
    found = call.lower(backbone, *shapes).compile().cost_analysis()["flops"]
    assert 1.0 <= found / sum(backbone.forward_flops(16)) < 1.05
