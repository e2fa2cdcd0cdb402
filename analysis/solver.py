"""Damped Newton on a box for many fits at once: float64, exact gradients, a certificate for each.

All problems of a batch share form and design and differ in start, losses and weights, so starts
and bootstrap resamples are solved together. The certificate is the cosine between the pulls of the
residuals (psi of the loss) and each column of the Jacobian, at parameters that are free to move:
zero at a stationary point, without units. Losses with a corner are reached through a sequence of
larger deltas (a smoothing path): from afar Newton crawls over kinks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.form import Form
from analysis.losses import Loss, Squares

TOLERANCE = 1e-7  # cosine at which a fit counts as converged
ROUNDING = 1e-14  # log residuals below this are rounding
LARGEST_DAMPING = 1e10
PATH_STEPS = 30  # at most, under each smoother loss
GAUSS_STEPS = 12  # Gauss-Newton alone, before second derivatives are computed


@dataclass(frozen=True)
class Problem:
    """z (n, V) centred logs; pinned theta or NaN; the loss on log residuals.

    `pinned` is (P,), or (B, P) for values that differ between the problems of a batch; which
    parameters are pinned is the same for all.
    """

    form: Form
    z: np.ndarray
    pinned: np.ndarray
    loss: Loss

    @property
    def free(self) -> np.ndarray:
        return np.isnan(self.pinned if self.pinned.ndim == 1 else self.pinned[0])


@dataclass(frozen=True)
class Solution:
    """theta (B, P), objective (B,), certificate (B,), certified (B,)."""

    theta: np.ndarray
    objective: np.ndarray
    certificate: np.ndarray
    certified: np.ndarray


@dataclass
class _Batch:
    """One batch being solved; every field has a leading axis B."""

    theta: np.ndarray
    y: np.ndarray
    w: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def take(self, index: np.ndarray) -> _Batch:
        parts = (self.theta, self.y, self.w, self.lower, self.upper)
        return _Batch(*(part[index] for part in parts))

    def moved(self, step: np.ndarray) -> _Batch:
        """The same problems a step on, cut short where the first parameter meets a limit.

        Clipping each parameter alone would leave the others where they belong to a step that was
        never made: in a curved valley such trials are refused, and the fit crawls.
        """
        limit = np.where(step > 0, self.upper, self.lower)
        room = limit - self.theta
        over = (np.abs(step) > np.abs(room)) & (room != 0)
        share = np.where(over, room / np.where(step == 0, 1.0, step), 1.0)
        least = share.min(axis=-1, keepdims=True)
        theta = np.clip(self.theta + least * step, self.lower, self.upper)
        theta = np.where(over & (share == least), limit, theta)
        return _Batch(theta, self.y, self.w, self.lower, self.upper)


def _value(problem: Problem, batch: _Batch, loss: Loss) -> np.ndarray:
    """Sum of weighted rho, (B,); infinite where the form overflows."""
    residual = batch.y - problem.form.log_loss(batch.theta, problem.z)
    total = np.einsum("bn,bn->b", batch.w, loss.rho(residual))
    return np.where(np.isfinite(total), total, np.inf)


def _movable(problem: Problem, batch: _Batch, gradient: np.ndarray) -> np.ndarray:
    """Parameters not pinned and not pressed against a bound by the gradient, (B, P)."""
    low = (batch.theta <= batch.lower) & (gradient > 0)
    high = (batch.theta >= batch.upper) & (gradient < 0)
    return problem.free & ~low & ~high


@dataclass
class _Slope:
    """First derivatives of a batch, and what is made of them."""

    residual: np.ndarray
    pull: np.ndarray
    jacobian: np.ndarray
    gradient: np.ndarray
    movable: np.ndarray

    def take(self, index: np.ndarray) -> _Slope:
        parts = (self.residual, self.pull, self.jacobian, self.gradient, self.movable)
        return _Slope(*(part[index] for part in parts))


def _slope(problem: Problem, batch: _Batch, loss: Loss) -> _Slope:
    residual = batch.y - problem.form.log_loss(batch.theta, problem.z)
    jacobian = problem.form.jacobian(batch.theta, problem.z)
    pull = loss.psi(residual)
    gradient = -np.matmul((batch.w * pull)[:, None, :], jacobian)[:, 0]
    return _Slope(residual, pull, jacobian, gradient, _movable(problem, batch, gradient))


def _certificate(batch: _Batch, at: _Slope) -> np.ndarray:
    """Largest cosine over movable parameters, (B,); residuals of rounding size count as zero."""
    size = np.sqrt(np.einsum("bn,bn->b", batch.w, at.pull**2))[:, None]
    column = np.sqrt(np.matmul(batch.w[:, None, :], at.jacobian**2)[:, 0]) + 1e-300
    rounding = ROUNDING * np.sqrt(np.sum(batch.w, axis=-1))[:, None]
    slope = np.maximum(np.abs(at.gradient) / column - rounding, 0.0)
    cosine = np.where(at.movable, slope / (size + 1e-300), 0.0)
    return cosine.max(axis=-1)


def _second_order(problem: Problem, batch: _Batch, at: _Slope) -> np.ndarray:
    """Second-order part of the Hessian, (B, P, P): minus sum of w psi d2 f.

    Differences of the exact Jacobian are good enough here: they set the speed, not the solution.
    """
    pull = (batch.w * at.pull)[:, None, :]
    out = np.zeros((*batch.theta.shape, batch.theta.shape[-1]))
    for index in np.flatnonzero(problem.free):
        step = np.zeros(batch.theta.shape[-1])
        step[index] = 1e-6
        ahead = problem.form.jacobian(batch.theta + step, problem.z)
        behind = problem.form.jacobian(batch.theta - step, problem.z)
        out[..., index] = -np.matmul(pull, ahead - behind)[:, 0] / 2e-6
    return 0.5 * (out + np.swapaxes(out, -1, -2))


def _step(batch: _Batch, at: _Slope, hessian: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Newton step with absolute eigenvalues and damping, in parameters scaled by the Jacobian."""
    scale = at.movable / np.sqrt(np.matmul(batch.w[:, None, :], at.jacobian**2)[:, 0] + 1e-30)
    scaled = hessian * scale[:, :, None] * scale[:, None, :]
    scaled = np.where(np.isfinite(scaled), scaled, 0.0)
    values, vectors = np.linalg.eigh(scaled)
    along = np.einsum("bpq,bp->bq", vectors, at.gradient * scale)
    along /= np.abs(values) + damping[:, None] + 1e-14
    return -scale * np.einsum("bpq,bq->bp", vectors, along)


