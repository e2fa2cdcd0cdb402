"""Kernel distance (KID): the squared MMD of features under a cubic kernel, without bias in N.

Binkowski et al. 2018, sec. 4. The estimate is the U-statistic of all pairs and not the mean over
blocks of a thousand images: both are unbiased, and this one has the smaller variance. Both sets
are counted as samples, so the interval is for the distance between the two populations.

N generated images, M images of the reference, F features.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

import numpy as np

from lab.core.errors import LabError
from lab.metrics.interval import Interval
from lab.metrics.moments import host_features

DEGREE = 3
CHUNK = 1024  # rows of the kernel at a time: with as many columns, 8 MiB


@dataclasses.dataclass(frozen=True, eq=False)
class KernelSet:
    """Features (N, F), and what each one's kernels with all the others, and squares, add up to."""

    features_NF: np.ndarray
    within_N: np.ndarray
    squares: float

    @property
    def count(self) -> int:
        """N."""
        return len(self.features_NF)

    @property
    def spread(self) -> float:
        """Mean square of the kernels of pairs without what their two images have on average."""
        n = self.count
        mean_N = self.within_N / (n - 1)
        rest = self.squares - 2 * n * np.square(mean_N).sum() + n * (n + 1) * mean_N.mean() ** 2
        return max(0.0, float(rest)) / (n * (n - 1))


@dataclasses.dataclass(frozen=True)
class KernelPoint:
    """The distance by sets of this many images."""

    samples: int
    distance: Interval


def kernel_set(features_NF: np.ndarray) -> KernelSet:
    """Sums within a set; N^2 F / 2 products, so a reference's are worth keeping."""
    x_NF = host_features(features_NF)
    within_N, squares = np.zeros(len(x_NF)), 0.0
    for i in range(0, len(x_NF), CHUNK):
        for j in range(i, len(x_NF), CHUNK):
            block = cubic_kernel(x_NF[i : i + CHUNK], x_NF[j : j + CHUNK])
            if i == j:
                np.fill_diagonal(block, 0.0)
            else:
                within_N[j : j + CHUNK] += block.sum(axis=0)
            within_N[i : i + CHUNK] += block.sum(axis=1)
            squares += (1 if i == j else 2) * float(np.square(block).sum())
    return KernelSet(x_NF, within_N, squares)


def cubic_kernel(x_NF: np.ndarray, y_MF: np.ndarray) -> np.ndarray:
    """(x . y / F + 1)^3, (N, M)."""
    block = x_NF @ y_MF.T
    block /= x_NF.shape[1]
    block += 1.0
    return block * block * block


def kernel_distance(generated: KernelSet, reference: KernelSet, *, level: float) -> Interval:
    """The unbiased squared MMD with its interval; it may be negative where the sets are alike.

    The standard error is the jackknife's over the images of both sets (Hoeffding 1948), and not
    less than that between equal distributions: there the jackknife's is smallest where the value is
    lowest, and with it alone a kernel of one large direction covered 0 too seldom (measured;
    tests/metrics/test_kernel_distance.py). Raises LabError for sets of other features or fewer than
    three images.
    """
    _check(generated.features_NF.shape, reference.features_NF.shape)
    across_N, across_M = _across(generated.features_NF, reference.features_NF)
    return _mean_distance([generated], across_N, across_M, reference, level=level)


