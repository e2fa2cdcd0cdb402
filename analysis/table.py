"""Run directories, CSV files and frames as one table of comparable runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError
from analysis.recipe import add_columns, refuse_mixed, refuse_varied
from analysis.records import LeftOut, Run, number, read_run, record_paths
from analysis.records import field as row_field
from analysis.units import count_factor, loss_unit

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CONVENTIONS = {
    "blocks": ("params_blocks",),
    "blocks+head": ("params_blocks", "params_head"),
    "total": ("params_embedding", "params_blocks", "params_head"),
}
COLUMN_OF = {"N": "N", "D": "D_tokens", "C": "C_flops", "U": "U_tokens"}
TEXTS = ("name", "identity", "source")
SAME_TOKENS = 1e-3  # relative difference below which two runs saw as many tokens
LEAST_LADDER = 4


def column_of(key: str, unit: str) -> str:
    """Column of N, D, C, or of a loss or its standard error in a unit."""
    return COLUMN_OF.get(key) or f"{key}_{unit.replace('/', '_per_').replace(' ', '_')}"


@dataclass(frozen=True)
class Table:
    """One row per finished run in `runs`; all evaluations in `evaluations`; what was left out.

    `N` is counted by `convention`. `held` are variables that are equal in all runs by selection.
    """

    runs: pd.DataFrame
    evaluations: pd.DataFrame
    convention: str
    source: str
    left_out: tuple[LeftOut, ...] = ()
    loss_unit: str = "nats/token"
    held: Mapping[str, float] = field(default_factory=dict)
    not_used: tuple[str, ...] = ()

    @property
    def loss_column(self) -> str:
        return column_of("loss", self.loss_unit)

    def __len__(self) -> int:
        return len(self.runs)

    def variable(self, name: str) -> np.ndarray:
        """N, D or C of every run as float64; an AnalysisError where the table has none."""
        column = COLUMN_OF.get(name)
        if column is None or column not in self.runs:
            have = [key for key, value in COLUMN_OF.items() if value in self.runs]
            raise AnalysisError(f"{self.source}: no variable {name!r}; there are {', '.join(have)}")
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
        """sha256 of what a fit sees: identity, N, D, C, loss and its standard error, sorted."""
        columns = ["identity", *[c for c in COLUMN_OF.values() if c in self.runs]]
        rows = sorted(
            [*map(str, row), repr(float(loss)), repr(float(se))]
            for row, loss, se in zip(
                self.runs[columns].itertuples(index=False), self.loss, self.loss_se, strict=True
            )
        )
        text = json.dumps([self.convention, self.loss_unit, rows])
        return hashlib.sha256(text.encode()).hexdigest()


def _row(run: Run, directory: Path, convention: str) -> dict:
    """One row of the table of runs."""
    path, head, final = run.path, run.header, run.final
    text = {
        name: str(row_field(head, name, path))
        for name in ("identity", "name", "study", "family", "size", "likelihood")
    }
    roles = {f"params_{r}": number(head, f"params.{r}", path) for r in ("embedding", "blocks")}
    roles["params_head"] = number(head, "params.head", path)
    return {
        **text,
        "seed": int(number(head, "seed", path)),
        "N": sum(roles[role] for role in CONVENTIONS[convention]),
        **roles,
        "params_total": sum(roles.values()),
        "data": str(row_field(head, "data.name", path)),
        "data_digest": str(row_field(head, "data.digest", path)),
        "tokenizer": str(row_field(head, "tokenizer.name", path)),
        "tokens_per_image": number(head, "tokenizer.tokens_per_image", path),
        "tokenizer_identity": json.dumps(row_field(head, "tokenizer", path), sort_keys=True),
        "D_tokens": number(final, "tokens", path),
        "C_flops": number(final, "flops", path),
        "loss_nats_per_token": number(final, "loss_nats_per_token", path),
        "loss_se_nats_per_token": number(final, "loss_se_nats_per_token", path),
        "loss_nats_per_image": number(final, "loss_nats_per_image", path),
        "bits_per_dim": number(final, "bits_per_dim", path),
        "examples": int(number(final, "examples", path)),
        "weights": str(final.get("weights")),
        "step": int(number(final, "step", path)),
        "commit": run.commit,
        "record": str(path.relative_to(directory)),
    }


COMPARABLE = {
    "data": "data",
    "data_digest": "data digests",
    "tokenizer": "tokenizers",
    "tokenizer_identity": "tokenizer settings",
    "likelihood": "likelihoods",
    "weights": "evaluated weights",
    "examples": "numbers of validation examples",
}


def _refuse_incomparable(runs: pd.DataFrame, source: str) -> None:
    for column, what in COMPARABLE.items():
        problem = f"losses are not comparable, {what} differ"
        refuse_mixed(runs, column, source=source, problem=problem)


def _refuse_duplicates(runs: pd.DataFrame, source: str) -> None:
    for identity, group in runs.groupby("identity"):
        if len(group) > 1:
            places = ", ".join(group["record"])
            raise AnalysisError(f"{source}: identity {identity} is there twice: {places}")


def filtered(runs: pd.DataFrame, where: Mapping[str, object], source: str) -> pd.DataFrame:
    """The runs with one value of each column, compared as text; unknown ones are refused."""
    for column, value in where.items():
        if column not in runs:
            raise AnalysisError(f"where {column!r}: allowed are {', '.join(runs.columns)}")
        kept = runs[runs[column].astype(str) == str(value)]
        if kept.empty:
            have = ", ".join(sorted(set(runs[column].astype(str))))
            raise AnalysisError(f"{source}: no run with {column} = {value}; there are {have}")
        runs = kept
    return runs.reset_index(drop=True)


def _evaluations(found: list[Run]) -> pd.DataFrame:
    """All validation rows of all runs: identity, name, step, tokens, flops, losses."""
    import pandas as pd

    keys = ("step", "tokens", "flops", "weights", "loss_nats_per_token", "loss_se_nats_per_token")
    rows = [
        {"identity": str(run.header["identity"]), "name": str(run.header["name"])}
        | {key: row_field(row, key, run.path) for key in keys}
        for run in found
        for row in run.evaluations
    ]
    frame = pd.DataFrame(rows, columns=["identity", "name", *keys])
    for key in keys:
        if key != "weights":
            frame[key] = pd.to_numeric(frame[key], errors="coerce")  # "nan" is a string there
    return frame


def read_runs(
    directory: str | Path,
    *,
    convention: str = "blocks",
    where: Mapping[str, object] | None = None,
    weights: str | None = None,
) -> Table:
    """Every finished run at or below the directory, sorted by N, D and seed.

    Refuses runs whose losses cannot be compared (data, tokenizer, likelihood, weights) or whose
    configs differ in more than size, tokens and seed (learning rate, schedule, ...), unless `where`
    picks one value of a column; unfinished and diverged runs are named in `left_out`.
    """
    import pandas as pd

    if convention not in CONVENTIONS:
        raise AnalysisError(f"convention {convention!r}: allowed are {', '.join(CONVENTIONS)}")
    directory = Path(directory)
    read = [read_run(path, weights=weights) for path in record_paths(directory)]
    found = [run for run in read if isinstance(run, Run)]
    left_out = tuple(run for run in read if isinstance(run, LeftOut))
    if not found:
        names = "; ".join(map(str, left_out))
        raise AnalysisError(f"{directory}: no finished run; left out: {names}")
    runs = pd.DataFrame([_row(run, directory, convention) for run in found])
    _refuse_duplicates(runs, str(directory))
    varied = add_columns(runs, [run.recipe for run in found])
    runs = filtered(runs, where or {}, str(directory))
    _refuse_incomparable(runs, str(directory))
    refuse_varied(runs, varied, str(directory))
    runs = runs.sort_values(["N", "D_tokens", "seed", "identity"]).reset_index(drop=True)
    evaluations = _evaluations(
        [run for run in found if str(run.header["identity"]) in set(runs.identity)]
    )
    return Table(runs, evaluations, convention, str(directory), left_out)


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
    "name", "identity" and "source" (file and row of a point) take the unit "text".
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
