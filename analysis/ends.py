"""Which losses of a table a run could have ended with: all at a constant rate, else the ends alone.

A run whose rate falls by its end (wsd, cosine) counts with its end. A run without a schedule in the
table counts with every evaluation, unless the caller says that only ends do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis import schedule
from analysis.table import Table
from analysis.token_cost import Flops, compute

if TYPE_CHECKING:
    import pandas as pd

LEAST_EVALUATIONS = 3  # of a curve, and of the ends of one size
SAME_COST = 1e-6  # log units: ends of one size this close in C are one point


@dataclass(frozen=True)
class Curve:
    """One run during training, or the ends of one size: log N, log C (k,) rising, log loss (k,)."""

    log_n: float
    log_c: np.ndarray
    log_loss: np.ndarray


@dataclass(frozen=True)
class End:
    """The last evaluation of one run."""

    log_n: float
    log_c: float
    log_loss: float


@dataclass(frozen=True)
class Annealed:
    """Curves of runs that count at each evaluation, ends of the others, and what was left out.

    `ends_of` counts the runs of which only the end is used by schedule, `unknown` the runs with a
    curve and no schedule.
    """

    curves: tuple[Curve, ...]
    ends: tuple[End, ...]
    left_out: int
    ends_of: Mapping[str, int]
    unknown: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, and what was taken on trust, in words."""
        out = []
        if self.ends_of:
            names = ", ".join(f"{n} {name or 'by request'}" for name, n in self.ends_of.items())
            out.append(
                f"only the ends of runs that cool down count ({names}): {self.left_out} "
                f"evaluation{'s' * (self.left_out != 1)} before a cooldown had ended left out"
            )
        if self.unknown:
            out.append(
                f"{self.unknown} run{'s' * (self.unknown != 1)} without a schedule: every "
                "evaluation counts as if the run had ended there (--ends-only: the ends alone)"
            )
        return tuple(out)


def _own_rows(table: Table, run, flops: Flops) -> pd.DataFrame:
    """The evaluations of a run after its start, of its weights, one a step, in order of tokens."""
    rows, column = table.evaluations, table.loss_column
    own = rows[(rows["identity"] == run.identity) & (rows["tokens"] > 0)]
    own = own[(own[column] > 0) & np.isfinite(own[column])]
    if "weights" in own and "weights" in table.runs:
        own = own[own["weights"] == run.weights]
    if flops is Flops.COUNTED:
        own = own[own["flops"] > 0].drop_duplicates("flops", keep="last")
    return own.drop_duplicates("tokens", keep="last").sort_values("tokens")


def _curve(own: pd.DataFrame, log_n: float, column: str, flops: Flops) -> Curve:
    """A whole training curve."""
    if flops is Flops.COUNTED:
        log_c = np.log(own["flops"].to_numpy(float))
    else:
        log_c = np.log(6.0 * np.exp(log_n) * own["tokens"].to_numpy(float))
    return Curve(log_n, log_c, np.log(own[column].to_numpy(float)))


def annealed(table: Table, flops: Flops, *, ends_only: bool = False) -> Annealed:
    """The losses that the runs of a table could have ended with.

    `ends_only` says that runs without a schedule were annealed at their end.
    """
    rows = table.evaluations
    has_rows = len(rows) > 0 and table.loss_column in rows and "identity" in rows
    names = table.runs[schedule.COLUMN] if schedule.COLUMN in table.runs else None
    curves, ends, ends_of = [], [], Counter[str]()
    log_n, log_c = np.log(table.variable("N")), np.log(compute(table, flops))
    left_out = unknown = 0
    for at, run in enumerate(table.runs.itertuples()):
        name = schedule.UNKNOWN if names is None else str(names.iloc[at])
        own = _own_rows(table, run, flops) if has_rows else None
        if schedule.cools_down(name) or (ends_only and name == schedule.UNKNOWN):
            loss = float(np.log(table.loss[at]))
            ends.append(End(float(log_n[at]), float(log_c[at]), loss))
            ends_of[name] += 1
            left_out += 0 if own is None else int((own["tokens"] < own["tokens"].max()).sum())
        elif own is not None and len(own) >= LEAST_EVALUATIONS:
            curves.append(_curve(own, float(log_n[at]), table.loss_column, flops))
            unknown += name == schedule.UNKNOWN
    return Annealed(tuple(curves), tuple(ends), left_out, dict(ends_of), unknown)


def curves_of_ends(ends: Sequence[End], least: int = LEAST_EVALUATIONS) -> tuple[Curve, ...]:
    """A curve through the ends of each size with `least` of them; ends at one C are averaged."""
    out = []
    for log_n in sorted({end.log_n for end in ends}):
        own = sorted((end.log_c, end.log_loss) for end in ends if end.log_n == log_n)
        log_c, log_loss = np.array(own).T
        group = np.concatenate([[0], np.cumsum(np.diff(log_c) > SAME_COST)])
        count = np.bincount(group)
        if len(count) >= least:
            means = (np.bincount(group, values) / count for values in (log_c, log_loss))
            out.append(Curve(log_n, *means))
    return tuple(out)
