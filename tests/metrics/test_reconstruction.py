"""Reconstruction metrics against float64 NumPy and SciPy, and closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from lab.metrics.reconstruction import (
    absolute_error,
    psnr_db,
    squared_error,
    ssim,
    ssim_side,
)
from lab.tokenizers.levels import to_levels


def pair(size, *, seed=0, noise=20.0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (3, *size, 3))
    made = np.clip(images + rng.normal(0, noise, images.shape), 0, 255).round()
    return images.astype(np.uint8), made.astype(np.uint8)


def smooth_pair(size):
    """Nearly constant bright images: where float32 loses the variances of SSIM."""
    rng = np.random.default_rng(1)
    images = 250 + rng.normal(0, 1, (2, *size, 3))
    return images, images + rng.normal(0, 1, images.shape)


def reference_ssim(x, y, side):
    """Wang et al. 2004, eq. 13, window by window from centred moments, one channel at a time."""
    at = np.arange(side) - side // 2
    window = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(x.shape[-1]):
        for i in range(x.shape[0] - side + 1):
            for j in range(x.shape[1] - side + 1):
                a = x[i : i + side, j : j + side, channel].astype(np.float64)
                b = y[i : i + side, j : j + side, channel].astype(np.float64)
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
                cov = (window * (a - ma) * (b - mb)).sum()
                top = (2 * ma * mb + c1) * (2 * cov + c2)
                values.append(top / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return np.mean(values)


def test_errors_against_float64():
    x, y = pair((12, 10))
    difference = x.astype(np.float64) - y
    mse = (difference**2).mean((1, 2, 3))
    np.testing.assert_allclose(squared_error(x, y), mse, rtol=1e-5)
    np.testing.assert_allclose(absolute_error(x, y), np.abs(difference).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(psnr_db(x, y), 20 * np.log10(255 / np.sqrt(mse)), rtol=1e-5)


def test_bytes_do_not_wrap_around():
    low, high = np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)
    np.testing.assert_allclose(absolute_error(low, high), [255.0])
    np.testing.assert_allclose(psnr_db(low, high), [0.0], atol=1e-5)


def test_psnr_known_values():
    x = np.full((2, 8, 8, 3), 100, np.uint8)
    y = x.copy()
    y[0] += 1
    np.testing.assert_allclose(psnr_db(x, y), [48.130804, np.inf], rtol=1e-6)


@pytest.mark.parametrize("size", [(16, 14), (11, 11), (8, 8), (8, 20), (3, 5), (1, 1)])
def test_ssim_against_float64(size):
    x, y = pair(size)
    side = min(11, *(s if s % 2 else s - 1 for s in size))
    assert ssim_side(*size) == side
    want = [reference_ssim(a, b, side) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(ssim(x, y), want, rtol=1e-4, atol=1e-5)


def test_ssim_of_smooth_bright_images():
    x, y = smooth_pair((16, 16))
    want = [reference_ssim(a, b, 11) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(ssim(jnp.asarray(x), jnp.asarray(y)), want, atol=2e-4)


def test_window_is_the_published_one():
    """The published window is the two-dimensional Gaussian, here two one-dimensional passes."""
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))
    x, _ = pair((16, 14))
    gray = x[..., :1].astype(np.float64)
    flat = np.full_like(gray, 90.0)
    mean = [correlate2d(g[..., 0], window / window.sum(), mode="valid") for g in gray]
    square = [correlate2d(g[..., 0] ** 2, window / window.sum(), mode="valid") for g in gray]
    c1, c2 = 2.55**2, 7.65**2
    want = [
        ((2 * m * 90 + c1) / (m**2 + 90**2 + c1) * c2 / (s - m**2 + c2)).mean()
        for m, s in zip(mean, square, strict=True)
    ]
    np.testing.assert_allclose(ssim(jnp.asarray(gray), jnp.asarray(flat)), want, rtol=1e-4)


def test_ssim_known_values():
    x, y = pair((16, 16))
    np.testing.assert_allclose(ssim(x, x), np.ones(3), atol=1e-5)
    np.testing.assert_allclose(ssim(x, y), ssim(y, x), atol=1e-6)
    low, high = np.full((1, 12, 12, 3), 60.0), np.full((1, 12, 12, 3), 180.0)
    shift = (2 * 60 * 180 + 2.55**2) / (60**2 + 180**2 + 2.55**2)  # constants: luminance alone
    np.testing.assert_allclose(ssim(jnp.asarray(low), jnp.asarray(high)), [shift], rtol=1e-5)
    board = 255.0 * (np.indices((16, 16)).sum(0) % 2)[None, :, :, None]
    assert float(ssim(jnp.asarray(board), jnp.asarray(255 - board))[0]) < -0.9


def test_levels():
    x = jnp.array([-1.5, -1.0, 0.0, 0.5 / 127.5, 1.0, 2.0]).reshape(1, 1, 2, 3)
    assert to_levels(x).ravel().tolist() == [0, 0, 128, 128, 255, 255]
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    as_network = jnp.asarray(levels, jnp.float32) / 127.5 - 1
    np.testing.assert_array_equal(to_levels(as_network), levels)


@pytest.mark.parametrize("metric", [squared_error, absolute_error, psnr_db, ssim])
def test_shapes_must_agree(metric):
    with pytest.raises(ValueError, match="reconstructions"):
        metric(jnp.zeros((2, 8, 8, 3)), jnp.zeros((1, 8, 8, 3)))
