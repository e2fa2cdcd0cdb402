"""A random key for each image of a batch, so that nothing of an image depends on the others.

B images, T positions.
"""

import jax
import jax.numpy as jnp

from lab.layers.draws import WHOLE, Part


def keys_of(key: jax.Array, images: int, part: Part = WHOLE) -> jax.Array:
    """A key (B,) for each of so many images, by its place in the batch of which they are a part."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, part.rows(images))


def each_folded(key_B: jax.Array | None, number: jax.Array | int) -> jax.Array:
    """Keys (B,) of the images with a number folded into each."""
    assert key_B is not None  # what is drawn needs keys
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(key_B, number)


def spread_shares(key: jax.Array, positions: int) -> jax.Array:
    """Numbers (T,) from 0 to 1, each uniform, one in each of T equal parts, in random order.

    One may round up to 1.
    """
    order_key, key = jax.random.split(key)
    part_T = jnp.argsort(jax.random.uniform(order_key, (positions,)))
    return (part_T + jax.random.uniform(key, (positions,))) / positions
