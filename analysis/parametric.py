"""The parametric road: the minimum of a fitted L(N, D) over N at each budget, with its draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.frontier import (
    Frontier,
    Mark,
    Place,
    Road,
    RoadName,
    Standing,
    beyond,
    percentiles,
    place_of,
    refused,
)
from analysis.table import Table
from analysis.token_cost import Flops, TokenCost, compute, flops_named, token_cost

if TYPE_CHECKING:
    from analysis.estimate import Estimate
    from analysis.fit import Fit

STEP = 0.1  # of log N on which a law is evaluated; the minimum is found between by a polynomial
HALF = 3  # points on each side of the lowest that the polynomial goes through
REACH = 9.0  # log units beyond the sizes of the data in which a minimum is looked for
LEAST_DRAWS = 0.5  # share of draws that must have a minimum
NEWTON_STEPS = 30


@dataclass(frozen=True)
class Optima:
    """log N* of the estimate and its draws at one budget, (1 + B,).

    NaN where the law has no interior minimum.
    """

    budget_flops: float
    log_n: np.ndarray

    @property
    def share(self) -> float:
        """Share of the draws, all thetas but the first, that have a minimum."""
        return float(np.mean(np.isfinite(self.log_n[1:])))


def _turn(values: np.ndarray) -> np.ndarray:
    """Zero of the derivative of the polynomials through 2 HALF + 1 equal steps (B, n), in steps.

    Newton on the derivative, kept within one step of the middle, where the minimum is.
    """
    steps = np.arange(-HALF, HALF + 1)
    powers = np.linalg.solve(np.vander(steps, increasing=True).astype(float), values.T)  # (n, B)
    first = powers[1:] * np.arange(1, len(steps))[:, None]
    second = first[1:] * np.arange(1, len(steps) - 1)[:, None]
    low, high = np.full(len(values), -1.0), np.full(len(values), 1.0)
    t = np.zeros(len(values))
    for _ in range(NEWTON_STEPS):
        slope = np.polynomial.polynomial.polyval(t, first, tensor=False)
        bend = np.polynomial.polynomial.polyval(t, second, tensor=False)
        low, high = np.where(slope < 0, t, low), np.where(slope > 0, t, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = t - slope / bend
        inside = (moved > low) & (moved < high)  # also false for NaN
        t = np.where(slope == 0, t, np.where(inside, moved, 0.5 * (low + high)))
    return t


def optima(
    law: Estimate, theta: np.ndarray, budget_flops: float, cost: TokenCost, log_n: np.ndarray
) -> Optima:
    """The lowest interior point of L(N, D(C, N)) over log N for each theta (B, P).

    `log_n` is an even grid. The law is smooth, so a polynomial of degree 6 through the points
    around the lowest places the minimum to about 1e-7 of log N.
    """
    log_d = cost.log_tokens(float(np.log(budget_flops)), log_n)
    values = law.predict(np.exp(np.stack([log_n, log_d], axis=-1)), theta)
    lowest = np.argmin(np.where(np.isnan(values), np.inf, values), axis=1)
    interior = (lowest > 0) & (lowest < len(log_n) - 1) & np.isfinite(values).all(axis=1)
    middle = np.clip(lowest, HALF, len(log_n) - 1 - HALF)
    around = middle[:, None] + np.arange(-HALF, HALF + 1)
    near = np.where(interior[:, None], np.take_along_axis(values, around, axis=1), 0.0)
    found = log_n[middle] + (log_n[1] - log_n[0]) * _turn(near)
    return Optima(budget_flops, np.where(interior & (middle == lowest), found, np.nan))


def _grid(n: np.ndarray, log_c: np.ndarray, targets: Sequence[float]) -> np.ndarray:
    """log N from far below to far above the data, further where a target is further."""
    ahead = [float(np.log(target)) for target in targets]
    above = max([0.0, *(target - log_c.max() for target in ahead)])
    below = max([0.0, *(log_c.min() - target for target in ahead)])
    low, high = np.log(n.min()) - REACH - below, np.log(n.max()) + REACH + above
    return np.linspace(low, high, int(np.ceil((high - low) / STEP)) + 1)


@dataclass(frozen=True)
class _Search:
    """A law whose minima are looked for: first the estimate, then its draws."""

    law: Estimate
    theta: np.ndarray
    cost: TokenCost
    log_n: np.ndarray
    level: float

    def at(self, budget_flops: float) -> Optima:
        return optima(self.law, self.theta, budget_flops, self.cost, self.log_n)


def _problem(found: Optima) -> str | None:
    if not np.isfinite(found.log_n[0]):
        return "the law has no minimum over N between sizes far below and far above the data"
    if found.share < LEAST_DRAWS:
        return f"{1 - found.share:.0%} of the draws of the law have no minimum over N"
    return None


def _place(search: _Search, budget_flops: float, table: Table, log_c: np.ndarray) -> Place:
    """N*, D* and their ratio at a budget; extrapolated where any leaves the data."""
    found = search.at(budget_flops)
    problem = _problem(found)
    if problem:
        return Place(budget_flops, Standing.NO_INTERIOR_MINIMUM, problem)
    log_n, log_d = found.log_n, search.cost.log_tokens(float(np.log(budget_flops)), found.log_n)
    distance = max(
        beyond(budget_flops, np.exp(log_c)),
        beyond(float(np.exp(log_n[0])), table.variable("N")),
        beyond(float(np.exp(log_d[0])), table.variable("D")),
    )
    of_n, of_d, ratio = (
        percentiles(float(values[0]), values[1:], search.level)
        for values in (log_n, log_d, log_d - log_n)
    )
    return place_of(budget_flops, distance, log_n=of_n, log_d=of_d, log_ratio=ratio)


def _frontier(search: _Search, log_c: np.ndarray) -> Frontier | str:
    """Exponents between the smallest and the largest budget of the data, or what is wrong."""
    ends = [float(log_c.min()), float(log_c.max())]
    if ends[1] - ends[0] < STEP:  # one budget: the slope around it
        ends = [ends[0] - 0.5, ends[1] + 0.5]
    low, high = (search.at(float(np.exp(end))) for end in ends)
    for found in (low, high):
        problem = _problem(found)
        if problem:
            return f"at {found.budget_flops:.3g} FLOPs {problem}"
    rise = ends[1] - ends[0]
    of_n = (high.log_n - low.log_n) / rise
    of_d = (
        search.cost.log_tokens(ends[1], high.log_n) - search.cost.log_tokens(ends[0], low.log_n)
    ) / rise
    coefficient = low.log_n - of_n * ends[0]
    marks = tuple(
        Mark(float(np.exp(end)), float(np.exp(found.log_n[0])), float(np.nanstd(found.log_n[1:])))
        for end, found in zip(ends, (low, high), strict=True)
    )
    return Frontier(
        percentiles(float(of_n[0]), of_n[1:], search.level),
        percentiles(float(of_d[0]), of_d[1:], search.level),
        percentiles(float(coefficient[0]), coefficient[1:], search.level).exp(),
        marks,
    )


def parametric(
    table: Table,
    law: Fit,
    *,
    targets: Sequence[float] = (),
    level: float = 0.9,
    flops: Flops | str = Flops.SIX_ND,
) -> Road:
    """The parametric road: N*, D* that minimise the law at each target, with its draws.

    Exponents are those of the law's own minima between the smallest and the largest budget of the
    data; for L = E + A N^-a + B D^-b they are b / (a + b) and a / (a + b) (Hoffmann et al. 2022,
    equation 4). A refused law, or one of other variables, gives a refused road.
    """
    name = law.form.formula
    if tuple(law.form.variables) != ("N", "D"):
        reason = f"{name} is of {', '.join(law.form.variables)}; a law of N and D is needed"
        return refused(RoadName.PARAMETRIC, name, Standing.NO_LAW, reason, level)
    if law.status.refused:
        reason = f"{law.status.value}: {law.reason}"
        return refused(RoadName.PARAMETRIC, name, Standing.NO_LAW, reason, level)
    if not len(law.draws.theta):
        return refused(RoadName.PARAMETRIC, name, Standing.NO_LAW, "no certified draw", level)
    flops = flops_named(flops)
    log_c = np.log(compute(table, flops))
    theta = np.concatenate([law.estimate.theta[None], law.draws.theta])
    grid = _grid(table.variable("N"), log_c, targets)
    search = _Search(law.estimate, theta, token_cost(table, flops), grid, level)
    found = _frontier(search, log_c)
    if isinstance(found, str):
        standing = Standing.NO_INTERIOR_MINIMUM
        return refused(RoadName.PARAMETRIC, name, standing, found, level)
    places = tuple(_place(search, target, table, log_c) for target in targets)
    notes = (law.reason,) if law.reason else ()
    return Road(RoadName.PARAMETRIC, name, Standing.FOUND, "", level, found, places, notes)
