"""Diffusion of independent bits towards fair coins, in closed form.

Binary latent diffusion (Wang et al. 2023), as BiGR uses it (Hao et al. 2025, arXiv 2410.14672).

T steps; x_0 are the data and x_T are fair coins. A step from t - 1 to t keeps a bit with
probability (T - t) / (T - t + 1) and draws a fair coin otherwise, so that from s to t a bit flips
with probability (t - s) / (2 (T - s)), and from 0 to t with probability t / (2 T).

The maths is arithmetic only: arrays of jax or NumPy, of any shapes that broadcast.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from lab.core.errors import LabError


class WayBack(NamedTuple):
    """Probability that x_s differs from x_t, given x_t and whether x_0 does."""

    if_flipped: jax.Array
    if_kept: jax.Array


class Times(NamedTuple):
    """The steps (n,) of a reverse chain: from time `start` to time `end`."""

    start: np.ndarray
    end: np.ndarray


@dataclasses.dataclass(frozen=True)
class BernoulliProcess:
    """The linear schedule: x_t = 1 with probability k_t x_0 + b_t, k_t = 1 - t/T, b_t = t/(2T)."""

    steps: int

    def __post_init__(self):
        if self.steps < 2:
            raise LabError(f"model.diffusion_steps: {self.steps} (allowed: >= 2 for bits)")

    def flip(self, t: jax.Array) -> jax.Array:
        """Probability b_t that x_t differs from x_0."""
        return t / (2 * self.steps)

    def noised(self, x0: jax.Array, t: jax.Array, uniform: jax.Array) -> jax.Array:
        """x_t as 0.0 or 1.0, from bits x_0, times 0..T and uniform numbers in [0, 1)."""
        return (uniform < x0 * (1 - t / self.steps) + self.flip(t)) * 1.0

    def way_back(self, t: jax.Array, s: jax.Array) -> WayBack:
        """q(x_s != x_t | x_t, x_0) for 0 <= s < t <= T."""
        total, gap = self.steps, t - s
        return WayBack(
            if_flipped=(2 * total - s) * gap / (2 * (total - s) * t),
            if_kept=s * gap / (2 * (total - s) * (2 * total - t)),
        )

    def posterior(
        self, x_t: jax.Array, x0_probability: jax.Array, t: jax.Array, s: jax.Array
    ) -> jax.Array:
        """P(x_s = 1 | x_t) where x0_probability = P(x_0 = 1 | x_t); equals it at s = 0.

        The mixture over x_0 of q(x_s | x_t, x_0): exact for a bit if the probability is.
        """
        flipped = x_t * (1 - x0_probability) + (1 - x_t) * x0_probability
        back = self.way_back(t, s)
        differs = flipped * back.if_flipped + (1 - flipped) * back.if_kept
        return x_t * (1 - differs) + (1 - x_t) * differs

    def times(self, count: int) -> Times:
        """`count` steps from T to 0, the times between evenly spaced and the last step 1 to 0.

        Raises LabError unless 0 <= count <= T; 0 stands for T.
        """
        if not 0 <= count <= self.steps:
            raise LabError(f"sample.steps: {count} (allowed: 0 to {self.steps}, 0 being all)")
        count = count or self.steps
        start = self.steps - np.arange(count) * (self.steps - 1) // max(count - 1, 1)
        return Times(start=start, end=np.append(start[1:], 0))


def class_balance(y_NK: jax.Array) -> jax.Array:
    """Weights (N, K) of binary targets: (1 - m) y + m (1 - y) + 1/K, m the mean over the K bits.

    BiGR's code. Without the 1/K, ones and zeros of a token weigh the same in all.
    """
    mean_N1 = y_NK.mean(axis=-1, keepdims=True)
    return (1 - mean_N1) * y_NK + mean_N1 * (1 - y_NK) + 1 / y_NK.shape[-1]


def balance_odds(rate: jax.Array, bits: int) -> jax.Array:
    """The factor by which `class_balance` raises the odds of a one, the other bits being ones
    at `rate`.

    With n ones among the K - 1 others a one weighs 1 - n/K and a zero (n + 1)/K; the minimiser of
    the weighted cross-entropy has the true odds times the ratio of the two expectations.
    """
    others = (bits - 1) * rate
    return (bits - others) / (others + 1)
