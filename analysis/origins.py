"""Forward errors of a fit: the largest runs forecast by the smaller ones, and the widening.

Here for one form and its own interval; many laws side by side are rolled in analysis/forward.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.bootstrap import residual_sd
from analysis.estimate import Estimate, estimate

LEAST_POINTS = 4  # that a rolling-origin fit is made of
MOST_ORIGINS = 6


@dataclass(frozen=True)
class ForwardError:
    """One run forecast by the smaller runs: log(measured / forecast) and what was to be expected.

    `distance` is the factor beyond the largest run that the forecast was made from.
    """

    label: str
    points_used: int
    distance: float
    log_error: float
    expected_sd: float


@dataclass(frozen=True)
class Origin:
    """The forward errors of one rolling origin together."""

    points_used: int
    held_out: int
    distance: float
    rms_log_error: float
    rms_expected_sd: float


def _origins(size: np.ndarray) -> list[np.ndarray]:
    """Masks of the runs to fit: all but the largest 1, 2, ... sizes, LEAST_POINTS or more left.

    At most half of the sizes is held out, and at most MOST_ORIGINS origins are spread over them.
    """
    values = np.unique(size)
    cuts = range(1, max(len(values) // 2, 1) + 1)
    masks = [size < values[-cut] for cut in cuts]
    masks = [mask for mask in masks if mask.sum() >= LEAST_POINTS]
    chosen = np.unique(np.linspace(0, len(masks) - 1, min(len(masks), MOST_ORIGINS)).round())
    return [masks[int(index)] for index in chosen] if masks else []


def _expected_sd(origin: Estimate, x: np.ndarray, sd: float) -> np.ndarray:
    """Delta-method sd of log(measured / forecast) at x (m, V), were the form right, (m,)."""
    design = origin.design(origin.points.x) * np.sqrt(origin.points.weight)[:, None]
    q, r = np.linalg.qr(design)
    ahead = np.linalg.solve(r.T, origin.design(x).T)
    return sd * np.sqrt(1.0 + np.sum(ahead**2, axis=0))


def rolling_origin(fit: Estimate) -> tuple[ForwardError, ...]:
    """Forecast the largest 1, 2, ... sizes from the rest; refused origins give no error."""
    fit.require()
    size, sd = fit.form.size(fit.points.x), residual_sd(fit)
    out = []
    for mask in _origins(size):
        kept, held = fit.points.take(np.flatnonzero(mask)), np.flatnonzero(~mask)
        origin = estimate(fit.form, kept, loss=fit.loss, pinned=fit.pinned)
        if origin.status.refused:
            continue
        x = fit.points.x[held]
        errors = np.log(fit.points.loss[held]) - origin.predict(x)
        expected = _expected_sd(origin, x, sd)
        for index, error, spread in zip(held, errors, expected, strict=True):
            out.append(
                ForwardError(
                    fit.points.labels[index],
                    int(mask.sum()),
                    float(size[index] / size[mask].max()),
                    float(error),
                    float(spread),
                )
            )
    return tuple(out)


def by_origin(errors: tuple[ForwardError, ...]) -> tuple[Origin, ...]:
    """Group forward errors by the number of runs they were forecast from, most runs first."""
    out = []
    for used in sorted({error.points_used for error in errors}, reverse=True):
        group = [error for error in errors if error.points_used == used]
        error_rms, expected_rms = (
            float(np.sqrt(np.mean(np.square([getattr(error, name) for error in group]))))
            for name in ("log_error", "expected_sd")
        )
        farthest = max(error.distance for error in group)
        out.append(Origin(used, len(group), farthest, error_rms, expected_rms))
    return tuple(out)


def widening(errors: tuple[ForwardError, ...]) -> float:
    """Root mean square of forward error / expected sd, at least 1.

    The expected sd holds the in-domain residual and the spread of the law at that origin, so a
    right form gives about 1, and a form that bends away from the data more. No constant is tuned.
    """
    ratios = [error.log_error / error.expected_sd for error in errors if error.expected_sd > 0]
    return max(1.0, float(np.sqrt(np.mean(np.square(ratios))))) if ratios else 1.0
