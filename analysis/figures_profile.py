"""The figure of a profile: the signed root of the drop against the parameter, and its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.figures import BLUE, INK, ORANGE, dress

if TYPE_CHECKING:
    from analysis.profile import Profile

WIDE = 10.0  # a number above zero that spans more than this factor gets a logarithmic axis
MARKED = 1000.0  # up to this one marked at 1, 2, 5


def profile(found: Profile) -> Figure:
    """A straight line where the law is as good as linear in the parameter; bent where it is not."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    dress(axes)
    _scale(axes, found)
    edge = found.threshold
    axes.axhspan(-edge, edge, color=BLUE, alpha=0.12, linewidth=0)
    axes.axhline(0.0, color=INK, linewidth=0.8)
    axes.plot(found.values, found.root, color=BLUE, linewidth=1.8)
    axes.plot(found.fitted, 0.0, "o", color=BLUE, markersize=6)
    for end, root in ((found.low, -edge), (found.high, edge)):
        if end is not None:
            axes.vlines(end, -2.5 * edge, root, color=ORANGE, linewidth=1.2, linestyle="--")
            axes.plot(end, root, "o", color=ORANGE, markersize=6)
    axes.set_ylim(-2.5 * edge, 2.5 * edge)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(found.name, color=INK)
    axes.set_ylabel("signed root of " + found.statistic.split(" over ")[0], color=INK)
    axes.set_title(str(found), color=INK, fontsize=10, loc="left")
    return figure


def _scale(axes: Axes, found: Profile) -> None:
    low, high = found.values.min(), found.values.max()
    if found.logarithmic and high > WIDE * low:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        if high < MARKED * low:
            axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlim(low, high)
