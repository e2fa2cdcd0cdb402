"""How much the compute-optimal frontier depends on conventions: what N counts, and which FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from analysis.frontier import Place, Road
from analysis.optimum import Optimum, optimum
from analysis.table import COLUMN_OF, CONVENTIONS, Table
from analysis.token_cost import Flops

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "convention", "flops", "road", "status", "reason", "exponent_N", "exponent_N_low",
    "exponent_N_high", "budget_flops", "N", "D_tokens", "tokens_per_parameter",
)  # fmt: skip


def recounted(table: Table, convention: str) -> Table:
    """The same runs with N counted otherwise; needs the columns of the roles."""
    roles = list(CONVENTIONS[convention])
    n = table.runs[roles].to_numpy(dtype="float64").sum(axis=1)
    return replace(table, runs=table.runs.assign(N=n), convention=convention)


def readings(table: Table) -> list[tuple[Table, Flops]]:
    """The table under every convention of N and of C that its columns allow."""
    ways = [name for name, roles in CONVENTIONS.items() if set(roles) <= set(table.runs.columns)]
    tables = [recounted(table, name) for name in ways] or [table]
    flops = list(Flops) if COLUMN_OF["C"] in table.runs else [Flops.SIX_ND]
    return [(read, way) for read in tables for way in flops]


def _row(road: Road, place: Place | None) -> dict:
    """Numbers of a road, NaN where it was refused."""
    row: dict = {"road": road.name.value, "status": road.standing.value, "reason": road.reason}
    if road.frontier is not None:
        slope = road.exponent_n
        row |= {"exponent_N": slope.value}
        row |= {"exponent_N_low": slope.low, "exponent_N_high": slope.high}
    best = place.found if place else None
    if best is not None:
        row |= {"N": best.parameters.value, "D_tokens": best.tokens.value}
        row |= {"tokens_per_parameter": best.tokens_per_parameter.value}
    return row


def _rows(found: Optimum) -> list[dict]:
    head = {"convention": found.table.convention, "flops": found.flops.value}
    return [
        head | {"budget_flops": target} | _row(road, road.place(target))
        for road in found.roads
        for target in found.targets
    ]


def sensitivity(
    table: Table, *, targets: Sequence[float], draws: int = 200, **options: object
) -> pd.DataFrame:
    """One row per convention of N, of C, road and target; options as those of `optimum`.

    A budget C is the same number under each convention, and N is counted by the row's own.
    """
    import pandas as pd

    rows: list[dict] = []
    for read, flops in readings(table):
        found = optimum(read, targets=targets, flops=flops, draws=draws, **options)  # pyrefly: ignore
        rows += _rows(found)
    return pd.DataFrame(rows, columns=list(COLUMNS))
