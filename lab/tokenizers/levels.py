"""Images as files hold them, 8-bit levels, and as networks see them, floats in [-1, 1]."""

import jax
import jax.numpy as jnp

PEAK = 255.0


def in_unit_range(images_u8: jax.Array) -> jax.Array:
    """Levels, uint8, as networks see them: float32 in [-1, 1]."""
    return images_u8.astype(jnp.float32) / (PEAK / 2) - 1


def to_levels(images: jax.Array) -> jax.Array:
    """Images in [-1, 1] as an 8-bit file would hold them: clipped, rounded, float32 in [0, 255]."""
    return jnp.round(jnp.clip((images.astype(jnp.float32) + 1) * (PEAK / 2), 0, PEAK))
