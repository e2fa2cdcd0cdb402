"""Kernel distance (KID): the squared MMD of features under a cubic kernel, without bias in N.

Binkowski et al. 2018, sec. 4. The estimate is the U-statistic of all pairs and not the mean over
blocks of a thousand images: both are unbiased, and this one has the smaller variance. Both sets
are counted as samples, so the interval is for the distance between the two populations.

N generated images, M images of the reference, F features.
"""

from __future__ import annotations

import dataclasses
import statistics

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
    n, m = generated.count, reference.count
    sizes = generated.features_NF.shape[1], reference.features_NF.shape[1]
    if sizes[0] != sizes[1]:
        raise LabError(f"kernel distance between {sizes[0]} and {sizes[1]} features")
    if min(n, m) < 3:
        raise LabError(f"kernel distance between {n} and {m} images: at least 3 are needed")
    across_N, across_M = _across(generated.features_NF, reference.features_NF)
    x, y, xy = generated.within_N.sum(), reference.within_N.sum(), across_N.sum()
    value = x / (n * (n - 1)) + y / (m * (m - 1)) - 2 * xy / (n * m)
    without_N = (x - 2 * generated.within_N) / ((n - 1) * (n - 2))
    without_N = without_N - 2 * (xy - across_N) / ((n - 1) * m)
    without_M = (y - 2 * reference.within_N) / ((m - 1) * (m - 2))
    without_M = without_M - 2 * (xy - across_M) / (n * (m - 1))
    variance = _jackknife_variance(without_N) + _jackknife_variance(without_M)
    variance = max(variance, _variance_if_equal(generated, reference))
    half = statistics.NormalDist().inv_cdf(0.5 + level / 2) * float(np.sqrt(variance))
    method = "U-statistic of all pairs; jackknife over both sets, at least as of equal sets; normal"
    return Interval(float(value), float(value) - half, float(value) + half, level, method)


def _across(x_NF: np.ndarray, y_MF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the other set of the kernels of each image."""
    across_N, across_M = np.zeros(len(x_NF)), np.zeros(len(y_MF))
    for i in range(0, len(x_NF), CHUNK):
        for j in range(0, len(y_MF), CHUNK):
            block = cubic_kernel(x_NF[i : i + CHUNK], y_MF[j : j + CHUNK])
            across_N[i : i + CHUNK] += block.sum(axis=1)
            across_M[j : j + CHUNK] += block.sum(axis=0)
    return across_N, across_M


def _variance_if_equal(a: KernelSet, b: KernelSet) -> float:
    """Of the U-statistic between two sets of one distribution: its second projections alone."""
    n, m = a.count, b.count
    within = 2 * a.spread / (n * (n - 1)) + 2 * b.spread / (m * (m - 1))
    return within + 4 * (a.spread * b.spread) ** 0.5 / (n * m)


def _jackknife_variance(left_out: np.ndarray) -> float:
    count = len(left_out)
    return (count - 1) / count * float(np.square(left_out - left_out.mean()).sum())
