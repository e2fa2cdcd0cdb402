"""Layers of a vision transformer, with biases (Dosovitskiy et al. 2021).

B batch, T positions, D width, H heads, K features of a head.
"""

import jax
from flax import nnx

from lab.core.scopes import ATTENTION, FEED_FORWARD
from lab.layers.kernels import attend, attend_seen, attention_weights
from lab.layers.linear import Affine
from lab.layers.parameters import Init, branch_end, matrix
from lab.layers.stack import ATTENTION_OUT, MLP_OUT, QUERY_KEY_VALUE, kept


class BiasedAttention(nnx.Module):
    """Every position attends to every one, or to those that are seen."""

    def __init__(
        self,
        key: jax.Array,
        *,
        width: int,
        heads: int,
        init: Init,
        depth: int,
        platform: str,
    ):
        q_key, k_key, v_key, o_key = jax.random.split(key, 4)
        square, inward = (width, width), ("embed", "heads")
        self.query, self.key, self.value = (
            Affine(matrix(k, square, inward, init)) for k in (q_key, k_key, v_key)
        )
        self.out = Affine(branch_end(o_key, square, ("heads", "embed"), init, depth=depth))
        self.heads = heads
        self.platform = platform

    @jax.named_scope(ATTENTION)
    def __call__(self, x_BTD: jax.Array, seen_BT: jax.Array | None = None) -> jax.Array:
        projected = self._projected(x_BTD, self.query, self.key, self.value)
        q_BTHK, k_BTHK, v_BTHK = (kept(x, QUERY_KEY_VALUE) for x in projected)
        if seen_BT is None:
            y_BTHK = attend(q_BTHK, k_BTHK, v_BTHK, causal=False, platform=self.platform)
        else:
            y_BTHK = attend_seen(q_BTHK, k_BTHK, v_BTHK, seen_BT, platform=self.platform)
        return kept(self.out(y_BTHK.reshape(x_BTD.shape)), ATTENTION_OUT)

    def weights(self, x_BTD: jax.Array, seen_BT: jax.Array | None = None) -> jax.Array:
        """How much each query takes of each key: (B, H, T, T) in float32, rows sum to one."""
        q_BTHK, k_BTHK = self._projected(x_BTD, self.query, self.key)
        return attention_weights(q_BTHK, k_BTHK, seen_BS=seen_BT, platform=self.platform)

    def _projected(self, x_BTD: jax.Array, *projects: Affine) -> list[jax.Array]:
        shape = (*x_BTD.shape[:2], self.heads, -1)
        return [project(x_BTD).reshape(shape) for project in projects]

    @property
    def forward_flops(self) -> int:
        """Of its matrices, one position."""
        return sum(part.forward_flops for part in (self.query, self.key, self.value, self.out))


class GeluMLP(nnx.Module):
    """affine(gelu(affine(x))); `tanh` approximates GELU as DiT does (Hendrycks & Gimpel 2016)."""

    def __init__(
        self,
        key: jax.Array,
        *,
        width: int,
        hidden: int,
        init: Init,
        depth: int,
        tanh: bool,
    ):
        up_key, down_key = jax.random.split(key)
        self.up = Affine(matrix(up_key, (width, hidden), ("embed", "mlp"), init))
        self.down = Affine(
            branch_end(down_key, (hidden, width), ("mlp", "embed"), init, depth=depth)
        )
        self.tanh = tanh

    @jax.named_scope(FEED_FORWARD)
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        fed_BTD = self.down(jax.nn.gelu(self.up(x_BTD), approximate=self.tanh))
        return kept(fed_BTD, MLP_OUT)

    @property
    def forward_flops(self) -> int:
        """One position."""
        return self.up.forward_flops + self.down.forward_flops
