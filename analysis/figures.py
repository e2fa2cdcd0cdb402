"""Figures of laws and runs: matplotlib without a window, SVG, legible on light and dark pages."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from analysis.differences import Difference
from analysis.table import COLUMN_OF, Table

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fit import Fit
    from analysis.forecast import Forecast

INK = "#808080"  # about 4:1 on white and on near black; a page may make it its own text colour
BLUE, ORANGE, GREEN, RED = "#3d85c6", "#d9822b", "#3a9d5d", "#d0433b"
LONGEST_NAME = 18
MOST_LABELS = 10
SPIKES = {"skip": "x", "rollback": "<"}  # how a figure marks what a run did about a spike
SIZE = (6.4, 3.9)
WORDS = {"N": "parameters N", "D": "tokens D", "C": "training compute C (FLOPs)"}
STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10}


@dataclass(frozen=True)
class Point:
    """A forecast and, where it is known, what was measured there."""

    x: float
    forecast: float
    low: float
    high: float
    measured: float | None


def point_of(made: Forecast, measured: float | None) -> Point:
    """The point of a forecast of one variable."""
    (x,) = made.variables.values()
    return Point(x, made.loss, made.low, made.high, measured)


def svg(figure: Figure, name: str) -> str:
    """The figure as SVG text; the same figure gives the same bytes."""
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _axes(width: float = SIZE[0], height: float = SIZE[1]) -> tuple[Figure, Axes]:
    """A figure with one axis; no background, lines and text in ink."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    dress(axes)
    return figure, axes


def dress(axes: Axes) -> None:
    """No background; lines, ticks and words in ink."""
    axes.patch.set_alpha(0.0)
    axes.tick_params(which="both", colors=INK, pad=4)
    axes.tick_params(which="minor", length=2)
    axes.grid(True, color=INK, alpha=0.18, linewidth=0.6)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)


def _legend(axes: Axes, **options: object) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK, fontsize=9, **options)  # pyrefly: ignore


def _short(value: float, _: object = None) -> str:
    """3k, 25M, 2B; powers of ten beyond."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size <= value < 1000 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _plain(text: str) -> str:
    """Names of runs are text, not mathematics, and leave room for the figure."""
    short = text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"
    return short.replace("$", r"\$")


def log_x(axes: Axes) -> None:
    """A log axis with numbers as people say them."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    if high / low < 100:
        axes.xaxis.set_minor_formatter(FuncFormatter(_few))


def _few(value: float, _: object) -> str:
    leading = f"{value:e}"[0]
    return _short(value) if leading in "25" else ""


def _loss_word(table: Table) -> str:
    return table.loss_word


def _held_word(table: Table) -> str:
    return "".join(f" at {name} = {_short(value)}" for name, value in table.held.items())


def law(fit: Fit, point: Point | None = None) -> Figure:
    """A law of one variable with its band and the interval of a new run; runs and a forecast."""
    variable = fit.form.variables[0]
    figure, axes = _axes()
    table, x = fit.table, fit.table.variable(variable)
    se = np.nan_to_num(table.loss_se)
    if not fit.status.refused and len(fit.form.variables) == 1:
        _band(axes, fit, variable, max(2.0 * x.max(), 1.3 * point.x if point else 0.0))
    axes.errorbar(x, table.loss, yerr=se, fmt="o", color=BLUE, markersize=5, label="runs (± SE)")
    if point:
        gap = [[point.forecast - point.low], [point.high - point.forecast]]
        axes.errorbar(
            [point.x], [point.forecast], yerr=gap, fmt="D", color=ORANGE, markersize=6,
            capsize=4, label="forecast, made before the run",
        )  # fmt: skip
        if point.measured is not None:
            axes.plot(
                point.x, point.measured, "x", color=RED, markersize=9, mew=2, label="measured"
            )
    log_x(axes)
    _label(axes, WORDS[variable] + _held_word(table), _loss_word(table))
    _legend(axes)
    return figure


