"""How far a reconstruction is from its image, as a loss: means over the dimensions of an image."""

import jax
import jax.numpy as jnp


def l1_per_image(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Mean absolute difference (B,) of images (B, ...) in their own unit, taken in float32."""
    return _mean_per_image(jnp.abs(_difference(images, reconstructions)))


def l2_per_image(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Mean squared difference (B,) of images (B, ...) in their own unit, taken in float32."""
    return _mean_per_image(jnp.square(_difference(images, reconstructions)))


def _difference(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    if images.shape != reconstructions.shape:
        raise ValueError(f"images {images.shape}, reconstructions {reconstructions.shape}")
    return images.astype(jnp.float32) - reconstructions.astype(jnp.float32)


def _mean_per_image(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))
