"""Laws side by side: judged by what they forecast, averaged, with an interval calibrated on it.

from analysis import compare, read_csv
found = compare(table)
print(found.summary()); found.predict(N=7e9, D=2e12)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis import calibration, forward
from analysis.bootstrap import check_level
from analysis.errors import AnalysisError
from analysis.estimate import Points, Status, bound_status, refusal
from analysis.fit import points_of, variables_of
from analysis.form import Form
from analysis.forms import (
    broken,
    form_named,
    kaplan,
    power,
    power_floor,
    saturating,
    separable,
    shared_exponent,
    skaling,
)
from analysis.ladder import runs_for, varies
from analysis.losses import Loss, Squares, loss_named
from analysis.prediction import Images, Prediction, relative_error
from analysis.table import COLUMN_OF, Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MOST_LOCAL = 4.0
BELOW = "below the largest run: the interval has its noise, and smaller runs scatter more"


@dataclass(frozen=True)
class Member:
    """One law of a comparison: its status, weight and errors in log units; NaN where refused."""

    form: Form
    status: Status
    reason: str
    weight: float
    residual_rms_log: float
    forward_rms_log: tuple[float, ...]  # from each origin, the nearest first
    params: Mapping[str, float]


@dataclass(frozen=True)
class Past:
    """What was forecast from one origin, judged by the runs that came after."""

    runs_used: int
    runs_ahead: int
    distance_factor: float  # of the farthest run ahead
    rms_log_error: float
    inside: float | None  # share inside the interval stated then; None where none could be
    level: float


@dataclass(frozen=True)
class Comparison:
    """Laws of the same variables fitted to one table, weighed by their forward errors."""

    table: Table
    points: Points
    size: np.ndarray
    windows: tuple[forward.Window, ...]
    rolled: tuple[forward.Rolled, ...]
    refused: tuple[Member, ...]
    calibration: calibration.Calibration | None
    loss: Loss
    local: float
    level: float

    @property
    def variables(self) -> tuple[str, ...]:
        laws = [law.form for law in self.rolled] + [member.form for member in self.refused]
        return laws[0].variables

    @property
    def status(self) -> Status:
        return Status.CONVERGED if self.calibration else self.refused[0].status

    def _calibrated(self) -> calibration.Calibration:
        if self.calibration is None:
            why = "; ".join(f"{member.form.name}: {member.reason}" for member in self.refused)
            raise AnalysisError(f"{self.table.source}: no law could be fitted: {why}")
        return self.calibration

    @property
    def members(self) -> tuple[Member, ...]:
        """Every law, the heaviest first; the refused last."""
        found = []
        weights = self.calibration.weights if self.calibration else ()
        for law, weight in zip(self.rolled, weights, strict=True):
            if not law.certified[0]:
                reason = "no start reached a certified minimum"
                found.append(_member(law.form, Status.UNCONVERGED, reason))
                continue
            status, reason = bound_status(law.form, law.theta[0], law.scale)
            public = law.form.public(law.theta[0], law.scale)
            errors = [law.error[i + 1][window.ahead] for i, window in enumerate(self.windows)]
            found.append(
                Member(
                    law.form, status, reason, float(weight), float(law.residual_rms[0]),
                    tuple(float(np.sqrt(np.mean(error**2))) for error in errors),
                    {name: float(value) for name, value in public.items()},
                )
            )  # fmt: skip
        ordered = sorted(found, key=lambda member: -np.nan_to_num(member.weight, nan=-1.0))
        return (*ordered, *self.refused)

    @property
    def past(self) -> tuple[Past, ...]:
        """The history of forecasts inside the table: error, distance, and whether it covered."""
        return tuple(self._past(index) for index in range(len(self.windows)))

    def _past(self, index: int) -> Past:
        window, row = self.windows[index], index + 1
        distance = np.log(self.size[window.ahead] / window.reached)
        out = (int(window.kept.sum()), int(window.ahead.sum()), float(np.exp(distance.max())))
        if not any(law.certified[row] for law in self.rolled):
            return Past(*out, float("nan"), None, self.level)
        then = calibration.calibrate(
            self.rolled, self.windows, self.size, row=row, known=window.kept
        )
        error = calibration.averaged_error(self.rolled, then.weights, row)[window.ahead]
        rms = float(np.sqrt(np.mean(error**2)))
        if not then.origins:
            return Past(*out, rms, None, self.level)
        laws = np.array(
            [
                np.where(law.certified[row], -law.error[row][window.ahead], 0.0)
                for law in self.rolled
            ]
        )
        half = then.quantile(self.level) * then.sd_log(distance, laws)
        return Past(*out, rms, float(np.mean(np.abs(error) <= half)), self.level)

    def predict(
        self,
        *,
        N: float | np.ndarray | None = None,
        D: float | np.ndarray | None = None,
        C: float | np.ndarray | None = None,
        U: float | np.ndarray | None = None,
        level: float | None = None,
        images: Images = Images.SAME,
    ) -> Prediction:
        """Losses of the average of the laws, with the interval of a new run."""
        level = self.level if level is None else level
        check_level(level)
        known = self._calibrated()
        x = variables_of(self.variables, {"N": N, "D": D, "C": C, "U": U})
        laws = np.array(
            [law.log_loss(x) if law.certified[0] else np.zeros(len(x)) for law in self.rolled]
        )
        center = known.weights @ laws
        distance = np.log(self.rolled[0].form.size(x) / self.size.max())
        sd = known.sd_log(distance, laws)
        law_only = np.sqrt(np.maximum(sd**2 - known.noise_log**2, 0.0))
        if images is Images.OTHER:
            sd = np.hypot(sd, relative_error(self.points))
        below = (BELOW,) if (distance < -np.log(2.0)).any() else ()
        half, half_law = (known.quantile(level) * value for value in (sd, law_only))
        return Prediction(
            x, self.variables, np.exp(center), np.exp(center - half), np.exp(center + half),
            np.exp(center - half_law), np.exp(center + half_law), level,
            np.exp(np.maximum(distance, 0.0)), np.ones(len(x)), (*self.notes, *below),
        )  # fmt: skip

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know beside the numbers."""
        notes = [
            f"{member.form.name}: {member.reason}"
            for member in self.members
            if member.status is Status.AT_BOUND
        ]
        lost = sum(int((~law.certified[1:]).sum()) for law in self.rolled)
        asked = sum(len(law.certified) - 1 for law in self.rolled)
        if lost:
            notes.append(
                f"{lost} of {asked} fits from earlier origins found no certified minimum and count "
                f"as the worst law there"
            )
        if self.calibration and self.calibration.noise_log <= calibration.LEAST_NOISE:
            notes.append("the laws leave no residual: the interval is that of six digits of a loss")
        if self.calibration and not self.calibration.origins:
            notes.append(
                "no origin has runs enough before and after it: the laws weigh alike, and the "
                "interval is their spread and the in-domain residual with Student's t of one degree"
            )
        return tuple(notes)

    def frame(self) -> pd.DataFrame:
        """One row per law: weight, in-domain and forward rms in log units, status, parameters."""
        import pandas as pd

        rows = [
            {
                "form": member.form.name,
                "weight": member.weight,
                "residual_rms_log": member.residual_rms_log,
                "forward_rms_log": _rms(member.forward_rms_log),
                "status": member.status.value,
                "reason": member.reason,
            }
            for member in self.members
        ]
        return pd.DataFrame(rows)

    def as_json(self) -> dict:
        """Everything said about the comparison, with units in the keys."""
        known = self.calibration
        out: dict = {
            "form": "average of " + ", ".join(law.form.name for law in self.rolled),
            "variables": list(self.variables),
            "loss_function": self.loss.name,
            "weight_of_a_run": f"size^{self.local:g}",
            "loss_unit": self.table.loss_unit,
            "convention_of_N": self.table.convention,
            "held": dict(self.table.held),
            "points": len(self.points.loss),
            "table_sha256": self.table.digest,
            "status": self.status.name,
            "laws": [_member_json(member) for member in self.members],
            "past": [vars(past) for past in self.past] if known else [],
            "notes": list(self.notes),
        }
        if known:
            out |= {
                "noise_log": known.noise_log,
                "drift_log_per_sqrt_efold": known.drift_log,
                "origins": known.origins,
            }
        return out

    def summary(self) -> str:
        """The comparison in a few lines of text."""
        names = ", ".join(self.variables)
        lines = [
            f"L({names}): {len(self.rolled) + len(self.refused)} laws, {len(self.points.loss)} "
            f"runs; N counts {self.table.convention}; {self.loss.name}; a run weighs "
            f"size^{self.local:g}",
            f"  {'law':18s} {'weight':>7s} {'in-domain':>10s} {'forward':>9s}   (rms, log units)",
        ]
        for member in self.members:
            numbers = (
                f"{member.weight:7.3f} {member.residual_rms_log:10.2e} "
                f"{_rms(member.forward_rms_log):9.2e}"
                if not member.status.refused
                else f"{member.status.value}: {member.reason}"
            )
            lines.append(f"  {member.form.name:18s} {numbers}")
        if self.calibration:
            lines += [f"  {_past_line(past)}" for past in self.past]
            lines.append(
                f"  in-domain residual {self.calibration.noise_log:.2e}, drift "
                f"{self.calibration.drift_log:.2e} per square root of an e-fold in size (log)"
            )
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def plot(self, path: str | Path | None = None) -> Figure:
        """Weights and forward errors by distance; written as SVG where a path is given."""
        from analysis import figures, figures_compare

        figure = figures_compare.comparison(self)
        if path is not None:
            Path(path).write_text(figures.svg(figure, "comparison"))
        return figure


