"""What an evaluation of a tokenizer found: reconstructions, codes, and a picture of some."""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from lab.core.codes import Alphabet, CodeKind
from lab.data.png import save_grid
from lab.metrics.usage import Usage, usage
from lab.train.evaluate import mean_and_se

PICTURED = 16  # images
PER_ROW = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstructions:
    """Numbers of each validation image by name, (E, ...), codes (E, rows, columns[, d]) among them.

    `originals` are the first images of the split, uint8, and `reconstructions` what came back.
    """

    loss_key: str
    alphabet: Alphabet
    columns: dict[str, np.ndarray]
    originals: np.ndarray
    reconstructions: np.ndarray

    def row(self) -> dict[str, Any]:
        """Means over images with standard errors, the use of the codes, and their noise."""
        row: dict[str, Any] = {"examples": len(self.columns[self.loss_key])}
        for name in (self.loss_key, "squared_error_levels", "psnr_db", "ssim"):
            row[name], row[_se(name)] = mean_and_se(self.columns[name])
        known = {"codes", *row}
        for name in sorted(set(self.columns) - known):
            row[name] = float(self.columns[name].astype(np.float64).mean())
        if self.alphabet.kind is not CodeKind.GAUSSIAN:
            return {**row, **_usage_row(usage(self.columns["codes"], self.alphabet))}
        variance = row.pop("latent_square") - row["latent_mean"] ** 2
        return {**row, "latent_std": math.sqrt(variance)}

    def save(self, directory: pathlib.Path, *, step: int) -> None:
        """Write validation.npz, and reconstructions.png: originals above, what came back below."""
        kept = (self.loss_key, "squared_error_levels", "psnr_db", "ssim")
        arrays: dict[str, Any] = {f"{name}_per_image": self.columns[name] for name in kept}
        np.savez(directory / "validation.npz", **arrays, step=np.int64(step))
        rows = []
        for first in range(0, len(self.originals), PER_ROW):
            part = slice(first, first + PER_ROW)
            rows += [self.originals[part], self.reconstructions[part]]
        save_grid(directory / "reconstructions.png", rows)


def _usage_row(found: Usage) -> dict[str, float]:
    return {
        "codes_drawn": found.draws,
        "codes_distinct": found.distinct,
        "codes_alphabet_share": found.alphabet_share,
        "codes_uniform_share": found.uniform_share,
        "codes_entropy_nats": found.entropy_nats,
        "codes_perplexity": found.perplexity,
    }


def _se(name: str) -> str:
    head, _, tail = name.partition("_")
    return f"{head}_se_{tail}" if tail else f"{head}_se"
