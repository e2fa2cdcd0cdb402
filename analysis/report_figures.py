"""The figure of the coverage history: at which level each forecast inside the table held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis import calibration
from analysis.figures import BLUE, INK, ORANGE, _axes, _label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.compare import Comparison


def held_levels(found: Comparison, index: int) -> np.ndarray:
    """Level of the narrowest interval that held each run ahead of an origin; empty where none.

    The interval is the one that could be stated at that origin, from the origins behind it.
    """
    from scipy import stats

    window, row = found.windows[index], index + 1
    if not any(law.certified[row] for law in found.rolled):
        return np.array([])
    then = calibration.calibrate(
        found.rolled, found.windows, found.size, row=row, known=window.kept
    )
    if not then.origins:
        return np.array([])
    ahead = window.ahead
    error = calibration.averaged_error(found.rolled, then.weights, row)[ahead]
    laws = np.array(
        [np.where(law.certified[row], -law.error[row][ahead], 0.0) for law in found.rolled]
    )
    spread = then.sd_log(np.log(found.size[ahead] / window.reached), laws)
    return 2.0 * stats.t.cdf(np.abs(error) / spread, then.origins) - 1.0


def history(found: Comparison) -> Figure:
    """A row per origin, the nearest on top; blue inside the stated interval, orange outside."""
    levels = [held_levels(found, index) for index in range(len(found.windows))]
    kept = [index for index, level in enumerate(levels) if len(level)]
    figure, axes = _axes(5.2, 1.1 + 0.38 * len(kept))
    for place, index in enumerate(reversed(kept)):
        inside = levels[index] <= found.level
        for chosen, color in ((inside, BLUE), (~inside, ORANGE)):
            percent = 100 * levels[index][chosen]
            axes.plot(percent, np.full(len(percent), place), "o", color=color, ms=6, alpha=0.6)
    axes.axvline(100 * found.level, color=INK, linewidth=1.2)
    words = [
        f"{found.windows[index].kept.sum()} runs, {found.windows[index].ahead.sum()} ahead"
        for index in reversed(kept)
    ]
    axes.set_yticks(range(len(kept)), words)
    axes.set_ylim(-0.6, len(kept) - 0.4)
    axes.set_xlim(-2, 102)
    _label(axes, f"level that held the run (%); line: {found.level:.0%}", "")
    return figure