def _rms(values: Sequence[float]) -> float:
    kept = [value for value in values if np.isfinite(value)]
    return float(np.sqrt(np.mean(np.square(kept)))) if kept else float("nan")


def _past_line(past: Past) -> str:
    covered = (
        "no interval could be stated"
        if past.inside is None
        else f"{past.inside:.0%} inside {past.level * 100:.4g} %"
    )
    return (
        f"from {past.runs_used} runs, {past.runs_ahead} ahead, up to "
        f"{past.distance_factor:.3g}x: error {past.rms_log_error:.2e} rms; {covered}"
    )


def _member(form: Form, status: Status, reason: str) -> Member:
    nan = float("nan")
    return Member(form, status, reason, nan, nan, (), {})


def _member_json(member: Member) -> dict:
    out = {"form": member.form.name, "formula": member.form.formula, "status": member.status.name}
    if member.status.refused:
        return out | {"reason": member.reason}
    return out | {
        "weight": member.weight,
        "residual_rms_log": member.residual_rms_log,
        "forward_rms_log": list(member.forward_rms_log),
        "params": dict(member.params),
    }


def default_forms(table: Table) -> tuple[Form, ...]:
    """L(N, D) where both vary and do not move together, else curves of what varies."""
    for name in ("N", "D"):
        if COLUMN_OF[name] in table.runs:
            points_of(table, (name,))  # refuses what has no logarithm
    varied = [name for name in ("N", "D", "C") if varies(table, name)]
    if "N" in varied and "D" in varied:
        log_x = np.log(np.stack([table.variable("N"), table.variable("D")], axis=-1))
        if separable().design_problem(log_x, {}) is None:
            return (separable(), shared_exponent(), skaling(), kaplan())
    if not varied:
        raise AnalysisError(f"{table.source}: none of N, D and C varies")
    return curves(varied[0])


