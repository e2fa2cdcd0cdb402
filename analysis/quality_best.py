"""The best point of a grid of sampler settings, and what cannot be told from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.quality_table import last_name, run_word

if TYPE_CHECKING:
    import pandas as pd

    from analysis.quality_table import Column


@dataclass(frozen=True)
class Best:
    """The best point of a grid of one run, and the points that cannot be told from it.

    A rival's difference to the best is within its own interval at the level of the values, the two
    taken as independent. Samples of one seed are not: they share their noise, and so may be told
    apart a little better than this says. The best is also the luckiest of the grid.
    """

    row: pd.Series
    rivals: pd.DataFrame
    points: int

    def sentence(self, varied: Sequence[str]) -> str:
        """What is best and whether it can be told from the others, in words."""
        where = words_of(self.row, varied)
        at = f"{self.row['value']:.4g} [ {self.row['low']:.4g}, {self.row['high']:.4g} ]"
        said = f"{run_word(self.row)}: best {at} at {where}"
        if not len(self.rivals):
            return f"{said}, told from all {self.points - 1} others"
        names = "; ".join(words_of(row, varied) for _, row in self.rivals.iterrows())
        return f"{said}, not told from {len(self.rivals)} of {self.points - 1}: {names}"


def words_of(row: pd.Series, varied: Sequence[str]) -> str:
    """temperature 0.85, guidance 1.0: a point of the grid."""
    return ", ".join(f"{last_name(name)} {row[name]}" for name in varied if row[name])


def varied_in(rows: pd.DataFrame, varied: Sequence[str]) -> tuple[str, ...]:
    """Those of the settings that differ between these rows."""
    return tuple(name for name in varied if rows[name].nunique() > 1)


def best_of(rows: pd.DataFrame) -> Best:
    """The best of the points of one run; lowest unless the metric says that higher is better."""
    sign = -1.0 if (rows["better"] == "higher").all() else 1.0
    score = sign * rows["value"].to_numpy(dtype=float)
    at = int(np.nanargmin(score))
    half = (rows["high"] - rows["low"]).to_numpy(dtype=float) / 2
    near = score - score[at] <= np.hypot(half, half[at])
    near[at] = False
    return Best(rows.iloc[at], rows[near], len(rows))


def by_run(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each run, by family and size."""
    ordered = rows.sort_values(["family", "N", "seed", "identity"], kind="stable")
    return [run for _, run in ordered.groupby("identity", sort=False)]


def sentences(column: Column) -> list[str]:
    """What is best, and whether it can be told from the others; one a run with two points or more.

    At the last step of each run.
    """
    runs = by_run(column.rows[column.rows["last_step"]])
    grids = [run for run in runs if len(run) > 1]
    return [best_of(run).sentence(varied_in(run, column.varied)) for run in grids]
