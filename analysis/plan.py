"""A plan of what to run next: candidates by how much each narrows a forecast, and its text."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from analysis.belief import Reweighting
from analysis.errors import AnalysisError
from analysis.units import suffix

if TYPE_CHECKING:
    import pandas as pd


class PlanStatus(enum.Enum):
    """What a plan is worth."""

    RANKED = "ranked"
    NOTHING_AFFORDABLE = "nothing affordable"
    ALREADY_MEASURED = "already measured"
    REFUSED = "refused"


@dataclass(frozen=True)
class Candidate:
    """One run: where, its FLOPs, and the expected width of the forecast once it is measured.

    N and D are NaN where the laws know compute alone.
    """

    N: float
    D: float
    flops: float
    width_before: float
    width_after: float

    @property
    def narrowing(self) -> float:
        return self.width_before - self.width_after

    @property
    def narrowing_per_flop(self) -> float:
        return self.narrowing / self.flops


@dataclass(frozen=True)
class Portfolio:
    """The runs chosen for one budget and the width that they buy together."""

    budget_flops: float
    runs: tuple[Candidate, ...]
    width_after: float

    @property
    def flops(self) -> float:
        return sum(run.flops for run in self.runs)


@dataclass(frozen=True)
class Plan:
    """Candidates by narrowing, and what budgets buy; no numbers unless the status is RANKED.

    Widths are of the interval of a new run at the target, in the unit of the loss, at `level`.
    `least_width` is what the noise of that run leaves however well the law is known.
    """

    status: PlanStatus
    reason: str
    target: Mapping[str, float]
    budget_flops: float
    level: float
    loss_unit: str
    laws: Mapping[str, float]
    loss: float = float("nan")
    width_before: float = float("nan")
    least_width: float = float("nan")
    candidates: tuple[Candidate, ...] = ()
    portfolios: tuple[Portfolio, ...] = ()
    winner_check: Reweighting | None = None
    portfolio_check: Reweighting | None = None
    notes: tuple[str, ...] = field(default=())

    def require(self) -> Plan:
        """Self, or an AnalysisError with the reason where nothing was ranked."""
        if self.status is not PlanStatus.RANKED:
            raise AnalysisError(f"next: {self.status.value}: {self.reason}")
        return self

    @property
    def best(self) -> Candidate:
        """The single run that narrows most."""
        return self.require().candidates[0]

    @property
    def portfolio(self) -> Portfolio:
        """The runs for the whole budget."""
        found = [p for p in self.require().portfolios if p.budget_flops == self.budget_flops]
        return found[0]

    def frame(self) -> pd.DataFrame:
        """A row per candidate, the one that narrows most first."""
        import pandas as pd

        names = ("N", "D", "flops", "width_before", "width_after", "narrowing")
        rows = [
            {name: getattr(run, name) for name in (*names, "narrowing_per_flop")}
            for run in self.candidates
        ]
        frame = pd.DataFrame(rows, columns=[*names, "narrowing_per_flop"])
        return frame.rename(columns={"D": "D_tokens", "flops": "C_flops"})

    def as_json(self, *, most: int = 20) -> dict:
        """The plan with units in the keys and its `most` best candidates."""
        unit = suffix(self.loss_unit)
        out: dict = {
            "status": self.status.name,
            "reason": self.reason,
            "target": dict(self.target),
            "budget_flops": self.budget_flops,
            "level": self.level,
            "loss_unit": self.loss_unit,
            "laws": dict(self.laws),
        }
        if self.status is not PlanStatus.RANKED:
            return out
        checks = {"winner_check": self.winner_check, "portfolio_check": self.portfolio_check}
        return out | {
            f"loss_{unit}": self.loss,
            f"width_before_{unit}": self.width_before,
            f"least_width_{unit}": self.least_width,
            "candidates_ranked": len(self.candidates),
            "candidates": [_run_json(run, unit) for run in self.candidates[:most]],
            "budgets": [
                {
                    "budget_flops": bought.budget_flops,
                    "flops": bought.flops,
                    f"width_after_{unit}": bought.width_after,
                    "runs": [_run_json(run, unit) for run in bought.runs],
                }
                for bought in self.portfolios
            ],
            **{name: _check_json(check, self.loss, unit) for name, check in checks.items()},
            "notes": list(self.notes),
        }

    def summary(self, *, most: int = 5) -> str:
        """The plan as text."""
        at = ", ".join(f"{name} = {value:.4g}" for name, value in self.target.items())
        head = f"what to run next for the loss at {at} with {self.budget_flops:.3g} FLOPs"
        if self.status is not PlanStatus.RANKED:
            return f"{head}: {self.status.value}: {self.reason}"
        percent = f"{self.level * 100:.4g} %"
        lines = [
            head,
            f"  forecast {self.loss:.4f} {self.loss_unit}, {percent} interval "
            f"{self.width_before:.4f} wide; noise alone {self.least_width:.4f}",
            "  one run (width after it):",
            *(f"    {_described(run)}" for run in self.candidates[:most]),
        ]
        for bought in self.portfolios:
            mark = " <" if bought.budget_flops == self.budget_flops else ""
            lines.append(
                f"  budget {bought.budget_flops:.3g}: runs {len(bought.runs)}, "
                f"{bought.flops:.3g} FLOPs, width {bought.width_after:.4f}{mark}"
            )
        lines.append("  the runs of the budget:")
        lines += [f"    {_described(run)}" for run in self.portfolio.runs]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def _described(run: Candidate) -> str:
    place = "" if np.isnan(run.N) else f"N {run.N:.3g}, D {run.D:.3g}, "
    return (
        f"{place}{run.flops:.3g} FLOPs: width {run.width_after:.4f}, "
        f"narrower by {run.narrowing:.4f} ({run.narrowing_per_flop:.2g} per FLOP)"
    )


def _run_json(run: Candidate, unit: str) -> dict:
    place = {} if np.isnan(run.N) else {"N": run.N, "D_tokens": run.D}
    return place | {
        "flops": run.flops,
        f"width_after_{unit}": run.width_after,
        f"narrowing_{unit}": run.narrowing,
        f"narrowing_per_flop_{unit}": run.narrowing_per_flop,
    }


def _check_json(check: Reweighting | None, loss: float, unit: str) -> dict | None:
    if check is None:
        return None
    return {
        f"width_after_{unit}": loss * check.width_log,
        "effective_draws": check.effective_draws,
        "trusted": check.trusted,
    }
