"""The loss on held-out images, with its standard error."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from lab.core.units import bits_per_dim


class Evaluation(Protocol):
    """What an evaluation found."""

    def row(self) -> dict[str, Any]:
        """Numbers for the record, the loss and its standard error among them."""
        ...

    def save(self, directory: pathlib.Path, *, step: int) -> None:
        """Write what is known image by image into the run directory."""
        ...


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Nats of each validation image, in the order of the split: float32 (E,)."""

    nats_per_image: np.ndarray
    training_losses: dict[str, np.ndarray]  # of each image, by name, where they are other numbers
    tokens_per_image: int
    dims_per_image: int
    others: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the parameters alone

    def row(self) -> dict[str, Any]:
        """The mean in three units, and the standard error over images; what else was found."""
        mean, se = mean_and_se(self.nats_per_image)
        return {
            "examples": int(self.nats_per_image.size),
            "loss_nats_per_token": mean / self.tokens_per_image,
            "loss_se_nats_per_token": se / self.tokens_per_image,
            "loss_nats_per_image": mean,
            "bits_per_dim": bits_per_dim(mean, dims_per_image=self.dims_per_image),
            **{name: mean_and_se(values)[0] for name, values in self.training_losses.items()},
            **self.others,
        }

    def save(self, directory: pathlib.Path, *, step: int) -> None:
        """Write validation.npz."""
        path = directory / "validation.npz"
        np.savez(path, nats_per_image=self.nats_per_image, step=np.int64(step))


def mean_and_se(values_E: np.ndarray) -> tuple[float, float]:
    """The mean over images and its standard error; the latter is nan for one image."""
    values = values_E.astype(np.float64)
    spread = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return float(values.mean()), spread / math.sqrt(values.size)


def per_image(
    of: Callable[[Any], dict[str, Any]],
    batches: Iterable[tuple[Any, np.ndarray]],
    *,
    between: Callable[[], None],
) -> dict[str, np.ndarray]:
    """Run `of` over (batch, weight (B,)) pairs: arrays (E, ...); images of weight 0 are padding.

    `between` is called between batches, when they are handed out and when they come back; what it
    raises ends the evaluation.
    """
    waiting, kept = [], []
    for batch, weight_B in batches:
        between()
        waiting.append((of(batch), weight_B))
    for found, weight_B in waiting:
        between()
        kept.append({name: np.asarray(values)[weight_B > 0] for name, values in found.items()})
    return {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
