"""Single tokens and ordered pairs of neighbours: how far from uniform, how far from independent."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import numpy as np

from lab.metrics.draws import Draws, draws_of, paired, standard_error, t_quantile
from lab.metrics.estimate import LEVEL, Estimate, estimate
from lab.metrics.grids import TokenGrids


class Neighbour(enum.StrEnum):
    """Which token is the second of a pair."""

    HORIZONTAL = "horizontal"  # the next of the row
    VERTICAL = "vertical"  # the one below
    RASTER = "raster"  # the next of the sequence, across the ends of rows too


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number with its 90 % interval; where it is not converged only `low` and `high` are known.

    The interval is of the sampling, widened on both sides by the scale of the bias.
    Then they are bounds: `low` and `high` enclose the truth but for sampling noise.
    """

    nats: float | None
    se_nats: float | None
    bias_nats: float | None
    low_nats: float
    high_nats: float
    converged: bool

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Entropies of a pair, of its first and of its second token, over the same draws."""

    first: Estimate
    second: Estimate
    pair: Estimate
    shared_nats: float = 0.0  # a bound from below on the mutual information

    @property
    def kl(self) -> Quantity:
        """KL of the pairs from uniform pairs: 2 ln K - H2.

        It is the KLs of its two tokens and their mutual information; bounded from below by them.
        """
        apart = self.first.least_kl_nats + self.second.least_kl_nats
        return kl_from_uniform(self.pair, least=apart + self.shared_nats)

    @property
    def conditional(self) -> Quantity:
        """Entropy of the second token given the first, H2 - H(first)."""
        return quantity(
            self.pair.nats - self.first.nats,
            self.pair.left_out_nats - self.first.left_out_nats,
            bias_nats=self.pair.bias_nats + self.first.bias_nats,
            converged=self.pair.converged and self.first.converged,
            least=max(0.0, self.pair.least_nats - self.first.most_nats),
            most=self.second.most_nats - self.shared_nats,
        )

    @property
    def mutual_information(self) -> Quantity:
        """H(first) + H(second) - H2."""
        first, second, pair = self.first, self.second, self.pair
        apart = first.most_nats + second.most_nats - pair.least_nats
        most = min(apart, first.most_nats, second.most_nats)
        return quantity(
            first.nats + second.nats - pair.nats,
            first.left_out_nats + second.left_out_nats - pair.left_out_nats,
            bias_nats=first.bias_nats + second.bias_nats + pair.bias_nats,
            converged=first.converged and second.converged and pair.converged,
            least=self.shared_nats,
            most=most,
        )


def entropy_of(entropy: Estimate) -> Quantity:
    """H itself."""
    return quantity(
        entropy.nats,
        entropy.left_out_nats,
        bias_nats=entropy.bias_nats,
        converged=entropy.converged,
        least=entropy.least_nats,
        most=entropy.most_nats,
    )


def kl_from_uniform(entropy: Estimate, *, least: float = 0.0) -> Quantity:
    """ln K - H. Where H is not converged: between `least` and what the plug-in leaves."""
    top = float(np.log(entropy.alphabet))
    return quantity(
        top - entropy.nats,
        top - entropy.left_out_nats,
        bias_nats=entropy.bias_nats,
        converged=entropy.converged,
        least=least,
        most=top - entropy.least_nats,
    )


def quantity(
    nats: float,
    left_out: np.ndarray,
    *,
    bias_nats: float,
    converged: bool,
    least: float,
    most: float,
) -> Quantity:
    """A number with its jackknife interval, or the bounds where it is not converged."""
    if not converged:
        return Quantity(
            nats=None,
            se_nats=None,
            bias_nats=None,
            low_nats=min(least, most),
            high_nats=most,
            converged=False,
        )
    se = float(standard_error(left_out))
    half = t_quantile(len(left_out), level=LEVEL) * se + bias_nats
    return Quantity(
        nats=nats,
        se_nats=se,
        bias_nats=bias_nats,
        low_nats=nats - half,
        high_nats=nats + half,
        converged=True,
    )


def token_draws(grids: TokenGrids) -> Draws:
    """All tokens."""
    return draws_of(grids.ids_UVHW, alphabet=grids.alphabet)


def shifted(grid: np.ndarray, *, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Firsts and seconds of the pairs of a grid (U, V, H, W) at this offset, both (U, pairs)."""
    height, width = grid.shape[2:]
    first = grid[:, :, : height - rows, : width - columns]
    second = grid[:, :, rows:, columns:]
    return first.reshape(len(grid), -1), second.reshape(len(grid), -1)


def neighbours(grid: np.ndarray, which: Neighbour) -> tuple[np.ndarray, np.ndarray] | None:
    """Firsts and seconds (U, pairs) of neighbours of a grid; None where it has none."""
    if which is Neighbour.RASTER:
        grid = grid.reshape(*grid.shape[:2], 1, -1)
    rows, columns = (1, 0) if which is Neighbour.VERTICAL else (0, 1)
    if grid.shape[2] <= rows or grid.shape[3] <= columns:
        return None
    return shifted(grid, rows=rows, columns=columns)


def estimate_pairs(
    first: Draws, second: Draws, *, tolerance_nats: float, shared_nats: float = 0.0
) -> Pairs:
    """The three entropies of draws of equal shape; `shared_nats` is less than their information."""
    return Pairs(
        first=estimate(first, tolerance_nats=tolerance_nats),
        second=estimate(second, tolerance_nats=tolerance_nats),
        pair=estimate(paired(first, second), tolerance_nats=tolerance_nats),
        shared_nats=shared_nats,
    )
