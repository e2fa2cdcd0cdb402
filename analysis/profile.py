"""Profile intervals: one parameter held at values, the others refitted, until the objective tells.

The drop S(v) = 2 (objective with the parameter at v - least objective) is compared with its
distribution at the true value. Least squares: S / s^2 is F(1, n - p), s^2 the residual variance,
and its signed root is the t of a linear law (Bates & Watts 1988, section 6.1). Robust losses have
no such law in small samples: S is compared with its quantile over resamples, in which the fit is
the truth and each is refitted with and without the parameter held. The same is done for clustered
errors (Method.WILD). For a linear law and least squares that quantile is that of F.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis import solver
from analysis.amplitude import ByAmplitude
from analysis.bootstrap import (
    DRAWS,
    Method,
    check_level,
    degrees_of_freedom,
    refits,
    resample,
    residual_sd,
)
from analysis.errors import AnalysisError
from analysis.estimate import Estimate, Status
from analysis.form import FREE, Form, Kind
from analysis.losses import Squares
from analysis.quantiles import student

STEPS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2, 3, 5, 8, 13, 21, 34, 89, 233, 610)  # of half-widths
RANDOM_STARTS = 6
FIRST_STEPS = 30  # of the solver from each start; the sweeps go on from the best
SWEEPS = 3  # in which every value is refitted from the refits of its neighbours
ROUNDS, INSIDE = 3, 7  # values put between the two that an end lies between
LOWER = 1e-6  # relative: an objective this much below that of the fit is another minimum
MOST_ROOT = 2.5  # the curve is kept up to so many times the threshold


@dataclass(frozen=True)
class Profile:
    """An interval by profile; `low` and `high` are None where that end is open.

    Open: the objective does not rise enough before `limits`, the limits of the form. `values` and
    `root` (m,) are the curve: the signed root of the drop, the interval being |root| <= threshold.
    """

    name: str
    fitted: float
    low: float | None
    high: float | None
    limits: tuple[float, float]
    level: float
    statistic: str
    threshold: float
    values: np.ndarray
    root: np.ndarray
    logarithmic: bool
    uncertified: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        low, high = ("open" if end is None else f"{end:.5g}" for end in (self.low, self.high))
        return f"{self.name} = {self.fitted:.5g}   {self.level:.0%} [ {low}, {high} ]"

    def as_json(self) -> dict:
        """The interval and how it was made; an open end is the word "open"."""
        return {
            "parameter": self.name,
            "fitted": self.fitted,
            "low": "open" if self.low is None else self.low,
            "high": "open" if self.high is None else self.high,
            "limits": list(self.limits),
            "level": self.level,
            "statistic": self.statistic,
            "uncertified": self.uncertified,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class _Held:
    """The problem of a fit with one entry of theta held; theta in the coordinates of `form`."""

    fit: Estimate
    form: Form
    index: int
    theta: np.ndarray
    y: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        return self.fit.points.weight

    def problem(self, values: np.ndarray) -> solver.Problem:
        """The entry held at values (B,)."""
        pinned = np.tile(self.fit.problem.pinned, (len(values), 1))
        pinned[:, self.index] = values
        return solver.Problem(self.form, self.fit.problem.z, pinned, self.fit.loss)

    def public(self, values: np.ndarray) -> np.ndarray:
        """The parameter in the units of the table, from values (m,) of its entry."""
        theta = np.tile(self.theta, (len(values), 1))
        theta[:, self.index] = values
        return self.form.public(theta, self.fit.scale)[self.form.parameters[self.index]]

    @property
    def limits(self) -> tuple[float, float]:
        lower, upper = self.form.bounds()
        return float(lower[self.index]), float(upper[self.index])

    def slope(self) -> tuple[np.ndarray, float]:
        """How theta (P,) follows the held entry in a linear law, and the entry's standard error."""
        moving = self.fit.moving.copy()
        moving[self.index] = True
        rest = np.flatnonzero(moving)
        order = np.concatenate([[self.index], rest[rest != self.index]])
        jacobian = self.form.jacobian(self.theta, self.fit.problem.z)[:, order]
        covariance = np.linalg.pinv(jacobian.T @ (jacobian * self.weight[:, None]))
        out = np.zeros(len(self.theta))
        out[order] = covariance[:, 0] / covariance[0, 0]
        return out, residual_sd(self.fit) * float(np.sqrt(covariance[0, 0]))


