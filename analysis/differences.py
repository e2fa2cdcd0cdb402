"""Paired differences between runs, image by image on common validation images."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    import numpy as np

    from analysis.table import Table

CLOSE = 1e-4  # validation.npz is float32


@dataclass(frozen=True)
class Difference:
    """Loss of `first` minus loss of `second`, with the standard error of the paired mean."""

    first: str
    second: str
    difference_nats_per_token: float
    se_nats_per_token: float
    images: int

    @property
    def z(self) -> float:
        """Difference over its standard error; infinite where every image differs by as much."""
        if self.se_nats_per_token > 0:
            return self.difference_nats_per_token / self.se_nats_per_token
        return math.copysign(math.inf, self.difference_nats_per_token)


def _find(table: Table, key: str) -> int:
    """Row of the run with that identity or name."""
    for column in ("identity", "name"):
        rows = [index for index, value in enumerate(table.runs[column]) if value == key]
        if len(rows) == 1:
            return rows[0]
        if rows:
            raise AnalysisError(f"{key!r}: {len(rows)} runs have that name; give an identity")
    names = ", ".join(table.runs["name"])
    raise AnalysisError(f"{table.source}: no run {key!r}; there are {names}")


def _nats_per_image(table: Table, index: int) -> np.ndarray:
    """Losses of the images (E,) of the last evaluation, checked against the record."""
    import numpy as np

    if "record" not in table.runs:
        raise AnalysisError(f"{table.source}: paired differences need run directories")
    run = table.runs.iloc[index]
    path = Path(table.source) / Path(run["record"]).parent / "validation.npz"
    if not path.is_file():
        raise AnalysisError(f"{path}: missing; paired differences need it")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            step, values = int(arrays["step"]), arrays["nats_per_image"].astype(np.float64)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise AnalysisError(f"{path}: damaged ({error})") from error
    if step != run["step"]:
        raise AnalysisError(f"{path}: of step {step}, but the record ends at step {run['step']}")
    if values.shape != (run["examples"],):
        raise AnalysisError(f"{path}: shape {values.shape}, the record says {run['examples']}")
    if not math.isclose(values.mean(), run["loss_nats_per_image"], rel_tol=CLOSE):
        raise AnalysisError(
            f"{path}: mean {values.mean():.6g} nats per image, "
            f"the record says {run['loss_nats_per_image']:.6g}"
        )
    return values


def paired(table: Table, first: str, second: str) -> Difference:
    """Mean loss of `first` minus `second` (identity or name), its standard error and z."""
    import numpy as np

    at = [_find(table, first), _find(table, second)]
    tokens = table.runs["tokens_per_image"].iloc[at[0]]
    a, b = (_nats_per_image(table, index) for index in at)
    if len(a) != len(b):
        raise AnalysisError(f"{first} and {second}: {len(a)} and {len(b)} validation images")
    gap = (a - b) / tokens
    se = float(np.std(gap, ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else float("nan")
    names = [str(table.runs["name"].iloc[index]) for index in at]
    return Difference(names[0], names[1], float(gap.mean()), se, len(gap))


def neighbours(table: Table) -> tuple[Difference, ...]:
    """Differences between neighbours of the ladder sorted by N, at each D that runs share."""
    from analysis.table import SAME_TOKENS

    rows = table.runs.sort_values(["D_tokens", "N", "seed"])
    tokens, sizes = rows["D_tokens"].to_numpy(), rows["N"].to_numpy()
    identities = rows["identity"].astype(str).to_list()
    return tuple(
        paired(table, identities[at], identities[at + 1])
        for at in range(len(rows) - 1)
        if abs(tokens[at + 1] / tokens[at] - 1) < SAME_TOKENS and sizes[at + 1] > sizes[at]
    )
