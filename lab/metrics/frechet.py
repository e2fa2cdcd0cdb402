"""Frechet distance between features as Gaussians, its interval, and its limit in the samples.

With few samples the distance is too large: a covariance of N samples has its eigenvalues spread
out, which adds about c / N, and c grows with the features F. So a number is of N samples, and
compares with others of the same N. Its interval is for what other N samples would show on
average. `frechet_infinity` is the limit, with an interval for the limit.

The errors come from leaving out groups of samples and not from resampling with replacement:
samples drawn twice add that bias a second time, and where the distance is small the bootstrap's
spread is about twice the true one (measured; tests/metrics/test_frechet.py). The reference is
held fixed throughout: its own sampling is in no interval here.

N images, F features, R directions in which the reference varies, G groups.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from lab.core.errors import LabError
from lab.metrics.draws import standard_error, t_quantile
from lab.metrics.interval import Interval
from lab.metrics.moments import Moments, host_features

GROUPS = 20
LIMIT_SAMPLES = 1.5  # a feature; with fewer there is no limit to be had


@dataclasses.dataclass(frozen=True)
class FrechetPoint:
    """The distance that this many samples show."""

    samples: int
    distance: Interval


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Heusel et al. 2017, eq. 6), not below 0.

    The trace of the root is the sum of the singular values of root_a^T root_b with A = root_a
    root_a^T: real, and defined for singular covariances too. In squared units of the features.
    """
    if a.features != b.features:
        raise LabError(f"Frechet distance between {a.features} and {b.features} features")
    apart_F = a.mean_F - b.mean_F
    shared = np.linalg.svd(a.root_FR.T @ b.root_FR, compute_uv=False).sum()
    spread = np.trace(a.covariance_FF) + np.trace(b.covariance_FF) - 2 * shared
    return max(0.0, float(apart_F @ apart_F + spread))


def frechet_interval(
    features_NF: np.ndarray, reference: Moments, *, level: float, seed: int, resamples: int = GROUPS
) -> Interval:
    """The distance of N samples, with the interval of its mean over sets of N samples.

    `resamples` groups are left out in turn: the delete-a-group jackknife with Student's t.
    """
    samples = _samples(features_NF, reference, seed=seed, groups=resamples)
    return _jackknife(samples, _Samples.distance, level=level, groups=resamples)


def frechet_curve(
    features_NF: np.ndarray,
    reference: Moments,
    counts: Sequence[int],
    *,
    level: float = 0.9,
    seed: int = 0,
) -> list[FrechetPoint]:
    """The distance against samples used: the mean over as many disjoint sets of n as N holds.

    Raises LabError for a count below 2 or above N, and where a group left out leaves too few.
    """
    samples = _samples(features_NF, reference, seed=seed, groups=GROUPS)
    total = len(features_NF)
    points = []
    for count in counts:
        if not 4 <= count <= total:
            raise LabError(f"Frechet distance of {count} samples: allowed is 4 to {total}")
        found = _jackknife(samples, _mean_of(count / total), level=level, groups=GROUPS)
        points.append(FrechetPoint(count, found))
    return points


def frechet_infinity(
    features_NF: np.ndarray, reference: Moments, *, level: float, seed: int, resamples: int = GROUPS
) -> Interval:
    """The limit of the distance in the samples: the intercept of a line in 1 / N.

    The line of Chong and Forsyth 2020 (sec. 4) at the end where it is straight: through the
    distance of all samples and the mean of those with a group left out. That is the jackknife's
    correction of bias; it has less bias and less spread than a line through halves and quarters
    (measured; tests/metrics/test_frechet.py). The error is that of the distance; added to it in
    squares is how far the line through all samples and their halves ends elsewhere, which is the
    scale of the bias that is left. The value may be negative: it is not cut at 0. Raises LabError
    below 1.5 F samples, where the line bends too much for any of this.
    """
    least = math.ceil(LIMIT_SAMPLES * reference.features)
    if len(features_NF) < least:
        raise LabError(
            f"limit of the Frechet distance: {len(features_NF)} samples of {reference.features} "
            f"features; at least {least} are needed"
        )
    samples = _samples(features_NF, reference, seed=seed, groups=resamples)
    value, left_out = _left_out(samples, _Samples.distance, groups=resamples)
    limit = resamples * value - (resamples - 1) * float(left_out.mean())
    bend = 2 * value - _mean_of(0.5)(samples) - limit
    half = math.hypot(t_quantile(resamples, level=level) * float(standard_error(left_out)), bend)
    method = f"line in 1/N, jackknife of {resamples} groups of samples, bend added; reference fixed"
    return Interval(limit, limit - half, limit + half, level, method)


