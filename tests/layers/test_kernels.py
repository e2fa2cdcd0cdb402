"""Every implementation of attention against float64 NumPy, and its gradients against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.layers.kernels import QUERY_BLOCK, attend, attention_weights, blockwise


def reference(q, k, v, causal):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    logits = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
    if causal:
        logits[:, :, ~np.tril(np.ones(logits.shape[2:], bool))] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhts,bshk->bthk", weights, v)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_the_choice_of_every_platform(platform):
    q, k, v, _ = inputs(20)
    got = attend(q, k, v, causal=True, platform=platform)
    np.testing.assert_allclose(got, reference(q, k, v, True), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("causal", [True, False])
def test_weights_times_values_are_what_the_kernel_gives(causal, dtype, platform):
    """Across two blocks of queries; within the rounding of the dtype."""
    q, k, v = (x.astype(dtype) for x in inputs(QUERY_BLOCK + 17)[:3])
    weights = attention_weights(q, k, causal=causal, platform=platform)
    assert weights.dtype == np.float32
    got = np.einsum("bhts,bshk->bthk", np.asarray(weights, np.float64), np.asarray(v, np.float64))
    kernel = np.asarray(attend(q, k, v, causal=causal, platform=platform), np.float64)
    tolerance = {"float32": 2e-5, "bfloat16": 0.05}[dtype]
    np.testing.assert_allclose(got, kernel, rtol=tolerance, atol=tolerance)


def inputs(positions):
    shape = (2, positions, 3, 8)
    return tuple(3 * jax.random.normal(jax.random.key(i), shape) for i in range(4))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("positions", [5, QUERY_BLOCK, QUERY_BLOCK + 17, 2 * QUERY_BLOCK])
def test_blockwise(positions, causal):
    q, k, v, w = inputs(positions)
    np.testing.assert_allclose(
        blockwise(q, k, v, causal), reference(q, k, v, causal), rtol=2e-4, atol=2e-5
    )

    def loss(attend):
        return lambda q, k, v: jnp.sum(attend(q, k, v) * w)

    ours = jax.grad(loss(lambda *x: blockwise(*x, causal)), (0, 1, 2))(q, k, v)
    library = jax.grad(
        loss(lambda *x: jax.nn.dot_product_attention(*x, is_causal=causal)), (0, 1, 2)
    )(q, k, v)
    for a, b in zip(ours, library, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
