"""One transformer for all families: pre-RMSNorm Llama blocks, causal or not.

B batch, T positions, D width.
"""

import dataclasses

import jax
import numpy as np
from flax import nnx

from lab.core.layout import constrain_batch
from lab.layers.attention import Attention, Mask
from lab.layers.dropout import dropout
from lab.layers.mlp import SwiGLU
from lab.layers.norm import RMSNorm
from lab.layers.parameters import Init
from lab.layers.stack import run_stack, stacked


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """The shape of a backbone and how it runs."""

    depth: int
    width: int
    heads: int
    mlp_hidden: int
    norm_epsilon: float
    residual_dropout: float
    mlp_dropout: float
    init: Init
    mask: Mask
    platform: str  # "cpu", "gpu" or "tpu": where it will run, be that here or not
    remat: str = "none"
    unroll: bool = False


class Block(nnx.Module):
    """h = x + Attention(norm(x)); y = h + SwiGLU(norm(h))."""

    def __init__(self, key: jax.Array, spec: BackboneSpec):
        attention_key, mlp_key = jax.random.split(key)
        # 2 depth branches add up in the stream: each starts at 1 / sqrt(2 depth) under "mup".
        out_gain = (2 * spec.depth) ** -0.5
        self.attention_norm = RMSNorm(spec.width, epsilon=spec.norm_epsilon)
        self.attention = Attention(
            attention_key,
            width=spec.width,
            heads=spec.heads,
            init=spec.init,
            out_gain=out_gain,
            mask=spec.mask,
            platform=spec.platform,
        )
        self.mlp_norm = RMSNorm(spec.width, epsilon=spec.norm_epsilon)
        self.mlp = SwiGLU(
            mlp_key, width=spec.width, hidden=spec.mlp_hidden, init=spec.init, out_gain=out_gain
        )
        self.rates = (spec.residual_dropout, spec.mlp_dropout)

    def __call__(self, x_BTD: jax.Array, angles_TK: np.ndarray, key: jax.Array | None) -> jax.Array:
        residual_rate, mlp_rate = self.rates
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        attended_BTD = self.attention(self.attention_norm(x_BTD), angles_TK)
        x_BTD = x_BTD + dropout(attended_BTD, keys[0], rate=residual_rate)
        x_BTD = x_BTD + dropout(self.mlp(self.mlp_norm(x_BTD)), keys[1], rate=mlp_rate)
        return constrain_batch(x_BTD)


class Backbone(nnx.Module):
    """A stack of blocks; the last norm belongs to the head."""

    def __init__(self, key: jax.Array, spec: BackboneSpec):
        self.layers = stacked(lambda k: Block(k, spec), key, depth=spec.depth)
        self.spec = spec

    def __call__(self, x_BTD: jax.Array, angles_TK: np.ndarray, key: jax.Array | None) -> jax.Array:
        spec = self.spec
        random = spec.residual_dropout > 0 or spec.mlp_dropout > 0
        keys = jax.random.split(key, spec.depth) if key is not None and random else None
        return run_stack(
            self.layers,
            constrain_batch(x_BTD),
            lambda block, x, k: block(x, angles_TK, k),
            keys=keys,
            remat=spec.remat,
            unroll=spec.unroll,
        )
