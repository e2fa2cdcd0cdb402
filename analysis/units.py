"""Units that a column of counts or of losses may be given in, and the one that each becomes."""

from __future__ import annotations

import re

from analysis.errors import AnalysisError

LOG_2 = 0.6931471805599453
PETAFLOP_DAYS = 86400e15
TOKENS = ("D", "U")  # seen, and unique among them
COUNT_UNITS = {"count": 1.0, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
COMPUTE_UNITS = {**COUNT_UNITS, "petaflop/s-days": PETAFLOP_DAYS}
LOSS_UNITS = {
    "nats/token": ("nats/token", 1.0),
    "bits/token": ("nats/token", LOG_2),
    "nats/image": ("nats/image", 1.0),
    "bits/image": ("nats/image", LOG_2),
    "bits/dim": ("bits/dim", 1.0),
    "nats/dim": ("bits/dim", 1.0 / LOG_2),
    "bits/byte": ("bits/byte", 1.0),
    "nats/byte": ("bits/byte", 1.0 / LOG_2),
    "error rate": ("error rate", 1.0),
}
_PER_ITEM = re.compile(r"(?P<tokens>\d+(\.\d+)?([eE][+]?\d+)?)/(step|image|sequence|example)")


def suffix(unit: str) -> str:
    """A unit as the end of a name: nats_per_token, 1_probe_top1."""
    return re.sub(r"[^0-9A-Za-z]+", "_", unit.replace("/", "_per_")).strip("_")


def loss_unit(unit: str, source: str) -> tuple[str, float]:
    """The unit that a loss is kept in, and the factor to it."""
    if unit not in LOSS_UNITS:
        allowed = ", ".join(LOSS_UNITS)
        raise AnalysisError(f"{source}: unit of the loss {unit!r}; allowed are {allowed}")
    return LOSS_UNITS[unit]


def count_factor(key: str, unit: str, source: str) -> float:
    """The factor of a unit to counts; D may be in steps or images of so many tokens, 6144/step."""
    units = COMPUTE_UNITS if key == "C" else COUNT_UNITS
    if unit in units:
        return units[unit]
    tokens = _PER_ITEM.fullmatch(unit) if key in TOKENS else None
    if tokens and float(tokens["tokens"]) > 0:
        return float(tokens["tokens"])
    allowed = ", ".join(units) + (", or tokens of each, such as 6144/step" if key in TOKENS else "")
    raise AnalysisError(f"{source}: unit of {key} {unit!r}; allowed are {allowed}")
