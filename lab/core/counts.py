"""Parameters and FLOPs by role: arithmetic only.

A FLOP is one multiplication or one addition; a matrix of p parameters costs 2 p of them a token,
forward. Training costs three times forward (Kaplan et al. 2020, section 2.1). Element-wise work
and lookups are not counted. Each part of a model counts its own.
"""

import dataclasses
from typing import NamedTuple

from lab.core.chips import CHIPS


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

    def shared(self, parts: int) -> "ByRole":
        """Each role's share in `parts` equal parts; whole numbers stay whole where they can."""

        def share(value: float) -> float:
            whole = isinstance(value, int) and value % parts == 0
            return value // parts if whole else value / parts

        return ByRole(**{k: share(v) for k, v in dataclasses.asdict(self).items()})


class Flops(NamedTuple):
    """Forward FLOPs of a backbone over one image: its matrices, and attention's two products."""

    blocks: float
    attention: float


TRAINING = 3  # forward and backward over forward


def attention_flops(*, width: int, queries: int, keys: int, causal: bool = False) -> float:
    """Forward FLOPs of one attention: 4 d a pair of query and key.

    A query is multiplied with every key, a weight with every value. `causal` counts the
    (T + 1) / 2 keys a query that a causal mask leaves on average.
    """
    pairs = queries * (queries + 1) / 2 if causal else queries * keys
    return 4 * width * pairs


# bfloat16 matrix peak of one device as jax names it, in FLOP/s, from the vendors' data sheets.
PEAK_FLOPS_PER_S = {
    **{chip.kind: chip.peak_flops_per_s / chip.devices for chip in CHIPS.values()},
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
