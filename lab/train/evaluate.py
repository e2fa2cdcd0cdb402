"""The loss on held-out images, with its standard error."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from lab.core.units import bits_per_dim


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Nats of each validation image, in the order of the split: float32 (E,)."""

    nats_per_image: np.ndarray
    tokens_per_image: int
    dims_per_image: int

    def row(self) -> dict[str, float | int]:
        """The mean in three units, and the standard error over images."""
        nats = self.nats_per_image.astype(np.float64)
        mean = float(nats.mean())
        spread = float(nats.std(ddof=1)) if nats.size > 1 else math.nan
        return {
            "examples": int(nats.size),
            "loss_nats_per_token": mean / self.tokens_per_image,
            "loss_se_nats_per_token": spread / math.sqrt(nats.size) / self.tokens_per_image,
            "loss_nats_per_image": mean,
            "bits_per_dim": bits_per_dim(mean, dims_per_image=self.dims_per_image),
        }


def evaluate(
    nats_of: Callable[[Any], Any],
    batches: Iterable[tuple[Any, np.ndarray]],
    *,
    tokens_per_image: int,
    dims_per_image: int,
    between: Callable[[], None],
) -> Evaluation:
    """Run `nats_of` over (batch, weight (B,)) pairs; images of weight 0 are padding.

    `between` is called between batches, when they are handed out and when they come back; what it
    raises ends the evaluation.
    """
    waiting, kept = [], []
    for batch, weight_B in batches:
        between()
        waiting.append((nats_of(batch), weight_B))
    for nats_B, weight_B in waiting:
        between()
        kept.append(np.asarray(nats_B, np.float32)[weight_B > 0])
    return Evaluation(
        nats_per_image=np.concatenate(kept),
        tokens_per_image=tokens_per_image,
        dims_per_image=dims_per_image,
    )
