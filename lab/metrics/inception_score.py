"""Inception score: how sure a classifier is of each image, and how evenly it names all classes.

N images, K classes.
"""

from __future__ import annotations

import math

import numpy as np

from lab.core.errors import LabError
from lab.metrics.draws import standard_error, t_quantile
from lab.metrics.interval import Interval

GROUPS = 20
TOLERANCE = 1e-3  # by which probabilities may miss a sum of 1: float32, and bfloat16 networks


def inception_score(
    log_probabilities_NK: np.ndarray, *, level: float, seed: int, splits: int = 1
) -> Interval:
    """exp(E KL(p(class | image) || p(class))) (Salimans et al. 2016), between 1 and K.

    `splits` disjoint parts are scored apart and averaged; published numbers take 10 of 50,000
    images. A part of n images reads low: its marginal is its own, which takes about sum_k Var p_k /
    (2 n p_k) nats from the exponent, at most (K - 1) / (2 n), so more splits read lower. The
    interval is of the mean over sets of N images (delete-a-group jackknife of the exponent). Raises
    LabError for fewer than 2 images a group, and for what are no log probabilities.
    """
    logs_NK = _checked(log_probabilities_NK)
    if splits < 1 or len(logs_NK) < max(2 * GROUPS, 2 * splits):
        raise LabError(
            f"inception score of {len(logs_NK)} images in {splits} splits: at least "
            f"{max(2 * GROUPS, 2 * max(splits, 1))} images are needed"
        )
    logs_NK = logs_NK[np.random.default_rng(seed).permutation(len(logs_NK))]
    value = log_score(logs_NK, splits=splits)
    group_N = np.arange(len(logs_NK)) % GROUPS
    left_out = [log_score(logs_NK[group_N != g], splits=splits) for g in range(GROUPS)]
    quantile = t_quantile(GROUPS, level=level)
    half = quantile * float(standard_error(np.array(left_out)))
    return Interval(
        value=math.exp(value),
        low=math.exp(value - half),
        high=math.exp(value + half),
        level=level,
        method=f"{splits} split{'s' * (splits > 1)}; jackknife of {GROUPS} groups of images",
        quantile=quantile,
    )


def log_score(log_probabilities_NK: np.ndarray, *, splits: int = 1) -> float:
    """The logarithm of the mean score of the splits, in nats."""
    parts = np.array_split(log_probabilities_NK, splits)
    return math.log(np.mean([math.exp(information_nats(part)) for part in parts]))


def information_nats(log_probabilities_NK: np.ndarray) -> float:
    """Mean KL of each image's classes from their mean over these images."""
    p_NK = np.exp(log_probabilities_NK)
    # A probability of 0 adds nothing, and its logarithm is not to be multiplied.
    own = np.where(p_NK > 0, p_NK * np.where(p_NK > 0, log_probabilities_NK, 0.0), 0.0)
    marginal_K = p_NK.mean(axis=0)
    seen_K = marginal_K[marginal_K > 0]
    return float(own.sum(axis=1).mean() - (seen_K * np.log(seen_K)).sum())


def _checked(log_probabilities_NK: np.ndarray) -> np.ndarray:
    """float64, each row scaled to a sum of 1."""
    logs_NK = np.asarray(log_probabilities_NK, np.float64)
    if logs_NK.ndim != 2:
        raise ValueError(f"log probabilities (N, K), not {logs_NK.shape}")
    sums_N = np.exp(logs_NK).sum(axis=1)
    wrong_N = ~(np.abs(sums_N - 1) < TOLERANCE)
    if wrong_N.any():
        image = int(np.argmax(wrong_N))
        raise LabError(
            f"log probabilities of image {image} sum to {sums_N[image]:.6g}, and not to 1"
        )
    return logs_NK - np.log(sums_N)[:, None]
