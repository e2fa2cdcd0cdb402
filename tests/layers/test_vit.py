"""Attention with biases, with hidden keys and of one position; the MLP; fixed positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.layers.kernels import attend_one, attend_seen
from lab.layers.norm import LayerNorm
from lab.layers.parameters import Init
from lab.layers.positions import grid_angles, rotate, rotate_one, sinusoids
from lab.layers.vit import BiasedAttention, GeluMLP
from tests.layers import transformer_reference as ref

INIT = Init(rule="mup", std=1.0)
BOTH = {"width": 8, "init": INIT, "depth": 1}


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_layer_norm_keeps_the_dtype():
    norm = ref.random(lambda _: LayerNorm(8, epsilon=1e-6))
    x = 3 + draw(0, 2, 3, 8)
    want = ref.layer_norm(ref.f64(x), norm, 1e-6)
    np.testing.assert_allclose(norm(x), want, rtol=1e-4, atol=1e-5)
    assert norm(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_attention_with_biases():
    part = ref.random(lambda key: BiasedAttention(key, heads=2, platform="cpu", **BOTH))
    x = draw(1, 2, 5, 8)
    want = np.stack([ref.vit_attention(image, part) for image in ref.f64(x)])
    np.testing.assert_allclose(jax.jit(part)(x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [True, False])
def test_weights_are_those_of_the_output(masked):
    part = ref.random(lambda key: BiasedAttention(key, heads=2, platform="cpu", **BOTH))
    x = draw(1, 2, 5, 8)
    seen = jnp.asarray([[True, False, True, True, False], [True] * 5]) if masked else None
    weights = np.asarray(jax.jit(lambda m, *given: m.weights(*given))(part, x, seen), np.float64)
    v = ref.affine(ref.f64(x), part.value).reshape(2, 5, 2, 4)
    mixed = np.einsum("bhts,bshk->bthk", weights, v).reshape(2, 5, 8)
    got = jax.jit(part)(x, seen)
    np.testing.assert_allclose(got, ref.affine(mixed, part.out), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
    assert weights.shape == (2, 2, 5, 5)
    if masked:
        assert not np.any(weights[0, :, :, ~np.asarray(seen[0])])


@pytest.mark.parametrize("tanh", [True, False])
def test_mlp(tanh):
    part = ref.random(lambda key: GeluMLP(key, hidden=12, tanh=tanh, **BOTH))
    x = 2 * draw(1, 2, 5, 8)
    inner = (ref.gelu_tanh if tanh else ref.gelu)(ref.affine(ref.f64(x), part.up))
    want = ref.affine(inner, part.down)
    np.testing.assert_allclose(jax.jit(part)(x), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_hidden_keys_get_no_weight_and_no_gradient(platform):
    """As if they were not there; the gradient exactly zero."""
    q, k, v = draw(0, 2, 3, 2, 4), draw(1, 2, 5, 2, 4), draw(2, 2, 5, 2, 4)
    seen = jnp.asarray([[True, False, True, True, False], [False, False, False, True, False]])

    def call(q, k, v):
        return attend_seen(q, k, v, seen, platform=platform)

    got, back = jax.jit(lambda *x: jax.vjp(call, *x))(q, k, v)
    for image in range(2):
        kept = np.asarray(seen[image])
        flat = [ref.f64(x[image]).reshape(len(x[image]), -1) for x in (q, k, v)]
        want = ref.attend(flat[0], flat[1][kept], flat[2][kept], 2)
        np.testing.assert_allclose(got[image].reshape(3, -1), want, rtol=1e-4, atol=1e-5)
    _, d_k, d_v = jax.jit(lambda back, d: back(d))(back, draw(3, 2, 3, 2, 4))
    for gradient in (d_k, d_v):
        assert not np.any(gradient[~seen])
    assert np.all(np.abs(d_v[seen]).max(axis=(-1, -2)) > 0)


def test_one_query_sees_those_before_and_itself():
    q, k, v = draw(0, 2, 3, 4), draw(1, 2, 3, 6, 4), draw(2, 2, 3, 6, 4)
    call = jax.jit(attend_one)
    for index in (0, 3, 5):
        got = call(q, k, v, index)
        for image in range(2):
            for head in range(3):
                held = ref.f64(k[image, head, : index + 1]), ref.f64(v[image, head, : index + 1])
                want = ref.attend(ref.f64(q[image, head])[None], *held, 1)[0]
                np.testing.assert_allclose(got[image, head], want, rtol=1e-4, atol=1e-5)


def test_one_position_turns_as_among_all():
    angles_TK = grid_angles(2, 3, head_features=8, base=100.0)
    x = draw(0, 2, 6, 3, 8)
    turned = jax.jit(lambda x: rotate(x, angles_TK))(x)
    one = jax.jit(lambda x, index: rotate_one(x[:, index], angles_TK, index))
    for index in range(6):
        np.testing.assert_allclose(one(x, index), turned[:, index], rtol=1e-6, atol=1e-6)


def test_sinusoids_by_hand():
    """Row 2, column 1 of width 8: frequencies 1 and 1/100."""
    got = sinusoids(3, 4, width=8)[2 * 4 + 1]
    row = [np.sin(2), np.sin(0.02), np.cos(2), np.cos(0.02)]
    column = [np.sin(1), np.sin(0.01), np.cos(1), np.cos(0.01)]
    np.testing.assert_allclose(got, row + column, rtol=1e-12)
    with pytest.raises(LabError, match="width 6"):
        sinusoids(2, 2, width=6)
