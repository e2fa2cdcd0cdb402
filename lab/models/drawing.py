"""How a head draws what lies at a position: settings and result, the same for every head.

T positions of one image, S numbers at a position (sub-codes, bits or channels).
"""

import dataclasses
from typing import NamedTuple

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """Settings of a draw; a head takes no notice of those that mean nothing to it."""

    temperature: float = 1.0  # divides logits; scales the noise of a continuous draw
    top_k: int = 0  # the k likeliest codes of a sub-code; 0: all
    top_p: float = 1.0  # the fewest likeliest codes whose probability reaches p
    steps: int = 0  # of a diffusion head, evenly respaced; 0: all that it was trained with


class Proposal(NamedTuple):
    """What a head draws at every position of one image."""

    tokens_TS: jax.Array
    confidence_T: jax.Array  # larger is surer: mean log probability of the draw, or a proxy
    certainty_T: jax.Array  # larger is surer: minus the entropy of what was drawn from, or a proxy