def _band(axes: Axes, fit: Fit, variable: str, right: float) -> None:
    x = fit.table.variable(variable)
    grid = np.geomspace(x.min() / 1.2, right, 160)
    named = {name: grid if name == variable else None for name in COLUMN_OF}
    found = fit.predict(N=named["N"], D=named["D"], C=named["C"])
    axes.fill_between(
        grid, found.low, found.high, color=BLUE, alpha=0.16, linewidth=0,
        label=f"{fit.level:.0%} of new runs",
    )  # fmt: skip
    axes.fill_between(
        grid, found.law_low, found.law_high, color=BLUE, alpha=0.25, linewidth=0,
        label=f"{fit.level:.0%} of the law",
    )  # fmt: skip
    axes.plot(grid, found.loss, color=BLUE, linewidth=1.6)


def residuals(fit: Fit) -> Figure:
    """log(measured / fitted) in per cent against the first variable, with the in-domain noise."""
    variable = fit.form.variables[0]
    figure, axes = _axes(4.6, 2.9)
    x, percent = fit.table.variable(variable), 100 * fit.residuals
    noise = 100 * fit.residual_sd
    axes.axhspan(-noise, noise, color=BLUE, alpha=0.14, linewidth=0)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.vlines(x, 0.0, percent, color=BLUE, linewidth=1.2)
    axes.plot(x, percent, "o", color=BLUE, markersize=5)
    log_x(axes)
    _label(axes, WORDS[variable], "measured over fitted (%)")
    return figure


def learning_curves(table: Table) -> Figure:
    """Validation loss of every run against tokens, dark to light from small to large N."""
    figure, axes = _axes()
    sizes = np.unique(table.variable("N"))
    colors = matplotlib.colormaps["viridis"](np.linspace(0.2, 0.85, max(len(sizes), 2)))
    color_of = dict(zip(sizes, colors, strict=False))
    labelled = sizes[:: 1 + len(sizes) // MOST_LABELS]
    unnamed = set(labelled)
    order = table.runs.sort_values(["N", "D_tokens"])
    for identity, size in zip(order["identity"], order["N"].astype(float), strict=True):
        rows = table.evaluations[table.evaluations["identity"] == identity]
        rows = rows[rows["tokens"] > 0].drop_duplicates("step", keep="last")
        label = f"N = {_short(size)}" if size in unnamed else None
        unnamed.discard(size)
        axes.plot(
            rows["tokens"], rows[table.loss_column], color=color_of[size], linewidth=1.4,
            marker=".", label=label,
        )  # fmt: skip
        _mark_spikes(axes, table, identity, rows)
    log_x(axes)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    _label(axes, WORDS["D"], _loss_word(table))
    _legend(axes, ncols=2)
    return figure


def _mark_spikes(axes: Axes, table: Table, identity: str, rows: pd.DataFrame) -> None:
    """A cross on a run's curve where it left an update out, an arrow back where it went back."""
    for action, marker in SPIKES.items():
        x = [s.tokens for s in table.spikes if (s.identity, s.action) == (identity, action)]
        if x and len(rows):
            order = rows.sort_values("tokens")
            y = np.interp(np.log(x), np.log(order["tokens"]), order[table.loss_column])
            axes.plot(x, y, marker, color=INK, markersize=7, zorder=4)


def differences(found: tuple[Difference, ...]) -> Figure:
    """Paired differences between neighbours with three standard errors."""
    figure, axes = _axes(height=max(1.6, 0.36 * len(found) + 1.0))
    gaps = np.array([difference.difference_nats_per_token for difference in found])
    spread = 3 * np.array([difference.se_nats_per_token for difference in found])
    rows = np.arange(len(found))[::-1]
    axes.errorbar(gaps, rows, xerr=spread, fmt="o", color=GREEN, markersize=5, capsize=3)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_yticks(rows, [f"{_plain(pair.first)} − {_plain(pair.second)}" for pair in found])
    axes.set_ylim(-0.6, len(found) - 0.4)
    _label(axes, "loss difference (nats/token), ± 3 SE", "")
    return figure
