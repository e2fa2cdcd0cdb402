"""How close reconstructions are to their images, per image, in levels of 8 bits.

All functions take images (B, H, W, C) in levels [0, 255], of any dtype, and compute in float32.
`to_levels` of lab/tokenizers/levels.py makes such images of what a network puts out.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lab.tokenizers.levels import PEAK

SSIM_SIDE = 11
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * PEAK) ** 2
SSIM_C2 = (0.03 * PEAK) ** 2


def squared_error(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Mean squared error (B,) in squared levels per dimension."""
    return jnp.mean(jnp.square(_difference(images, reconstructions)), axis=(1, 2, 3))


def absolute_error(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Mean absolute error (B,) in levels per dimension."""
    return jnp.mean(jnp.abs(_difference(images, reconstructions)), axis=(1, 2, 3))


def psnr_db(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Peak signal to noise ratio (B,) in decibels, peak 255; infinite for equal images.

    Take the mean over images of this, and not this of the mean error: they differ.
    """
    return 10 * jnp.log10(PEAK**2 / squared_error(images, reconstructions))


def ssim(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Structural similarity (B,) in [-1, 1] (Wang et al. 2004, eq. 13).

    Gaussian window 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, only windows that lie inside the
    image, mean over windows and channels. Where a side is shorter than 11 the window is the
    largest odd one that fits (`ssim_side`), with the same sigma: such numbers compare among images
    of that size only.
    """
    _difference(images, reconstructions)  # the shapes must agree
    window = _gaussian(ssim_side(images.shape[1], images.shape[2]))
    # Variances do not depend on the origin: half way they lose the least to float32.
    x, y = (z.astype(jnp.float32) - PEAK / 2 for z in (images, reconstructions))
    mean_x, mean_y = _blur(x, window), _blur(y, window)
    var_x = _blur(x * x, window) - mean_x * mean_x
    var_y = _blur(y * y, window) - mean_y * mean_y
    covariance = _blur(x * y, window) - mean_x * mean_y
    mean_x, mean_y = mean_x + PEAK / 2, mean_y + PEAK / 2
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_x + var_y + SSIM_C2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def ssim_side(rows: int, columns: int) -> int:
    """The side of SSIM's window: 11, or the largest odd number that fits."""
    shorter = min(rows, columns)
    return min(SSIM_SIDE, shorter - (shorter + 1) % 2)


def _difference(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    if images.shape != reconstructions.shape or images.ndim != 4:
        raise ValueError(f"images {images.shape}, reconstructions {reconstructions.shape}")
    return images.astype(jnp.float32) - reconstructions.astype(jnp.float32)


def _gaussian(side: int) -> list[float]:
    offsets = np.arange(side) - side // 2
    weights = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    return (weights / weights.sum()).tolist()


def _blur(x_BHWC: jax.Array, window: list[float]) -> jax.Array:
    """Weighted sums of shifted images along both axes: exact float32 on every device."""
    rows = x_BHWC.shape[1] - len(window) + 1
    columns = x_BHWC.shape[2] - len(window) + 1
    x_BHWC = sum((w * x_BHWC[:, i : i + rows] for i, w in enumerate(window)), start=jnp.zeros(()))
    return sum((w * x_BHWC[:, :, i : i + columns] for i, w in enumerate(window)), jnp.zeros(()))
