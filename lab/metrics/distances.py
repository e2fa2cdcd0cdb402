"""Everything that is measured between generated images and a reference, from their features.

N generated images, M images of the reference, F features, K classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from lab.core.errors import LabError
from lab.metrics.frechet import LIMIT_SAMPLES, frechet_curve, frechet_infinity
from lab.metrics.inception_score import inception_score
from lab.metrics.interval import Interval
from lab.metrics.kernel_distance import KernelSet, kernel_curve, kernel_set
from lab.metrics.moments import Moments, moments_of
from lab.metrics.precision_recall import Manifold, manifold, precision, recall

SQUARED = "squared features"
BETTER = {
    "fd": "lower",
    "fd_infinity": "lower",
    "kid": "lower",
    "inception_score": "higher",
    "precision": "higher",
    "recall": "higher",
}
UNIT = {
    "fd": SQUARED,
    "fd_infinity": SQUARED,
    "kid": "squared MMD",
    "inception_score": "classes",
    "precision": "share of generated images",
    "recall": "share of reference images",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The images that generated ones are judged against, by what an extractor says of them.

    What only the reference takes (its kernels, its balls) is computed once and kept: judge many
    sets against one object.
    """

    moments: Moments
    features_MF: np.ndarray
    log_probabilities_MK: np.ndarray

    @classmethod
    def of(cls, features_MF: np.ndarray, log_probabilities_MK: np.ndarray) -> Reference:
        """A reference whose moments are those of its features."""
        return cls(moments_of(features_MF), features_MF, log_probabilities_MK)

    @functools.cached_property
    def kernels(self) -> KernelSet:
        """For kernel distances."""
        return kernel_set(self.features_MF)

    @functools.cached_property
    def manifold(self) -> Manifold:
        """For precision and recall."""
        return manifold(self.features_MF)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    """One number of a set of images with its interval; `better` is "lower" or "higher"."""

    metric: str  # a key of BETTER
    value: float
    low: float
    high: float
    level: float
    method: str
    better: str
    samples: int
    unit: str
    quantile: float | None = None  # half of the interval in standard errors


def judge(
    features_NF: np.ndarray,
    log_probabilities_NK: np.ndarray,
    reference: Reference,
    *,
    level: float,
    seed: int,
    counts: Sequence[int],
) -> list[Value]:
    """All metrics of N generated images, the Frechet and the kernel distance also of fewer.

    "fd" and "kid" stand once for each of `counts` that is below N, in order, and then for N; the
    others once, of all N; "fd_infinity" not at all below 1.5 F images, where it cannot be had.
    `seed` orders the images into sets and groups; what it changes is far within the intervals.
    Raises LabError for a level outside 0 to 1, fewer than 40 images, a count below 4 or above N, or
    features and classes that are not those of the reference.
    """
    _check(features_NF, log_probabilities_NK, reference, level)
    total = len(features_NF)
    used = [*sorted(n for n in set(counts) if n != total), total]
    frechet = frechet_curve(features_NF, reference.moments, used, level=level, seed=seed)
    kernel = kernel_curve(features_NF, reference.kernels, used, level=level, seed=seed)
    balls = manifold(features_NF)
    found = {
        "inception_score": inception_score(log_probabilities_NK, level=level, seed=seed),
        "precision": precision(balls, reference.manifold, level=level),
        "recall": recall(balls, reference.manifold, level=level, seed=seed),
    }
    if total >= LIMIT_SAMPLES * reference.moments.features:
        limit = frechet_infinity(features_NF, reference.moments, level=level, seed=seed)
        found = {"fd_infinity": limit, **found}
    return [
        *(_value("fd", point.distance, samples=point.samples) for point in frechet),
        *(_value("kid", point.distance, samples=point.samples) for point in kernel),
        *(_value(metric, interval, samples=total) for metric, interval in found.items()),
    ]


def _value(metric: str, interval: Interval, *, samples: int) -> Value:
    return Value(
        metric=metric,
        **dataclasses.asdict(interval),
        better=BETTER[metric],
        samples=samples,
        unit=UNIT[metric],
    )


def _check(
    features_NF: np.ndarray, log_probabilities_NK: np.ndarray, reference: Reference, level: float
) -> None:
    if not 0 < level < 1:
        raise LabError(f"level {level}: allowed is between 0 and 1")
    if len(features_NF) != len(log_probabilities_NK):
        raise ValueError(f"features {features_NF.shape}, classes {log_probabilities_NK.shape}")
    ours = features_NF.shape[1], log_probabilities_NK.shape[1]
    theirs = reference.features_MF.shape[1], reference.log_probabilities_MK.shape[1]
    if ours != theirs or reference.moments.features != ours[0]:
        raise LabError(
            f"(features, classes) {ours} of the samples, {theirs} of the reference: not of one "
            "extractor"
        )
