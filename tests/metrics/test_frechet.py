"""Frechet distances: against closed forms and SciPy; bias and coverage on known distributions.

The tables of bias and coverage: pytest tests/metrics/test_frechet.py -m slow -s
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy import linalg

from lab.core.errors import LabError
from lab.metrics.frechet import (
    frechet_curve,
    frechet_distance,
    frechet_infinity,
    frechet_interval,
)
from lab.metrics.moments import Moments, moments_of


def gaussian(mean, covariance):
    return Moments(1000, np.asarray(mean, np.float64), np.asarray(covariance, np.float64))


def turned(basis, variances):
    """A covariance with these eigenvectors and values."""
    return np.matmul(basis * variances, np.transpose(basis))


def any_covariance(size, rng):
    root = rng.normal(size=(size, size))
    return root @ root.T


# --- the distance --------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [0, 2, 5])
def test_commuting_covariances(zeros):
    """One basis: sum of (sqrt a - sqrt b)^2, whichever variances are 0."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    a, b, apart = rng.uniform(0.1, 4, 5), rng.uniform(0.1, 4, 5), rng.normal(size=5)
    a[:zeros] = 0
    b[1] = 0
    first = gaussian(apart, turned(basis, a))
    second = gaussian(np.zeros(5), turned(basis, b))
    want = apart @ apart + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(first, second) == pytest.approx(want, rel=1e-12)
    assert frechet_distance(second, first) == pytest.approx(want, rel=1e-12)


def test_against_the_root_of_scipy():
    rng = np.random.default_rng(1)
    for size in (1, 2, 6, 20):
        a, b = any_covariance(size, rng), any_covariance(size, rng)
        apart = rng.normal(size=size)
        root = np.real(linalg.sqrtm(a @ b))
        want = apart @ apart + np.trace(a + b - 2 * np.atleast_2d(root))
        found = frechet_distance(gaussian(apart, a), gaussian(np.zeros(size), b))
        assert found == pytest.approx(want, rel=1e-9)


def test_fewer_samples_than_features():
    """tr (A B)^(1/2) is then the sum of singular values of one set's samples times the other's."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(9, 40)), 2 * rng.normal(size=(12, 40)) + 0.3
    u, v = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    shared = np.linalg.svd(u @ v.T, compute_uv=False).sum()
    apart = x.mean(0) - y.mean(0)
    want = apart @ apart + np.sum(u * u) + np.sum(v * v) - 2 * shared
    assert frechet_distance(moments_of(x), moments_of(y)) == pytest.approx(want, rel=1e-10)


def test_of_itself_and_moved():
    x = np.random.default_rng(3).normal(size=(300, 30)) * np.logspace(0, -6, 30)
    moments = moments_of(x)
    assert frechet_distance(moments, moments) < 1e-12
    assert frechet_distance(moments, moments_of(x + 0.5)) == pytest.approx(30 * 0.25, rel=1e-12)
    with pytest.raises(LabError, match="between 30 and 2 features"):
        frechet_distance(moments, moments_of(np.eye(2)))


# --- the statistics of samples -------------------------------------------------------------------


@pytest.mark.parametrize(("count", "size"), [(90, 6), (50, 70), (60, 59)])
def test_interval_by_the_letter(count, size):
    """The value is the distance of the moments; the error a loop over groups left out."""
    rng = np.random.default_rng(4)
    x, reference = rng.normal(size=(count, size)) + 3, moments_of(rng.normal(size=(80, size)) * 2)
    found = frechet_interval(x, reference, level=0.9, seed=5, resamples=10)
    x = x[np.random.default_rng(5).permutation(count)]
    assert found.value == pytest.approx(frechet_distance(moments_of(x), reference), rel=1e-9)
    kept = [np.arange(count) % 10 != g for g in range(10)]
    left_out = [frechet_distance(moments_of(x[k]), reference) for k in kept]
    half = 1.8331 * np.sqrt(9 * np.var(left_out))  # t of 9 degrees
    assert (found.high - found.value) == pytest.approx(half, rel=1e-4)
    assert (found.value - found.low) == pytest.approx(half, rel=1e-4)
    assert found.quantile == pytest.approx(1.8331, rel=1e-4)


def test_directions_in_which_samples_do_not_vary():
    """They add nothing to the shared root, not even the root of a rounding error."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(90, 10)) @ np.linalg.qr(rng.normal(size=(70, 10)))[0].T
    reference = moments_of(rng.normal(size=(200, 70)))
    found = frechet_interval(x, reference, level=0.9, seed=0)
    assert found.value == pytest.approx(frechet_distance(moments_of(x), reference), abs=1e-11)
    own = frechet_interval(x, moments_of(x), level=0.9, seed=0)
    assert abs(own.value) < 1e-12


