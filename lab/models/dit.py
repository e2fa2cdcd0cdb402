"""The blocks of a diffusion transformer (Peebles & Xie 2023, "DiT", adaLN-Zero).

B batch, T positions, D width.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.counts import Flops, attention_flops
from lab.core.layout import constrain_batch
from lab.layers.modulation import Modulation, two_branches
from lab.layers.norm import standardised
from lab.layers.parameters import Init
from lab.layers.positions import sinusoids
from lab.layers.stack import Seen, observe_stack, run_stack, stacked
from lab.layers.vit import BiasedAttention, GeluMLP

EPSILON = 1e-6  # of the normalisations


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTSpec:
    """The shape of the blocks and how they run."""

    depth: int
    width: int
    heads: int
    mlp_hidden: int
    grid: tuple[int, int]  # rows and columns of positions
    init: Init
    platform: str
    remat: str
    unroll: bool


class DiTBlock(nnx.Module):
    """Attention, then the MLP: normed, modulated and gated by the condition; x at the start."""

    def __init__(self, key: jax.Array, spec: DiTSpec):
        attention_key, mlp_key = jax.random.split(key)
        self.modulation = Modulation(condition=spec.width, width=spec.width, parts=6)
        self.attention = BiasedAttention(
            attention_key,
            width=spec.width,
            heads=spec.heads,
            init=spec.init,
            depth=spec.depth,
            platform=spec.platform,
        )
        self.mlp = GeluMLP(
            mlp_key,
            width=spec.width,
            hidden=spec.mlp_hidden,
            init=spec.init,
            depth=spec.depth,
            tanh=True,
        )

    def __call__(self, x_BTD: jax.Array, condition_BD: jax.Array) -> jax.Array:
        first, second = two_branches(self.modulation(condition_BD))
        x_BTD = x_BTD + first.leave(self.attention(first.enter(_normed(x_BTD))))
        x_BTD = x_BTD + second.leave(self.mlp(second.enter(_normed(x_BTD))))
        return constrain_batch(x_BTD)

    def attention_weights(self, x_BTD: jax.Array, condition_BD: jax.Array) -> jax.Array:
        """Of the attention of this block, given what enters it: (B, H, T, T) in float32."""
        first, _ = two_branches(self.modulation(condition_BD))
        return self.attention.weights(first.enter(_normed(x_BTD)))


class DiTBackbone(nnx.Module):
    """Fixed positions are added, then the blocks; the final layer belongs to the head."""

    def __init__(
        self,
        key: jax.Array,
        *,
        depth: int,
        width: int,
        heads: int,
        mlp_hidden: int,
        grid: tuple[int, int],
        init: Init,
        platform: str,
        remat: str,
        unroll: bool,
    ):
        self.spec = DiTSpec(
            depth=depth,
            width=width,
            heads=heads,
            mlp_hidden=mlp_hidden,
            grid=grid,
            init=init,
            platform=platform,
            remat=remat,
            unroll=unroll,
        )
        self.layers = stacked(lambda k: DiTBlock(k, self.spec), key, depth=depth)

    def __call__(
        self, x_BTD: jax.Array, condition_BD: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Features (B, T, D); there is no dropout, so the key is not used."""
        x_BTD, condition_BD = self._entry(x_BTD, condition_BD)
        return run_stack(
            self.layers,
            constrain_batch(x_BTD),
            lambda block, x, _: block(x, condition_BD),
            keys=None,
            remat=self.spec.remat,
            unroll=self.spec.unroll,
        )

    def observe(
        self,
        x_BTD: jax.Array,
        condition_BD: jax.Array,
        look: Callable[[jax.Array, Callable[[], jax.Array]], Seen],
    ) -> tuple[jax.Array, Seen]:
        """Features, and what `look` makes of each block: its input and a way to its weights."""
        x_BTD, condition_BD = self._entry(x_BTD, condition_BD)
        return observe_stack(
            self.layers,
            constrain_batch(x_BTD),
            lambda block, x: block(x, condition_BD),
            lambda block, x: look(x, lambda: block.attention_weights(x, condition_BD)),
        )

    def _entry(self, x_BTD: jax.Array, condition_BD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What enters the first block, and the condition in its dtype."""
        spec = self.spec
        positions_TD = jnp.asarray(sinusoids(*spec.grid, width=spec.width), x_BTD.dtype)
        condition_BD = condition_BD.astype(x_BTD.dtype)
        return x_BTD + positions_TD[None], condition_BD

    def forward_flops(self, positions: int) -> Flops:
        """Of one image."""
        spec, block = self.spec, self.layers
        per_position = block.attention.forward_flops + block.mlp.forward_flops
        blocks = spec.depth * (positions * per_position + block.modulation.forward_flops)
        attention = attention_flops(width=spec.width, queries=positions, keys=positions)
        return Flops(blocks, spec.depth * attention)


def _normed(x_BTD: jax.Array) -> jax.Array:
    return standardised(x_BTD, epsilon=EPSILON).astype(x_BTD.dtype)
