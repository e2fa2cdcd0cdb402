"""What an evaluation of a classifier found."""

import dataclasses
import pathlib

import numpy as np

from lab.metrics.interval import wilson
from lab.train.classifier_step import LOSS
from lab.train.evaluate import mean_and_se

LEVEL = 0.9  # of the interval of the accuracy


@dataclasses.dataclass(frozen=True)
class Classifications:
    """Numbers of each validation image by name (E,): losses in nats, predicted and true class."""

    columns: dict[str, np.ndarray]

    @property
    def correct(self) -> np.ndarray:
        """Whether each image (E,) got its class."""
        return self.columns["predicted"] == self.columns["label"]

    def row(self) -> dict[str, float | int]:
        """The mean loss with its standard error, and the accuracy with Wilson's interval."""
        loss, se = mean_and_se(self.columns[LOSS])
        examples = int(self.correct.size)
        accuracy = wilson(int(self.correct.sum()), examples, LEVEL)
        row = {
            "examples": examples,
            LOSS: loss,
            LOSS.replace("loss_", "loss_se_", 1): se,
            "accuracy": accuracy.value,
            "accuracy_low": accuracy.low,
            "accuracy_high": accuracy.high,
            "accuracy_level": LEVEL,
        }
        other = {name for name in self.columns if name.startswith("loss_")} - {LOSS}
        return {**row, **{name: mean_and_se(self.columns[name])[0] for name in sorted(other)}}

    def save(self, directory: pathlib.Path, *, step: int) -> None:
        """Write validation.npz."""
        np.savez(
            directory / "validation.npz",
            nats_per_image=self.columns[LOSS],
            predicted=self.columns["predicted"],
            label=self.columns["label"],
            step=np.int64(step),
        )
