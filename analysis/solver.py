"""Damped Newton on a box for many fits at once: float64, exact gradients, a certificate for each.

All problems of a batch share form and design and differ in start, losses and weights, so starts
and bootstrap resamples are solved together. The certificate is the cosine between the (clipped)
residuals and each column of the Jacobian, at parameters that are free to move: zero at a stationary
point, without units. Huber losses are reached through a sequence of larger deltas (a smoothing
path), since 1e-3 is nearly the absolute value, where Newton from afar crawls over kinks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.forms import Form

TOLERANCE = 1e-7  # cosine at which a fit counts as converged
ROUNDING = 1e-14  # log residuals below this are rounding
LARGEST_DAMPING = 1e10


@dataclass(frozen=True)
class Problem:
    """z (n, V) centred logs; pinned (P,) theta or NaN; delta of Huber on log residuals or None."""

    form: Form
    z: np.ndarray
    pinned: np.ndarray
    delta: float | None

    @property
    def free(self) -> np.ndarray:
        return np.isnan(self.pinned)


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

    def take(self, index: np.ndarray) -> _Batch:
        return _Batch(self.theta[index], self.y[index], self.w[index])


def rho(residual: np.ndarray, delta: float | None) -> np.ndarray:
    """Half square, or Huber's function of the residual."""
    if delta is None:
        return 0.5 * residual**2
    size = np.abs(residual)
    return np.where(size <= delta, 0.5 * residual**2, delta * (size - 0.5 * delta))


def psi(residual: np.ndarray, delta: float | None) -> np.ndarray:
    """Derivative of rho."""
    return residual if delta is None else np.clip(residual, -delta, delta)


def objective(problem: Problem, batch: _Batch, delta: float | None) -> np.ndarray:
    """Sum of weighted rho, (B,); infinite where the form overflows."""
    residual = batch.y - problem.form.log_loss(batch.theta, problem.z)
    total = np.sum(batch.w * rho(residual, delta), axis=-1)
    return np.where(np.isfinite(total), total, np.inf)