@dataclasses.dataclass(frozen=True, eq=False)
class _Samples:
    """Centred samples (N, F), and (N, R) along the reference's root: all a distance needs."""

    apart_NF: np.ndarray
    along_NR: np.ndarray
    reference: Moments

    def distance(self) -> float:
        """From the reference. Not cut at 0, so that means of it are not bent."""
        count = len(self.apart_NF)
        mean_F = self.apart_NF.mean(axis=0)
        spread = np.square(self.apart_NF - mean_F).sum() / (count - 1)
        along_NR = self.along_NR - self.along_NR.mean(axis=0)
        wide = along_NR.shape[0] < along_NR.shape[1]
        gram = along_NR @ along_NR.T if wide else along_NR.T @ along_NR
        values = np.linalg.eigvalsh(gram / (count - 1))
        noise = len(values) * np.finfo(np.float64).eps * values[-1]
        shared = np.sqrt(values[values > noise]).sum()
        return float(mean_F @ mean_F + spread + np.trace(self.reference.covariance_FF) - 2 * shared)

    def without(self, group: int, groups: int) -> _Samples:
        """All but every `groups`-th sample."""
        kept = np.arange(len(self.apart_NF)) % groups != group
        return _Samples(self.apart_NF[kept], self.along_NR[kept], self.reference)

    def part(self, start: int, stop: int) -> _Samples:
        """Some consecutive samples."""
        return _Samples(self.apart_NF[start:stop], self.along_NR[start:stop], self.reference)


def _samples(features_NF: np.ndarray, reference: Moments, *, seed: int, groups: int) -> _Samples:
    features_NF = host_features(features_NF)
    if features_NF.shape[1] != reference.features:
        raise LabError(
            f"Frechet distance between {features_NF.shape[1]} and {reference.features} features"
        )
    if groups < 2 or len(features_NF) < 2 * groups:
        raise LabError(
            f"Frechet distance of {len(features_NF)} samples: an interval from {groups} groups "
            f"needs at least {2 * max(groups, 2)}"
        )
    order = np.random.default_rng(seed).permutation(len(features_NF))
    apart_NF = (features_NF - reference.mean_F)[order]
    return _Samples(apart_NF, apart_NF @ reference.root_FR, reference)


def _mean_of(share: float) -> Callable[[_Samples], float]:
    """The mean distance over disjoint sets of this share of the samples."""

    def mean(samples: _Samples) -> float:
        total = len(samples.apart_NF)
        count = max(2, int(share * total + 1e-6))
        starts = range(0, total - count + 1, count)
        return float(np.mean([samples.part(s, s + count).distance() for s in starts]))

    return mean


def _jackknife(
    samples: _Samples, statistic: Callable[[_Samples], float], *, level: float, groups: int
) -> Interval:
    value, left_out = _left_out(samples, statistic, groups=groups)
    quantile = t_quantile(groups, level=level)
    half = quantile * float(standard_error(left_out))
    method = f"jackknife of {groups} groups of samples; reference fixed"
    return Interval(value, value - half, value + half, level, method, quantile)


def _left_out(
    samples: _Samples, statistic: Callable[[_Samples], float], *, groups: int
) -> tuple[float, np.ndarray]:
    """A statistic of all samples, and (G,) with each group left out."""
    left_out = [statistic(samples.without(group, groups)) for group in range(groups)]
    return statistic(samples), np.array(left_out)