def _hessian(problem: Problem, batch: _Batch, at: _Slope, loss: Loss, *, full: bool) -> np.ndarray:
    weighted = at.jacobian * (batch.w * loss.curvature(at.residual))[..., None]
    gauss = np.matmul(np.swapaxes(weighted, -1, -2), at.jacobian)
    return gauss + _second_order(problem, batch, at) if full else gauss


def _descend(
    problem: Problem, batch: _Batch, loss: Loss, limit: int, tolerance: float = TOLERANCE
) -> Solution:
    """Newton from each theta until its certificate holds, its damping explodes, or the limit."""
    gauss_steps = GAUSS_STEPS if isinstance(loss, Squares) else 0
    count = len(batch.theta)
    theta, certificate = batch.theta.copy(), np.full(count, np.inf)
    value = _value(problem, batch, loss)
    damping, open_ = np.full(count, 1e-3), np.flatnonzero(np.isfinite(value))
    for turn in range(limit):
        now = batch.take(open_)
        now.theta = theta[open_]
        at = _slope(problem, now, loss)
        certificate[open_] = _certificate(now, at)
        keep = (certificate[open_] > tolerance) & (damping[open_] < LARGEST_DAMPING)
        if not keep.any():
            break
        now, at, open_ = now.take(keep), at.take(keep), open_[keep]
        hessian = _hessian(problem, now, at, loss, full=turn >= gauss_steps)
        step = _step(now, at, hessian, damping[open_])
        trial = now.moved(step)
        trial.theta = np.where(problem.free, trial.theta, now.theta)
        reached = _value(problem, trial, loss)
        better = reached <= value[open_] * (1 + 1e-15)
        theta[open_[better]], value[open_[better]] = trial.theta[better], reached[better]
        damping[open_] = np.where(better, np.maximum(damping[open_] / 8, 1e-12), damping[open_] * 6)
    return Solution(theta, value, certificate, certificate <= tolerance)


def _by_problem(found: Solution, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Objective (count, S), infinite where undefined, and theta (count, S, P) of S starts each."""
    value = np.where(np.isfinite(found.objective), found.objective, np.inf).reshape(count, -1)
    return value, found.theta.reshape(count, value.shape[1], -1)


def finalists(found: Solution, count: int, keep: int) -> np.ndarray:
    """Theta of the lowest starts of each problem, (count, keep, P)."""
    value, theta = _by_problem(found, count)
    order = np.argsort(value, axis=1, kind="stable")[:, :keep]
    return np.take_along_axis(theta, order[..., None], axis=1)


def lowest(found: Solution, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Theta (count, P) of the lowest start of each problem, and whether one there is certified."""
    value, theta = _by_problem(found, count)
    alike = value <= value.min(axis=1, keepdims=True) * (1 + 1e-6) + 1e-24
    certified = found.certified.reshape(count, -1) & alike
    index = np.where(certified.any(axis=1), certified.argmax(axis=1), value.argmin(axis=1))
    return theta[np.arange(count), index], certified.any(axis=1)


def solve(
    problem: Problem,
    *,
    y: np.ndarray,
    w: np.ndarray,
    starts: np.ndarray,
    limit: int = 200,
    tolerance: float = TOLERANCE,
    upper: np.ndarray | None = None,
) -> Solution:
    """Minimise sum w rho(y - log_loss) from each start (B, P); y and w are (n,) or (B, n).

    `upper` (P,) or (B, P) replaces the upper limits of the form.
    """
    lower, own_upper = problem.form.bounds()
    upper = own_upper if upper is None else upper
    theta = np.where(problem.free, np.clip(starts, lower, upper), problem.pinned)
    shape = (len(theta), problem.z.shape[0])
    arrays = (np.broadcast_to(array, shape) for array in (y, w))
    limits = (np.broadcast_to(limit, theta.shape) for limit in (lower, upper))
    batch = _Batch(theta, *arrays, *limits)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if not isinstance(problem.loss, Squares):
            smooth = _descend(problem, batch, Squares(), 40)
            batch = replace(batch, theta=smooth.theta)
            residual = batch.y - problem.form.log_loss(batch.theta, problem.z)
            for smoother in problem.loss.path(residual):
                found = _descend(problem, batch, smoother, PATH_STEPS)
                batch = replace(batch, theta=found.theta)
        return _descend(problem, batch, problem.loss, limit, tolerance)