def test_curve_is_the_mean_over_disjoint_sets():
    rng = np.random.default_rng(6)
    x, reference = rng.normal(size=(100, 4)), gaussian(np.ones(4), np.eye(4))
    points = frechet_curve(x, reference, [30, 50, 100], seed=7)
    x = x[np.random.default_rng(7).permutation(100)]
    for point, samples in zip(points, (30, 50, 100), strict=True):
        sets = [x[s : s + samples] for s in range(0, 100 - samples + 1, samples)]
        want = np.mean([frechet_distance(moments_of(part), reference) for part in sets])
        assert point.samples == samples
        assert point.distance.value == pytest.approx(want, rel=1e-10)
    assert points[0].distance.value > points[1].distance.value > points[2].distance.value
    whole = frechet_interval(x, reference, level=0.9, seed=7)
    assert points[2].distance.value == pytest.approx(whole.value, rel=1e-10)


def test_limit_is_the_intercept_of_a_line():
    rng = np.random.default_rng(8)
    x, reference = rng.normal(size=(160, 5)), gaussian(np.full(5, 0.3), np.eye(5))
    found = frechet_infinity(x, reference, level=0.9, seed=9, resamples=8)
    x = x[np.random.default_rng(9).permutation(160)]

    def shown(part):
        return frechet_distance(moments_of(part), reference)

    left_out = [shown(x[np.arange(160) % 8 != g]) for g in range(8)]
    want = np.polyfit([1 / 160, 1 / 140], [shown(x), float(np.mean(left_out))], 1)[1]
    assert found.value == pytest.approx(want, abs=1e-9)
    halves = (shown(x[:80]) + shown(x[80:])) / 2
    other = np.polyfit([1 / 160, 1 / 80], [float(shown(x)), float(halves)], 1)[1]
    half = np.hypot(1.8946 * np.sqrt(7 * np.var(left_out)), other - want)  # t of 7 degrees
    assert found.high - found.value == pytest.approx(half, rel=1e-4)
    assert found.value - found.low == pytest.approx(half, rel=1e-4)
    assert found.quantile is None  # two errors of their own


def test_refusals():
    reference = gaussian(np.zeros(3), np.eye(3))
    x = np.random.default_rng(0).normal(size=(60, 3))
    with pytest.raises(LabError, match="of 39 samples: an interval from 20 groups needs at least"):
        frechet_interval(x[:39], reference, level=0.9, seed=0)
    with pytest.raises(LabError, match="of 61 samples: allowed is 4 to 60"):
        frechet_curve(x, reference, [61])
    with pytest.raises(LabError, match="59 samples of 40 features; at least 60 are needed"):
        frechet_infinity(np.zeros((59, 40)), gaussian(np.zeros(40), np.eye(40)), level=0.9, seed=0)
    with pytest.raises(LabError, match="between 2 and 3 features"):
        frechet_infinity(x[:, :2], reference, level=0.9, seed=0)


# --- bias and coverage ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class World:
    """A reference, a way to draw samples, and the distance between the two distributions."""

    reference: Moments
    draw: Callable
    truth: float


