"""Parameters and FLOPs by role: arithmetic only.

A FLOP is one multiplication or one addition; a matrix of p parameters costs 2 p of them a token,
forward. Training costs three times forward (Kaplan et al. 2020, section 2.1). Element-wise work
and lookups are not counted.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ByRole:
    """A count split by role; `attention` is 0 for parameters."""

    embedding: float
    blocks: float
    head: float
    attention: float = 0

    @property
    def total(self) -> float:
        """The sum over roles."""
        return self.embedding + self.blocks + self.head + self.attention

    def scaled(self, factor: float) -> "ByRole":
        """Each role times `factor`."""
        return ByRole(**{k: v * factor for k, v in dataclasses.asdict(self).items()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the counts of a class-conditional Llama-block generator depend on."""

    depth: int
    width: int
    mlp_hidden: int
    vocabulary: int
    subcodes: int
    slots: int  # positions inside a grid cell with an embedding of their own (colour channels)
    classes: int  # without the null class
    positions: int  # length of the sequence, the class token in it, the last token not


def block_parameters(*, width: int, hidden: int) -> int:
    """One block: four square projections, SwiGLU's three, two RMSNorm scales."""
    return 4 * width**2 + 3 * width * hidden + 2 * width


def parameters(sizes: Sizes) -> ByRole:
    """Parameters by role; the last norm belongs to the head, the class table to the embedding."""
    t, v, d = sizes.subcodes, sizes.vocabulary, sizes.width
    slots = sizes.slots * d if sizes.slots > 1 else 0
    projection = t * d * d if t > 1 else 0
    return ByRole(
        embedding=t * v * d + projection + slots + (sizes.classes + 1) * d,
        blocks=sizes.depth * block_parameters(width=d, hidden=sizes.mlp_hidden),
        head=t * d * v + d,
    )


def forward_flops_per_token(sizes: Sizes, *, causal: bool) -> ByRole:
    """Forward FLOPs of one position.

    Attention multiplies a query with every key and every weight with a value: 4 d a pair.
    `causal` counts the (T + 1) / 2 pairs a causal mask leaves on average, else all T.
    """
    t, v, d = sizes.subcodes, sizes.vocabulary, sizes.width
    pairs = (sizes.positions + 1) / 2 if causal else sizes.positions
    return ByRole(
        embedding=2 * t * d * d if t > 1 else 0,
        blocks=2 * sizes.depth * (block_parameters(width=d, hidden=sizes.mlp_hidden) - 2 * d),
        head=2 * t * d * v,
        attention=4 * sizes.depth * d * pairs,
    )


def training_flops_per_token(sizes: Sizes, *, causal: bool) -> ByRole:
    """Forward and backward: three times forward."""
    return forward_flops_per_token(sizes, causal=causal).scaled(3)


# bfloat16 matrix peak of one device as jax names it, in FLOP/s, from the vendors' data sheets.
PEAK_FLOPS_PER_S = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
