"""Improved precision and recall: the share of each set that lies on the other's manifold.

Kynkaanniemi et al. 2019: a manifold is the union of the balls around its images that reach to
their third neighbour. Both numbers depend on how many images make up a manifold: more make
smaller balls. They compare at equal counts only.

N generated images, M images of the reference, Q queried, F features.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lab.core.errors import LabError
from lab.metrics.draws import t_quantile
from lab.metrics.interval import Interval, wilson
from lab.metrics.moments import host_features

NEIGHBOURS = 3
PARTS = 10
CHUNK = 256  # rows of the distances at a time: 100 MiB for 50,000 images


@dataclasses.dataclass(frozen=True, eq=False)
class Manifold:
    """Features (M, F), and of each the squared distance of its k-th neighbour."""

    features_MF: np.ndarray
    squared_radius_M: np.ndarray
    neighbours: int


def manifold(features_MF: np.ndarray, *, neighbours: int = NEIGHBOURS) -> Manifold:
    """The balls around images: M^2 F products, so a reference's are worth keeping.

    Raises LabError where there are no more images than neighbours.
    """
    x_MF = host_features(features_MF)
    if not 1 <= neighbours < len(x_MF):
        raise LabError(f"{neighbours} neighbours among {len(x_MF)} images: allowed is 1 to M - 1")
    centred_MF = x_MF - x_MF.mean(axis=0)
    radius_M = np.empty(len(x_MF))
    for start in range(0, len(x_MF), CHUNK):
        block = _squared_distances(centred_MF[start : start + CHUNK], centred_MF)
        rows = np.arange(len(block))
        block[rows, start + rows] = np.inf  # an image is no neighbour of itself
        block.partition(neighbours - 1, axis=1)
        radius_M[start : start + CHUNK] = block[:, neighbours - 1]
    return Manifold(x_MF, radius_M, neighbours)


def within(query_QF: np.ndarray, balls: Manifold) -> np.ndarray:
    """Whether each image (Q,) lies in one of the balls."""
    query_QF = host_features(query_QF)
    if query_QF.shape[1] != balls.features_MF.shape[1]:
        raise LabError(
            f"precision and recall between {query_QF.shape[1]} and "
            f"{balls.features_MF.shape[1]} features"
        )
    origin_F = balls.features_MF.mean(axis=0)
    query_QF, centred_MF = query_QF - origin_F, balls.features_MF - origin_F
    inside_Q = np.empty(len(query_QF), bool)
    for start in range(0, len(query_QF), CHUNK):
        block = _squared_distances(query_QF[start : start + CHUNK], centred_MF)
        inside_Q[start : start + CHUNK] = (block <= balls.squared_radius_M).any(axis=1)
    return inside_Q


def precision(generated: Manifold, reference: Manifold, *, level: float) -> Interval:
    """The share of generated images on the reference's manifold.

    The interval is Wilson's over generated images: the limit of resampling them. The reference's
    images are held fixed.
    """
    inside_N = within(generated.features_MF, reference)
    found = wilson(int(inside_N.sum()), len(inside_N), level)
    return dataclasses.replace(found, method="wilson over generated images; reference fixed")


def recall(generated: Manifold, reference: Manifold, *, level: float, seed: int) -> Interval:
    """The share of the reference's images on the manifold of generated ones.

    Two errors are added in squares: Wilson's over images of the reference, and that of the
    manifold, from the recalls of `PARTS` disjoint parts of the generated images: their spread over
    the root of their number. Where the reference has more images, the first alone covers little of
    what another set of generated images gives; leaving groups out gives one and a half times the
    second (measured; tests/metrics/test_precision_recall.py).
    """
    x_NF, neighbours = generated.features_MF, generated.neighbours
    if len(x_NF) < PARTS * (neighbours + 1):
        least = PARTS * (neighbours + 1)
        raise LabError(f"recall of {len(x_NF)} generated images: at least {least} are needed")
    inside_M = within(reference.features_MF, generated)
    found = wilson(int(inside_M.sum()), len(inside_M), level)
    order = np.random.default_rng(seed).permutation(len(x_NF))
    parts = [manifold(x_NF[order[p::PARTS]], neighbours=neighbours) for p in range(PARTS)]
    recalls = [float(within(reference.features_MF, part).mean()) for part in parts]
    half = t_quantile(PARTS, level=level) * float(np.std(recalls, ddof=1)) / math.sqrt(PARTS)
    return dataclasses.replace(
        found,
        low=max(0.0, found.value - math.hypot(found.value - found.low, half)),
        high=min(1.0, found.value + math.hypot(found.high - found.value, half)),
        method=f"wilson over reference images, and {PARTS} parts of generated images",
        quantile=None,
    )


def _squared_distances(x_QF: np.ndarray, y_MF: np.ndarray) -> np.ndarray:
    """(Q, M); both about one origin amid y, or features far from 0 would cancel."""
    block = x_QF @ y_MF.T
    block *= -2
    block += np.square(x_QF).sum(axis=1)[:, None]
    block += np.einsum("mf,mf->m", y_MF, y_MF)
    return np.maximum(block, 0.0, out=block)
