"""Every evaluation of every run, with the learning rates that led to it.

    curves = read_curves("runs/surface")     # trunks and branches alike
    found = fit_curves(curves)               # analysis/curve_fit.py

A branch repeats the evaluations of its trunk; each measurement counts once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.errors import AnalysisError
from analysis.groups import refuse_incomparable
from analysis.rates import OF_SCHEDULE, Schedule, schedule_of_run
from analysis.recipe import refuse_varied
from analysis.records import LeftOut
from analysis.study import read_study
from analysis.table import PER_TOKEN, Table, column_of, filtered

if TYPE_CHECKING:
    import pandas as pd

COLUMN_OF_CURVES = {"N": "N", "S": "S_tokens", "R": "R_relative_rate"}


class CurveTable(Table):
    """A table whose rows are evaluations: N, S and R of each for one memory of the rate."""

    def variable(self, name: str) -> np.ndarray:
        """N, S or R of every evaluation as float64."""
        if name not in COLUMN_OF_CURVES:
            raise AnalysisError(f"{self.source}: no variable {name!r} of curves; there are N, S, R")
        return self.runs[COLUMN_OF_CURVES[name]].to_numpy(dtype="float64")


@dataclass(frozen=True)
class Curves:
    """One row per evaluation in `points`; the schedule of each run by its identity.

    A `path` are the runs of one size and seed: up to a cooldown they are one run, so their errors
    belong together.
    """

    points: pd.DataFrame
    schedules: Mapping[str, Schedule]
    convention: str
    source: str
    loss_unit: str = PER_TOKEN
    left_out: tuple[LeftOut, ...] = ()

    @property
    def loss_column(self) -> str:
        return column_of("loss", self.loss_unit)

    @property
    def names(self) -> dict[str, str]:
        """Names of the runs by identity, in the order of the points."""
        rows = self.points.drop_duplicates("identity")
        return dict(zip(rows["identity"], rows["name"], strict=True))

    def select(self, mask: np.ndarray) -> Curves:
        """The evaluations where the mask is true, with the schedules of their runs."""
        points = self.points[np.asarray(mask)].reset_index(drop=True)
        kept = set(points["identity"])
        return replace(
            self, points=points, schedules={k: v for k, v in self.schedules.items() if k in kept}
        )

    def split(self, names: Collection[str]) -> tuple[Curves, Curves]:
        """Without the runs of these names or identities, and those alone."""
        known = self.names
        missing = [one for one in names if one not in known and one not in known.values()]
        if missing:
            have = ", ".join(known.values())
            raise AnalysisError(f"{self.source}: no run {missing[0]!r}; there are {have}")
        held = self.points["identity"].isin(names) | self.points["name"].isin(names)
        return self.select(~held.to_numpy()), self.select(held.to_numpy())

    def longest(self) -> list[str]:
        """Identities of the run with the most updates of each size and seed."""
        ends = self.points[self.points["is_end"]]
        return list(ends.loc[ends.groupby("path", sort=False)["step"].idxmax(), "identity"])

    def table(self, memory_steps: float) -> CurveTable:
        """Every measurement once with its N, S and R; R remembers so many updates."""
        points = self.points.drop_duplicates(["path", "step", self.loss_column])
        area, mean = np.empty(len(points)), np.empty(len(points))
        for identity, where in points.groupby("identity", sort=False).indices.items():
            steps = points["step"].to_numpy()[where]
            area[where], mean[where] = self.schedules[str(identity)].seen(steps, memory_steps)
        runs = points.assign(
            identity=points["identity"] + " at " + points["step"].astype(str),
            run=points["identity"],
            name=points["name"] + " at " + points["step"].astype(str),
            **{COLUMN_OF_CURVES["S"]: area, COLUMN_OF_CURVES["R"]: mean},
        ).reset_index(drop=True)
        return CurveTable(
            runs, runs.iloc[:0], self.convention, self.source, self.left_out, self.loss_unit
        )


def read_curves(
    directory: str | Path,
    *,
    convention: str = "blocks",
    where: Mapping[str, object] | None = None,
    weights: str | None = None,
    unit: str = PER_TOKEN,
) -> Curves:
    """Every evaluation of every finished run at or below the directory, with their schedules.

    Runs may differ in size, tokens, seed and schedule; anything else (the peak rate too) is refused
    unless `where` chooses one value. Evaluations inside a warm-up are left out: there the rate is
    not the one that the law counts.
    """
    study = read_study(
        directory, convention=convention, weights=weights, unit=unit, where=where, trunks_stay=True
    )
    runs = filtered(study.runs, where or {}, study.source)
    refuse_incomparable(runs, study.source)
    refuse_varied(runs, [name for name in study.varied if name not in OF_SCHEDULE], study.source)
    by_identity = {str(run.header["identity"]): run for run in study.found}
    runs = runs.sort_values(["N", "seed", "step", "identity"]).reset_index(drop=True)
    schedules = {one: schedule_of_run(by_identity[one]) for one in map(str, runs["identity"])}
    rows = study.evaluations(runs)
    about = runs[["identity", "N", "seed", "weights", "step"]]
    rows = rows.merge(about.rename(columns={"step": "last_step"}), on=["identity", "weights"])
    warmup = rows["identity"].map({one: made.warmup_steps for one, made in schedules.items()})
    loss = rows[column_of("loss", unit)]
    rows = rows[(rows["step"] > warmup) & (rows["step"] > 0) & np.isfinite(loss) & (loss > 0)]
    if rows.empty:
        raise AnalysisError(f"{directory}: no evaluation after a warm-up")
    size = rows["N"].map("{:.0f}".format) + " seed " + rows["seed"].astype(str)
    points = rows.assign(step=rows["step"].astype(int), path=size)
    points = points.assign(is_end=points["step"] == points["last_step"])
    order = {one: at for at, one in enumerate(schedules)}
    points = points.assign(order=points["identity"].map(order)).sort_values(["order", "step"])
    points = points.drop(columns=["order", "last_step"]).reset_index(drop=True)
    return Curves(points, schedules, convention, study.source, unit, study.left_out)
