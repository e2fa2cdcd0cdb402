"""How many positions are hidden in a training step: the published schedules.

The count is one for the whole batch, as in the public code of ELM, BiGR and MAR; which positions
are hidden is drawn for each image.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

NORMAL = (1.0, 0.25, 0.7)  # MAR: mean and standard deviation, truncated to [0.7, 1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskSchedule:
    """A draw of the number of hidden positions.

    "cosine" (MaskGIT, ELM's MLM, BiGR): r uniform among `rates` values k / rates, a share
    cos(pi r / 2) is hidden, rounded down, at least one. "linear": a share 1 - r likewise; with as
    many rates as positions the count is uniform from 1 to all, and the mean loss over hidden
    positions is then the any-order bound itself. "truncated_normal" (MAR, section 4.3 of its
    facts): a share from N(1, 0.25) cut to [0.7, 1], rounded up.
    """

    name: str
    rates: int

    def count(self, key: jax.Array, positions: int) -> jax.Array:
        """How many of the positions are hidden: an int32 scalar, from 1 to all."""
        if self.name == "truncated_normal":
            mean, std, least = NORMAL
            low = (least - mean) / std
            share = mean + std * jax.random.truncated_normal(key, low, 0.0)
            return jnp.clip(jnp.ceil(positions * share).astype(jnp.int32), 1, positions)
        counts = [self._count(step, positions) for step in range(self.rates)]
        return jnp.asarray(counts, jnp.int32)[jax.random.randint(key, (), 0, self.rates)]

    def _count(self, step: int, positions: int) -> int:
        if self.name == "linear":
            return max(1, positions * (self.rates - step) // self.rates)
        return max(1, math.floor(positions * math.cos(math.pi / 2 * step / self.rates)))

    def most_visible(self, positions: int) -> int:
        """No draw leaves more positions visible than this."""
        if self.name == "truncated_normal":
            return positions - math.ceil(positions * NORMAL[2] * (1 - 1e-6))
        return positions - 1