def gaussian_world(size, *, apart):
    """Spectrum 1/i; the samples differ from the reference where `apart` is not 0."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    spectrum = 1 / np.arange(1, size + 1)
    other = spectrum * np.exp(apart * rng.normal(size=size))
    mean = apart * rng.normal(size=size) / np.sqrt(size)
    root = basis * np.sqrt(other)
    reference = gaussian(np.zeros(size), turned(basis, spectrum))
    truth = mean @ mean + np.sum((np.sqrt(spectrum) - np.sqrt(other)) ** 2)
    return World(reference, lambda n, rng: rng.normal(size=(n, size)) @ root.T + mean, truth)


def rectified_world(size):
    """Non-negative, correlated, heavy-tailed features; the truth is from 400,000 samples."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(size, size)) * np.arange(1, size + 1) ** -0.5

    def draw(count, rng, shift=0.2):
        z = rng.normal(size=(count, size)) * np.exp(0.3 * rng.normal(size=(count, 1)))
        return np.maximum(z @ weight.T + shift, 0)

    reference = moments_of(draw(400_000, rng, shift=0.0))
    return World(reference, draw, frechet_distance(moments_of(draw(400_000, rng)), reference))


def simulated(world, count, *, times, seed=0):
    """Plug-in and limit, each (times, 3): value, low, high."""
    rng = np.random.default_rng(seed)
    plug_in, limit = [], []
    for _ in range(times):
        x = world.draw(count, rng)
        for kept, of in ((plug_in, frechet_interval), (limit, frechet_infinity)):
            found = of(x, world.reference, level=0.9, seed=0)
            kept.append((found.value, found.low, found.high))
    return np.array(plug_in), np.array(limit)


def coverage(intervals, truth):
    return float(np.mean((intervals[:, 1] <= truth) & (truth <= intervals[:, 2])))


def test_bias_and_coverage():
    """The plug-in is too large and its interval is for its mean; the limit is for the truth."""
    world = gaussian_world(8, apart=0.3)
    plug_in, limit = simulated(world, 160, times=120)
    shown = plug_in[:, 0].mean()
    spread = plug_in[:, 0].std()
    assert shown - world.truth > 0.5 * spread
    assert abs(limit[:, 0].mean() - world.truth) < 0.25 * spread
    # 120 trials at 0.9: 2.5 standard errors are 0.07.
    assert 0.83 <= coverage(plug_in, shown) <= 0.97
    assert 0.83 <= coverage(limit, world.truth) <= 0.97
    assert coverage(plug_in, world.truth) < coverage(limit, world.truth) - 0.05


def test_why_not_the_bootstrap():
    """Of samples like the reference it says nearly twice the spread, and shifts by the bias."""
    world = gaussian_world(16, apart=0.0)
    rng = np.random.default_rng(0)
    shown, resampled, left_out = [], [], []
    for trial in range(150):
        x = world.draw(160, rng)
        found = frechet_interval(x, world.reference, level=0.9, seed=0)
        shown.append(found.value)
        left_out.append((found.high - found.value) / 1.7291)
        if trial < 15:
            again = [moments_of(x[rng.integers(0, 160, 160)]) for _ in range(40)]
            again = [frechet_distance(moments, world.reference) for moments in again]
            resampled.append((np.std(again, ddof=1), np.mean(again) - found.value))
    spread, shift = np.mean(resampled, axis=0)
    assert spread > 1.5 * np.std(shown)
    assert shift > 0.8 * np.mean(shown)
    assert 0.9 * np.std(shown) < np.mean(left_out) < 1.5 * np.std(shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["same", "near", "far", "rectified"])
def test_table_of_coverage(name):
    size = 32
    apart = {"same": 0.0, "near": 0.1, "far": 0.5}
    world = (
        rectified_world(size) if name == "rectified" else gaussian_world(size, apart=apart[name])
    )
    for count in (48, 64, 128, 256, 1024):
        plug_in, limit = simulated(world, count, times=200)
        shown = plug_in[:, 0].mean()
        print(
            f"\n{name} F {size} N {count}: truth {world.truth:.4f}; N samples show {shown:.4f}, "
            f"sd {plug_in[:, 0].std():.4f}, coverage of it {coverage(plug_in, shown):.3f}; "
            f"limit {limit[:, 0].mean():.4f}, sd {limit[:, 0].std():.4f}, coverage of the truth "
            f"{coverage(limit, world.truth):.3f}",
            end="",
        )
        assert coverage(plug_in, shown) >= 0.8
        assert coverage(limit, world.truth) >= 0.8
