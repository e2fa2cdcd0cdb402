"""Adaptive normalisation: shifts, scales and gates from a condition (Peebles & Xie 2023, "adaLN").

N any number of rows, D width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lab.core.layout import Placed, anywhere
from lab.core.scopes import NORM
from lab.layers.linear import Affine
from lab.layers.parameters import Init, input_matrix, matrix, zero_matrix

TIME_BASE = 10_000  # of the sinusoids of a time
FAN_IN = Init(rule="mup", std=2**0.5)  # mean squares of sinusoids are 1/2


class TimeEmbedding(nnx.Module):
    """A diffusion time as features: cos and sin of it at many frequencies, then a small network.

    Frequencies 10000^(-i / (features / 2)) (Ho et al. 2020; Vaswani et al. 2017, section 3.5). All
    in float32. Matrices start by their fan-in whatever the rule of the model.
    """

    def __init__(self, key: jax.Array, *, width: int, features: int = 256):
        in_key, out_key = jax.random.split(key)
        self.inward = Affine(input_matrix(in_key, (features, width), ("features", "embed"), FAN_IN))
        self.out = Affine(matrix(out_key, (width, width), ("embed", "embed_out"), FAN_IN))

    def __call__(self, time_N: jax.Array, *, placed: Placed = anywhere) -> jax.Array:
        """Embeddings (N, D) in float32 of times that are integers or not; `placed` as rows are."""
        half = self.inward.weight.shape[0] // 2
        frequencies = TIME_BASE ** (-np.arange(half) / half)
        angle_NF = time_N.astype(jnp.float32)[:, None] * jnp.asarray(frequencies, jnp.float32)[None]
        waves_NF = jnp.concatenate([jnp.cos(angle_NF), jnp.sin(angle_NF)], axis=-1)
        hidden_ND = placed(self.inward(placed(waves_NF)))
        return placed(self.out(jax.nn.silu(hidden_ND)))

    @property
    def forward_flops(self) -> int:
        """Of one time."""
        return self.inward.forward_flops + self.out.forward_flops


class Branch(NamedTuple):
    """What modulates one branch of a residual block; each broadcasts against its input."""

    shift: jax.Array
    scale: jax.Array
    gate: jax.Array

    def enter(self, normed: jax.Array) -> jax.Array:
        """The input of the branch."""
        return modulated(normed, self.shift, self.scale)

    @jax.named_scope(NORM)
    def leave(self, out: jax.Array) -> jax.Array:
        """The output of the branch."""
        return self.gate * out


class Modulation(nnx.Module):
    """`parts` vectors of the width from silu(condition); all zero at the start."""

    def __init__(self, *, condition: int, width: int, parts: int, axis: str = "embed"):
        self.project = Affine(zero_matrix((condition, parts * width), (axis, "modulation")))
        self.parts = parts

    @jax.named_scope(NORM)
    def __call__(self, condition_NC: jax.Array) -> jax.Array:
        """Vectors (N, parts, D) in the dtype of the condition."""
        flat = self.project(jax.nn.silu(condition_NC))
        return flat.reshape(flat.shape[0], self.parts, -1)

    @property
    def forward_flops(self) -> int:
        """Of one condition."""
        return self.project.forward_flops


@jax.named_scope(NORM)
def modulated(normed: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """normed * (1 + scale) + shift."""
    return normed * (1 + scale) + shift


def two_branches(vectors_B6D: jax.Array) -> tuple[Branch, Branch]:
    """Of attention and of the feed-forward layer: shift, scale, gate, each (B, 1, D)."""
    parts = [vectors_B6D[:, part : part + 1] for part in range(6)]
    return Branch(*parts[:3]), Branch(*parts[3:])
