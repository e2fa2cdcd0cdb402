"""The figure of the sensitivity: the exponent of N*(C) under each convention of N and of C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis.figures import INK, _axes, _label, _legend
from analysis.figures_optimum import COLOR, MARKER
from analysis.frontier import RoadName

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

APART = 0.2  # of a row, between the roads in it


def exponents(rows: pd.DataFrame) -> Figure:
    """A row for each convention, the first on top; a bar for each road that has numbers there."""
    shown = rows.drop_duplicates(["convention", "flops", "road"])
    ways = list(dict.fromkeys(zip(shown["convention"], shown["flops"], strict=True)))
    figure, axes = _axes(6.4, 1.3 + 0.42 * len(ways))
    for shift, road in enumerate(RoadName):
        own = shown[(shown["road"] == road.value) & np.isfinite(shown["exponent_N"])]
        if own.empty:
            continue
        value = own["exponent_N"].to_numpy()
        ends = [value - own["exponent_N_low"], own["exponent_N_high"] - value]
        pairs = zip(own["convention"], own["flops"], strict=True)
        place = np.array([len(ways) - 1 - ways.index(pair) for pair in pairs])
        axes.errorbar(
            value, place + APART * (1 - shift), xerr=ends, fmt=MARKER[road], color=COLOR[road],
            capsize=3, markersize=6, label=road.value,
        )  # fmt: skip
    words = [f"N of {convention}, C {flops}" for convention, flops in reversed(ways)]
    axes.set_yticks(range(len(ways)), words)
    axes.set_ylim(-0.6, len(ways) - 0.4)
    _label(axes, "exponent x of N* ~ C^x", "")
    if axes.containers:
        _legend(axes)
    else:
        axes.text(0.5, 0.5, "no road has numbers", color=INK, ha="center", transform=axes.transAxes)
    return figure
