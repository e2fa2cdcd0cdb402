"""All finished runs below a directory as columns of one frame, comparable or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import schedule
from analysis.errors import AnalysisError
from analysis.groups import refuse_incomparable, side_by_side
from analysis.quality_metric import Measured, measure, refuse_ways
from analysis.quality_metric import evaluations as metric_evaluations
from analysis.recipe import add_columns, refuse_varied
from analysis.records import LeftOut, Run, number, read_run, record_paths
from analysis.records import field as row_field
from analysis.table import (
    COLUMN_OF,
    CONVENTIONS,
    PER_TOKEN,
    Spike,
    Table,
    column_of,
    filtered,
)
from analysis.units import LOG_2

if TYPE_CHECKING:
    import pandas as pd

SCHEDULE = "optimizer.schedule"
AUGMENTATION = "data.augmentation"
IMAGES = "data.train_examples"
UNIQUE = COLUMN_OF["U"]
UNITS_OF_RECORDS = {  # the column of a record that holds it, and the factor
    PER_TOKEN: ("loss_nats_per_token", 1.0),
    "nats/image": ("loss_nats_per_image", 1.0),
    "bits/image": ("loss_nats_per_image", 1.0 / LOG_2),
    "bits/dim": ("bits_per_dim", 1.0),
}


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
        **_optional(head),
        UNIQUE: _unique_tokens(run),
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
        schedule.COLUMN: schedule.schedule_of(run.recipe, number(head, "steps", path)),
        "record": str(path.relative_to(directory)),
    }


def _unique_tokens(run: Run) -> float:
    """Tokens seen at least once: of every training image, or of fewer where the run ends before.

    NaN where the record does not say how many images there are, or they were augmented: then an
    image has other tokens when it is seen again.
    """
    images = run.header["data"].get("train_examples")
    if images is None or run.recipe.get(AUGMENTATION, "none") != "none":
        return float("nan")
    images = number(run.header, "data.train_examples", run.path)
    all_of_them = images * number(run.header, "tokenizer.tokens_per_image", run.path)
    return min(number(run.final, "tokens", run.path), all_of_them)


def _trunk(run: Run) -> LeftOut:
    """A trunk as it is named among what is left out."""
    name, identity = str(run.header["name"]), str(run.header["identity"])
    reason = f"a trunk, whose branches are the runs; --where {SCHEDULE}=constant chooses it"
    return LeftOut(name, identity, run.path, reason)


def _optional(header: dict) -> dict[str, int]:
    """Numbers of the tokenizer that tell groups of runs apart, where the record has them."""
    known = ("vocabulary", "dims_per_image")
    return {name: header["tokenizer"][name] for name in known if name in header["tokenizer"]}


def _of_validation(runs: pd.DataFrame) -> pd.Series:
    """The part of the data's digest that is of the validation images: TRAIN-VALIDATION."""
    return runs["data_digest"].str.rpartition("-")[2]


def _refuse_duplicates(runs: pd.DataFrame, source: str) -> None:
    for identity, group in runs.groupby("identity"):
        if len(group) > 1:
            places = ", ".join(group["record"])
            raise AnalysisError(f"{source}: identity {identity} is there twice: {places}")


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


@dataclass(frozen=True)
class Study:
    """All finished runs below a directory, comparable or not, as columns of one frame.

    `varied` are fields of the config that differ; `unit` is that of the loss or the metric.
    """

    runs: pd.DataFrame
    found: tuple[Run, ...]
    left_out: tuple[LeftOut, ...]
    varied: tuple[str, ...]
    source: str
    convention: str
    unit: str
    metric: str | None = None
    measured: Measured | None = None

    def table(
        self, where: Mapping[str, object] | None = None, *, unique_varies: bool = False
    ) -> Table:
        """The runs that `where` keeps; an AnalysisError where one law cannot hold them.

        With `unique_varies`, for a law of unique tokens, they may differ in the training images.
        """
        runs = filtered(self.runs, where or {}, self.source)
        if runs[UNIQUE].isna().any():
            runs = runs.drop(columns=UNIQUE)
        by = side_by_side(runs)
        see = f", or see a law of each: `python -m analysis report {self.source} {by}`"
        free = unique_varies and UNIQUE in runs
        compared = runs.assign(data_digest=_of_validation(runs)) if free else runs
        refuse_incomparable(compared, self.source, more=see if by else "")
        varied = [path for path in self.varied if not (free and path == IMAGES)]
        refuse_varied(runs, varied, self.source)
        if self.measured and self.metric:
            refuse_ways(runs, self.measured, self.metric, self.source)
        _refuse_duplicates(runs, self.source)
        runs = runs.sort_values(["N", "D_tokens", "seed", "identity"]).reset_index(drop=True)
        return Table(
            runs, self.evaluations(runs), self.convention, self.source, self.left_out, self.unit,
            quantity=self.metric or "loss", spikes=self._spikes(),
        )  # fmt: skip

    def _spikes(self) -> tuple[Spike, ...]:
        """Of all runs; a figure marks those of the runs that it draws."""
        return tuple(
            Spike(str(run.header["identity"]), number(row, "tokens", run.path), str(row["action"]))
            for run in self.found
            for row in run.spikes
        )

    def evaluations(self, runs: pd.DataFrame) -> pd.DataFrame:
        """All validation rows of these runs, the metric where one is in the place of the loss."""
        if self.measured:
            return metric_evaluations(self.measured, runs)
        kept = set(runs["identity"])
        frame = _evaluations([run for run in self.found if run.header["identity"] in kept])
        return in_unit(frame, self.unit, runs)


