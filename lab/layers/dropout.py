"""Dropout."""

import jax
import jax.numpy as jnp

from lab.layers.draws import WHOLE, Part


def dropout(x: jax.Array, key: jax.Array | None, *, rate: float, part: Part = WHOLE) -> jax.Array:
    """x with features zeroed at `rate` and the rest scaled up; x itself without a key.

    The first axis of x is the batch, or the `part` of it that is here.
    """
    if key is None or rate == 0:
        return x
    kept = part.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))
