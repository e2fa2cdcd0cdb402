"""python -m analysis report: the curves that the page of a study has a law of."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.learning_curves import Curves


def curves_of(options: argparse.Namespace, where: Mapping[str, str]) -> Curves | str | None:
    """The curves of the runs that the flags choose, or why they have no law in common.

    None where no rate falls, so that the page's learning curves say all, where a metric is in the
    place of the loss, and of a table, which does not hold the schedules.
    """
    if options.metric or Path(options.directory).suffix == ".csv":
        return None
    from analysis.flags import UNITS
    from analysis.learning_curves import read_curves

    try:
        curves = read_curves(
            options.directory, convention=options.convention or "blocks", where=where,
            weights=options.weights, unit=options.unit or UNITS[0],
        )  # fmt: skip
    except AnalysisError as error:
        return str(error)
    falls = any(one.name != "constant" for one in curves.schedules.values())
    return curves if falls else None
