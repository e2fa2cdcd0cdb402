"""The envelope road: which size is lowest at each compute, over the training curves of all runs.

Approach 1 of Hoffmann et al. 2022 (arXiv:2203.15556), read where it is sharp: at the compute where
the envelope passes from one size to the next, the optimum is close to their geometric mean. Curves
of runs whose learning rate is still to fall lie above what a finished run would reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.frontier import (
    LEAST_BUDGETS,
    Frontier,
    Mark,
    Road,
    RoadName,
    Standing,
    Value,
    beyond,
    percentiles,
    place_of,
    refused,
)
from analysis.line import Line, line
from analysis.table import Table
from analysis.token_cost import Flops, TokenCost, flops_named, token_cost

GRID = 400  # values of C at which curves are compared
LEAST_EVALUATIONS = 3
DRAWS = 500
LEAST_USABLE = 0.5  # share of resamples that must still cross twice
HOW = "crossings of training curves"


@dataclass(frozen=True)
class Curve:
    """One run during training: its log N, log C (k,) rising and log loss (k,)."""

    log_n: float
    log_c: np.ndarray
    log_loss: np.ndarray


@dataclass(frozen=True)
class Crossings:
    """Where the envelope passes from size `below` to size `above` (log N): log C, (n,) each."""

    log_c: np.ndarray
    below: np.ndarray
    above: np.ndarray

    @property
    def log_n(self) -> np.ndarray:
        return 0.5 * (self.below + self.above)


def curves(table: Table, flops: Flops | str = Flops.SIX_ND) -> tuple[Curve, ...]:
    """The training curves of the runs that have at least three evaluations after the start."""
    flops, column = flops_named(flops), table.loss_column
    rows = table.evaluations
    if column not in rows or "identity" not in rows:
        return ()
    out = []
    for run, n in zip(table.runs.itertuples(), table.variable("N"), strict=True):
        own = rows[(rows["identity"] == run.identity) & (rows["tokens"] > 0)]
        own = own[(own[column] > 0) & np.isfinite(own[column])]
        if "weights" in own and "weights" in table.runs:
            own = own[own["weights"] == run.weights]
        if flops is Flops.COUNTED:
            own = own[own["flops"] > 0].drop_duplicates("flops", keep="last")
        own = own.drop_duplicates("tokens", keep="last").sort_values("tokens")
        if len(own) < LEAST_EVALUATIONS:
            continue
        tokens, loss = own["tokens"].to_numpy(float), own[column].to_numpy(float)
        cost = 6.0 * n * tokens if flops is Flops.SIX_ND else own["flops"].to_numpy(float)
        out.append(Curve(float(np.log(n)), np.log(cost), np.log(loss)))
    return tuple(out)


def _losses(found: Sequence[Curve], grid: np.ndarray) -> np.ndarray:
    """Log loss of each curve on the grid of log C, (curves, grid); NaN outside the curve."""
    from scipy.interpolate import PchipInterpolator

    return np.array(
        [PchipInterpolator(own.log_c, own.log_loss, extrapolate=False)(grid) for own in found]
    )


def _by_size(log_n: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes (S,) and the lowest loss of each on the grid, (S, grid); NaN where it has none."""
    sizes, where = np.unique(log_n, return_inverse=True)
    lowest = np.full((len(sizes), losses.shape[1]), np.nan)
    for index, row in zip(where, losses, strict=True):
        lowest[index] = np.fmin(lowest[index], row)
    return sizes, lowest


def _crossings(sizes: np.ndarray, lowest: np.ndarray, grid: np.ndarray) -> Crossings:
    """Passes of the envelope between two sizes that both have a loss on either side of it.

    A pass where a curve ends or begins says nothing and is left out. Passes of one pair, which
    noise makes several, are averaged.
    """
    filled = np.where(np.isnan(lowest), np.inf, lowest)
    winner = np.where(np.isfinite(filled).any(axis=0), np.argmin(filled, axis=0), -1)
    passes: dict[tuple[int, int], list[float]] = {}
    for at in np.flatnonzero((winner[1:] != winner[:-1]) & (winner[1:] >= 0) & (winner[:-1] >= 0)):
        low, high = sorted((int(winner[at]), int(winner[at + 1])))
        gap = lowest[low, at : at + 2] - lowest[high, at : at + 2]
        if np.isfinite(gap).all() and gap[0] != gap[1]:
            share = gap[0] / (gap[0] - gap[1])
            place = float(grid[at] + share * (grid[at + 1] - grid[at]))
            passes.setdefault((low, high), []).append(place)
    pairs = sorted(passes)
    return Crossings(
        np.array([np.mean(passes[pair]) for pair in pairs]),
        np.array([sizes[low] for low, _ in pairs]),
        np.array([sizes[high] for _, high in pairs]),
    )


