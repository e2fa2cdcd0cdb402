"""Dropout."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, key: jax.Array | None, *, rate: float) -> jax.Array:
    """x with features zeroed at `rate` and the rest scaled up; x itself without a key."""
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), jnp.zeros_like(x))
