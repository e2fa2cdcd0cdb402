"""One fit of one form to points: statuses first, numbers only where the data determine them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis import solver
from analysis.errors import AnalysisError
from analysis.form import Form, Scale
from analysis.losses import Loss

STARTS = 40
LARGEST_CONDITION = 1e6  # of the Jacobian with unit columns


class Status(enum.Enum):
    """What a fit is worth."""

    CONVERGED = "converged"
    AT_BOUND = "at a bound"
    UNCONVERGED = "unconverged"
    TOO_FEW_POINTS = "too few points"
    UNDER_DETERMINED = "under-determined"

    @property
    def refused(self) -> bool:
        """True where the fit carries no numbers."""
        return self not in (Status.CONVERGED, Status.AT_BOUND)


@dataclass(frozen=True)
class Points:
    """x (n, V) in the units of the table, loss (n,), standard errors (n,) or NaN, weights (n,)."""

    x: np.ndarray
    loss: np.ndarray
    loss_se: np.ndarray
    weight: np.ndarray
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        for values, what in ((self.x, "variable"), (self.loss, "loss"), (self.weight, "weight")):
            bad = ~(np.isfinite(values) & (values > 0)).reshape(len(self.loss), -1).all(axis=1)
            if bad.any():
                at = int(np.flatnonzero(bad)[0])
                raise AnalysisError(
                    f"{self.labels[at]}: {what} {values[at]} must be finite and above zero"
                )

    def take(self, index: np.ndarray) -> Points:
        labels = tuple(np.array(self.labels, dtype=object)[index])
        arrays = (self.x, self.loss, self.loss_se, self.weight)
        return Points(*(array[index] for array in arrays), labels=labels)


@dataclass(frozen=True)
class Estimate:
    """The outcome of `estimate`; theta is empty where the status is a refusal."""

    form: Form
    points: Points
    loss: Loss
    pinned: Mapping[str, float]
    status: Status
    reason: str
    scale: Scale
    theta: np.ndarray
    objective: float = float("nan")
    certificate: float = float("nan")
    agreeing_starts: float = float("nan")
    condition: float = float("nan")
    at_bound: tuple[str, ...] = ()

    def require(self) -> Estimate:
        """Self, or an AnalysisError with the reason where the fit was refused."""
        if self.status.refused:
            raise AnalysisError(f"{self.form.formula}: {self.status.value}: {self.reason}")
        return self

    @property
    def problem(self) -> solver.Problem:
        pinned = self.form.pin(self.pinned, self.scale)
        return solver.Problem(self.form, self.z(self.points.x), pinned, self.loss)

    def z(self, x: np.ndarray) -> np.ndarray:
        """Centred logs of variables (n, V)."""
        return np.log(x) - self.scale.center

    def predict(self, x: np.ndarray, theta: np.ndarray | None = None) -> np.ndarray:
        """Log loss at x (n, V), (..., n)."""
        used = self.require().theta if theta is None else theta
        return self.form.log_loss(used, self.z(x)) + self.scale.log_loss

    @property
    def residual(self) -> np.ndarray:
        """log(measured / fitted), (n,)."""
        return np.log(self.points.loss) - self.predict(self.points.x)

    @property
    def fitted_count(self) -> int:
        return _free_count(self.form, self.pinned)

    @property
    def moving(self) -> np.ndarray:
        """Parameters neither pinned nor at a bound, (P,) of bool."""
        held = {*self.form.constants, *self.pinned, *self.at_bound}
        return np.array([name not in held for name in self.form.parameters])

    def design(self, x: np.ndarray) -> np.ndarray:
        """Jacobian of the log loss at x over the moving parameters, (n, p)."""
        return self.form.jacobian(self.require().theta, self.z(x))[:, self.moving]


def _free_count(form: Form, pinned: Mapping[str, float]) -> int:
    return len(form.parameters) - len({**form.constants, **pinned})


def _condition(problem: solver.Problem, theta: np.ndarray, moving: np.ndarray, w) -> float:
    jacobian = problem.form.jacobian(theta, problem.z)[:, moving] * np.sqrt(w)[:, None]
    norms = np.linalg.norm(jacobian, axis=0)
    if not np.all(norms > 0):
        return float("inf")
    singular = np.linalg.svd(jacobian / norms, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else float("inf")


def _bounded(form: Form, theta: np.ndarray, free: np.ndarray) -> dict[str, str]:
    """Free parameters that lie on a limit of the form, with which limit."""
    lower, upper = form.bounds()
    near = 1e-7 * (upper - lower)
    out = {}
    for index in np.flatnonzero(free):
        if theta[index] <= lower[index] + near[index]:
            out[form.parameters[index]] = "lower"
        elif theta[index] >= upper[index] - near[index]:
            out[form.parameters[index]] = "upper"
    return out


def _bound_reason(limits: Mapping[str, str]) -> str:
    words = {
        ("E", "lower"): "the floor E is at zero: these points show no irreducible loss",
        ("E", "upper"): "the floor E is at the smallest measured loss: the points show a plateau",
    }
    return "; ".join(
        words.get((name, side), f"{name} is at its {side} limit") for name, side in limits.items()
    )


def bound_status(form: Form, theta: np.ndarray, scale: Scale) -> tuple[Status, str]:
    """AT_BOUND with its reason where a free parameter lies on a limit of its form."""
    return _standing(_bounded(form, theta, np.isnan(form.pin({}, scale))))


def _standing(limits: Mapping[str, str]) -> tuple[Status, str]:
    return (Status.AT_BOUND, _bound_reason(limits)) if limits else (Status.CONVERGED, "")


def refusal(form: Form, points: Points, pinned: Mapping[str, float]) -> tuple[Status, str] | None:
    """The status and reason where points and design cannot carry the form, or None."""
    free = _free_count(form, pinned)
    if len(points.loss) < free + 1:
        return (
            Status.TOO_FEW_POINTS,
            f"{len(points.loss)} points for {free} free parameters; at least {free + 1} are needed",
        )
    problem = form.design_problem(np.log(points.x), pinned)
    return (Status.UNDER_DETERMINED, problem) if problem else None


def _lowest_certified(found: solver.Solution) -> tuple[int | None, float]:
    """The certified start at the lowest objective, or None, and the share of starts that agree."""
    value = np.where(np.isnan(found.objective), np.inf, found.objective)
    alike = value <= value.min() * (1 + 1e-8) + 1e-24
    certified = np.flatnonzero(found.certified & alike)
    best = int(certified[np.argmin(value[certified])]) if len(certified) else None
    return best, float(alike.mean())


def estimate(
    form: Form,
    points: Points,
    *,
    loss: Loss,
    pinned: Mapping[str, float],
    starts: int = STARTS,
    seed: int = 0,
) -> Estimate:
    """Fit the form from many starts; never raises for bad data, but says so in the status."""
    if len(points.loss):
        scale = form.scale(np.log(points.x), np.log(points.loss))
    else:
        scale = Scale(np.zeros(len(form.variables)), 0.0)
    base = (form, points, loss, dict(pinned))
    refused = refusal(form, points, pinned)
    if refused:
        return Estimate(*base, *refused, scale, np.array([]))
    z, y = np.log(points.x) - scale.center, np.log(points.loss) - scale.log_loss
    problem = solver.Problem(form, z, form.pin(pinned, scale), loss)
    first = form.starts(z, y, starts, np.random.default_rng(seed))
    found = solver.solve(problem, y=y, w=points.weight, starts=first)
    best, agreeing = _lowest_certified(found)
    if best is None:
        closest = np.nanmin(found.certificate)
        reason = f"no start reached a certified minimum; smallest gradient cosine {closest:.1e}"
        return Estimate(*base, Status.UNCONVERGED, reason, scale, np.array([]))
    theta = found.theta[best]
    limits = _bounded(form, theta, problem.free)
    moving = problem.free & np.array([name not in limits for name in form.parameters])
    condition = _condition(problem, theta, moving, points.weight) if moving.any() else 1.0
    if condition > LARGEST_CONDITION:
        reason = f"condition {condition:.1e} of the scaled Jacobian: parameters are confounded"
        return Estimate(*base, Status.UNDER_DETERMINED, reason, scale, np.array([]))
    return Estimate(
        *base,
        *_standing(limits),
        scale,
        theta,
        float(found.objective[best]),
        float(found.certificate[best]),
        agreeing,
        condition,
        tuple(limits),
    )
