"""Moments against float64 NumPy, in any split into batches and over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.core.layout import data_layout
from lab.metrics.moments import Moments, MomentSums, moments_of


def features(count, size, *, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, size)) @ (rng.normal(size=(size, size)) / np.sqrt(size))
    return (mixed + mean + rng.normal(size=size)).astype(np.float32)


def summed(x, sizes, layout=None, padding=np.nan):
    """Moments from batches of these sizes, each filled up to the largest with `padding`."""
    sums, start, width = MomentSums(layout), 0, max(sizes)
    for size in sizes:
        batch = np.full((width, x.shape[1]), padding, np.float32)
        batch[:size] = x[start : start + size]
        weight = (np.arange(width) < size).astype(np.float32)
        if layout is not None:
            batch, weight = jax.device_put((batch, weight), layout.batch_sharding())
        sums.add(jnp.asarray(batch), jnp.asarray(weight))
        start += size
    assert start == len(x)
    return sums.moments()


def check(found, x, *, rtol):
    """Relative to the largest covariance: an off-diagonal one may be near 0."""
    want = np.cov(x.astype(np.float64), rowvar=False)
    assert found.count == len(x)
    assert found.mean_F.dtype == found.covariance_FF.dtype == np.float64
    scale = np.sqrt(np.abs(want).max())
    np.testing.assert_allclose(found.mean_F, x.mean(0, np.float64), atol=rtol * scale, rtol=0)
    np.testing.assert_allclose(found.covariance_FF, want, atol=rtol * scale**2, rtol=0)


def test_of_an_array():
    x = features(50, 7, mean=1e4)
    check(moments_of(x), x, rtol=1e-10)


@pytest.mark.parametrize("sizes", [[40], [16, 16, 8], [1, 39], [0, 24, 0, 16], [8] * 5])
def test_any_split_into_batches(sizes):
    x = features(40, 6)
    check(summed(x, sizes), x, rtol=2e-6)


def test_sharded_over_eight_devices():
    x = features(60, 5)
    layout = data_layout(jax.devices())
    assert layout.batch_shards == 8
    found, alone = summed(x, [16, 16, 16, 12], layout), summed(x, [16, 16, 16, 12])
    check(found, x, rtol=2e-6)
    np.testing.assert_allclose(found.covariance_FF, alone.covariance_FF, atol=1e-6)


def test_many_features_far_from_zero():
    """About 0 float32 would leave an error of 1000^2 * 6e-8 = 6 % of a variance."""
    x = features(256, 2048, mean=1000.0)
    check(summed(x, [128, 128]), x, rtol=2e-5)


def test_merged_is_of_all_together():
    x = features(31, 4)
    parts = [moments_of(part) for part in (x[:2], x[2:20], x[20:])]
    found = parts[0].merged(parts[1]).merged(parts[2])
    check(found, x, rtol=1e-12)
    other_way = parts[0].merged(parts[1].merged(parts[2]))
    np.testing.assert_allclose(other_way.covariance_FF, found.covariance_FF, atol=1e-14)


def test_the_root_of_a_covariance():
    whole, thin = moments_of(features(50, 8)), moments_of(features(4, 8))
    for moments, rank in ((whole, 8), (thin, 3)):
        root = moments.root_FR
        assert root.shape == (8, rank)
        np.testing.assert_allclose(root @ root.T, moments.covariance_FF, atol=1e-14)


def test_too_little_and_what_is_not_finite_is_refused():
    with pytest.raises(LabError, match="features of 1 images"):
        moments_of(np.zeros((1, 3)))
    with pytest.raises(LabError, match="features of image 2 are not finite"):
        moments_of(np.array([[0.0], [1.0], [np.inf]]))
    with pytest.raises(LabError, match="features of 0 images"):
        MomentSums().moments()
    with pytest.raises(LabError, match="not finite"):
        summed(np.array([[0.0], [np.nan], [1.0]], np.float32), [3])
    with pytest.raises(LabError, match="at least 2"):
        Moments(1, np.zeros(3), np.zeros((3, 3)))
    with pytest.raises(LabError, match="of 3 and of 2 features"):
        moments_of(np.eye(3)).merged(moments_of(np.eye(2)))
