"""Figures of the compute-optimal frontier: isoFLOP bowls, and N* against C by three roads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import figures
from analysis.bowl import Interpolant, Minimum, pieces
from analysis.figures import BLUE, GREEN, INK, ORANGE, RED, WORDS
from analysis.frontier import Road, RoadName

if TYPE_CHECKING:
    from analysis.isoflop import IsoFlop
    from analysis.optimum import Optimum

COLOR = {RoadName.ENVELOPE: GREEN, RoadName.ISOFLOP: BLUE, RoadName.PARAMETRIC: ORANGE}
MARKER = {RoadName.ENVELOPE: "s", RoadName.ISOFLOP: "o", RoadName.PARAMETRIC: "D"}
FINE = 120
APART = 0.035  # log10 of C between the bars of two roads at one target


def written(figure: Figure, path: str | Path | None, name: str) -> Figure:
    """The figure, written as SVG where a path is given."""
    if path is not None:
        Path(path).write_text(figures.svg(figure, name))
    return figure


def curve_of(found: Minimum, how: Interpolant) -> tuple[np.ndarray, np.ndarray]:
    """N and loss along the interpolant of a bowl, between its outermost knots."""
    from scipy.interpolate import PPoly

    coefficients, knots = pieces(found.bowl, found.bowl.log_loss[:, None], how)
    log_n = np.linspace(knots[0], knots[-1], FINE)
    return np.exp(log_n), np.exp(PPoly(coefficients, knots)(log_n)[:, 0])


def bowls(found: IsoFlop, unit: str) -> Figure:
    """Every bowl with its points, its interpolant, and its minimum with one standard error.

    A bowl that was refused is drawn without a minimum.
    """
    figure, axes = figures._axes()
    colors = matplotlib.colormaps["viridis"](np.linspace(0.2, 0.85, max(len(found.minima), 2)))
    for color, one in zip(colors, found.minima, strict=False):
        if not len(one.bowl.log_n):
            continue
        n, loss = np.exp(one.bowl.log_n), np.exp(one.bowl.log_loss)
        axes.plot(n, loss, ".", color=color, markersize=5)
        if len(n) >= found.how.least_sizes:
            axes.plot(*curve_of(one, found.how), color=color, linewidth=1.2)
    _minima(axes, found)
    figures.log_x(axes)
    figures._label(axes, WORDS["N"], f"loss ({unit})")
    figures._legend(axes)
    return figure


def _minima(axes: Axes, found: IsoFlop) -> None:
    kept = [one for one in found.minima if not one.standing.refused]
    if not kept:
        return
    n = np.exp([one.log_n for one in kept])
    spread = np.array([one.log_se for one in kept])
    bars = [n - n * np.exp(-spread), n * np.exp(spread) - n]
    axes.errorbar(
        n, np.exp([one.log_loss for one in kept]), xerr=bars, fmt="o", color=RED, markersize=5,
        capsize=2, zorder=3, label=f"minimum by {found.how.value} (± SE)",
    )  # fmt: skip


def _line(axes: Axes, road: Road, low: float, high: float) -> None:
    """The law of a road over the budgets of its marks, dashed beyond them."""
    frontier = road.require()
    inside = np.array([mark.budget_flops for mark in frontier.marks])
    for c, style in ((np.geomspace(low, high, 2), ":"), (inside[[0, -1]], "-")):
        n = frontier.coefficient_n.value * c**frontier.exponent_n.value
        axes.plot(c, n, style, color=COLOR[road.name], linewidth=1.5)


def _road(axes: Axes, road: Road, shift: int) -> None:
    """Marks, and the places at the targets with their intervals, a little apart."""
    color, marker = COLOR[road.name], MARKER[road.name]
    slope = road.exponent_n
    label = f"{road.name.value}: N* ~ C^{slope.value:.3f} [ {slope.low:.3f}, {slope.high:.3f} ]"
    if road.name is not RoadName.PARAMETRIC:  # its marks are ends of its line, not measured
        marks = road.require().marks
        axes.plot(
            [mark.budget_flops for mark in marks], [mark.parameters for mark in marks], marker,
            color=color, markersize=4, alpha=0.6,
        )  # fmt: skip
    axes.plot([], [], marker + "-", color=color, markersize=5, label=label)
    for place in road.places:
        if place.found is None:
            continue
        n = place.found.parameters
        axes.errorbar(
            [place.budget_flops * 10 ** (APART * shift)], [n.value],
            yerr=[[n.value - n.low], [n.high - n.value]], fmt=marker, color=color, markersize=6,
            capsize=3, zorder=3,
        )  # fmt: skip


def frontier(found: Optimum) -> Figure:
    """N* against C: what each road measured, its law, and its intervals at the targets."""
    figure, axes = figures._axes()
    kept = [road for road in found.roads if road.frontier is not None]
    budgets = [mark.budget_flops for road in kept for mark in road.require().marks]
    for shift, road in enumerate(kept):
        _line(axes, road, min([*budgets, *found.targets]), max([*budgets, *found.targets]))
        _road(axes, road, shift - len(kept) // 2)
    if not kept:
        axes.text(0.5, 0.5, "no road has numbers", color=INK, ha="center", transform=axes.transAxes)
    axes.set_yscale("log")
    figures.log_x(axes)
    figures._label(axes, f"{WORDS['C']}, {found.flops.value}", "compute-optimal parameters N*")
    figures._legend(axes)
    return figure
