"""The figure of several families: a law each over one axis, in one unit."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analysis import figures
from analysis.families import Families, FamilyLaw, place_of
from analysis.figures import WORDS, log_x
from analysis.figures_quality import FAMILY_COLORS, MARKERS, legend_beside
from analysis.table import COLUMN_OF

NARROW = 3.0  # ratio of the ends of an axis below which every minor tick has room for a number
BEYOND = 1.5  # how far a law is drawn past its runs


def laws(found: Families) -> Figure:
    """Runs (± SE) as markers; where a family has a law its curve and the interval of the law."""
    figure, axes = figures._axes(width=7.8, height=4.2)
    for index, family in enumerate(found.laws):
        color = FAMILY_COLORS[index % len(FAMILY_COLORS)]
        x, loss, se = place_of(family.runs, found)
        axes.errorbar(
            x, loss, yerr=np.nan_to_num(se), fmt=MARKERS[index % len(MARKERS)], color=color,
            markersize=5, label=family.label + ("" if family.fitted else ", no law"),
        )  # fmt: skip
        _curve(axes, family, color)
    log_x(axes)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(figures._short))
    narrow = axes.get_ylim()[1] / axes.get_ylim()[0] < NARROW
    axes.yaxis.set_minor_formatter(FuncFormatter(figures._short if narrow else figures._few))
    figures._label(axes, WORDS[found.form.variables[0]], found.table.loss_word)
    legend_beside(axes)
    return figure


def _curve(axes: figures.Axes, family: FamilyLaw, color: str) -> None:
    law = family.fitted
    if law is None:
        return
    variable = law.form.variables[0]
    x = law.table.variable(variable)
    grid = np.geomspace(x.min() / BEYOND, x.max() * BEYOND, 120)
    named = {name: grid if name == variable else None for name in COLUMN_OF}
    at = law.predict(N=named["N"], D=named["D"], C=named["C"])
    axes.fill_between(grid, at.law_low, at.law_high, color=color, alpha=0.16, linewidth=0)
    axes.plot(grid, at.loss, color=color, linewidth=1.5)
