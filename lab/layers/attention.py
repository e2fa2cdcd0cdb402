"""Multi-head attention with rotary positions, no biases.

B batch, T positions, D width, H heads, K features of a head.
"""

import enum

import jax
import numpy as np
from flax import nnx

from lab.layers.kernels import attend
from lab.layers.linear import linear
from lab.layers.parameters import Init, matrix
from lab.layers.positions import rotate


class Mask(enum.StrEnum):
    """Which positions a query sees."""

    CAUSAL = "causal"  # itself and what came before
    FULL = "full"


class Attention(nnx.Module):
    """Attention of a Llama block (Touvron et al. 2023)."""

    def __init__(
        self,
        key: jax.Array,
        *,
        width: int,
        heads: int,
        init: Init,
        out_gain: float,
        mask: Mask,
        platform: str,
    ):
        q_key, k_key, v_key, o_key = jax.random.split(key, 4)
        square, inward = (width, width), ("embed", "heads")
        self.query = matrix(q_key, square, inward, init)
        self.key = matrix(k_key, square, inward, init)
        self.value = matrix(v_key, square, inward, init)
        self.out = matrix(o_key, square, ("heads", "embed"), init, gain=out_gain)
        self.heads = heads
        self.mask = mask
        self.platform = platform

    def __call__(self, x_BTD: jax.Array, angles_TK: np.ndarray) -> jax.Array:
        def split(y_BTD: jax.Array) -> jax.Array:
            return y_BTD.reshape(*y_BTD.shape[:2], self.heads, -1)

        q_BTHK = rotate(split(linear(x_BTD, self.query)), angles_TK)
        k_BTHK = rotate(split(linear(x_BTD, self.key)), angles_TK)
        v_BTHK = split(linear(x_BTD, self.value))
        y_BTHK = attend(
            q_BTHK, k_BTHK, v_BTHK, causal=self.mask is Mask.CAUSAL, platform=self.platform
        )
        return linear(y_BTHK.reshape(x_BTD.shape), self.out)
