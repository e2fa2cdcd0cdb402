"""What is drawn for a batch of which only a part is here.

A training step may run its batch in parts (config.execution.accumulation). Part p of n holds the
images p, p + n, p + 2 n, ...: of a batch that lies in blocks on devices every device holds its
share of each part already. An image is given the same numbers in a part as in the whole batch.

B images of the whole batch, b of the part.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p

from lab.core.scopes import DRAWS

ONE_AS_BITS = np.float32(1).view(np.uint32)
MANTISSA_BITS = 23


@dataclasses.dataclass(frozen=True)
class Part:
    """Which part of a batch is here."""

    number: jax.Array | int
    parts: int

    def whole(self, images: int) -> int:
        """B, where so many images are here."""
        return images * self.parts

    def rows(self, images: int) -> jax.Array:
        """The places (b,) that the images here have in the whole batch."""
        rows_b = jnp.arange(images)
        return rows_b if self.parts == 1 else self.parts * rows_b + self.number

    def of(self, drawn_B: jax.Array) -> jax.Array:
        """What an array (B, ...) of the whole batch holds for the images here: (b, ...)."""
        if self.parts == 1:
            return drawn_B
        cut = drawn_B.reshape(-1, self.parts, *drawn_B.shape[1:])
        return jax.lax.dynamic_index_in_dim(cut, self.number, axis=1, keepdims=False)

    @jax.named_scope(DRAWS)
    def bernoulli(self, key: jax.Array, chance: float, shape: tuple[int, ...]) -> jax.Array:
        """Booleans of this shape (b, ...): what `jax.random.bernoulli` has for these images.

        They are computed alone, as element i of jax's draw is a function of the key and of i.
        A cut from the whole draw would give the same, but XLA computes it whole for every part.
        """
        if self.parts == 1:
            return jax.random.bernoulli(key, chance, shape)
        if not _by_element(key):
            whole = (self.whole(shape[0]), *shape[1:])
            return self.of(jax.random.bernoulli(key, chance, whole))
        return _uniform_at(key, self.rows(shape[0]), shape[1:]) < jnp.float32(chance)


WHOLE = Part(0, 1)


def in_parts(x: jax.Array, parts: int) -> jax.Array:
    """An array (B, ...) of a batch as its parts (parts, b, ...)."""
    return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)


def _by_element(key: jax.Array) -> bool:
    """Whether jax draws each element from the key and its index: its default generator."""
    threefry = str(jax.random.key_impl(key)) == "threefry2x32"
    return threefry and bool(jax.config.values["jax_threefry_partitionable"])


def _uniform_at(key: jax.Array, row_b: jax.Array, rest: tuple[int, ...]) -> jax.Array:
    """Rows (b, *rest) of `jax.random.uniform(key, (B, *rest))`, bit for bit."""
    high, low = _indices(row_b.astype(jnp.uint32), rest)
    words = jax.random.key_data(key)
    first, second = threefry2x32_p.bind(words[0], words[1], high, low)
    mantissa = (first ^ second) >> np.uint32(32 - MANTISSA_BITS)
    return jax.lax.bitcast_convert_type(mantissa | ONE_AS_BITS, jnp.float32) - 1


def _indices(row_b: jax.Array, rest: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """High and low word of the index, in a flat (B, *rest), of each element of these rows.

    64 bits from 32: a batch of 4096 x 256 positions x 4096 features has 2^32 elements.
    """
    size = math.prod(rest)
    low_b = row_b * np.uint32(size)
    # The product's high word, from halves that cannot overflow (Warren 2012, figure 8-2).
    row_low, row_high = row_b & 0xFFFF, row_b >> 16
    size_low, size_high = np.uint32(size & 0xFFFF), np.uint32(size >> 16)
    middle = row_high * size_low + ((row_low * size_low) >> 16)
    other = row_low * size_high + (middle & 0xFFFF)
    high_b = row_high * size_high + (middle >> 16) + (other >> 16)
    inside = jnp.arange(size, dtype=jnp.uint32).reshape(1, *rest)
    ones = (1,) * len(rest)
    low = low_b.reshape(-1, *ones) + inside
    high = high_b.reshape(-1, *ones) + (low < inside).astype(jnp.uint32)
    return high, low
