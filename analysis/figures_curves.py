"""The figure of a law of whole curves: evaluations, the law along each run, held-out runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import figures
from analysis.figures import INK, RED

if TYPE_CHECKING:
    from analysis.curve_fit import CurveFit
    from analysis.learning_curves import Curves

FINE = 160  # updates at which the law is drawn along a run
MOST_SIZES = 8  # in the legend


def _law(axes: Axes, found: CurveFit, curves: Curves, identity: str, **style: object) -> None:
    """The fitted law over the updates of one run, from its first evaluation or cooldown on."""
    schedule = curves.schedules[identity]
    own = curves.points[curves.points["identity"] == identity]
    first = max(1, min(int(own["step"].min()), schedule.steps - schedule.cooldown_steps))
    steps = np.unique(np.linspace(first, schedule.steps, FINE).round().astype(int))
    estimate = found.fit.estimate
    x = found.variables_at(float(own["N"].iloc[0]), schedule, steps)
    loss = np.exp(estimate.predict(x))
    axes.plot(steps * schedule.tokens_per_step, loss, **style)  # pyrefly: ignore


def curves(found: CurveFit, held: Curves | None = None) -> Figure:
    """Loss against tokens, a colour a size: dots were fitted, lines are the law.

    Held-out runs are rings, with the law dashed and in red the interval of their end.
    """
    figure, axes = figures._axes()
    own = found.fit.table.runs
    sizes = np.unique(own["N"])
    shades = matplotlib.colormaps["viridis"](np.linspace(0.25, 0.85, len(sizes)))
    color = dict(zip(sizes, shades, strict=True))
    for n in sizes:
        rows = own[own["N"] == n]
        label = f"N = {n:,.0f}" if len(sizes) <= MOST_SIZES else None
        axes.plot(
            rows["tokens"], rows[found.curves.loss_column], "o", color=color[n], markersize=3.5,
            label=label,
        )  # fmt: skip
    if not found.status.refused:
        for identity, n in _runs(found.curves):
            _law(axes, found, found.curves, identity, color=color[n], linewidth=0.8, alpha=0.7)
        if held is not None:
            _held(axes, found, held, color)
    figures.log_x(axes)
    figures._label(axes, figures.WORDS["D"], f"loss ({found.curves.loss_unit})")
    figures._legend(axes, ncols=2)
    return figure


def _runs(curves: Curves) -> list[tuple[str, float]]:
    rows = curves.points.drop_duplicates("identity")
    return list(zip(rows["identity"], rows["N"], strict=True))


def _held(axes: Axes, found: CurveFit, held: Curves, color: dict) -> None:
    """Rings of the held-out runs, and the interval of each end."""
    for identity, n in _runs(held):
        rows = held.points[held.points["identity"] == identity]
        ring = color.get(n, INK)
        axes.plot(rows["tokens"], rows[held.loss_column], "o", mfc="none", color=ring, markersize=6)
        _law(axes, found, held, identity, color=ring, linewidth=1.2, linestyle="--")
    rows = found.forecast_of(held)
    bars = [rows["loss"] - rows["low"], rows["high"] - rows["loss"]]
    axes.errorbar(
        rows["tokens"], rows["loss"], yerr=bars, fmt="_", color=RED, capsize=2, markersize=5,
        label="held out: forecast (rings: measured)",
    )  # fmt: skip