def _held(fit: Estimate, name: str) -> _Held:
    """The parameter as an entry of a law; refused where it is not fitted."""
    form = fit.require().form
    gone = {*form.constants, *fit.pinned}
    free = [own for own in form.parameters if own not in gone]
    if name not in free:
        raise AnalysisError(f"profile of {name!r}: {form.name} has fitted {', '.join(free)}")
    index = form.parameters.index(name)
    y = np.log(fit.points.loss) - fit.scale.log_loss
    if form.entries[index].kind in FREE:
        plain = ByAmplitude(form.name, form.variables, form, index, fit.scale, 0.0)
        theta = plain.outer(fit.theta)
        return _Held(fit, replace(plain, center=float(theta[index])), index, theta, y)
    lower, upper = form.bounds()
    middle = fit.theta.copy()
    middle[index] = 0.5 * (lower[index] + upper[index])
    form.pin({name: float(form.public(middle, fit.scale)[name])}, fit.scale)  # may refuse a name
    return _Held(fit, form, index, fit.theta, y)


@dataclass(frozen=True)
class _Walk:
    """Values (m,) of the held entry in order, and the refits there."""

    values: np.ndarray
    theta: np.ndarray
    objective: np.ndarray
    certified: np.ndarray


def _refit(held: _Held, values: np.ndarray, starts: np.ndarray, limit: int = 200) -> _Walk:
    """The best of starts (m, K, P) at each value, solved in one batch."""
    count, each, width = starts.shape
    problem = held.problem(np.repeat(values, each))
    found = solver.solve(
        problem, y=held.y, w=held.weight, starts=starts.reshape(count * each, width), limit=limit
    )
    value = np.where(np.isfinite(found.objective), found.objective, np.inf).reshape(count, each)
    theta, certified = solver.lowest(found, count)
    return _Walk(values, theta, value.min(axis=1), certified)


def _better(old: _Walk, new: _Walk) -> _Walk:
    """At each value the lower of two refits; of two alike the certified one."""
    lower = new.objective < old.objective * (1 - 1e-9)
    alike = new.objective <= old.objective * (1 + 1e-9)
    take = lower | (alike & new.certified & ~old.certified)
    return _Walk(
        old.values,
        np.where(take[:, None], new.theta, old.theta),
        np.where(take, new.objective, old.objective),
        np.where(take, new.certified, old.certified),
    )


def _first(held: _Held, seed: int) -> _Walk:
    """From the fit out to both limits: linear, constant and random starts, then neighbours."""
    slope, error = held.slope()
    low, high = held.limits
    center, freedom = held.theta[held.index], degrees_of_freedom(held.fit)
    reach = np.array(STEPS) * error * student(0.95, freedom)
    values = np.concatenate([center - reach, [center], center + reach, [low, high]])
    values = np.unique(values[(values >= low) & (values <= high)])
    ahead = held.theta + (values - center)[:, None] * slope
    rng = np.random.default_rng(seed)
    fresh = held.fit.form.starts(held.fit.problem.z, held.y, RANDOM_STARTS, rng)
    fresh = held.form.outer(fresh) if isinstance(held.form, ByAmplitude) else fresh
    many = np.broadcast_to(fresh, (len(values), *fresh.shape))
    same = np.broadcast_to(held.theta, ahead.shape)
    starts = np.concatenate([ahead[:, None], same[:, None], many], axis=1)
    walk = _refit(held, values, starts, FIRST_STEPS)
    for _ in range(SWEEPS):
        around = [np.roll(walk.theta, shift, axis=0) for shift in (1, -1)]
        walk = _better(walk, _refit(held, values, np.stack(around, axis=1)))
    return walk


def _drop(held: _Held, walk: _Walk) -> np.ndarray:
    return 2.0 * (walk.objective - held.fit.objective)


def _bracket(walk: _Walk, drop: np.ndarray, most: float, side: int) -> tuple[int, int] | None:
    """The outermost value inside the interval and its outer neighbour; None where it is open."""
    inside = np.flatnonzero(drop <= most)
    edge = int(inside.max() if side > 0 else inside.min())
    outer = edge + side
    return (edge, outer) if 0 <= outer < len(walk.values) else None


def _closer(held: _Held, walk: _Walk, most: float, side: int) -> _Walk:
    """More values where the drop passes `most` on one side."""
    for _ in range(ROUNDS):
        ends = _bracket(walk, _drop(held, walk), most, side)
        if ends is None:
            return walk
        share = np.linspace(0.0, 1.0, INSIDE + 2)[1:-1, None]
        inner, outer = (walk.theta[end] for end in ends)
        linear = inner + share * (outer - inner)
        values = walk.values[ends[0]] + share[:, 0] * (walk.values[ends[1]] - walk.values[ends[0]])
        starts = [
            linear,
            np.broadcast_to(inner, linear.shape),
            np.broadcast_to(outer, linear.shape),
        ]
        new = _refit(held, values, np.stack(starts, axis=1))
        order = np.argsort(np.concatenate([walk.values, values]), kind="stable")
        parts = ("values", "theta", "objective", "certified")
        walk = _Walk(
            *(np.concatenate([getattr(walk, part), getattr(new, part)])[order] for part in parts)
        )
    return walk