def read_study(
    directory: str | Path,
    *,
    convention: str = "blocks",
    weights: str | None = None,
    metric: str | None = None,
    unit: str = PER_TOKEN,
    where: Mapping[str, object] | None = None,
    trunks_stay: bool = False,
) -> Study:
    """Every finished run at or below the directory with its columns; `where` is only looked at.

    A trunk, in which the cooldowns of other runs begin, is left out beside them, unless `where`
    chooses it by the schedule or by name: without a cooldown of its own it is no run of their law.
    With `trunks_stay` it is one, for a law of whole curves.

    With a metric of quality.jsonl its value is in the place of the loss, a row for each way in
    which it was measured at the last step.
    """
    import pandas as pd

    if convention not in CONVENTIONS:
        raise AnalysisError(f"convention {convention!r}: allowed are {', '.join(CONVENTIONS)}")
    if metric and unit != PER_TOKEN:
        raise AnalysisError(f"--unit {unit}: a metric has its own unit ({metric})")
    directory = Path(directory)
    own = None if metric else weights
    read = [read_run(path, weights=own) for path in record_paths(directory)]
    found = tuple(run for run in read if isinstance(run, Run))
    left_out = tuple(run for run in read if isinstance(run, LeftOut))
    trunks = tuple(run for run in found if run.is_trunk)
    chosen = {SCHEDULE, "name", "identity"} & set(where or {})
    if len(trunks) < len(found) and not chosen and not trunks_stay:
        found = tuple(run for run in found if not run.is_trunk)
        left_out += tuple(map(_trunk, trunks))
    if not found:
        names = "; ".join(map(str, left_out))
        raise AnalysisError(f"{directory}: no finished run; left out: {names}")
    rows = [_row(run, directory, convention) for run in found]
    runs = pd.DataFrame(rows)
    _refuse_duplicates(runs, str(directory))
    varied = add_columns(runs, [run.recipe for run in found])
    about = (runs, found, left_out, tuple(varied), str(directory), convention)
    if metric is None:
        return replace(Study(*about, unit), runs=in_unit(runs, unit, runs))
    pairs = list(zip(found, runs.to_dict("records"), strict=True))
    made = measure(pairs, metric, str(directory), where or {})
    last = made.rows[made.rows["last_step"]].drop(columns="last_step")
    if weights:
        last = filtered(last, {"weights": weights}, str(directory))
    return replace(
        Study(*about, made.unit, metric, made),
        runs=last.reset_index(drop=True),
        left_out=(*left_out, *made.left_out),
    )


def in_unit(frame: pd.DataFrame, unit: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The frame with the loss and its standard error also in a unit of UNITS_OF_RECORDS.

    What a nat of a token is in it is a constant of the run: its tokens or dimensions an image.
    """
    if unit == PER_TOKEN:
        return frame
    if unit not in UNITS_OF_RECORDS:
        raise AnalysisError(f"--unit {unit!r}: allowed are {', '.join(UNITS_OF_RECORDS)}")
    column, scale = UNITS_OF_RECORDS[unit]
    factor = scale * runs[column] / runs[column_of("loss", PER_TOKEN)]
    factor = frame["identity"].map(dict(zip(runs["identity"], factor, strict=True)))
    new = {
        column_of(key, unit): frame[column_of(key, PER_TOKEN)] * factor
        for key in ("loss", "loss_se")
    }
    return frame.assign(**new)
