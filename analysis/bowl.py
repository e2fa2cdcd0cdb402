"""One isoFLOP bowl: losses of several sizes at one budget, and the size at their minimum.

Losses are interpolated in logs. Akima's interpolant (1970) goes through every point, the cubic is
least squares over the sizes nearest to the lowest. The parabola is for comparison only: it is
biased even without noise, since bowls are not symmetric (Czech 2026, arXiv:2603.22339).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from analysis.frontier import Standing

LEAST_STABLE = 0.5  # share of noise draws that must have an interior minimum
WIDEST = 0.5  # spread of the minima of noise draws, over that of minima anywhere between the sizes
REACH = 3  # sizes on each side of the lowest that the cubic and the parabola are fitted to


class Interpolant(enum.Enum):
    """How losses between the measured sizes are read."""

    AKIMA = "akima"
    CUBIC = "cubic"
    PARABOLA = "parabola"

    @property
    def least_sizes(self) -> int:
        """Akima needs two neighbours on each side; least squares one point to spare."""
        return {"akima": 5, "cubic": 5, "parabola": 4}[self.value]


@dataclass(frozen=True)
class Bowl:
    """log N (n,) rising, log loss (n,), their standard errors (n,), at one budget (FLOPs)."""

    budget_flops: float
    log_n: np.ndarray
    log_loss: np.ndarray
    log_se: np.ndarray


@dataclass(frozen=True)
class Minimum:
    """The lowest size of a bowl: numbers are NaN where the standing is a refusal.

    `log_se` is the spread of log N* under the noise; `stable` the share of noise draws that have
    an interior minimum.
    """

    bowl: Bowl
    standing: Standing
    reason: str
    log_n: float = float("nan")
    log_loss: float = float("nan")
    log_se: float = float("nan")
    stable: float = float("nan")


@dataclass(frozen=True)
class _Lowest:
    """Per draw: place and height of the lowest interior minimum; NaN where there is none lower
    than both ends."""

    x: np.ndarray
    y: np.ndarray


def _lowest(pieces: np.ndarray, knots: np.ndarray) -> _Lowest:
    """Minimum of piecewise cubics (4, m, B), highest power first, over knots (m + 1,)."""
    width = np.diff(knots)[:, None]
    a, b, c, d = pieces
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(b * b - 3 * a * c)  # of the derivative, at the minimum
        t = np.where(b > 0, -c / (b + root), (root - b) / (3 * a))
    inside = (t >= 0) & (t <= width)
    t = np.where(inside, t, 0.0)
    height = np.where(inside, ((a * t + b) * t + c) * t + d, np.inf)
    best = np.argmin(height, axis=0)
    draws = np.arange(height.shape[1])
    y = height[best, draws]
    last = ((a * width + b) * width + c) * width + d
    ends = np.minimum(d[0], last[-1])
    none = ~(y < ends)
    x = knots[best] + t[best, draws]
    return _Lowest(np.where(none, np.nan, x), np.where(none, np.nan, y))


def window(bowl: Bowl) -> slice:
    """Up to `REACH` sizes on each side of the lowest measured one, at least five where there are.

    Sizes far out on one side alone say little about the minimum and bend a polynomial.
    """
    lowest, sizes = int(np.argmin(bowl.log_loss)), len(bowl.log_n)
    low, high = max(lowest - REACH, 0), min(lowest + REACH + 1, sizes)
    low, high = max(min(low, high - 5), 0), min(max(high, low + 5), sizes)
    return slice(low, high)


def _polynomial(x: np.ndarray, y: np.ndarray, degree: int) -> np.ndarray:
    """Least squares of y (n, B) in powers of x - x[0]: coefficients (4, 1, B), highest first."""
    powers = np.vander(x - x[0], degree + 1)
    found = np.linalg.lstsq(powers, y, rcond=None)[0]
    padded = np.concatenate([np.zeros((3 - degree, y.shape[1])), found])
    return padded[:, None, :]


def pieces(bowl: Bowl, log_loss: np.ndarray, how: Interpolant) -> tuple[np.ndarray, np.ndarray]:
    """Piecewise cubic coefficients (4, m, B) of log losses (n, B), and the knots (m + 1,)."""
    from scipy.interpolate import Akima1DInterpolator

    if how is Interpolant.AKIMA:
        made = Akima1DInterpolator(bowl.log_n, log_loss)
        return made.c, bowl.log_n
    near = window(bowl)
    x = bowl.log_n[near]
    degree = 3 if how is Interpolant.CUBIC else 2
    return _polynomial(x, log_loss[near], degree), x[[0, -1]]


STRAIGHT = 1e-6  # a bowl that bends by less of its depth is a line: lowest at one end


def _no_minimum(bowl: Bowl, how: Interpolant) -> tuple[Standing, str]:
    """Why the interpolant has no minimum between its ends."""
    near = window(bowl)
    x, y = bowl.log_n[near], bowl.log_loss[near, None]
    bend = _polynomial(x, y, 2)[1, 0, 0]
    if bend * np.ptp(x) ** 2 < -STRAIGHT * np.ptp(y):
        return Standing.CONCAVE, "losses bend downwards over log N"
    if how is not Interpolant.AKIMA:
        a, b, c, _ = _polynomial(x, y, 3 if how is Interpolant.CUBIC else 2)[:, 0, 0]
        root = b * b - 3 * a * c
        if root > 0:
            turn = -c / (b + np.sqrt(root)) if b > 0 else (np.sqrt(root) - b) / (3 * a)
            if turn < 0 or turn > x[-1] - x[0]:
                side = "smallest" if turn < 0 else "largest"
                return Standing.MINIMUM_OUTSIDE, f"the {how.value} turns beyond the {side} size"
    side = "smallest" if bowl.log_loss[0] < bowl.log_loss[-1] else "largest"
    return Standing.NO_INTERIOR_MINIMUM, f"the loss is lowest at the {side} size"


def minimum(bowl: Bowl, how: Interpolant, *, noise: np.ndarray) -> Minimum:
    """The minimum of a bowl with its standard error; noise (n, B) is standard normal."""
    sizes = len(bowl.log_n)
    if sizes < how.least_sizes:
        reason = f"{sizes} size{'s' * (sizes != 1)}; {how.value} needs {how.least_sizes}"
        return Minimum(bowl, Standing.TOO_FEW_POINTS, reason)
    found = _lowest(*pieces(bowl, bowl.log_loss[:, None], how))
    # A minimum between the last two sizes counts even where the end was measured lowest: it is as
    # exact as any for a smooth law, and to drop such bowls keeps those that noise moved inwards.
    if np.isnan(found.x[0]):
        return Minimum(bowl, *_no_minimum(bowl, how))
    shaken = bowl.log_loss[:, None] + bowl.log_se[:, None] * noise
    spread = _lowest(*pieces(bowl, shaken, how)).x
    stable = float(np.mean(~np.isnan(spread)))
    at, height = float(found.x[0]), float(found.y[0])
    se = float(np.sqrt(np.nanmean((spread - at) ** 2))) if stable > 0 else float("inf")
    if stable < LEAST_STABLE or se > WIDEST * np.ptp(bowl.log_n) / np.sqrt(12):
        reason = f"{stable:.0%} of noise draws have a minimum between the sizes, {se:.2g} apart"
        return Minimum(bowl, Standing.LOST_IN_NOISE, f"{reason} in log N")
    return Minimum(bowl, Standing.FOUND, "", at, height, se, stable)
