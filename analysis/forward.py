"""Rolling origins: each law is fitted to the smaller runs and forecasts the larger ones.

The origins lie at equal steps of log size below the largest run, down to a tenth of it and not
below the middle of the range. All origins of a law are solved in one batch: a run that an origin
has not seen has the weight zero.

Runs near the frontier count more: a run weighs as much as its size (`local` = 1). No law is exact
over five decades, and what is asked lies beyond the largest run; on rolling origins inside public
tables this halves the error of every law (LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis import solver
from analysis.estimate import Points
from analysis.form import Form, Scale
from analysis.losses import Loss

AHEAD = 10.0  # the farthest origin lies this factor below the largest run
ORIGINS = 4
LEAST_POINTS = 6  # that an origin has seen
LEAST_FREEDOM = 0.1  # runs of the largest weight, of the degrees of freedom of a residual
STARTS = 16
FINALISTS = 4  # of the starts, that are followed to the end
FIRST_STEPS, MOST_STEPS = 30, 300  # of the solver, for all starts and for the finalists


@dataclass(frozen=True)
class Window:
    """What one origin sees: `kept` (n,) runs are fitted, `ahead` (n,) are forecast."""

    kept: np.ndarray
    ahead: np.ndarray
    reached: float  # the size of the largest run that was seen


@dataclass(frozen=True)
class Rolled:
    """One law over all windows; row 0 is the fit to all runs. Rows that failed hold NaN.

    theta (1 + K, P), error (1 + K, n) log(measured / law), residual sd at weight one (1 + K,).
    """

    form: Form
    scale: Scale
    theta: np.ndarray
    error: np.ndarray
    residual_rms: np.ndarray

    @property
    def certified(self) -> np.ndarray:
        return np.all(np.isfinite(self.theta), axis=-1)

    def log_loss(self, x: np.ndarray) -> np.ndarray:
        """The law of all runs at x (m, V): log losses (m,)."""
        z = np.log(x) - self.scale.center
        return self.form.log_loss(self.theta[:1], z)[0] + self.scale.log_loss


def windows(size: np.ndarray) -> tuple[Window, ...]:
    """The origins of runs of that size (n,), the nearest to the frontier first."""
    log_size = np.log(size)
    reach = min(np.log(AHEAD), 0.5 * np.ptp(log_size))
    out: list[Window] = []
    for step in range(1, ORIGINS + 1):
        edge = log_size.max() - reach * step / ORIGINS
        kept = log_size <= edge + 1e-9
        if kept.sum() < LEAST_POINTS or kept.all():
            continue
        reached = log_size[kept].max()
        ahead = ~kept & (log_size <= reached + np.log(AHEAD) + 1e-9)
        if ahead.any() and not any((kept == other.kept).all() for other in out):
            out.append(Window(kept, ahead, float(size[kept].max())))
    return tuple(out)


def local_weights(size: np.ndarray, kept: np.ndarray, local: float) -> np.ndarray:
    """(size / largest seen)^local where seen, else 0, (n,)."""
    return np.where(kept, (size / size[kept].max()) ** local, 0.0)


def roll(
    form: Form,
    points: Points,
    size: np.ndarray,
    seen: Sequence[Window],
    *,
    loss: Loss,
    local: float,
    seed: int = 0,
) -> Rolled:
    """Fit the form to all points and from each origin; rows without a certificate hold NaN."""
    log_x, log_loss = np.log(points.x), np.log(points.loss)
    scale = form.scale(log_x, log_loss)
    z, y = log_x - scale.center, log_loss - scale.log_loss
    problem = solver.Problem(form, z, form.pin({}, scale), loss)
    masks = [np.ones(len(y), dtype=bool), *(window.kept for window in seen)]
    weight = np.array([points.weight * local_weights(size, mask, local) for mask in masks])
    starts = form.starts(z, y, STARTS, np.random.default_rng(seed))
    upper = _upper(form, y, masks)

    def solved(tries: np.ndarray, limit: int) -> solver.Solution:
        """From the starts (1 + K, S, P) of each window."""
        each = tries.shape[1]
        return solver.solve(
            problem,
            y=y,
            w=np.repeat(weight, each, axis=0),
            starts=tries.reshape(-1, tries.shape[-1]),
            limit=limit,
            upper=np.repeat(upper, each, axis=0),
        )

    first = solved(np.tile(starts, (len(masks), 1, 1)), FIRST_STEPS)
    found = solved(solver.finalists(first, len(masks), FINALISTS), MOST_STEPS)
    theta, certified = solver.lowest(found, len(masks))
    theta[~certified] = np.nan
    free = len(form.parameters) - len(form.constants)
    for row, mask in enumerate(masks):
        if mask.sum() <= free or form.design_problem(log_x[mask], {}):
            theta[row] = np.nan
    with np.errstate(invalid="ignore"):
        error = y - form.log_loss(theta, z)
        squares = np.sum(weight * error**2, axis=-1)
    rms = np.sqrt(squares / _freedom(problem, theta, weight))
    return Rolled(form, scale, theta, error, rms)


def _freedom(problem: solver.Problem, theta: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What the weighted squares are divided by to be an unbiased variance, (1 + K,).

    Sum of weights less the trace of (J' W J)^-1 J' W^2 J over the parameters that may move: runs
    that weigh as their size leave few degrees of freedom, and a law uses some of them up.
    """
    out = np.full(len(theta), np.nan)
    lower, upper = problem.form.bounds()
    for row in np.flatnonzero(np.all(np.isfinite(theta), axis=-1)):
        inside = problem.free & (theta[row] > lower) & (theta[row] < upper)
        jacobian = problem.form.jacobian(theta[row], problem.z)[:, inside]
        q, _ = np.linalg.qr(np.sqrt(weight[row])[:, None] * jacobian)
        used = float(np.sum(weight[row][:, None] * q**2))
        out[row] = max(weight[row].sum() - used, LEAST_FREEDOM * weight[row].max())
    return out


def _upper(form: Form, y: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """Upper limits (K, P): a floor may reach the smallest loss that its origin has seen."""
    out = np.tile(form.bounds()[1], (len(masks), 1))
    if "E" in form.parameters:
        out[:, form.parameters.index("E")] = [np.exp(y[mask].min()) for mask in masks]
    return out
