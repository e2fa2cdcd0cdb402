"""One transformer for all families: pre-RMSNorm Llama blocks, causal or not.

B batch, T positions, D width, K half the features of a head.
"""

import dataclasses
import enum
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.counts import Flops, attention_flops
from lab.core.errors import LabError
from lab.core.layout import constrain_batch, split_batch
from lab.layers.attention import Attention, Cache, Mask
from lab.layers.draws import WHOLE, Part
from lab.layers.dropout import dropout
from lab.layers.mlp import SwiGLU
from lab.layers.modulation import Branch, Modulation, two_branches
from lab.layers.norm import RMSNorm
from lab.layers.parameters import Init, vectors
from lab.layers.positions import Angles
from lab.layers.stack import Seen, observe_stack, run_stack, stacked

PARTS = 6  # shift, scale and gate of two branches


class Modulated(enum.StrEnum):
    """Where the condition enters the blocks, beside the prefix."""

    NONE = "none"
    SHARED = "shared"  # one projection for all blocks, and vectors of each block's own (BiGR)
    BLOCKS = "blocks"  # a projection in each block (ELM's option use_adaLN)


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
    modulation: str = "none"
    qk_norm: bool = False
    remat: str = "none"
    unroll: bool = False


class Block(nnx.Module):
    """h = x + Attention(norm(x)); y = h + SwiGLU(norm(h)); each branch modulated or not."""

    def __init__(self, key: jax.Array, spec: BackboneSpec):
        attention_key, mlp_key = jax.random.split(key)
        self.attention_norm = RMSNorm(spec.width, epsilon=spec.norm_epsilon)
        self.attention = Attention(
            attention_key,
            width=spec.width,
            heads=spec.heads,
            init=spec.init,
            depth=spec.depth,
            mask=spec.mask,
            platform=spec.platform,
            qk_norm=spec.qk_norm,
            norm_epsilon=spec.norm_epsilon,
        )
        self.mlp_norm = RMSNorm(spec.width, epsilon=spec.norm_epsilon)
        self.mlp = SwiGLU(
            mlp_key, width=spec.width, hidden=spec.mlp_hidden, init=spec.init, depth=spec.depth
        )
        self.rates = (spec.residual_dropout, spec.mlp_dropout)
        self.modulated = Modulated(spec.modulation)
        if self.modulated is Modulated.SHARED:
            draws_PD = jax.random.normal(jax.random.fold_in(key, 2), (PARTS, spec.width))
            self.offset = vectors(spec.width**-0.5 * draws_PD, ("modulation", "embed"))
        if self.modulated is Modulated.BLOCKS:
            self.modulation = Modulation(condition=spec.width, width=spec.width, parts=PARTS)

    def __call__(
        self,
        x_BTD: jax.Array,
        angles_TK: Angles,
        key: jax.Array | None,
        condition: jax.Array | None = None,
        part: Part = WHOLE,
    ) -> jax.Array:
        """`condition`: (B, D), or what the shared projection made of it, (B, 6, D)."""
        residual_rate, mlp_rate = self.rates
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        first, second = self._branches(condition)
        attended_BTD = self.attention(_enter(first, self.attention_norm(x_BTD)), angles_TK)
        left_BTD = _leave(first, attended_BTD)
        x_BTD = x_BTD + dropout(left_BTD, keys[0], rate=residual_rate, part=part)
        fed_BTD = self.mlp(_enter(second, self.mlp_norm(x_BTD)))
        x_BTD = x_BTD + dropout(_leave(second, fed_BTD), keys[1], rate=mlp_rate, part=part)
        return constrain_batch(x_BTD)

    def attention_weights(
        self, x_BTD: jax.Array, angles_TK: Angles, condition: jax.Array | None = None
    ) -> jax.Array:
        """Of the attention of this block, given what enters it: (B, H, T, T) in float32."""
        first, _ = self._branches(condition)
        return self.attention.weights(_enter(first, self.attention_norm(x_BTD)), angles_TK)

    def step(
        self,
        x_BD: jax.Array,
        cache: Cache,
        layer: jax.Array | int,
        index: jax.Array | int,
        angles_TK: Angles,
        condition: jax.Array | None,
    ) -> tuple[jax.Array, Cache]:
        """Position `index` alone, without dropout; `layer` is this block's place in the cache."""
        first, second = self._branches(condition)
        x_B1D = x_BD[:, None]
        normed_B1D = _enter(first, self.attention_norm(x_B1D))
        attended_BD, cache = self.attention.step(normed_B1D[:, 0], cache, layer, index, angles_TK)
        x_B1D = x_B1D + _leave(first, attended_BD[:, None])
        x_B1D = x_B1D + _leave(second, self.mlp(_enter(second, self.mlp_norm(x_B1D))))
        return x_B1D[:, 0], cache

    def _branches(self, condition: jax.Array | None) -> tuple[Branch | None, Branch | None]:
        if self.modulated is Modulated.NONE:
            return None, None
        if condition is None:
            raise LabError(f'modulation "{self.modulated}": a condition is needed')
        if self.modulated is Modulated.BLOCKS:
            return two_branches(self.modulation(condition))
        return two_branches(condition + self.offset[...][None].astype(condition.dtype))


def _enter(branch: Branch | None, normed: jax.Array) -> jax.Array:
    return normed if branch is None else branch.enter(normed)