def _end(held: _Held, walk: _Walk, most: float, side: int) -> float | None:
    """Where the root of the drop passes that of `most`, between two values; None where open."""
    drop = _drop(held, walk)
    ends = _bracket(walk, drop, most, side)
    if ends is None:
        return None
    inner, outer = np.sqrt(np.maximum(drop[list(ends)], 0.0))
    share = (np.sqrt(most) - inner) / (outer - inner) if np.isfinite(outer) else 0.0
    first, second = (walk.values[end] for end in ends)
    return float(held.public(np.array([first + share * (second - first)]))[0])


def _quantile(
    held: _Held, level: float, *, method: Method, clusters: np.ndarray | None, draws: int, seed: int
) -> float:
    """Of the drop at the fitted value over resamples of the fit."""
    fit = held.fit
    made = resample(fit, method=method, draws=draws, seed=seed, clusters=clusters)
    theta, certified = refits(fit, made.y, made.w, seed)
    at = np.full(draws, held.theta[held.index])
    starts = np.tile(held.theta, (draws, 1))
    less = solver.solve(held.problem(at), y=made.y, w=made.w, starts=starts)
    residual = made.y - fit.form.log_loss(theta, fit.problem.z)
    least = np.sum(made.w * fit.loss.rho(residual), axis=-1)
    good = certified & less.certified & made.usable
    if not good.any():
        raise AnalysisError(f"{fit.form.formula}: no refit of a resample converged; no profile")
    drop = np.maximum(2.0 * (less.objective - least), 0.0)
    return float(np.quantile(drop[good], level))


@dataclass(frozen=True)
class _Test:
    """The drop of `unit` has a root of one; the interval ends at the root `threshold`."""

    unit: float
    threshold: float
    words: str


def profile(
    fit: Estimate,
    name: str,
    *,
    level: float = 0.9,
    method: Method = Method.RESIDUAL,
    clusters: np.ndarray | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Profile:
    """Interval of one parameter by the rise of the objective where it is held; see the module.

    The interval runs from the lowest to the highest value that the statistic does not reject.
    Refuses pinned parameters, and fits that turn out not to be at the lowest minimum.
    """
    check_level(level)
    held = _held(fit, name)
    if isinstance(fit.loss, Squares) and method is not Method.WILD:
        freedom = degrees_of_freedom(fit)
        edge = student((1 + level) / 2, freedom)
        test = _Test(residual_sd(fit) ** 2, edge, f"F(1, {freedom})")
    else:
        method = method if method is Method.WILD else Method.RESIDUAL
        unit = _quantile(held, level, method=method, clusters=clusters, draws=draws, seed=seed)
        words = f"the drop over its {level:.0%} quantile in {draws} {method.value} resamples"
        test = _Test(unit, 1.0, words)
    if not test.unit > 0:
        raise AnalysisError(f"{fit.form.formula}: no residual is left; no interval of {name}")
    most = test.unit * test.threshold**2
    walk = _first(held, seed)
    for side in (-1, 1):
        walk = _closer(held, walk, most, side)
    _refuse_lower(held, walk, name, most)
    low, high = (_end(held, walk, most, side) for side in (-1, 1))
    return _profile(held, walk, test, level, low, high)


def _profile(
    held: _Held, walk: _Walk, test: _Test, level: float, low: float | None, high: float | None
) -> Profile:
    fit, entry = held.fit, held.form.entries[held.index]
    root = np.sign(walk.values - held.theta[held.index])
    root = root * np.sqrt(np.maximum(_drop(held, walk), 0.0) / test.unit)
    near = (np.abs(root) <= MOST_ROOT * test.threshold) & walk.certified
    notes = (f"the fit is at a bound: {fit.reason}",) if fit.status is Status.AT_BOUND else ()
    bottom, top = (float(end) for end in held.public(np.array(held.limits)))
    return Profile(
        name=entry.name,
        fitted=float(held.public(held.theta[held.index : held.index + 1])[0]),
        low=low,
        high=high,
        limits=(bottom, top),
        level=level,
        statistic=test.words,
        threshold=test.threshold,
        values=held.public(walk.values[near]),
        root=root[near],
        logarithmic=entry.kind in (Kind.LOG, Kind.PLACE),
        uncertified=int(np.sum(~walk.certified)),
        notes=notes,
    )


def _refuse_lower(held: _Held, walk: _Walk, name: str, most: float) -> None:
    """A refit with a parameter held cannot be better than the fit, were that the minimum."""
    best = int(np.argmin(walk.objective))
    if _drop(held, walk)[best] < -LOWER * most - 1e-20:
        value = held.public(walk.values[best : best + 1])[0]
        raise AnalysisError(
            f"profile of {name}: the objective at {value:.5g} is below that of the fit; "
            "fit again with more starts"
        )