def _movable(problem: Problem, theta: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Parameters not pinned and not pressed against a bound by the gradient, (B, P)."""
    lower, upper = problem.form.bounds()
    pressed = ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))
    return problem.free & ~pressed


def _gradient(problem: Problem, batch: _Batch, delta: float | None):
    """Residuals, Jacobian and gradient of the objective."""
    residual = batch.y - problem.form.log_loss(batch.theta, problem.z)
    jacobian = problem.form.jacobian(batch.theta, problem.z)
    gradient = -np.einsum("bnp,bn->bp", jacobian, batch.w * psi(residual, delta))
    return residual, jacobian, gradient


def _certificate(batch: _Batch, residual, jacobian, gradient, movable, delta) -> np.ndarray:
    """Largest cosine over movable parameters, (B,); residuals of rounding size count as zero."""
    pull = np.sqrt(np.sum(batch.w * psi(residual, delta) ** 2, axis=-1))[:, None]
    column = np.sqrt(np.einsum("bn,bnp->bp", batch.w, jacobian**2)) + 1e-300
    rounding = ROUNDING * np.sqrt(np.sum(batch.w, axis=-1))[:, None]
    slope = np.maximum(np.abs(gradient) / column - rounding, 0.0)
    cosine = np.where(movable, slope / (pull + 1e-300), 0.0)
    return cosine.max(axis=-1)


def _curvature(problem: Problem, batch: _Batch, residual, delta) -> np.ndarray:
    """Second-order part of the Hessian, (B, P, P): minus sum of w psi d2 f.

    Differences of the exact Jacobian are good enough here: they set the speed, not the solution.
    """
    pull = batch.w * psi(residual, delta)
    columns = []
    for index in range(batch.theta.shape[-1]):
        step = np.zeros(batch.theta.shape[-1])
        step[index] = 1e-6
        ahead = problem.form.jacobian(batch.theta + step, problem.z)
        behind = problem.form.jacobian(batch.theta - step, problem.z)
        columns.append(-np.einsum("bnp,bn->bp", ahead - behind, pull) / 2e-6)
    hessian = np.stack(columns, axis=-1)
    return 0.5 * (hessian + np.swapaxes(hessian, -1, -2))


def _step(problem, batch, residual, jacobian, gradient, movable, damping, delta) -> np.ndarray:
    """Newton step with absolute eigenvalues and damping, in parameters scaled by the Jacobian."""
    inside = batch.w if delta is None else batch.w * (np.abs(residual) <= delta)
    hessian = np.einsum("bn,bnp,bnq->bpq", inside, jacobian, jacobian)
    hessian += _curvature(problem, batch, residual, delta)
    scale = 1.0 / np.sqrt(np.einsum("bn,bnp->bp", batch.w, jacobian**2) + 1e-30)
    scale *= movable
    scaled = hessian * scale[:, :, None] * scale[:, None, :]
    values, vectors = np.linalg.eigh(scaled)
    along = np.einsum("bpq,bp->bq", vectors, gradient * scale)
    along /= np.abs(values) + damping[:, None] + 1e-14
    return -scale * np.einsum("bpq,bq->bp", vectors, along)


def _descend(problem: Problem, batch: _Batch, delta: float | None, limit: int) -> Solution:
    """Newton from each theta until its certificate holds, its damping explodes, or the limit."""
    lower, upper = problem.form.bounds()
    count = len(batch.theta)
    theta, certificate = batch.theta.copy(), np.full(count, np.inf)
    value = objective(problem, batch, delta)
    damping, open_ = np.full(count, 1e-3), np.arange(count)
    for _ in range(limit):
        now = _Batch(theta[open_], batch.y[open_], batch.w[open_])
        residual, jacobian, gradient = _gradient(problem, now, delta)
        movable = _movable(problem, now.theta, gradient)
        certificate[open_] = _certificate(now, residual, jacobian, gradient, movable, delta)
        keep = (certificate[open_] > TOLERANCE) & (damping[open_] < LARGEST_DAMPING)
        if not keep.any():
            break
        now, open_ = now.take(keep), open_[keep]
        step = _step(
            problem,
            now,
            residual[keep],
            jacobian[keep],
            gradient[keep],
            movable[keep],
            damping[open_],
            delta,
        )
        trial = _Batch(np.clip(now.theta + step, lower, upper), now.y, now.w)
        reached = objective(problem, trial, delta)
        better = reached <= value[open_] * (1 + 1e-15)
        theta[open_[better]], value[open_[better]] = trial.theta[better], reached[better]
        damping[open_] = np.where(better, np.maximum(damping[open_] / 8, 1e-12), damping[open_] * 6)
    return Solution(theta, value, certificate, certificate <= TOLERANCE)


def _smoothing_path(problem: Problem, batch: _Batch) -> list[float]:
    """Deltas from the size of the residuals down to the one that is asked for."""
    assert problem.delta is not None
    residual = batch.y - problem.form.log_loss(batch.theta, problem.z)
    largest = np.nanquantile(np.abs(residual), 0.95)
    steps = int(np.ceil(np.log(max(largest / problem.delta, 1.0)) / np.log(3.0)))
    return [problem.delta * 3.0**k for k in range(min(steps, 6), 0, -1)]


def solve(
    problem: Problem, *, y: np.ndarray, w: np.ndarray, starts: np.ndarray, limit: int = 200
) -> Solution:
    """Minimise sum w rho(y - log_loss) from each start (B, P); y and w are (n,) or (B, n)."""
    theta = np.where(problem.free, starts, problem.pinned)
    shape = (len(theta), problem.z.shape[0])
    batch = _Batch(theta, np.broadcast_to(y, shape), np.broadcast_to(w, shape))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if problem.delta is not None:
            smooth = _descend(problem, batch, None, 40)
            batch = _Batch(smooth.theta, batch.y, batch.w)
            for delta in _smoothing_path(problem, batch):
                batch = _Batch(_descend(problem, batch, delta, 12).theta, batch.y, batch.w)
        return _descend(problem, batch, problem.delta, limit)
