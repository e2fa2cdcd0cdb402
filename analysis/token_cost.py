"""What a token costs: 6 N FLOPs by convention, or as the runs of a table counted it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from analysis.errors import AnalysisError
from analysis.table import COLUMN_OF, Table

LEAST_SHARE = 0.5  # of the smallest counted cost: what is below it is extrapolated too far


class Flops(enum.Enum):
    """Which compute C is meant."""

    SIX_ND = "6ND"
    COUNTED = "counted"


def flops_named(name: Flops | str) -> Flops:
    """`6ND` or `counted`."""
    if isinstance(name, Flops):
        return name
    allowed = [flops.value for flops in Flops]
    if name not in allowed:
        raise AnalysisError(f"flops {name!r}: allowed are {', '.join(allowed)}")
    return Flops(name)


@dataclass(frozen=True)
class TokenCost:
    """FLOPs of a token over N = a + b sqrt(center / N): 6 by convention, else from the runs.

    Heads, embeddings and attention cost more beside the smaller models; their share of C / (N D)
    falls as N^-1/3 to N^-2/3 where width grows with depth. `misfit` is the largest relative error.
    """

    flops: Flops
    a: float = 6.0
    b: float = 0.0
    log_center: float = 0.0
    least: float = 0.0
    misfit: float = 0.0

    def per_parameter(self, log_n: np.ndarray) -> np.ndarray:
        """FLOPs of a token over N."""
        cost = self.a + self.b * np.exp(0.5 * (self.log_center - log_n))
        return np.maximum(cost, self.least)

    def slope(self, log_n: np.ndarray) -> np.ndarray:
        """d log(FLOPs of a token over N) / d log N."""
        share = self.b * np.exp(0.5 * (self.log_center - log_n))
        return np.where(self.a + share > self.least, -0.5 * share / self.per_parameter(log_n), 0.0)

    def log_tokens(self, log_c: np.ndarray | float, log_n: np.ndarray) -> np.ndarray:
        """log D of a run of N parameters that costs C."""
        return log_c - log_n - np.log(self.per_parameter(log_n))


def token_cost(table: Table, flops: Flops) -> TokenCost:
    """The cost of a token in the table, by convention or by least squares of C / (N D)."""
    if flops is Flops.SIX_ND:
        return TokenCost(flops)
    n = table.variable("N")
    counted = table.variable("C") / (n * table.variable("D"))
    center = float(np.log(n).mean())
    share = np.exp(0.5 * (center - np.log(n)))
    if np.ptp(np.log(n)) == 0:
        return TokenCost(flops, a=float(counted.mean()), log_center=center)
    design = np.column_stack([np.ones_like(share), share])
    a, b = np.linalg.lstsq(design / counted[:, None], np.ones_like(share), rcond=None)[0]
    misfit = float(np.abs((a + b * share) / counted - 1.0).max())
    least = LEAST_SHARE * float(counted.min())
    return TokenCost(flops, float(a), float(b), center, least, misfit)


def compute(table: Table, flops: Flops) -> np.ndarray:
    """C of every run (FLOPs): 6 N D, or the column C where it is counted or there is no D."""
    if flops is Flops.SIX_ND and COLUMN_OF["D"] in table.runs:
        return 6.0 * table.variable("N") * table.variable("D")
    return table.variable("C")
