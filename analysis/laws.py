"""The laws that a ladder of runs is asked for: L(N) at one D, L(C) of the same runs, L(N, D)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from analysis.estimate import Loss
from analysis.fit import Fit, fit
from analysis.forecast import Forecast
from analysis.forms import form_named, named_forms
from analysis.ladder import ladder_of
from analysis.table import COLUMN_OF, Table


@dataclass(frozen=True)
class Law:
    """A titled fit, or why there is none."""

    title: str
    fit: Fit | None
    problem: str = ""


def _law(title: str, form: str, table: Table, loss: Loss, level: float) -> Law:
    missing = [name for name in form_named(form).variables if COLUMN_OF[name] not in table.runs]
    if missing:
        return Law(title, None, f"the table has no {', '.join(missing)}")
    return Law(title, fit(form, table, loss=loss, level=level))


def standard_laws(table: Table, *, loss: Loss, level: float) -> tuple[Law, ...]:
    """L(N) and L(C) on the ladder, L(N, D) on all runs; refused ones come with their reason."""
    ladder = ladder_of(table)
    what = "Loss" if table.quantity == "loss" else table.loss_unit
    return (
        _law(f"{what} against parameters", "power_floor_N", ladder, loss, level),
        _law(f"{what} against compute at one D", "power_floor_C", ladder, loss, level),
        _law(f"{what} against parameters and data", "separable", table, loss, level),
    )


def law_of_forecast(frozen: Forecast, table: Table, *, loss: Loss, level: float) -> Law | None:
    """The fit that made a frozen forecast, made again from its runs; None where they are gone."""
    mask = table.runs["identity"].astype(str).isin(frozen.identities).to_numpy()
    kept = table.select(mask, held=dict(frozen.held))
    if kept.digest != frozen.table_sha256 or len(frozen.variables) != 1:
        return None
    form = str(frozen.fit["form"])
    if form not in named_forms():  # an average of laws
        return None
    found = _law("The law that made the forecast", form, kept, loss, level)
    return found if found.fit and _same_params(found.fit, frozen) else None


def _same_params(found: Fit, frozen: Forecast) -> bool:
    kept = frozen.fit.get("params")
    if found.status.refused or not isinstance(kept, dict):
        return False
    own = found.params
    return all(math.isclose(own[name], kept.get(name, np.nan), rel_tol=1e-6) for name in own)
