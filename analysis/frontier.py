"""The compute-optimal frontier N*(C), D*(C): what each of the three roads to it returns.

A road that is refused carries no numbers: its `exponent_n` and the like raise an AnalysisError.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from analysis.errors import AnalysisError

SAME_PLACE = 1e-6
LEAST_BUDGETS = 3  # a line has two parameters; its lack of fit needs at least one more point


class Standing(enum.Enum):
    """What a minimum, a place on the frontier or a whole road is worth."""

    FOUND = "found"
    EXTRAPOLATED = "extrapolated"
    TOO_FEW_POINTS = "too few points"
    TOO_FEW_BUDGETS = "too few budgets"
    NO_INTERIOR_MINIMUM = "no interior minimum"
    MINIMUM_OUTSIDE = "minimum outside the sizes"
    CONCAVE = "concave"
    LOST_IN_NOISE = "minimum lost in the noise"
    NO_CURVES = "no training curves"
    NO_LAW = "no law"

    @property
    def refused(self) -> bool:
        """True where there are no numbers."""
        return self not in (Standing.FOUND, Standing.EXTRAPOLATED)


class RoadName(enum.Enum):
    """The three ways from a table to its frontier (Hoffmann et al. 2022, arXiv:2203.15556)."""

    ENVELOPE = "envelope"
    ISOFLOP = "isoFLOP"
    PARAMETRIC = "parametric"


@dataclass(frozen=True)
class Value:
    """A number with its interval."""

    value: float
    low: float
    high: float

    def overlaps(self, other: Value) -> bool:
        return self.low <= other.high and other.low <= self.high

    def exp(self) -> Value:
        """The same of exp(x), for logs."""
        return Value(*(float(np.exp(number)) for number in (self.value, self.low, self.high)))

    def __str__(self) -> str:
        return f"{self.value:.4g} [ {self.low:.4g}, {self.high:.4g} ]"


@dataclass(frozen=True)
class Best:
    """The best size, its tokens, and tokens per parameter, with intervals."""

    parameters: Value
    tokens: Value
    tokens_per_parameter: Value


@dataclass(frozen=True)
class Place:
    """N*, D* and D*/N* at one budget (FLOPs); `distance` is the factor beyond the data, 1 inside.

    `found` is None where the standing is a refusal.
    """

    budget_flops: float
    standing: Standing
    reason: str
    found: Best | None = None
    distance: float = 1.0

    def require(self) -> Best:
        """The numbers, or an AnalysisError with the reason where there are none."""
        if self.found is None:
            at = f"at {self.budget_flops:.3g} FLOPs"
            raise AnalysisError(f"{at}: {self.standing.value}: {self.reason}")
        return self.found


@dataclass(frozen=True)
class Mark:
    """One optimum measured on the way: budget (FLOPs), N*, and the standard error of log N*."""

    budget_flops: float
    parameters: float
    log_se: float


@dataclass(frozen=True)
class Frontier:
    """N* = coefficient C^exponent_n and D* ~ C^exponent_d with intervals; marks it rests on."""

    exponent_n: Value
    exponent_d: Value
    coefficient_n: Value
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Road:
    """One road to the frontier: its law and the places at the targets, or why there is none."""

    name: RoadName
    how: str
    standing: Standing
    reason: str
    level: float
    frontier: Frontier | None = None
    places: tuple[Place, ...] = ()
    notes: tuple[str, ...] = ()

    def require(self) -> Frontier:
        """The frontier, or an AnalysisError with the reason where the road was refused."""
        if self.frontier is None:
            raise AnalysisError(f"{self.name.value}: {self.standing.value}: {self.reason}")
        return self.frontier

    @property
    def exponent_n(self) -> Value:
        return self.require().exponent_n

    @property
    def exponent_d(self) -> Value:
        return self.require().exponent_d

    def place(self, budget_flops: float) -> Place | None:
        """The place at that target, or None where the whole road was refused."""
        for place in self.places:
            if place.budget_flops == budget_flops:
                return place
        return None


def refused(
    name: RoadName,
    how: str,
    standing: Standing,
    reason: str,
    level: float,
    notes: tuple[str, ...] = (),
) -> Road:
    """A road without numbers."""
    return Road(name, how, standing, reason, level, notes=notes)


def beyond(value: float, data: np.ndarray) -> float:
    """Factor by which a value lies outside the data, 1 inside."""
    return float(max(value / data.max(), data.min() / value, 1.0))


def percentiles(point: float, draws: np.ndarray, level: float) -> Value:
    """A point with percentiles of its draws (NaN left out), which never exclude the point."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Value(point, float(min(low, point)), float(max(high, point)))


def place_of(
    budget_flops: float, distance: float, *, log_n: Value, log_d: Value, log_ratio: Value
) -> Place:
    """A place from logs; extrapolated where it lies a factor `distance` > 1 beyond the data."""
    far = distance > 1.0 + SAME_PLACE
    reason = f"{distance:.3g}x beyond the data" if far else ""
    standing = Standing.EXTRAPOLATED if far else Standing.FOUND
    best = Best(log_n.exp(), log_d.exp(), log_ratio.exp())
    return Place(budget_flops, standing, reason, best, distance)
