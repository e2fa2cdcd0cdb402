"""The learning-rate schedule of a run, as far as its losses depend on it.

A run whose rate falls by its end is measured where it ends: before that its loss holds the noise of
a high rate, which its cooldown would still take away (Hägele et al. 2024, arXiv:2405.18392). At a
constant rate every evaluation is what a run of that length reaches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

CONSTANT = "constant"
UNKNOWN = ""  # of a run whose record or table does not say it
COLUMN = "schedule"  # of a table of runs


def schedule_of(recipe: Mapping[str, str], steps: float) -> str:
    """The schedule of a record's config by its name; `constant` where a "wsd" never cools down."""
    name = recipe.get("optimizer.schedule", UNKNOWN)
    if name != "wsd" or "optimizer.cooldown_fraction" not in recipe:
        return name
    cooldown = float(recipe["optimizer.cooldown_fraction"]) * steps
    return name if math.isfinite(cooldown) and round(cooldown) > 0 else CONSTANT


def cools_down(schedule: str) -> bool:
    """True where only the end of a run is an annealed loss."""
    return schedule not in (CONSTANT, UNKNOWN)
