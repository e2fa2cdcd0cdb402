"""The envelope road: which size is lowest at each compute, over losses that runs could end with.

Approach 1 of Hoffmann et al. 2022 (arXiv:2203.15556), read where it is sharp: at the compute where
the envelope passes from one size to the next, the optimum is close to their geometric mean. Of runs
at a constant rate it reads whole training curves; of runs that cool down (wsd, cosine) only the
ends, joined by size, since a point before a cooldown lies above what a run of that length reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.ends import LEAST_EVALUATIONS, Annealed, Curve, annealed, curves_of_ends
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
DRAWS = 500
LEAST_USABLE = 0.5  # share of resamples that must still cross twice
LEAST_ENDS_AGAIN = 2  # ends of a size in a resample, which has fewer than the table
OF_CURVES, OF_ENDS = "crossings of training curves", "crossings of the ends of runs"


@dataclass(frozen=True)
class Crossings:
    """Where the envelope passes from size `below` to size `above` (log N): log C, (n,) each."""

    log_c: np.ndarray
    below: np.ndarray
    above: np.ndarray

    @property
    def log_n(self) -> np.ndarray:
        return 0.5 * (self.below + self.above)


def _losses(found: Sequence[Curve], grid: np.ndarray) -> np.ndarray:
    """Log loss of each curve on the grid of log C, (curves, grid); NaN outside the curve."""
    from scipy.interpolate import PchipInterpolator

    rows = [PchipInterpolator(own.log_c, own.log_loss, extrapolate=False)(grid) for own in found]
    return np.array(rows).reshape(len(found), len(grid))


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


@dataclass
class _Redrawn:
    """Log losses on the grid of runs that were drawn; ends of a size drawn before are kept."""

    found: Annealed
    grid: np.ndarray

    def __post_init__(self) -> None:
        self.log_n = np.array([own.log_n for own in self.found.curves])
        self.losses = _losses(self.found.curves, self.grid)
        self.size_of_end = np.array([end.log_n for end in self.found.ends])
        self.known: dict[tuple[int, ...], np.ndarray] = {}

    def crossings(self, drawn: np.ndarray) -> Crossings:
        """Those of the runs with these numbers, curves first."""
        whole = len(self.found.curves)
        of_ends, kept = drawn[drawn >= whole] - whole, drawn[drawn < whole]
        rows, sizes = [self.losses[kept]], [self.log_n[kept]]
        for size in np.unique(self.size_of_end[of_ends]):
            own = tuple(of_ends[self.size_of_end[of_ends] == size].tolist())
            if own not in self.known:
                self.known[own] = self._row(own)
            rows.append(self.known[own])
            sizes.append(np.full(len(self.known[own]), size))
        return _crossings(*_by_size(np.concatenate(sizes), np.concatenate(rows)), self.grid)

    def _row(self, own: tuple[int, ...]) -> np.ndarray:
        """(1, grid), or (0, grid) where the ends are too few."""
        ends = [self.found.ends[index] for index in own]
        return _losses(curves_of_ends(ends, LEAST_ENDS_AGAIN), self.grid)


def _resampled(
    found: Annealed, fitted: Line, *, draws: int, seed: int, level: float
) -> _Lines | str:
    """The lines of resampled runs, or why they are too few."""
    runs, rng = len(found.curves) + len(found.ends), np.random.default_rng(seed)
    redrawn, levels, slopes = _Redrawn(found, _grid(_joined(found))), [], []
    for _ in range(draws):
        made = redrawn.crossings(np.unique(rng.integers(0, runs, runs)))
        if len(made.log_c) < 2 or np.ptp(made.log_c) == 0:
            continue
        slope, level_ = np.polyfit(made.log_c - fitted.center, made.log_n, 1)
        levels.append(level_)
        slopes.append(slope)
    if len(slopes) < LEAST_USABLE * draws:
        return f"{len(slopes)} of {draws} resamples of the runs still have two crossings"
    return _Lines(fitted, np.array(levels), np.array(slopes), level)


def _joined(found: Annealed) -> tuple[Curve, ...]:
    """Training curves, and the curves through the ends of each size."""
    return found.curves + curves_of_ends(found.ends)


def _without_curves(found: Annealed) -> tuple[Standing, str]:
    """The status and reason where nothing can be compared."""
    if not found.ends:
        reason = f"no run has {LEAST_EVALUATIONS} evaluations after its start in the table"
        return Standing.NO_CURVES, reason
    sizes = len({end.log_n for end in found.ends})
    return Standing.TOO_FEW_POINTS, (
        f"only ends count, and none of {sizes} size{'s' * (sizes != 1)} ends at "
        f"{LEAST_EVALUATIONS} values of C; without them no envelope has a shape"
    )


def envelope(
    table: Table,
    *,
    targets: Sequence[float] = (),
    level: float = 0.9,
    flops: Flops | str = Flops.SIX_ND,
    ends_only: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> Road:
    """The envelope road of a table; intervals resample the runs.

    `ends_only` says that runs without a schedule in the table were annealed at their end.
    """
    found = annealed(table, flops_named(flops), ends_only=ends_only)
    all_curves = _joined(found)
    how = OF_ENDS if found.ends else OF_CURVES
    if found.ends and found.curves:
        how = f"{OF_CURVES} and the ends of runs"

    def refusal(standing: Standing, reason: str) -> Road:
        return refused(RoadName.ENVELOPE, how, standing, reason, level, found.notes)

    if not all_curves:
        return refusal(*_without_curves(found))
    made = crossings(all_curves)
    if len(made.log_c) < LEAST_BUDGETS:
        count = len({own.log_n for own in all_curves})
        reason = (
            f"the envelope of {count} size{'s' * (count != 1)} passes from one to the next "
            f"{len(made.log_c)} times; {LEAST_BUDGETS} are needed"
        )
        return refusal(Standing.TOO_FEW_POINTS, reason)
    fitted = line(made.log_c, made.log_n, np.zeros(len(made.log_c)))
    lines = _resampled(found, fitted, draws=draws, seed=seed, level=level)
    if isinstance(lines, str):
        return refusal(Standing.TOO_FEW_POINTS, lines)
    road = _road(made, lines, token_cost(table, flops_named(flops)), targets)
    return replace(road, how=how, notes=found.notes)


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
        RoadName.ENVELOPE, OF_CURVES, Standing.FOUND, "", lines.level, frontier, tuple(places), ()
    )
