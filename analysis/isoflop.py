"""The isoFLOP road: a bowl of sizes at each budget, its minimum, a line through the minima."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.bowl import Bowl, Interpolant, Minimum, minimum, window
from analysis.errors import AnalysisError
from analysis.frontier import (
    LEAST_BUDGETS,
    Frontier,
    Mark,
    Road,
    RoadName,
    Standing,
    Value,
    beyond,
    place_of,
    refused,
)
from analysis.line import line
from analysis.table import Table
from analysis.token_cost import Flops, TokenCost, compute, flops_named, token_cost

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.02  # relative; runs whose C lies this close to a budget belong to it
DRAWS = 1000


@dataclass(frozen=True)
class IsoFlop:
    """The minimum of each bowl, the noise they were shaken with, and the road.

    `compared` holds the exponent of N by every interpolant, or why there is none.
    """

    how: Interpolant
    noise_sd: float
    minima: tuple[Minimum, ...]
    road: Road
    compared: dict[str, Value | str]

    def frame(self) -> pd.DataFrame:
        """One row per budget; NaN where its minimum was refused."""
        import pandas as pd

        rows = [
            {
                "budget_flops": found.bowl.budget_flops,
                "sizes": len(found.bowl.log_n),
                "status": found.standing.value,
                "reason": found.reason,
                "N": float(np.exp(found.log_n)),
                "log_se_N": found.log_se,
                "loss": float(np.exp(found.log_loss)),
            }
            for found in self.minima
        ]
        return pd.DataFrame(rows)


def _members(
    log_c: np.ndarray, budgets: Sequence[float] | None, tolerance: float
) -> list[np.ndarray]:
    """Indices of the runs of each budget; without budgets, runs of nearly one C are one budget."""
    reach = np.log1p(tolerance)
    if budgets is not None:
        return [np.flatnonzero(np.abs(log_c - np.log(budget)) <= reach) for budget in budgets]
    order = np.argsort(log_c, kind="stable")
    groups: list[list[int]] = []
    for index in order:
        if groups and log_c[index] - log_c[groups[-1][0]] <= 2 * reach:
            groups[-1].append(int(index))
        else:
            groups.append([int(index)])
    return [np.array(group) for group in groups]


def _bowl(table: Table, members: np.ndarray, budget_flops: float) -> Bowl:
    """The bowl of some runs; seeds of one size are averaged."""
    log_n, log_loss = np.log(table.variable("N")[members]), np.log(table.loss[members])
    log_se = (table.loss_se / table.loss)[members]
    sizes, where = np.unique(log_n, return_inverse=True)
    count = np.bincount(where, minlength=len(sizes))
    mean = np.bincount(where, log_loss, len(sizes)) / np.maximum(count, 1)
    se = np.sqrt(np.bincount(where, log_se**2, len(sizes))) / np.maximum(count, 1)
    return Bowl(budget_flops, sizes, mean, se)


def bowls(
    table: Table,
    *,
    flops: Flops | str = Flops.SIX_ND,
    budgets: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[Bowl, ...]:
    """Bowls in order of budget, with the recorded standard errors (NaN where there are none)."""
    c = compute(table, flops_named(flops))
    for values, what in ((c, "C"), (table.variable("N"), "N"), (table.loss, "loss")):
        if not (np.isfinite(values) & (values > 0)).all():
            raise AnalysisError(f"{table.source}: {what} must be finite and above zero in each run")
    log_c = np.log(c)
    groups = _members(log_c, sorted(budgets) if budgets is not None else None, tolerance)
    centers = (
        sorted(budgets)
        if budgets is not None
        else [float(np.exp(log_c[group].mean())) for group in groups]
    )
    return tuple(_bowl(table, group, center) for group, center in zip(groups, centers, strict=True))


def _pseudo_residuals(bowl: Bowl) -> list[float]:
    """Each size near the lowest against the cubic through its four neighbours, at unit variance.

    Gasser, Sroka & Jennen-Steinmetz 1986, one order higher: what is left where the bowl is smooth
    is noise, whatever its shape.
    """
    out: list[float] = []
    if not len(bowl.log_n):
        return out
    near = window(bowl)
    x, y = bowl.log_n[near], bowl.log_loss[near]
    for index in range(2, len(x) - 2):
        others = [index - 2, index - 1, index + 1, index + 2]
        ratio = [
            np.prod([(x[index] - x[k]) / (x[j] - x[k]) for k in others if k != j]) for j in others
        ]
        weights = np.array(ratio)
        out.append(float((y[index] - weights @ y[others]) / np.sqrt(1 + weights @ weights)))
    return out


def noise_sd(found: Sequence[Bowl]) -> float:
    """Standard deviation of one log loss around smooth bowls; NaN where no bowl has five sizes."""
    residuals = [value for bowl in found for value in _pseudo_residuals(bowl)]
    return float(np.sqrt(np.mean(np.square(residuals)))) if residuals else float("nan")


def _shaken(found: Sequence[Bowl], noise: str) -> tuple[list[Bowl], float]:
    """Bowls with the standard errors to shake them by, and their typical size."""
    if noise == "recorded":
        if any(np.isnan(bowl.log_se).any() for bowl in found):
            raise AnalysisError("noise 'recorded': not every run has a standard error of its loss")
        return list(found), float(np.median(np.concatenate([bowl.log_se for bowl in found])))
    if noise != "residual":
        raise AnalysisError(f"noise {noise!r}: allowed are residual, recorded")
    size = noise_sd(found)
    used = [
        Bowl(bowl.budget_flops, bowl.log_n, bowl.log_loss, np.full(len(bowl.log_n), size))
        for bowl in found
    ]
    return used, size


def minima(
    found: Sequence[Bowl], how: Interpolant, *, draws: int = DRAWS, seed: int = 0
) -> tuple[Minimum, ...]:
    """The minimum of every bowl with its standard error by noise injection."""
    rng = np.random.default_rng(seed)
    return tuple(
        minimum(bowl, how, noise=rng.standard_normal((len(bowl.log_n), draws))) for bowl in found
    )


def _standard_errors(kept: Sequence[Minimum]) -> np.ndarray:
    """Standard errors of log N*, each variance shrunk half way to their mean.

    That of one bowl is itself an estimate from its own noise; taken at its word it gives the bowls
    that look sharp by chance too much weight (90 % intervals of a true law then cover 87 %).
    """
    variance = np.array([found.log_se for found in kept]) ** 2
    return np.sqrt(0.5 * (variance + variance.mean()))


def _refusal(found: Sequence[Minimum], kept: Sequence[Minimum]) -> tuple[Standing, str] | None:
    """Why there is no line: the budgets are few, or most bowls have no minimum."""
    if len(kept) >= LEAST_BUDGETS:
        return None
    counts = Counter(minimum.standing for minimum in found if minimum.standing.refused)
    words = ", ".join(f"{count} {standing.value}" for standing, count in counts.most_common())
    reason = f"{len(kept)} of {len(found)} budgets have a minimum; {LEAST_BUDGETS} are needed"
    standing = counts.most_common(1)[0][0] if counts else Standing.TOO_FEW_BUDGETS
    return standing, f"{reason} ({words})" if words else reason


def road(
    found: Sequence[Minimum],
    cost: TokenCost,
    *,
    how: Interpolant,
    targets: Sequence[float],
    level: float,
) -> Road:
    """Weighted line of log N* on log C through the minima; at least three are needed."""
    name = f"minima by {how.value}"
    kept = [minimum for minimum in found if not minimum.standing.refused]
    refusal = _refusal(found, kept)
    if refusal:
        return refused(RoadName.ISOFLOP, name, *refusal, level)
    log_c = np.log([minimum.bowl.budget_flops for minimum in kept])
    log_n, se = np.array([minimum.log_n for minimum in kept]), _standard_errors(kept)
    log_d, slope = cost.log_tokens(log_c, log_n), cost.slope(log_n)
    of_n = line(log_c, log_n, se)
    of_d = line(log_c, log_d, se * np.abs(1 + slope))
    ratio = line(log_c, log_d - log_n, se * np.abs(2 + slope))
    places = tuple(
        place_of(
            target,
            beyond(target, np.exp(log_c)),
            log_n=of_n.at(float(np.log(target)), level),
            log_d=of_d.at(float(np.log(target)), level),
            log_ratio=ratio.at(float(np.log(target)), level),
        )
        for target in targets
    )
    marks = tuple(map(Mark, np.exp(log_c).tolist(), np.exp(log_n).tolist(), se.tolist()))
    frontier = Frontier(
        of_n.slope_at(level), of_d.slope_at(level), of_n.at(0.0, level).exp(), marks
    )
    return Road(
        RoadName.ISOFLOP, name, Standing.FOUND, "", level, frontier, places, _notes(found, kept)
    )


def _notes(found: Sequence[Minimum], kept: Sequence[Minimum]) -> tuple[str, ...]:
    """Budgets without a minimum, and bowls whose minimum is often lost."""
    lost = [f"{m.bowl.budget_flops:.3g} FLOPs: {m.reason}" for m in found if m.standing.refused]
    weak = [
        f"{m.bowl.budget_flops:.3g} FLOPs: {1 - m.stable:.0%} of noise draws have no minimum"
        for m in kept
        if m.stable < 0.9
    ]
    return (*lost, *weak)


def isoflop(
    table: Table,
    *,
    targets: Sequence[float] = (),
    level: float = 0.9,
    flops: Flops | str = Flops.SIX_ND,
    how: Interpolant | str = Interpolant.AKIMA,
    budgets: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
    noise: str = "residual",
    draws: int = DRAWS,
    seed: int = 0,
) -> IsoFlop:
    """The isoFLOP road of a table.

    `noise` sets how bowls are shaken: `residual` around smooth bowls, or `recorded` standard
    errors, which for losses on the same images hold sampling error that is common to all and moves
    no minimum. Only relative sizes weigh in the line; its interval follows the scatter.
    """
    how, flops = interpolant_named(how), flops_named(flops)
    cost = token_cost(table, flops)
    all_bowls = bowls(table, flops=flops, budgets=budgets, tolerance=tolerance)
    used, size = _shaken(all_bowls, noise)
    by_way = {way: minima(used, way, draws=draws, seed=seed) for way in Interpolant}
    roads = {
        way: road(found, cost, how=way, targets=targets, level=level)
        for way, found in by_way.items()
    }
    compared: dict[str, Value | str] = {
        way.value: made.frontier.exponent_n if made.frontier else made.reason
        for way, made in roads.items()
    }
    return IsoFlop(how, size, by_way[how], roads[how], compared)


def interpolant_named(name: Interpolant | str) -> Interpolant:
    """`akima`, `cubic` or `parabola`."""
    if isinstance(name, Interpolant):
        return name
    allowed = [how.value for how in Interpolant]
    if name not in allowed:
        raise AnalysisError(f"interpolant {name!r}: allowed are {', '.join(allowed)}")
    return Interpolant(name)
