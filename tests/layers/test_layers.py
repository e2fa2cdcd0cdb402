"""Layers against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.layers.attention import Attention, Mask
from lab.layers.mlp import SwiGLU
from lab.layers.norm import RMSNorm
from lab.layers.parameters import Init
from lab.layers.positions import grid_angles, rotate, with_prefix
from tests.layers import transformer_reference as ref

INIT = Init(rule="mup", std=1.0)


def f64(x):
    return np.asarray(x, np.float64)


def test_rms_norm():
    x = f64(jax.random.normal(jax.random.key(0), (3, 5, 8)))
    norm = ref.random(lambda key: RMSNorm(8, epsilon=1e-5))
    norm.scale[...] = np.arange(1.0, 9.0, dtype=np.float32)
    want = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * np.arange(1, 9)
    np.testing.assert_allclose(jax.jit(norm)(jnp.asarray(x, jnp.float32)), want, rtol=1e-5)


def test_swiglu():
    mlp = ref.random(lambda key: SwiGLU(key, width=4, hidden=6, init=INIT, depth=2))
    x = f64(jax.random.normal(jax.random.key(0), (2, 3, 4)))
    gate, up, down = (f64(w[...]) for w in (mlp.gate, mlp.up, mlp.down))
    pre = x @ gate
    want = (pre / (1 + np.exp(-pre)) * (x @ up)) @ down
    got = jax.jit(mlp)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mask", list(Mask))
def test_attention_against_loops(mask):
    """Every head, query and key by loops, with rotations as complex multiplications."""
    width, heads, rows, columns = 16, 2, 2, 3
    sizes = {"width": width, "heads": heads, "init": INIT, "depth": 1}
    layer = ref.random(lambda key: Attention(key, **sizes, mask=mask, platform="cpu"))
    angles_TK = grid_angles(rows, columns, head_features=8, base=100.0)
    x = f64(jax.random.normal(jax.random.key(1), (1, 6, width)))[0]
    q, k, v = (x @ f64(w[...]) for w in (layer.query, layer.key, layer.value))
    want = np.zeros((6, width))
    for h in range(heads):
        part = slice(8 * h, 8 * h + 8)
        turned = [
            (m[:, part][:, :4] + 1j * m[:, part][:, 4:]) * np.exp(1j * angles_TK) for m in (q, k)
        ]
        for i in range(6):
            seen = range(i + 1) if mask is Mask.CAUSAL else range(6)
            scores = np.array([np.vdot(turned[1][j], turned[0][i]).real for j in seen]) / np.sqrt(8)
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            want[i, part] = sum(w * v[j, part] for w, j in zip(weights, seen, strict=True))
    want = want @ f64(layer.out[...])
    got = jax.jit(lambda x: layer(x, angles_TK))(jnp.asarray(x[None], jnp.float32))[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_rotary_logits_depend_on_relative_positions_only():
    angles_TK = grid_angles(4, 4, head_features=8, base=10000.0)
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
    turned = jax.jit(lambda z: rotate(jnp.tile(z, (1, 16, 1, 1)), angles_TK))
    q_TK, k_TK = (np.asarray(turned(z))[0, :, 0] for z in (q, k))
    logits = q_TK @ k_TK.T
    logits = logits.reshape(4, 4, 4, 4)
    assert logits[1, 1, 2, 3] == pytest.approx(logits[0, 0, 1, 2], rel=1e-4)
    assert logits[3, 2, 1, 1] == pytest.approx(logits[2, 1, 0, 0], rel=1e-4)
    assert abs(logits[0, 0, 1, 2] - logits[0, 0, 2, 1]) > 1e-4  # rows are not columns


def test_prefix_is_not_turned():
    """The identity rotation, where the published code has (cos, sin) = (0, 0)."""
    angles_TK = with_prefix(grid_angles(2, 2, head_features=4, base=10.0))
    x = jax.random.normal(jax.random.key(0), (1, 5, 1, 4))
    turned = jax.jit(lambda x: rotate(x, angles_TK))(x)
    np.testing.assert_array_equal(turned[:, 0], x[:, 0])
    assert float(jnp.abs(turned[:, 0]).min()) > 0
