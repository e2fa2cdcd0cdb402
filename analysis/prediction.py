"""Prediction of a fit: the law with its band, and the interval of a new run.

A new run = law of a bootstrap draw + a resampled residual, both at the draw's own spread, widened
ahead of the data by the forward errors.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.bootstrap import Draws, check_level
from analysis.errors import AnalysisError
from analysis.estimate import Estimate, Points, Status
from analysis.origins import ForwardError, widening

if TYPE_CHECKING:
    import pandas as pd


class Images(enum.Enum):
    """Where a new run is measured: decides whether the standard error of the loss is added.

    On the SAME images as the table the sampling error of the images is common to all losses and
    cancels in a forecast. On OTHER images (or for a statement about the population of images) the
    median standard error of the table is added in quadrature.
    """

    SAME = "same"
    OTHER = "other"


@dataclass(frozen=True)
class Prediction:
    """Losses at x (n, V), the interval of a new run, the band of the law itself; (n,) each."""

    x: np.ndarray
    variables: tuple[str, ...]
    loss: np.ndarray
    low: np.ndarray
    high: np.ndarray
    law_low: np.ndarray
    law_high: np.ndarray
    level: float
    distance: np.ndarray
    widening: np.ndarray
    notes: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """One row per point: variables, loss, the two intervals, distance and widening."""
        import pandas as pd

        columns = ("loss", "low", "high", "law_low", "law_high", "distance", "widening")
        out = pd.DataFrame(self.x, columns=list(self.variables))
        return out.assign(**{name: getattr(self, name) for name in columns})


def distance_of(fit: Estimate, x: np.ndarray) -> np.ndarray:
    """Factor by which x (m, V) lies beyond the largest run, or below the smallest; 1 inside."""
    size, own = fit.form.size(fit.points.x), fit.form.size(x)
    return np.maximum(np.maximum(own / size.max(), size.min() / own), 1.0)


def widening_at(errors: tuple[ForwardError, ...], distance: np.ndarray) -> np.ndarray:
    """From 1 at the edge of the data to the full widening at the mean distance of the checks."""
    full = widening(errors)
    if full == 1.0:
        return np.ones_like(distance)
    reach = np.mean([np.log(error.distance) for error in errors])
    return 1.0 + (full - 1.0) * np.minimum(np.log(distance) / reach, 1.0)


def predict(
    fit: Estimate,
    x: np.ndarray,
    *,
    draws: Draws,
    errors: tuple[ForwardError, ...],
    level: float,
    images: Images = Images.SAME,
) -> Prediction:
    """Interval of a new run at x (m, V): draws of the law + residual noise, widened ahead.

    Deviations from the fitted law are multiplied by the widening of the forward errors, which
    grows from 1 at the edge of the data. The point is the fitted law. Where each run is measured
    on its own images (Images.OTHER) the median standard error is added.
    """
    check_level(level)
    fit.require()
    if fit.status is Status.AT_BOUND and len(fit.form.variables) > 1:
        raise AnalysisError(f"{fit.form.formula}: no prediction at a bound: {fit.reason}")
    if not draws.certified:
        raise AnalysisError(f"{fit.form.formula}: no bootstrap refit converged; no interval")
    center = fit.predict(x)
    distance = distance_of(fit, x)
    factor = widening_at(errors, distance)
    law = (fit.predict(x, draws.theta) - center) * factor
    noise = draws.noise.copy()
    if images is Images.OTHER:
        noise = noise + _measurement_noise(fit, len(noise))
    run = law + noise[:, None] * factor
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.exp(center + np.quantile(run, tails, axis=0))
    law_low, law_high = np.exp(center + np.quantile(law, tails, axis=0))
    notes = (fit.reason,) if fit.status is Status.AT_BOUND else ()
    loss = np.exp(center)
    return Prediction(
        x, fit.form.variables, loss, np.minimum(low, loss), np.maximum(high, loss),
        law_low, law_high, level, distance, factor, notes,
    )  # fmt: skip


def relative_error(points: Points) -> float:
    """Median standard error of the loss over the loss: the log error of other images."""
    relative = points.loss_se / points.loss
    if np.isnan(relative).all():
        raise AnalysisError("images: other needs standard errors of the loss; the table has none")
    return float(np.nanmedian(relative))


def _measurement_noise(fit: Estimate, count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, relative_error(fit.points), count)
