"""What every bottleneck gives: the decoder's input, the codes, and their losses.

B batch, H rows and W columns of the latent grid.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lab.core.codes import Alphabet
from lab.layers.convolution import Conv


class Bottled(NamedTuple):
    """A batch that went through a bottleneck; what is random in it came from the key.

    `losses` are weighted scalars that training adds to its own; `measures` are numbers of each
    image (B,). `projected` is what was turned to codes.
    """

    latent: jax.Array  # (B, H, W, Z), the decoder's input
    codes: jax.Array  # ids int32 (B, H, W), bits uint8 (..., d), mean and log variance (..., 2 c)
    losses: dict[str, jax.Array]
    measures: dict[str, jax.Array]
    projected: jax.Array  # (B, H, W, features)


class Bottleneck(Protocol):
    """Between encoder and decoder, in float32. Without a key nothing is random.

    A key is one for the batch, or (B,) keys, one an image: then an image's draw does not depend
    on what else is in its batch.
    """

    @property
    def alphabet(self) -> Alphabet:
        """The codes of a position."""
        ...

    @property
    def encoder_outputs(self) -> int:
        """Channels that it wants of the encoder."""
        ...

    @property
    def forward_flops_per_position(self) -> int:
        """Products, from the encoder's output to the decoder's input."""
        ...

    def __call__(self, h_BHWE: jax.Array, key: jax.Array | None) -> Bottled:
        """All at once, for training and evaluation."""
        ...

    def encode(self, h_BHWE: jax.Array, key: jax.Array | None) -> jax.Array:
        """Codes of the encoder's output."""
        ...

    def embed(self, codes: jax.Array) -> jax.Array:
        """The decoder's input of codes."""
        ...


def pointwise(key: jax.Array, *, inputs: int, outputs: int) -> Conv:
    """A 1 x 1 convolution whose float32 products are float32 on every platform.

    TPUs multiply float32 in bfloat16 unless told otherwise; codes must not depend on that.
    """
    exact = jax.lax.Precision.HIGHEST
    return Conv(key, inputs=inputs, outputs=outputs, side=1, precision=exact)


def straight_through(value: jax.Array, surrogate: jax.Array) -> jax.Array:
    """`value`, to the last bit, with the gradient of `surrogate` (Bengio et al. 2013)."""
    zero = surrogate - jax.lax.stop_gradient(surrogate)
    return jax.lax.stop_gradient(value) + zero


Draw = Callable[[jax.Array, tuple[int, ...]], jax.Array]  # key, shape -> values


def drawn(draw: Draw, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random values (B, ...) from one key, or from (B,) keys each its image's."""
    if key.ndim == 0:
        return draw(key, shape)
    return jax.vmap(lambda k: draw(k, shape[1:]))(key)


def per_image_mean(x: jax.Array) -> jax.Array:
    """(B,) of (B, ...)."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))
