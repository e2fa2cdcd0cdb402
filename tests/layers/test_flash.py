"""Pallas's kernel, interpreted on CPU, against float64 NumPy and the gradients of jax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.layers.flash import of_device
from tests.layers.test_kernels import reference


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("positions", [128, 130])
def test_the_kernel_is_attention(positions, causal):
    """With padding and without: values and gradients."""
    shape = (2, positions, 2, 64)
    q, k, v, w = (2 * jax.random.normal(jax.random.key(n), shape) for n in range(4))

    def kernel(q, k, v):
        return of_device(q, k, v, causal=causal, interpret=True)

    def loss(attend):
        return jax.jit(jax.grad(lambda *x: jnp.sum(attend(*x) * w), (0, 1, 2)))

    got = jax.jit(kernel)(q, k, v)
    np.testing.assert_allclose(got, reference(q, k, v, causal), rtol=2e-4, atol=2e-5)
    library = loss(lambda *x: jax.nn.dot_product_attention(*x, is_causal=causal))(q, k, v)
    for a, b in zip(loss(kernel)(q, k, v), library, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=5e-4)
