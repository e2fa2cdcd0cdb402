"""Run directories, CSV files and frames as one table of comparable runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError
from analysis.records import LeftOut
from analysis.units import count_factor, loss_unit, suffix

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CONVENTIONS = {
    "blocks": ("params_blocks",),
    "blocks+head": ("params_blocks", "params_head"),
    "total": ("params_embedding", "params_blocks", "params_head"),
}
COLUMN_OF = {"N": "N", "D": "D_tokens", "C": "C_flops", "U": "U_tokens"}
TEXTS = ("name", "identity", "source", "schedule")
PER_TOKEN = "nats/token"
UNIQUE_IS_NOT_KNOWN = (
    " (unique tokens): a record says it by data.train_examples, of images without augmentation"
)
SAME_TOKENS = 1e-3  # relative difference below which two runs saw as many tokens
LEAST_LADDER = 4


def column_of(key: str, unit: str) -> str:
    """Column of N, D, C, or of a loss or its standard error in a unit."""
    return COLUMN_OF.get(key) or f"{key}_{suffix(unit)}"


@dataclass(frozen=True)
class Spike:
    """A suspicious update of a run: after so many tokens, and what was done about it."""

    identity: str
    tokens: float
    action: str  # skip or rollback


@dataclass(frozen=True)
class Table:
    """One row per finished run in `runs`; all evaluations in `evaluations`; what was left out.

    `N` is counted by `convention`. `quantity` is the loss, or the metric that is fitted in its
    place. `held` are variables that are equal in all runs by selection.
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    convention: str
    source: str
    left_out: tuple[LeftOut, ...] = ()
    loss_unit: str = "nats/token"
    held: Mapping[str, float] = field(default_factory=dict)
    not_used: tuple[str, ...] = ()
    quantity: str = "loss"  # or the metric in its place
    spikes: tuple[Spike, ...] = ()  # of these runs, where they were read from records

    @property
    def loss_word(self) -> str:
        """What a figure writes beside its axis: loss (nats/token), or the metric."""
        return f"loss ({self.loss_unit})" if self.quantity == "loss" else self.loss_unit

    @property
    def loss_column(self) -> str:
        return column_of("loss", self.loss_unit)

    def __len__(self) -> int:
        return len(self.runs)

    def variable(self, name: str) -> np.ndarray:
        """N, D, C or U of every run as float64; an AnalysisError where the table has none."""
        column = COLUMN_OF.get(name)
        if column is None or column not in self.runs:
            have = [key for key, value in COLUMN_OF.items() if value in self.runs]
            why = UNIQUE_IS_NOT_KNOWN if name == "U" else ""
            raise AnalysisError(
                f"{self.source}: no variable {name!r}{why}; there are {', '.join(have)}"
            )
        return self.runs[column].to_numpy(dtype="float64")

    @property
    def loss(self) -> np.ndarray:
        return self.runs[self.loss_column].to_numpy(dtype="float64")

    @property
    def loss_se(self) -> np.ndarray:
        """Standard errors of the loss, NaN where none was recorded."""
        column = column_of("loss_se", self.loss_unit)
        if column not in self.runs:
            return self.loss * float("nan")
        return self.runs[column].to_numpy(dtype="float64")

    def select(self, mask: np.ndarray, **changes: object) -> Table:
        """The runs where mask is true, with the others named in `not_used`."""
        gone = tuple(self.runs["name"][~mask].astype(str))
        kept = self.runs[mask].reset_index(drop=True)
        return replace(self, runs=kept, not_used=self.not_used + gone, **changes)  # pyrefly: ignore

    def at_common_tokens(self) -> Table:
        """The runs at the largest D that at least four sizes share (else the most shared D)."""
        import numpy as np

        tokens, sizes = self.variable("D"), self.variable("N")
        groups = [np.abs(tokens / value - 1.0) < SAME_TOKENS for value in np.unique(tokens)]
        if not groups:
            return self
        shared = [len(np.unique(sizes[mask])) for mask in groups]
        ladders = [index for index, count in enumerate(shared) if count >= LEAST_LADDER]
        chosen = max(ladders) if ladders else int(np.argmax(shared))
        mask = groups[chosen]
        return self.select(mask, held={**self.held, "D": float(np.median(tokens[mask]))})

    @property
    def digest(self) -> str:
        """sha256 of what a fit sees: identity, N, D, C, loss and its standard error, sorted.

        U is in it where data were repeated; elsewhere it is D once more.
        """
        known = [column for column in COLUMN_OF.values() if column in self.runs]
        unique, tokens = COLUMN_OF["U"], COLUMN_OF["D"]
        if {unique, tokens} <= set(known) and (self.runs[unique] == self.runs[tokens]).all():
            known.remove(unique)
        columns = ["identity", *known]
        rows = sorted(
            [*map(str, row), repr(float(loss)), repr(float(se))]
            for row, loss, se in zip(
                self.runs[columns].itertuples(index=False), self.loss, self.loss_se, strict=True
            )
        )
        text = json.dumps([self.convention, self.loss_unit, rows])
        return hashlib.sha256(text.encode()).hexdigest()


