"""Root-mean-square normalisation (Zhang & Sennrich 2019)."""

import jax
import jax.numpy as jnp
from flax import nnx

from lab.layers.parameters import scale


class RMSNorm(nnx.Module):
    """x / rms(x) times a learned scale; the mean square is taken in float32."""

    def __init__(self, width: int, *, epsilon: float):
        self.scale = scale(width)
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        x_f32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(x_f32 * x_f32, axis=-1, keepdims=True) + self.epsilon)
        scale = self.scale[...].reshape((1,) * (x.ndim - 1) + (-1,))
        return (x_f32 * inverse * scale).astype(x.dtype)
