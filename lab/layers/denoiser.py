"""The per-token network of a diffusion head (Li et al. 2024, "MAR", section 4.2; BiGR the same).

N rows (tokens), I inputs, C features of the condition, W the network's own width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.layout import Placed, anywhere
from lab.core.scopes import DENOISER
from lab.layers.linear import Affine
from lab.layers.modulation import Branch, Modulation, TimeEmbedding, modulated
from lab.layers.norm import LayerNorm, standardised
from lab.layers.parameters import Init, head_matrix, input_matrix, matrix
from lab.layers.stack import run_stack, stacked

EPSILON = 1e-6  # of the normalisations, in both publications


class DenoiserBlock(nnx.Module):
    """x + gate * affine(silu(affine(modulated norm of x))); its gate is zero at the start."""

    def __init__(self, key: jax.Array, *, width: int, affine: bool, init: Init, out_gain: float):
        in_key, out_key = jax.random.split(key)
        square = (width, width)
        self.norm = LayerNorm(width, epsilon=EPSILON) if affine else None
        self.modulation = Modulation(condition=width, width=width, parts=3, axis="denoiser")
        self.inward = Affine(matrix(in_key, square, ("denoiser", "mlp"), init))
        self.out = Affine(matrix(out_key, square, ("mlp", "denoiser"), init, gain=out_gain))

    def __call__(self, x_NW: jax.Array, condition_NW: jax.Array) -> jax.Array:
        vectors_N3W = self.modulation(condition_NW)
        branch = Branch(*(vectors_N3W[:, part] for part in range(3)))
        h_NW = branch.enter(_plain(x_NW) if self.norm is None else self.norm(x_NW))
        return x_NW + branch.leave(self.out(jax.nn.silu(self.inward(h_NW))))

    @property
    def forward_flops(self) -> int:
        """Of one row."""
        parts = (self.modulation, self.inward, self.out)
        return sum(part.forward_flops for part in parts)


class Denoiser(nnx.Module):
    """From a noisy token, a time and a condition to what was asked for; zero at the start.

    `affine`: the norms of the blocks have a scale and a shift (MAR yes, BiGR no).
    """

    def __init__(
        self,
        key: jax.Array,
        *,
        inputs: int,
        outputs: int,
        condition: int,
        width: int,
        depth: int,
        affine: bool,
        init: Init,
    ):
        in_key, condition_key, time_key, blocks_key = jax.random.split(key, 4)
        self.inward = Affine(input_matrix(in_key, (inputs, width), ("features", "denoiser"), init))
        self.condition = Affine(
            matrix(condition_key, (condition, width), ("condition", "denoiser"), init)
        )
        self.time = TimeEmbedding(time_key, width=width)
        gain = depth**-0.5  # as many branches add up
        self.blocks = stacked(
            lambda k: DenoiserBlock(k, width=width, affine=affine, init=init, out_gain=gain),
            blocks_key,
            depth=depth,
        )
        self.modulation = Modulation(condition=width, width=width, parts=2, axis="denoiser")
        self.out = Affine(head_matrix((width, outputs), ("denoiser", "features")))
        self.depth = depth

    @jax.named_scope(DENOISER)
    def __call__(
        self,
        x_NI: jax.Array,
        time_N: jax.Array,
        z_NC: jax.Array,
        *,
        placed: Placed = anywhere,
    ) -> jax.Array:
        """Outputs (N, outputs) in float32; products but those of the time run in z's dtype.

        `placed` says where rows lie, of all that goes from one part to the next.
        """
        time_NW = self.time(time_N, placed=placed).astype(z_NC.dtype)
        c_NW = placed(self.condition(z_NC) + time_NW)
        x_NW = run_stack(
            self.blocks,
            placed(self.inward(x_NI.astype(z_NC.dtype))),
            lambda block, x, _: placed(block(x, c_NW)),
            keys=None,
            remat="none",
            unroll=True,  # few and small: a scan's backward pass would copy what each keeps
        )
        vectors_N2W = self.modulation(c_NW)
        h_NW = modulated(_plain(x_NW), vectors_N2W[:, 0], vectors_N2W[:, 1])
        return placed(self.out(h_NW)).astype(jnp.float32)

    @property
    def forward_flops(self) -> int:
        """Of one row."""
        parts = (self.inward, self.condition, self.time, self.modulation, self.out)
        return self.depth * self.blocks.forward_flops + sum(part.forward_flops for part in parts)


def _plain(x_NW: jax.Array) -> jax.Array:
    return standardised(x_NW, epsilon=EPSILON).astype(x_NW.dtype)
