"""Figures of sampler settings: a metric over the grid of settings, the best point, its rivals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import figures
from analysis.figures import INK, RED
from analysis.figures_quality import axis_word, bars, panels
from analysis.quality_best import best_of, by_run, sentences, varied_in, words_of
from analysis.quality_table import last_name, run_word, shown_settings

if TYPE_CHECKING:
    import pandas as pd

    from analysis.quality_table import Column


def drawn(column: Column) -> Iterator[tuple[str, Figure, str]]:
    """A figure for each setting that was varied: a panel a run, a line for each of the others."""
    said = " ".join(f"{sentence}." for sentence in sentences(column))
    caption = f"{column.title}; {shown_settings(column)}. {said}"
    for name in column.varied:
        rows = column.rows[column.rows["last_step"]]
        rows = rows.assign(x=[_number(text) for text in rows[name]]).dropna(subset="x")
        runs = [run for run in by_run(rows) if run["x"].nunique() > 1]
        if runs:
            word = last_name(name)
            figure = against_setting(column, name, runs)
            yield f"{column.metric}-{word.replace('.', '-')}", figure, caption


def _number(text: str) -> float:
    """The setting; NaN where it is no number or the family has no such setting."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def against_setting(column: Column, name: str, runs: list[pd.DataFrame]) -> Figure:
    """The metric over one setting `x`; the best point in red with its interval as a band."""
    across = min(len(runs), 4)
    down = -(-len(runs) // across)
    figure, grid = panels(down, across, height=2.7)
    for index, run in enumerate(runs):
        axes = grid.ravel()[index]
        _panel(axes, run, column, name)
        left, bottom = index % across == 0, index + across >= len(runs)
        figures._label(axes, last_name(name) if bottom else "", axis_word(column) if left else "")
    for axes in grid.ravel()[len(runs) :]:
        axes.set_visible(False)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=min(len(labels), 3), frameon=False,
        labelcolor=INK, fontsize=9,
    )  # fmt: skip
    return figure


def _panel(axes: Axes, run: pd.DataFrame, column: Column, name: str) -> None:
    others = [other for other in varied_in(run, column.varied) if other != name]
    lines = [run] if not others else [line for _, line in run.groupby(others, sort=True)]
    colors = matplotlib.colormaps["viridis"](np.linspace(0.2, 0.85, max(len(lines), 2)))
    for color, line in zip(colors, lines, strict=False):
        line = line.sort_values("x")
        axes.errorbar(
            line["x"], line["value"], yerr=bars(line), fmt="o-", color=color, markersize=4,
            linewidth=1.2, capsize=2, label=words_of(line.iloc[0], tuple(others)) or None,
        )  # fmt: skip
    best = best_of(run)
    axes.axhspan(best.row["low"], best.row["high"], color=RED, alpha=0.12, linewidth=0)
    axes.plot(
        [best.row["x"]], [best.row["value"]], "o", color=RED, markersize=10, mew=1.6,
        markerfacecolor="none", label="best, its interval", zorder=5,
    )  # fmt: skip
    axes.set_title(run_word(run.iloc[0]), color=INK, fontsize=9)
