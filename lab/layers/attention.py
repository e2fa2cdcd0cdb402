"""Multi-head attention with rotary positions, no biases.

B batch, T positions, D width, H heads, K features of a head, N layers.
"""

import enum
from typing import NamedTuple

import jax
from flax import nnx

from lab.core.scopes import ATTENTION
from lab.layers.kernels import attend, attend_one, attention_weights, wide
from lab.layers.linear import linear
from lab.layers.norm import RMSNorm
from lab.layers.parameters import Init, branch_end, matrix
from lab.layers.positions import Angles, rotate, rotate_one
from lab.layers.stack import ATTENTION_OUT, QUERY_KEY_VALUE, kept


class Mask(enum.StrEnum):
    """Which positions a query sees."""

    CAUSAL = "causal"  # itself and what came before
    FULL = "full"


class Cache(NamedTuple):
    """The keys and values of the positions before, of all layers."""

    key_NBHTK: jax.Array
    value_NBHTK: jax.Array


class Attention(nnx.Module):
    """Attention of a Llama block (Touvron et al. 2023).

    With `qk_norm` the queries and keys of each head have a norm of their own before they turn
    (Henry et al. 2020; Dehghani et al. 2023), so that no logit is above sqrt(K) times the scales.
    """

    def __init__(
        self,
        key: jax.Array,
        *,
        width: int,
        heads: int,
        init: Init,
        depth: int,
        mask: Mask,
        platform: str,
        qk_norm: bool = False,
        norm_epsilon: float = 1e-5,
    ):
        q_key, k_key, v_key, o_key = jax.random.split(key, 4)
        square, inward = (width, width), ("embed", "heads")
        self.query = matrix(q_key, square, inward, init)
        self.key = matrix(k_key, square, inward, init)
        self.value = matrix(v_key, square, inward, init)
        self.out = branch_end(o_key, square, ("heads", "embed"), init, depth=depth)
        if qk_norm:
            self.query_norm = RMSNorm(width // heads, epsilon=norm_epsilon)
            self.key_norm = RMSNorm(width // heads, epsilon=norm_epsilon)
        self.qk_norm = qk_norm
        self.heads = heads
        self.mask = mask
        self.platform = platform

    @jax.named_scope(ATTENTION)
    def __call__(self, x_BTD: jax.Array, angles_TK: Angles) -> jax.Array:
        q_BTHK, k_BTHK = self._queries_keys(x_BTD, angles_TK)
        v_BTHK = wide(self._heads(linear(x_BTD, self.value)))
        q_BTHK, k_BTHK, v_BTHK = (kept(x, QUERY_KEY_VALUE) for x in (q_BTHK, k_BTHK, v_BTHK))
        y_BTHK = attend(
            q_BTHK, k_BTHK, v_BTHK, causal=self.mask is Mask.CAUSAL, platform=self.platform
        )
        y_BTD = y_BTHK.reshape(x_BTD.shape).astype(x_BTD.dtype)
        return kept(linear(y_BTD, self.out), ATTENTION_OUT)

    def weights(self, x_BTD: jax.Array, angles_TK: Angles) -> jax.Array:
        """How much each query takes of each key: (B, H, T, T) in float32, rows sum to one."""
        q_BTHK, k_BTHK = self._queries_keys(x_BTD, angles_TK)
        return attention_weights(
            q_BTHK, k_BTHK, causal=self.mask is Mask.CAUSAL, platform=self.platform
        )

    def _queries_keys(self, x_BTD: jax.Array, angles_TK: Angles) -> tuple[jax.Array, jax.Array]:
        q_BTHK = wide(self._heads(linear(x_BTD, self.query)))
        k_BTHK = wide(self._heads(linear(x_BTD, self.key)))
        q_BTHK, k_BTHK = self._normed(q_BTHK, k_BTHK)
        return rotate(q_BTHK, angles_TK), rotate(k_BTHK, angles_TK)

    def _normed(self, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Each head's features (..., K) in a norm of their own, where there is one."""
        return (self.query_norm(q), self.key_norm(k)) if self.qk_norm else (q, k)

    def _heads(self, y_BTD: jax.Array) -> jax.Array:
        return y_BTD.reshape(*y_BTD.shape[:2], self.heads, -1)

    def step(
        self,
        x_BD: jax.Array,
        cache: Cache,
        layer: jax.Array | int,
        index: jax.Array | int,
        angles_TK: Angles,
    ) -> tuple[jax.Array, Cache]:
        """Position `index` alone, which sees itself and those before it that the cache holds.

        Only the new key and value are written: a cache that is carried through a loop stays where
        it is.
        """

        def split(y_BD: jax.Array) -> jax.Array:
            return y_BD.reshape(y_BD.shape[0], self.heads, -1)

        def held(all_NBHTK: jax.Array, new_BHK: jax.Array) -> jax.Array:
            new_1BH1K = new_BHK[None, :, :, None].astype(all_NBHTK.dtype)
            start = (layer, 0, 0, index, 0)
            return jax.lax.dynamic_update_slice(all_NBHTK, new_1BH1K, start)

        def of_layer(all_NBHTK: jax.Array) -> jax.Array:
            taken = jax.lax.dynamic_index_in_dim(all_NBHTK, layer, keepdims=False)
            return taken.astype(x_BD.dtype)

        q_BHK, k_BHK = self._normed(split(linear(x_BD, self.query)), split(linear(x_BD, self.key)))
        q_BHK, k_BHK = (rotate_one(each, angles_TK, index) for each in (q_BHK, k_BHK))
        v_BHK = split(linear(x_BD, self.value))
        cache = Cache(held(cache.key_NBHTK, k_BHK), held(cache.value_NBHTK, v_BHK))
        y_BHK = attend_one(q_BHK, of_layer(cache.key_NBHTK), of_layer(cache.value_NBHTK), index)
        return linear(y_BHK.reshape(x_BD.shape), self.out), cache
