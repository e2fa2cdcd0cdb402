"""The figure of a comparison: weights of the laws, and forward errors against distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from analysis.calibration import averaged_error
from analysis.figures import BLUE, GREEN, INK, ORANGE, dress, log_x

if TYPE_CHECKING:
    from analysis.compare import Comparison


def comparison(found: Comparison) -> Figure:
    """Left: weight, in-domain and forward error of each law. Right: errors by distance."""
    figure = Figure(figsize=(9.0, 3.9), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0.0)
    left, right = figure.subplots(1, 2, width_ratios=(3, 4))
    _laws(left, found)
    _ahead(right, found)
    for axis in (left, right):
        dress(axis)
    return figure


def _laws(axis: Axes, found: Comparison) -> None:
    members = [member for member in found.members if not member.status.refused][::-1]
    place = np.arange(len(members))
    axis.barh(place, [member.weight for member in members], color=BLUE, alpha=0.35, height=0.7)
    axis.set_yticks(place, [member.form.name for member in members])
    axis.set_xlim(0, 1)
    axis.set_xlabel("weight in the average")
    top = axis.twiny()
    for index, member in enumerate(members):
        top.plot(member.residual_rms_log, index, "o", color=GREEN, ms=5)
        errors = np.array(member.forward_rms_log)
        top.plot(errors, np.full(len(errors), index), "|", color=ORANGE, ms=11, mew=2)
    top.set_xscale("log")
    top.xaxis.set_minor_formatter(NullFormatter())
    top.set_xlabel("rms error, log units: in-domain (dot), forward (bars)")
    dress(top)


def _ahead(axis: Axes, found: Comparison) -> None:
    known = found.calibration
    axis.axhline(0.0, color=INK, lw=0.8)
    axis.set_xlabel("factor beyond the largest run that was seen")
    axis.set_ylabel("log(measured / forecast)")
    log_x(axis)
    if known is None:
        return
    farthest = 2.0
    for index, window in enumerate(found.windows):
        error = averaged_error(found.rolled, known.weights, index + 1)[window.ahead]
        factor = found.size[window.ahead] / window.reached
        farthest = max(farthest, float(factor.max()))
        axis.plot(factor, error, ".", color=ORANGE, alpha=0.35 + 0.6 / (index + 1), ms=6)
    factor = np.geomspace(1.0, farthest, 80)
    spread = np.hypot(known.noise_log, known.drift_log * np.sqrt(np.log(factor)))
    half = known.quantile(found.level) * spread
    axis.fill_between(factor, -half, half, color=BLUE, alpha=0.18, lw=0)
    axis.plot(factor, half, color=BLUE, lw=1)
    axis.plot(factor, -half, color=BLUE, lw=1)
    log_x(axis)