def _leave(branch: Branch | None, out: jax.Array) -> jax.Array:
    return out if branch is None else branch.leave(out)


class Backbone(nnx.Module):
    """A stack of blocks; the last norm belongs to the head.

    The two-way modulation that ELM puts on that norm is left out.
    """

    def __init__(self, key: jax.Array, spec: BackboneSpec):
        self.layers = stacked(lambda k: Block(k, spec), key, depth=spec.depth)
        self.spec = spec
        if Modulated(spec.modulation) is Modulated.SHARED:
            self.modulation = Modulation(condition=spec.width, width=spec.width, parts=PARTS)

    def __call__(
        self,
        x_BTD: jax.Array,
        angles_TK: Angles,
        key: jax.Array | None,
        condition_BD: jax.Array | None = None,
        part: Part = WHOLE,
    ) -> jax.Array:
        """Features (B, T, D); the condition enters where the blocks are modulated."""
        spec = self.spec
        random = spec.residual_dropout > 0 or spec.mlp_dropout > 0
        keys = jax.random.split(key, spec.depth) if key is not None and random else None
        condition = self._condition(condition_BD, x_BTD.dtype)
        return run_stack(
            self.layers,
            constrain_batch(x_BTD),
            lambda block, x, k: block(x, angles_TK, k, condition, part),
            keys=keys,
            remat=spec.remat,
            unroll=spec.unroll,
        )

    def observe(
        self,
        x_BTD: jax.Array,
        angles_TK: Angles,
        condition_BD: jax.Array | None,
        look: Callable[[jax.Array, Callable[[], jax.Array]], Seen],
    ) -> tuple[jax.Array, Seen]:
        """Features, and what `look` makes of each block: its input and a way to its weights."""
        condition = self._condition(condition_BD, x_BTD.dtype)
        return observe_stack(
            self.layers,
            constrain_batch(x_BTD),
            lambda block, x: block(x, angles_TK, None, condition),
            lambda block, x: look(x, lambda: block.attention_weights(x, angles_TK, condition)),
        )

    def infill(
        self,
        x_BTD: jax.Array,
        hidden_BT: jax.Array,
        class_BD: jax.Array,
        angles_TK: Angles,
        key: jax.Array | None,
        *,
        condition_BD: jax.Array | None = None,
        visible_limit: int | None = None,
        part: Part = WHOLE,
    ) -> jax.Array:
        """Features (B, T, D) of positions that see each other and the class, a prefix.

        Hidden positions hold the mask vector in x already: they are positions like any other.
        `angles_TK` are of the prefix too.
        """
        x_BTD = jnp.concatenate([class_BD[:, None].astype(x_BTD.dtype), x_BTD], axis=1)
        return self(x_BTD, angles_TK, key, condition_BD, part)[:, 1:]

    def empty_cache(self, batch: int, length: int, dtype: jax.typing.DTypeLike) -> Cache:
        """Room for the keys and values of `length` positions, a prefix included."""
        spec = self.spec
        shape = (spec.depth, batch, spec.heads, length, spec.width // spec.heads)
        return Cache(*(split_batch(jnp.zeros(shape, dtype), axis=1) for _ in Cache._fields))

    def step(
        self,
        x_BD: jax.Array,
        cache: Cache,
        index: jax.Array | int,
        angles_TK: Angles,
        condition_BD: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache]:
        """Features (B, D) of position `index` after those in the cache, and the cache with it.

        What `__call__` gives there under a causal mask, without dropout.
        """
        condition = self._condition(condition_BD, x_BD.dtype)

        def body(carry: tuple[jax.Array, Cache], inputs) -> tuple[tuple[jax.Array, Cache], None]:
            block, layer = inputs
            return block.step(*carry, layer, index, angles_TK, condition), None

        carry, each = (x_BD, cache), (self.layers, jnp.arange(self.spec.depth))
        if not self.spec.unroll:
            return jax.lax.scan(body, carry, each)[0]
        for layer in range(self.spec.depth):
            carry, _ = body(carry, (jax.tree.map(lambda x, i=layer: x[i], self.layers), layer))
        return carry

    def forward_flops(self, positions: int, *, causal: bool) -> Flops:
        """Of one image; a causal query is counted with the keys that it sees."""
        spec = self.spec
        per_position = 2 * (4 * spec.width**2 + 3 * spec.width * spec.mlp_hidden)
        projections = {"none": 0, "shared": 1, "blocks": spec.depth}[spec.modulation]
        modulation = 2 * PARTS * spec.width**2
        attention = attention_flops(
            width=spec.width, queries=positions, keys=positions, causal=causal
        )
        blocks = spec.depth * positions * per_position + projections * modulation
        return Flops(blocks, spec.depth * attention)

    def infill_flops(self, positions: int, *, visible_limit: int | None = None) -> Flops:
        """Of one image with its prefix, hidden positions and all."""
        return self.forward_flops(positions + 1, causal=False)

    def _condition(self, condition_BD: jax.Array | None, dtype) -> jax.Array | None:
        """What the blocks take, in the dtype of the features."""
        modulated = Modulated(self.spec.modulation)
        if modulated is Modulated.NONE or condition_BD is None:
            return None
        condition_BD = condition_BD.astype(dtype)
        return condition_BD if modulated is Modulated.BLOCKS else self.modulation(condition_BD)