def filtered(runs: pd.DataFrame, where: Mapping[str, object], source: str) -> pd.DataFrame:
    """The runs with one value of each column; texts are compared as text, numbers as numbers."""
    for column, value in where.items():
        if column not in runs:
            raise AnalysisError(f"where {column!r}: allowed are {', '.join(runs.columns)}")
        kept = runs[_equal(runs[column], value)]
        if kept.empty:
            have = ", ".join(sorted(set(runs[column].astype(str))))
            raise AnalysisError(f"{source}: no run with {column} = {value}; there are {have}")
        runs = kept
    return runs.reset_index(drop=True)


def _equal(values: pd.Series, wanted: object) -> pd.Series:
    if values.dtype.kind in "fiu":
        try:
            return values == float(str(wanted))
        except ValueError:
            pass  # a word: no number is equal to it
    return values.astype(str) == str(wanted)


def read_runs(
    directory: str | Path,
    *,
    convention: str = "blocks",
    where: Mapping[str, object] | None = None,
    weights: str | None = None,
    metric: str | None = None,
    unit: str = PER_TOKEN,
    unique_varies: bool = False,
) -> Table:
    """Every finished run at or below the directory, sorted by N, D and seed.

    Refuses runs whose losses cannot be compared (data, tokenizer, likelihood, weights) or whose
    configs differ in more than size, tokens and seed (learning rate, schedule, ...), unless `where`
    picks one value of a column; unfinished and diverged runs are named in `left_out`. `metric` is
    one of quality.jsonl that takes the place of the loss; `unit` one of UNITS_OF_RECORDS. With
    `unique_varies` runs may have seen other numbers of training images: for a law of U.
    """
    from analysis.study import read_study

    study = read_study(
        directory, convention=convention, weights=weights, metric=metric, unit=unit, where=where
    )
    return study.table(where, unique_varies=unique_varies)


def from_frame(
    frame: pd.DataFrame,
    *,
    columns: Mapping[str, tuple[str, str]],
    source: str = "frame",
    convention: str = "as given",
) -> Table:
    """A table from columns={"N": (header, unit), "D": ..., "C": ..., "loss": ..., "loss_se": ...}.

    Units are those of analysis/units.py: counts in thousands to trillions, D also in steps of so
    many tokens ("6144/step"); losses become nats/token, nats/image, bits/dim or bits/byte.
    "name", "identity", "source" (file and row of a point) and "schedule" (constant, wsd, cosine,
    ...; empty: not known) take the unit "text".
    """
    import pandas as pd

    if "loss" not in columns:
        raise AnalysisError(f"{source}: columns name no 'loss'")
    allowed = (*COLUMN_OF, "loss", "loss_se", *TEXTS)
    unit, factor = loss_unit(columns["loss"][1], source)
    out = pd.DataFrame({"identity": [f"row {index}" for index in range(len(frame))]})
    out["name"] = out["identity"]
    for key, (header, given) in columns.items():
        if key not in allowed:
            raise AnalysisError(f"{source}: column {key!r}; allowed are {', '.join(allowed)}")
        if header not in frame:
            raise AnalysisError(f"{source}: no column {header!r}; there are {list(frame.columns)}")
        if key == "loss_se" and given != columns["loss"][1]:
            raise AnalysisError(f"{source}: loss_se in {given!r}, loss in {columns['loss'][1]!r}")
        if key in TEXTS:
            out[key] = frame[header].astype(str).to_numpy()
            continue
        scale = factor if key.startswith("loss") else count_factor(key, given, source)
        try:
            values = frame[header].to_numpy(dtype="float64")
        except ValueError as error:
            raise AnalysisError(f"{source}: column {header!r}: not numbers ({error})") from error
        out[column_of(key, unit)] = values * scale
    return Table(out, frame.iloc[:0], convention, source, loss_unit=unit)


def read_csv(
    path: str | Path, *, columns: Mapping[str, tuple[str, str]], convention: str = "as given"
) -> Table:
    """A table from a CSV file; columns as in `from_frame`."""
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise AnalysisError(f"{path}: no such file")
    try:
        frame = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise AnalysisError(f"{path}: not a CSV file ({error})") from error
    return from_frame(frame, columns=columns, source=str(path), convention=convention)
