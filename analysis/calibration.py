"""Weights of laws and the spread of a forecast, from what the laws forecast before.

Weights: with K origins, a law's weight is (forward mean square + in-domain mean square)^(-K/2),
the evidence of K independent errors of unknown scale. The in-domain error is that of the best law:
below it no law can be told from another.

Spread at log distance d beyond the largest run: s^2 + k^2 d + the weighted variance between laws.
s is the in-domain residual; the drift k^2 d, a random walk of the law's error in log size, is
fitted to the excess of the squared forward errors over s^2. The quantile is Student's t with K
degrees of freedom, for K origins is all that the spread was learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.forward import Rolled, Window
from analysis.quantiles import student

LEAST_NOISE = 1e-6  # log units: a loss is not known better than to its sixth digit


@dataclass(frozen=True)
class Calibration:
    """Weights (M,), in-domain residual and drift in log units, and the number of origins."""

    weights: np.ndarray
    noise_log: float
    drift_log: float  # per square root of an e-fold in size
    origins: int

    def sd_log(self, distance: np.ndarray, laws: np.ndarray) -> np.ndarray:
        """Standard deviation (m,) at log distances (m,) for log losses of the laws (M, m)."""
        mean = self.weights @ laws
        between = self.weights @ (laws - mean) ** 2
        ahead = np.maximum(distance, 0.0)
        return np.sqrt(self.noise_log**2 + self.drift_log**2 * ahead + between)

    def quantile(self, level: float) -> float:
        """Of a two-sided interval in units of the standard deviation."""
        return student((1 + level) / 2, max(self.origins, 1))


def forward_mean_squares(
    rolled: Sequence[Rolled], seen: Sequence[Window], among: np.ndarray
) -> np.ndarray:
    """Mean squared forward error of each law from each origin (M, K).

    Only runs `among` (n,) are judged. A law that failed at an origin gets the error of the worst
    law there: a law that cannot be fitted to less may not win by its absence.
    """
    out = np.full((len(rolled), len(seen)), np.nan)
    for column, window in enumerate(seen):
        judged = window.ahead & among
        for row, law in enumerate(rolled):
            out[row, column] = np.mean(law.error[column + 1][judged] ** 2)
    worst = np.nanmax(np.where(np.isfinite(out), out, -1.0), axis=0, initial=-1.0)
    return np.where(np.isfinite(out), out, worst)


def calibrate(
    rolled: Sequence[Rolled],
    seen: Sequence[Window],
    size: np.ndarray,
    *,
    row: int = 0,
    known: np.ndarray | None = None,
) -> Calibration:
    """Weights and spread of the laws as fitted in `row`, from the origins that lie before it.

    `row` 0 is the fit to all runs; row i + 1 the one from origin i, which knows only the runs
    `known` and learns from the origins farther back. Needs one certified law in that row.
    """
    among = np.ones(len(size), dtype=bool) if known is None else known
    laws = [law for law in rolled if law.certified[row]]
    back = [i for i in range(row, len(seen)) if (seen[i].ahead & among).any()]
    past = [seen[i] for i in back]
    squares = np.array([law.residual_rms[row] ** 2 for law in laws])
    errors = forward_mean_squares([_rows(law, back) for law in laws], past, among)
    usable = np.flatnonzero(np.all(errors > -1.0, axis=0))
    back, errors = [back[i] for i in usable], errors[:, usable]
    evidence = (
        -0.5
        * errors.shape[1]
        * np.log((errors.mean(axis=1) if errors.size else 0.0 * squares) + squares.min() + 1e-300)
    )
    weights = np.exp(evidence - evidence.max())
    weights = weights / weights.sum() if errors.size else np.full(len(laws), 1.0 / len(laws))
    noise = max(float(np.sqrt(weights @ squares)), LEAST_NOISE)
    drift = _drift(laws, weights, [(i, seen[i]) for i in back], size, noise, among)
    full = np.zeros(len(rolled))
    full[[law.certified[row] for law in rolled]] = weights
    return Calibration(full, noise, drift, len(back))


def _rows(law: Rolled, origins: Sequence[int]) -> Rolled:
    """The law with the rows of the full fit and of these origins."""
    rows = [0, *(i + 1 for i in origins)]
    return Rolled(law.form, law.scale, law.theta[rows], law.error[rows], law.residual_rms[rows])


def averaged_error(laws: Sequence[Rolled], weights: np.ndarray, row: int) -> np.ndarray:
    """log(measured / weighted geometric mean of the laws) in that row, (n,); NaN where none."""
    there = np.array([law.certified[row] for law in laws])
    share = weights * there
    if share.sum() <= 0:
        return np.full(len(laws[0].error[row]), np.nan)
    errors = np.array([law.error[row] for law in laws])
    return share @ np.where(there[:, None], errors, 0.0) / share.sum()


def _drift(laws, weights, origins, size: np.ndarray, noise: float, among: np.ndarray) -> float:
    """k of the random walk, by least squares of the excess on the distance; each origin alike."""
    above = below = 0.0
    for index, window in origins:
        judged = window.ahead & among
        error = averaged_error(laws, weights, index + 1)[judged]
        distance = np.log(size[judged] / window.reached)
        above += float(np.mean((error**2 - noise**2) * distance))
        below += float(np.mean(distance**2))
    return float(np.sqrt(max(above / below, 0.0))) if below > 0 else 0.0