def curves(variable: str) -> tuple[Form, ...]:
    """The laws of one variable that need nothing known: M1, M2, M3 and one break."""
    return (power(variable), power_floor(variable), saturating(variable), broken(variable))


def compare(
    table: Table,
    forms: Sequence[Form | str] | None = None,
    *,
    loss: Loss | str | None = None,
    local: float = 1.0,
    level: float = 0.9,
) -> Comparison:
    """Fit every law, weigh them by their forecasts inside the table, calibrate the interval."""
    check_level(level)
    if not (math.isfinite(local) and 0 <= local <= MOST_LOCAL):
        raise AnalysisError(f"local {local}: allowed is 0 to {MOST_LOCAL:g}")
    asked = forms or default_forms(table)
    laws = list(dict.fromkeys(form_named(f) if isinstance(f, str) else f for f in asked))
    if len({law.variables for law in laws}) != 1:
        raise AnalysisError(
            "laws of different variables: " + ", ".join(f"{x.name} of {x.variables}" for x in laws)
        )
    used = loss_named(loss) if isinstance(loss, str) else loss or Squares()
    table = runs_for(laws[0].variables, table)
    points = points_of(table, laws[0].variables)
    size = laws[0].size(points.x)
    refused, fitted = [], []
    for law in laws:
        why = refusal(law, points, {})
        if why:
            refused.append(_member(law, *why))
        else:
            fitted.append(law)
    seen = forward.windows(size) if fitted else ()
    rolled = tuple(forward.roll(law, points, size, seen, loss=used, local=local) for law in fitted)
    good = any(law.certified[0] for law in rolled)
    known = calibration.calibrate(rolled, seen, size) if good else None
    if not good:
        refused += [_member(law.form, Status.UNCONVERGED, "no certified minimum") for law in rolled]
        rolled = ()
    return Comparison(table, points, size, seen, rolled, tuple(refused), known, used, local, level)