def crossings(found: Sequence[Curve]) -> Crossings:
    """The crossings of the envelope of these curves."""
    grid = _grid(found)
    sizes, lowest = _by_size(np.array([own.log_n for own in found]), _losses(found, grid))
    return _crossings(sizes, lowest, grid)


def _grid(found: Sequence[Curve]) -> np.ndarray:
    low, high = min(own.log_c[0] for own in found), max(own.log_c[-1] for own in found)
    return np.linspace(low, high, GRID)


@dataclass(frozen=True)
class _Lines:
    """The line through the crossings, and level at its center and slope of resamples, (B,)."""

    fitted: Line
    levels: np.ndarray
    slopes: np.ndarray
    level: float

    def slope(self) -> Value:
        return percentiles(self.fitted.slope, self.slopes, self.level)

    def at(self, log_c: float) -> Value:
        point = self.fitted.at(log_c, self.level).value
        draws = self.levels + self.slopes * (log_c - self.fitted.center)
        return percentiles(point, draws, self.level)


def _resampled(
    found: Sequence[Curve], fitted: Line, *, draws: int, seed: int, level: float
) -> _Lines | str:
    """The lines of resampled runs, or why they are too few."""
    grid, rng = _grid(found), np.random.default_rng(seed)
    log_n, losses = np.array([own.log_n for own in found]), _losses(found, grid)
    levels, slopes = [], []
    for _ in range(draws):
        kept = np.unique(rng.integers(0, len(found), len(found)))
        made = _crossings(*_by_size(log_n[kept], losses[kept]), grid)
        if len(made.log_c) < 2 or np.ptp(made.log_c) == 0:
            continue
        slope, level_ = np.polyfit(made.log_c - fitted.center, made.log_n, 1)
        levels.append(level_)
        slopes.append(slope)
    if len(slopes) < LEAST_USABLE * draws:
        return f"{len(slopes)} of {draws} resamples of the runs still have two crossings"
    return _Lines(fitted, np.array(levels), np.array(slopes), level)


def envelope(
    table: Table,
    *,
    targets: Sequence[float] = (),
    level: float = 0.9,
    flops: Flops | str = Flops.SIX_ND,
    draws: int = DRAWS,
    seed: int = 0,
) -> Road:
    """The envelope road of a table; intervals resample the runs."""
    found = curves(table, flops)
    if not found:
        reason = f"no run has {LEAST_EVALUATIONS} evaluations after its start in the table"
        return refused(RoadName.ENVELOPE, HOW, Standing.NO_CURVES, reason, level)
    made = crossings(found)
    if len(made.log_c) < LEAST_BUDGETS:
        count = len({own.log_n for own in found})
        reason = (
            f"the envelope of {count} size{'s' * (count != 1)} passes from one to the next "
            f"{len(made.log_c)} times; {LEAST_BUDGETS} are needed"
        )
        return refused(RoadName.ENVELOPE, HOW, Standing.TOO_FEW_POINTS, reason, level)
    fitted = line(made.log_c, made.log_n, np.zeros(len(made.log_c)))
    lines = _resampled(found, fitted, draws=draws, seed=seed, level=level)
    if isinstance(lines, str):
        return refused(RoadName.ENVELOPE, HOW, Standing.TOO_FEW_POINTS, lines, level)
    return _road(made, lines, token_cost(table, flops_named(flops)), targets)


def _tokens(log_c: float, of_n: Value, cost: TokenCost) -> tuple[Value, Value]:
    """log D and log D/N at log C: they fall as N rises, so their ends change places."""
    ends = np.array([of_n.value, of_n.high, of_n.low])
    log_d = cost.log_tokens(log_c, ends)
    return Value(*map(float, log_d)), Value(*map(float, log_d - ends))


def _road(made: Crossings, lines: _Lines, cost: TokenCost, targets: Sequence[float]) -> Road:
    places = []
    for target in targets:
        log_c = float(np.log(target))
        of_n = lines.at(log_c)
        of_d, ratio = _tokens(log_c, of_n, cost)
        distance = beyond(target, np.exp(made.log_c))
        places.append(place_of(target, distance, log_n=of_n, log_d=of_d, log_ratio=ratio))
    slope = lines.slope()
    middle = cost.slope(np.array(lines.fitted.coefficients[0])) + 1.0  # d log(C / D) / d log N
    of_d = [float(1.0 - middle * end) for end in (slope.value, slope.high, slope.low)]
    marks = tuple(
        Mark(float(np.exp(log_c)), float(np.exp(log_n)), float(0.5 * (above - below)))
        for log_c, log_n, below, above in zip(
            made.log_c, made.log_n, made.below, made.above, strict=True
        )
    )
    frontier = Frontier(slope, Value(*of_d), lines.at(0.0).exp(), marks)
    return Road(
        RoadName.ENVELOPE, HOW, Standing.FOUND, "", lines.level, frontier, tuple(places), ()
    )
