"""Normalisation of features: root mean square, and mean with variance."""

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.scopes import NORM
from lab.layers.parameters import bias, scale


class RMSNorm(nnx.Module):
    """x / rms(x) times a learned scale; the mean square is taken in float32.

    Zhang & Sennrich 2019.
    """

    def __init__(self, width: int, *, epsilon: float):
        self.scale = scale(width)
        self.epsilon = epsilon

    @jax.named_scope(NORM)
    def __call__(self, x: jax.Array) -> jax.Array:
        x_f32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(x_f32 * x_f32, axis=-1, keepdims=True) + self.epsilon)
        scale = self.scale[...].reshape((1,) * (x.ndim - 1) + (-1,))
        return (x_f32 * inverse * scale).astype(x.dtype)


@jax.named_scope(NORM)
def standardised(x: jax.Array, *, epsilon: float) -> jax.Array:
    """(x - mean) / std over the last axis, in float32 whatever x is."""
    x_f32 = x.astype(jnp.float32)
    centred = x_f32 - jnp.mean(x_f32, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon)


class LayerNorm(nnx.Module):
    """`standardised` times a learned scale plus a learned shift (Ba et al. 2016)."""

    def __init__(self, width: int, *, epsilon: float):
        self.scale = scale(width)
        self.bias = bias(width, "embed_out")
        self.epsilon = epsilon

    @jax.named_scope(NORM)
    def __call__(self, x: jax.Array) -> jax.Array:
        alone = (1,) * (x.ndim - 1) + (-1,)
        scaled = standardised(x, epsilon=self.epsilon) * self.scale[...].reshape(alone)
        return (scaled + self.bias[...].reshape(alone)).astype(x.dtype)
