"""The compute-optimal frontier of one table by three roads, and how far they disagree.

found = optimum(table, targets=[1e20])
print(found.summary()); found.frame(); found.plot("frontier.svg")
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.envelope import envelope
from analysis.errors import AnalysisError
from analysis.frontier import Place, Road, RoadName, Standing, refused
from analysis.isoflop import TOLERANCE, IsoFlop, isoflop
from analysis.parametric import parametric
from analysis.table import Table
from analysis.token_cost import Flops, compute, flops_named, token_cost

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.fit import Fit

DRAWS = 1000


@dataclass(frozen=True)
class Disagreement:
    """N* of one road over that of another at a budget, and whether their intervals meet."""

    budget_flops: float
    first: RoadName
    second: RoadName
    ratio: float
    overlap: bool


@dataclass(frozen=True)
class Optimum:
    """The three roads of one table at the same targets."""

    table: Table
    flops: Flops
    targets: tuple[float, ...]
    level: float
    isoflop: IsoFlop
    roads: tuple[Road, ...]
    cost_misfit: float

    def road(self, name: RoadName | str) -> Road:
        """One road by name: envelope, isoFLOP, parametric."""
        for road in self.roads:
            if name in (road.name, road.name.value):
                return road
        allowed = ", ".join(road.name.value for road in self.roads)
        raise AnalysisError(f"road {name!r}: allowed are {allowed}")

    @property
    def disagreements(self) -> tuple[Disagreement, ...]:
        """Every pair of roads at every target where both have numbers."""
        out = []
        for target in self.targets:
            found = [(road.name, road.place(target)) for road in self.roads]
            for (first, one), (second, other) in itertools.combinations(found, 2):
                mine, theirs = one.found if one else None, other.found if other else None
                if mine is None or theirs is None:
                    continue
                ratio = mine.parameters.value / theirs.parameters.value
                overlap = mine.parameters.overlaps(theirs.parameters)
                out.append(Disagreement(target, first, second, ratio, overlap))
        return tuple(out)

    def frame(self) -> pd.DataFrame:
        """One row per road and target: N*, D*, D*/N* with intervals, NaN where refused."""
        import pandas as pd

        rows = [
            _row(road, road.place(target), target) for road in self.roads for target in self.targets
        ]
        return pd.DataFrame(rows, columns=["road", "budget_flops", "status", "distance", *COLUMNS])

    def as_json(self) -> dict:
        """Everything said, units in the keys; refused roads and places carry reasons only."""
        return {
            "convention_of_N": self.table.convention,
            "flops": self.flops.value,
            "level": self.level,
            "table_sha256": self.table.digest,
            "targets_flops": list(self.targets),
            "roads": [_road_json(road) for road in self.roads],
            "isoflop_budgets": _budgets_json(self.isoflop),
            "isoflop_noise_sd_log": _finite(self.isoflop.noise_sd),
            "exponent_N_by_interpolant": {
                name: {"reason": value} if isinstance(value, str) else vars(value)
                for name, value in self.isoflop.compared.items()
            },
            "disagreements": [
                {
                    "budget_flops": pair.budget_flops,
                    "roads": [pair.first.value, pair.second.value],
                    "ratio_of_N": pair.ratio,
                    "intervals_overlap": pair.overlap,
                }
                for pair in self.disagreements
            ],
        }

    def summary(self) -> str:
        """The three roads in a few lines of text."""
        from analysis.optimum_text import summary

        return summary(self)

    def plot(self, path: str | Path | None = None) -> Figure:
        """The frontier by the three roads; written as SVG where a path is given."""
        from analysis import figures_optimum

        return figures_optimum.written(figures_optimum.frontier(self), path, "frontier")

    def plot_bowls(self, path: str | Path | None = None) -> Figure:
        """The isoFLOP bowls with their minima; written as SVG where a path is given."""
        from analysis import figures_optimum

        return figures_optimum.written(
            figures_optimum.bowls(self.isoflop, self.table.loss_unit), path, "bowls"
        )


NUMBERS = ("N", "D_tokens", "tokens_per_parameter")
COLUMNS = [f"{name}{end}" for name in NUMBERS for end in ("", "_low", "_high")]


def _values(place: Place) -> dict[str, float]:
    """The nine numbers of a place by column; empty where it was refused."""
    if place.found is None:
        return {}
    best = place.found
    values = (best.parameters, best.tokens, best.tokens_per_parameter)
    return {
        f"{name}{end}": number
        for name, value in zip(NUMBERS, values, strict=True)
        for end, number in (("", value.value), ("_low", value.low), ("_high", value.high))
    }


def _row(road: Road, place: Place | None, target: float) -> dict:
    row: dict = {"road": road.name.value, "budget_flops": target, "status": road.standing.value}
    if place is None:
        return row
    return row | {"status": place.standing.value, "distance": place.distance} | _values(place)


def _road_json(road: Road) -> dict:
    out: dict = {
        "road": road.name.value,
        "how": road.how,
        "status": road.standing.name,
        "reason": road.reason,
        "notes": list(road.notes),
    }
    if road.frontier is None:
        return out
    laws = {"exponent_N": road.exponent_n, "exponent_D": road.exponent_d}
    laws["coefficient_N"] = road.frontier.coefficient_n
    places = [
        {
            "budget_flops": place.budget_flops, "status": place.standing.name,
            "reason": place.reason, **_values(place),
        }
        for place in road.places
    ]  # fmt: skip
    return out | {name: vars(value) for name, value in laws.items()} | {"places": places}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _budgets_json(found: IsoFlop) -> list[dict]:
    """Budgets with their status; numbers only where there is a minimum."""
    out = []
    for minimum in found.minima:
        row: dict = {"budget_flops": minimum.bowl.budget_flops, "sizes": len(minimum.bowl.log_n)}
        row |= {"status": minimum.standing.name, "reason": minimum.reason}
        if not minimum.standing.refused:
            row |= {"N": float(np.exp(minimum.log_n)), "log_se_N": minimum.log_se}
            row |= {"loss": float(np.exp(minimum.log_loss)), "stable_share": minimum.stable}
        out.append(row)
    return out


def _targets(log_c: np.ndarray, given: Sequence[float] | None) -> tuple[float, ...]:
    """The given targets, else the largest budget of the table and ten times as much."""
    if given is None:
        largest = float(np.exp(log_c.max()))
        return (largest, 10 * largest)
    for target in given:
        if not (np.isfinite(target) and target > 0):
            raise AnalysisError(f"target {target}: must be finite FLOPs above zero")
    return tuple(sorted(map(float, given)))


def _fitted(table: Table, form: str, level: float, draws: int, seed: int) -> Fit | str:
    """The fit of a form, or why there is none; an AnalysisError where no form has that name."""
    from analysis.fit import fit
    from analysis.forms import form_named

    form_named(form)
    try:
        return fit(form, table, level=level, draws=draws, seed=seed)
    except AnalysisError as error:
        return str(error)


def optimum(
    table: Table,
    *,
    targets: Sequence[float] | None = None,
    level: float = 0.9,
    flops: Flops | str = Flops.SIX_ND,
    law: Fit | None = None,
    form: str = "separable",
    interpolant: str = "akima",
    budgets: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
    noise: str = "residual",
    ends_only: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> Optimum:
    """N*(C) and D*(C) of a table by envelope, isoFLOP and a law L(N, D), at targets in FLOPs.

    `law` is a fit of N and D; without it `form` is fitted. `flops` says which C is meant: 6 N D,
    or as the runs counted it. `budgets` and `tolerance` say which runs are one isoFLOP bowl;
    `ends_only` that runs without a schedule in the table count with their ends alone. A bad design
    gives a road with a status and no numbers; a bad argument an AnalysisError.
    """
    if not 0 < level < 1:
        raise AnalysisError(f"level {level}: must be between 0 and 1")
    if not tolerance >= 0:
        raise AnalysisError(f"tolerance {tolerance}: must be zero or more")
    flops = flops_named(flops)
    used = _targets(np.log(compute(table, flops)), targets)
    bowls = isoflop(
        table, targets=used, level=level, flops=flops, how=interpolant, budgets=budgets,
        tolerance=tolerance, noise=noise, draws=draws, seed=seed,
    )  # fmt: skip
    found = law if law is not None else _fitted(table, form, level, draws, seed)
    if isinstance(found, str):
        by_law = refused(RoadName.PARAMETRIC, form, Standing.NO_LAW, found, level)
    else:
        by_law = parametric(table, found, targets=used, level=level, flops=flops)
    by_envelope = envelope(
        table, targets=used, level=level, flops=flops, ends_only=ends_only, seed=seed
    )
    misfit = token_cost(table, flops).misfit
    return Optimum(table, flops, used, level, bowls, (by_envelope, bowls.road, by_law), misfit)