def kernel_curve(
    features_NF: np.ndarray,
    reference: KernelSet,
    counts: Sequence[int],
    *,
    level: float,
    seed: int,
) -> list[KernelPoint]:
    """The distance against samples used: the mean over as many disjoint sets of n as N holds.

    Nothing in it is biased, and its points share the kernels between the samples and the reference:
    it is flat well within its intervals, or the estimate is wrong. These kernels, most of the cost,
    are computed once for all counts. `seed` orders the images into sets. LabError as
    `kernel_distance`, and for a count below 3 or above N.
    """
    x_NF = host_features(features_NF)
    _check(x_NF.shape, reference.features_NF.shape)
    x_NF = x_NF[np.random.default_rng(seed).permutation(len(x_NF))]
    across_N, across_M = _across(x_NF, reference.features_NF)
    points = []
    for count in counts:
        if not 3 <= count <= len(x_NF):
            raise LabError(f"kernel distance of {count} samples: allowed is 3 to {len(x_NF)}")
        used = len(x_NF) // count * count
        sets = [kernel_set(x_NF[start : start + count]) for start in range(0, used, count)]
        without_M = across_M - _across(x_NF[used:], reference.features_NF)[1]
        found = _mean_distance(sets, across_N[:used], without_M, reference, level=level)
        points.append(KernelPoint(count, found))
    return points


def _check(generated: tuple[int, ...], reference: tuple[int, ...]) -> None:
    """Shapes (N, F) and (M, F)."""
    (n, features), (m, others) = generated, reference
    if features != others:
        raise LabError(f"kernel distance between {features} and {others} features")
    if min(n, m) < 3:
        raise LabError(f"kernel distance between {n} and {m} images: at least 3 are needed")


def _mean_distance(
    sets: Sequence[KernelSet],
    across_N: np.ndarray,
    across_M: np.ndarray,
    reference: KernelSet,
    *,
    level: float,
) -> Interval:
    """The mean over disjoint sets of equal size, from the kernels between them and the reference.

    `across_N` are sums over the reference, set after set; `across_M` sums over all images of sets.
    """
    k, n, m = len(sets), sets[0].count, reference.count
    across_KN, within_KN = across_N.reshape(k, n), np.stack([each.within_N for each in sets])
    x_K, y, xy_K = within_KN.sum(axis=1), reference.within_N.sum(), across_KN.sum(axis=1)
    value = x_K.mean() / (n * (n - 1)) + y / (m * (m - 1)) - 2 * xy_K.mean() / (n * m)
    without_KN = (x_K[:, None] - 2 * within_KN) / ((n - 1) * (n - 2))
    without_KN = without_KN - 2 * (xy_K[:, None] - across_KN) / ((n - 1) * m)
    without_M = (y - 2 * reference.within_N) / ((m - 1) * (m - 2))
    without_M = without_M - 2 * (xy_K.sum() - across_M) / (k * n * (m - 1))
    # Sets share the reference and nothing else.
    variance = sum(map(_jackknife_variance, without_KN)) / k**2 + _jackknife_variance(without_M)
    variance = max(variance, _variance_if_equal(sets, reference))
    quantile = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    half = quantile * float(np.sqrt(variance))
    method = "U-statistic of all pairs; jackknife over both sets, at least as of equal sets; normal"
    return Interval(float(value), float(value) - half, float(value) + half, level, method, quantile)


def _across(x_NF: np.ndarray, y_MF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the other set of the kernels of each image."""
    across_N, across_M = np.zeros(len(x_NF)), np.zeros(len(y_MF))
    for i in range(0, len(x_NF), CHUNK):
        for j in range(0, len(y_MF), CHUNK):
            block = cubic_kernel(x_NF[i : i + CHUNK], y_MF[j : j + CHUNK])
            across_N[i : i + CHUNK] += block.sum(axis=1)
            across_M[j : j + CHUNK] += block.sum(axis=0)
    return across_N, across_M


def _variance_if_equal(sets: Sequence[KernelSet], reference: KernelSet) -> float:
    """Of the mean U-statistic between sets of one distribution: its second projections alone."""
    k, n, m = len(sets), sets[0].count, reference.count
    spread = sum(each.spread for each in sets) / k
    within = 2 * spread / (k * n * (n - 1)) + 2 * reference.spread / (m * (m - 1))
    return within + 4 * (spread * reference.spread) ** 0.5 / (k * n * m)


def _jackknife_variance(left_out: np.ndarray) -> float:
    count = len(left_out)
    return (count - 1) / count * float(np.square(left_out - left_out.mean()).sum())
