"""Bits of binary codes: means, entropies, correlations, and what the bits share in all."""

from __future__ import annotations

from typing import Any

import numpy as np

from lab.core.errors import LabError
from lab.metrics.bigram import Quantity, quantity
from lab.metrics.draws import group_count, standard_error
from lab.metrics.estimate import Estimate

FALSE_ALARMS = 0.05  # for all pairs together (Bonferroni)


def bit_statistics(bits_UVHWD: np.ndarray, joint: Estimate) -> dict[str, Any]:
    """Record of bits, units in random order; `joint` is the estimate of the whole token's entropy.

    A correlation is significant where its jackknife error over units excludes 0 at a family-wise
    5 %. Bits that never change have no correlation: they count as 0 and are listed.
    """
    bits = bits_UVHWD.shape[-1]
    if bits < 1:
        raise LabError("bits: a code of no bits")
    both = ones_of_groups(bits_UVHWD)
    whole = both.sum(axis=0)
    correlation = correlations(whole)
    left_out = np.array([correlations(whole - part) for part in both])
    upper = np.triu_indices(bits, 1)
    pairs = correlation[upper]
    means = whole[:-1, -1] / whole[-1, -1]
    return {
        "bit_means": means.tolist(),
        "bit_mean_se": standard_error(_means_left_out(whole, both)).tolist(),
        "bit_entropies_nats": binary_entropy_nats(means).tolist(),
        "bit_entropy_sum_nats": float(binary_entropy_nats(means).sum()),
        "constant_bits": np.flatnonzero((means == 0) | (means == 1)).tolist(),
        "correlations": correlation.tolist(),
        "correlation_max_abs": float(np.abs(pairs).max(initial=0.0)),
        "correlation_mean_abs": float(np.abs(pairs).mean()) if pairs.size else 0.0,
        "correlation_pairs": pairs.size,
        "correlation_pairs_significant": _significant(pairs, left_out[:, *upper]),
        "total_correlation": total_correlation(whole, both, joint).as_json(),
        "total_correlation_tree_nats": tree_information_nats(whole),
    }


def ones_of_groups(bits_UVHWD: np.ndarray) -> np.ndarray:
    """Sums (G, d + 1, d + 1) of b b^T over tokens of each group of units, b with a 1 at its end."""
    units, bits = len(bits_UVHWD), bits_UVHWD.shape[-1]
    groups = group_count(units)
    sums = np.empty((groups, bits + 1, bits + 1))
    for group in range(groups):
        part = bits_UVHWD[units * group // groups : units * (group + 1) // groups]
        flat = part.reshape(-1, bits).astype(np.float32)  # sums below 2**24 a group and bit: exact
        flat = np.concatenate([flat, np.ones((len(flat), 1), np.float32)], axis=1)
        sums[group] = sum(
            (chunk.T @ chunk).astype(np.float64)
            for chunk in np.array_split(flat, 1 + len(flat) // 2**20)
        )
    return sums


def _means_left_out(whole: np.ndarray, both: np.ndarray) -> np.ndarray:
    kept = whole - both
    return kept[:, :-1, -1] / kept[:, -1:, -1]


def correlations(ones: np.ndarray) -> np.ndarray:
    """Correlations (d, d) from sums of b b^T; 0 off the diagonal for a bit that never changes."""
    count = ones[-1, -1]
    means = ones[:-1, -1] / count
    covariance = ones[:-1, :-1] / count - np.outer(means, means)
    spread = np.sqrt(means * (1 - means))
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    found = covariance * np.outer(scale, scale)
    np.fill_diagonal(found, 1.0)
    return found


def _significant(pairs: np.ndarray, left_out: np.ndarray) -> int:
    from scipy.stats import t

    if not pairs.size:
        return 0
    bound = t.ppf(1 - FALSE_ALARMS / (2 * pairs.size), len(left_out) - 1)
    return int(np.sum(np.abs(pairs) > bound * standard_error(left_out)))


def binary_entropy_nats(p: np.ndarray) -> np.ndarray:
    """-p ln p - (1 - p) ln (1 - p)."""
    from scipy.special import entr

    return entr(p) + entr(1 - p)


def total_correlation(whole: np.ndarray, both: np.ndarray, joint: Estimate) -> Quantity:
    """Sum of the entropies of the bits less the entropy of the token.

    Where the token's is not converged: between the best tree's and what its plug-in leaves.
    """
    means = whole[:-1, -1] / whole[-1, -1]
    apart = float(binary_entropy_nats(means).sum())
    apart_left_out = binary_entropy_nats(_means_left_out(whole, both)).sum(axis=1)
    return quantity(
        apart - joint.nats,
        apart_left_out - joint.left_out_nats,
        bias_nats=joint.bias_nats,
        converged=joint.converged,
        least=tree_information_nats(whole),
        most=apart - joint.least_nats,
    )


def tree_information_nats(ones: np.ndarray) -> float:
    """Mutual information along the best tree of bits (Chow and Liu 1968).

    At most the total correlation, and estimated from pairs of bits alone.
    """
    from scipy.sparse.csgraph import minimum_spanning_tree

    count, single = ones[-1, -1], ones[:-1, -1]
    eleven = ones[:-1, :-1]
    ten, one = single[:, None] - eleven, single[None, :] - eleven
    cells = np.stack([eleven, ten, one, count - eleven - ten - one]) / count
    from scipy.special import entr

    means = single / count
    apart = binary_entropy_nats(means)
    information = apart[:, None] + apart[None, :] - entr(np.maximum(cells, 0)).sum(axis=0)
    np.fill_diagonal(information, 0.0)
    # A sparse graph takes 0 for "no edge": all edges are moved below it, and back afterwards.
    tree = minimum_spanning_tree(-np.triu(np.maximum(information, 0) + 1, 1))
    return max(0.0, float(-tree.sum()) - (len(means) - 1))
