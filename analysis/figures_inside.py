"""Figures of what is measured inside models: probes by layer, attention by layer and head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import figures
from analysis.figures import BLUE, ORANGE
from analysis.figures_quality import (
    axis_word,
    bars,
    family_styles,
    legend_beside,
    panels,
    shades,
)
from analysis.quality_table import run_word

if TYPE_CHECKING:
    import pandas as pd

    from analysis.quality_table import Column

MOST_ACROSS = 5
APART = 0.05  # of a layer, between the dots of two heads


ATTENTION, UNIFORM = "attention_", "attention_uniform_"  # of even attention to what is visible


def layers(column: Column, values: pd.DataFrame) -> Figure:
    """By layer: a dot a head and a panel a run where heads were measured, else a curve a run.

    `values` may hold what even attention would give (UNIFORM): drawn beside the heads.
    """
    rows = column.rows[column.rows["last_step"]]
    heads = rows["per_head"].map(len).max() if len(rows) else 0
    if not heads:
        return _curves(column, rows)
    even = values[values["metric"] == column.metric.replace(ATTENTION, UNIFORM, 1)]
    return _heads(column, rows, even)


def _place(rows: pd.DataFrame) -> np.ndarray:
    """Layers from left to right, an encoder's before a decoder's."""
    return np.arange(len(rows)) + (rows["layer"].min() if rows["stack"].nunique() == 1 else 0.0)


def _runs(rows: pd.DataFrame) -> list[pd.DataFrame]:
    ordered = rows.sort_values(["family", "N", "seed", "identity"], kind="stable")
    out = [run for _, run in ordered.groupby(["identity", "key"], sort=False)]
    return [
        run.assign(part=run["stack"].eq("decoder")).sort_values(["part", "layer"]) for run in out
    ]


def _curves(column: Column, rows: pd.DataFrame) -> Figure:
    figure, axes = figures._axes(width=7.4)
    styles, dark = family_styles(rows["family"]), shades(rows)
    for run in _runs(rows):
        first = run.iloc[0]
        color, marker = styles[first["family"]]
        alpha = dark[first["identity"]]
        axes.plot(
            _place(run), run["value"], f"{marker}-", color=color, alpha=alpha, markersize=4,
            linewidth=1.4, label=run_word(first),
        )  # fmt: skip
        axes.fill_between(
            _place(run), run["low"], run["high"], color=color, alpha=0.14, linewidth=0
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figures._label(axes, "layer (0: embedding)", axis_word(column))
    legend_beside(axes)
    return figure


def _heads(column: Column, rows: pd.DataFrame, even: pd.DataFrame) -> Figure:
    """A panel a run, all on one scale; the line is the mean over heads with its interval."""
    runs = _runs(rows)
    across = min(len(runs), MOST_ACROSS)
    down = -(-len(runs) // across)
    figure, grid = panels(down, across, height=2.5)
    for axes, run in zip(grid.ravel(), runs, strict=False):
        _panel(axes, run, even[even["key"].isin(run["key"])])
    tops = [axes.get_ylim() for axes in grid.ravel()[: len(runs)]]
    for index, axes in enumerate(grid.ravel()):
        axes.set_visible(index < len(runs))
        axes.set_ylim(min(low for low, _ in tops), max(high for _, high in tops))
        figures._label(
            axes,
            "layer" if index + across >= len(runs) else "",
            axis_word(column) if index % across == 0 else "",
        )
    figures._legend(grid[0, 0])
    return figure


def _panel(axes: Axes, run: pd.DataFrame, even: pd.DataFrame) -> None:
    place, first = _place(run), run.iloc[0]
    for at, heads in zip(place, run["per_head"], strict=True):
        spread = APART * (np.arange(len(heads)) - (len(heads) - 1) / 2)
        label = "a head" if at == place[0] else None
        axes.plot(at + spread, heads, ".", color=BLUE, alpha=0.7, markersize=6, label=label)
    axes.errorbar(
        place, run["value"], yerr=bars(run), fmt="-", color=ORANGE, linewidth=1.2, capsize=2,
        label="mean",
    )  # fmt: skip
    even = even[even["identity"] == first["identity"]]
    if len(even) == len(run):
        even = _runs(even)[0]
        axes.plot(_place(even), even["value"], "--", color=figures.INK, linewidth=1.2, label="even")
    axes.set_title(run_word(first), color=figures.INK, fontsize=9)
    if run["stack"].nunique() > 1:
        words = [f"{s[:3]} {n:.0f}" for s, n in zip(run["stack"], run["layer"], strict=True)]
        axes.set_xticks(place, words)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
