"""Runs that other tools recorded (W&B, TensorBoard, any CSV) as the same table as run directories.

    table = import_runs("runs.csv", kind="wandb",
                        columns="loss=val/loss:nats/token,N=params:million,D=_step:6144/step,C=6ND")

A run without a finite loss, or one that did not finish, is named in `left_out`; anything else that
is missing, repeated or not above zero is an AnalysisError with file, line and value.
"""

from __future__ import annotations

import argparse
import enum
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.columns import EXAMPLE, STATUS, Column, Columns, number, parse_columns, positive
from analysis.errors import AnalysisError
from analysis.exports import Curve, Row, panel_curves, read_rows, scalar_curve
from analysis.records import LeftOut
from analysis.table import COLUMN_OF, Table, column_of, from_frame

if TYPE_CHECKING:
    import pandas as pd

FLOPS_PER_PARAMETER_TOKEN = 6.0
_WANDB_HEADERS = {"name": ("Name", "name"), "identity": ("ID", "id"), STATUS: ("State", "state")}


class Kind(enum.Enum):
    """Who wrote the files."""

    CSV = "csv"
    WANDB = "wandb"
    TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class _Found:
    """One run of a file: its final cells, and its curve where the file has one."""

    row: Row
    curve: Curve | None = None
    name: str = ""

    @property
    def path(self) -> Path:
        return Path(self.row.place.rpartition(":")[0])


def import_runs(
    paths: str | Path | Sequence[str | Path],
    *,
    kind: Kind | str,
    columns: str | Sequence[str] | Mapping[str, tuple[str, str]],
    runs: str | Path | None = None,
    where: Mapping[str, str] | None = None,
    convention: str = "as given",
) -> Table:
    """One table of the runs in all files.

    Where the files are curves (a W&B panel, TensorBoard scalars), `runs` is a file with one row a
    run, joined by the column `name`: it gives what the curves do not. `where` keeps the rows whose
    cells under a header are these texts. `convention` says what N counts.
    """
    kind = _kind(kind)
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    found, mapped = _found(files, kind, parse_columns(columns), Path(runs) if runs else None)
    _check_headers(found, mapped, where or {})
    kept = [item for item in found if _matches(item, where or {})]
    if not kept:
        raise AnalysisError(f"{files[0]}: no row with {dict(where or {})}")
    return _table(kept, mapped, ", ".join(map(str, files)), convention)


def _kind(kind: Kind | str) -> Kind:
    if isinstance(kind, Kind):
        return kind
    allowed = [known.value for known in Kind]
    if kind not in allowed:
        raise AnalysisError(f"kind {kind!r}: allowed are {', '.join(allowed)}")
    return Kind(kind)


def _found(
    files: list[Path], kind: Kind, columns: Columns, runs: Path | None
) -> tuple[list[_Found], Columns]:
    """Every run of the files, and the column map with the defaults of the tool."""
    curves: list[Curve] = []
    rows: list[Row] = []
    for path in files:
        if kind is Kind.TENSORBOARD:
            curves.append(scalar_curve(path))
            continue
        own = read_rows(path)
        panel = panel_curves(own, columns["loss"].header) if kind is Kind.WANDB else []
        curves += panel
        rows += [] if panel else own
    if curves and rows:
        raise AnalysisError(f"{rows[0].place}: not a panel export, but another file is; give one")
    if runs and not curves:
        raise AnalysisError(f"{runs}: a file of runs is for curves, and {files[0]} has none")
    facts = read_rows(runs) if runs else rows
    if kind is Kind.WANDB:
        columns = _with_wandb_headers(columns, facts)
    if not curves:
        return [_Found(row) for row in rows], columns
    return _joined(curves, facts, columns, runs), columns


def _with_wandb_headers(columns: Columns, rows: list[Row]) -> Columns:
    """Name, ID and State as W&B calls them, where the file has them."""
    for key, headers in _WANDB_HEADERS.items():
        for header in headers:
            if any(header in row.cells for row in rows):
                unit = "finished" if key == STATUS else "text"
                columns = columns.with_default(key, header, unit)
    return columns


def _joined(
    curves: list[Curve], facts: list[Row], columns: Columns, runs: Path | None
) -> list[_Found]:
    """Curves with the row of their run; a run with no curve stays, with its loss empty."""
    if facts and "name" not in columns:
        raise AnalysisError(f"{runs}: columns name no 'name' to join curves and runs by")
    by_name: dict[str, Row] = {}
    for row in facts:
        name = row.cells.get(columns["name"].header, "")
        if name in by_name:
            raise AnalysisError(f"{row.place}: run {name!r} is already at {by_name[name].place}")
        by_name[name] = row
    out, places = [], dict[str, str]()
    for curve in curves:
        if curve.run in places:
            raise AnalysisError(f"{curve.place}: run {curve.run!r} is also in {places[curve.run]}")
        places[curve.run] = curve.place
        if runs and curve.run not in by_name:
            have = ", ".join(list(by_name)[:5])
            raise AnalysisError(f"{runs}: no run {curve.run!r}, which is in {curve.place}: {have}")
        out.append(_with_curve(curve, by_name.get(curve.run)))
    loss = columns["loss"].header
    for name, row in by_name.items():
        if name not in places:
            out.append(_Found(Row(row.place, {**row.cells, loss: ""}), None, name))
    return out


def _with_curve(curve: Curve, facts: Row | None) -> _Found:
    """The last row of a curve over the cells of its run; steps must rise."""
    other = dict(facts.cells) if facts else {}
    last = None
    for row in curve.rows:
        column = Column("step", curve.axis, "count")
        step = number(row.cells[curve.axis], column, row.place)
        if last is not None and not step > last:
            raise AnalysisError(
                f"{row.place}: {curve.axis} {step:g} after {last:g}: the steps of one run must rise"
            )
        last = step
    rows = tuple(Row(row.place, {**other, **row.cells}) for row in curve.rows)
    final = rows[-1] if rows else Row(f"{curve.place}:1", other)
    return _Found(final, replace(curve, rows=rows), curve.run)


def _check_headers(found: list[_Found], columns: Columns, where: Mapping[str, str]) -> None:
    """Refuse a header that no row of a file has; curves and their runs count as one file."""
    joins = any(item.curve for item in found)
    by_path: dict[Path, dict[str, None]] = {}
    for item in found:
        path = found[0].path if joins else item.path
        by_path.setdefault(path, {}).update(dict.fromkeys(item.row.cells))
    wanted = [c.header for key, c in columns.by_key.items() if not (joins and key == "name")]
    for path, have in by_path.items():
        for header in [*wanted, *where]:
            if header not in have:
                raise AnalysisError(f"{path}: no column {header!r}; there are {', '.join(have)}")


def _matches(item: _Found, where: Mapping[str, str]) -> bool:
    return all(item.row.cells.get(header, "") == value for header, value in where.items())


def _text(item: _Found, key: str, columns: Columns) -> str:
    text = item.row.cells.get(columns[key].header, "") if key in columns else ""
    return " ".join(text.splitlines()).strip()


def _reason(item: _Found, columns: Columns) -> str | None:
    """Why a run is left out: it did not finish, or its last loss is no number."""
    place, cells = item.row.place, item.row.cells
    if STATUS in columns:
        status, finished = _text(item, STATUS, columns), columns[STATUS].unit
        if status != finished:
            return f"{place}: {columns[STATUS].header} is {status or 'empty'}, not {finished}"
    column = columns["loss"]
    text = cells.get(column.header, "")
    value = number(text, column, place)
    if not math.isfinite(value):
        return f"{place}: loss is {text.strip() or 'empty'} (column {column.header})"
    return None


def _values(row: Row, columns: Columns) -> dict[str, float]:
    """The numbers of a row, each above zero; a standard error may be empty."""
    out = {}
    for column in columns.numbers:
        text = row.cells.get(column.header, "")
        empty_error = column.key == "loss_se" and not text.strip()
        out[column.key] = float("nan") if empty_error else positive(text, column, row.place)
    return out


def _check_unit(item: _Found, columns: Columns) -> None:
    """Refuse a row whose own unit column says another unit than the map."""
    given = _text(item, "unit", columns)
    if "unit" in columns and given != columns["loss"].unit:
        raise AnalysisError(
            f"{item.row.place}: unit of the loss {given!r} (column {columns['unit'].header}), "
            f"but the columns say {columns['loss'].unit!r}; mixed units cannot be compared"
        )


def _identity(item: _Found, values: Mapping[str, float], columns: Columns) -> str:
    """The identity or name that the file gives, else a hash of the numbers."""
    named = _text(item, "identity", columns) or item.name or _text(item, "name", columns)
    if named:
        return named
    text = json.dumps({key: repr(value) for key, value in values.items()}, sort_keys=True)
    return "row-" + hashlib.sha256(text.encode()).hexdigest()[:12]


def _table(found: list[_Found], columns: Columns, source: str, convention: str) -> Table:
    left_out, rows, evaluations = [], [], []
    places: dict[str, str] = {}
    for item in found:
        name = item.name or _text(item, "name", columns)
        reason = _reason(item, columns)
        if reason:
            label = name or item.row.place
            identity = _text(item, "identity", columns) or label
            left_out.append(LeftOut(label, identity, item.path, reason))
            continue
        _check_unit(item, columns)
        values = _values(item.row, columns)
        identity = _identity(item, values, columns)
        if identity in places:
            hint = "; map identity=COLUMN where names repeat" if identity == name else ""
            raise AnalysisError(
                f"{item.row.place}: run {identity!r} is already at {places[identity]}{hint}"
            )
        places[identity] = item.row.place
        who = {"identity": identity, "name": name or identity}
        made = {"schedule": _text(item, "schedule", columns)} if "schedule" in columns else {}
        rows.append({**values, **who, **made, "source": item.row.place})
        curve, gaps = _evaluations(item, columns, who)
        evaluations += curve
        left_out += gaps
    if not rows:
        raise AnalysisError(f"{source}: no finished run; left out: {'; '.join(map(str, left_out))}")
    table = _scaled(rows, columns, source, convention)
    order = [name for name in ("N", "D_tokens", "identity") if name in table.runs]
    runs = table.runs.sort_values(order).reset_index(drop=True)
    curves = _curve_frame(evaluations, columns, source, table)
    return replace(table, runs=runs, evaluations=curves, left_out=tuple(left_out))


def _evaluations(
    item: _Found, columns: Columns, who: Mapping[str, str]
) -> tuple[list[dict], list[LeftOut]]:
    """Rows of the curve of a used run; rows with an empty or non-finite loss are named."""
    curve, rows, gaps = item.curve, [], []
    if curve is None:
        return rows, gaps
    for row in curve.rows:
        at = Column("step", curve.axis, "count")
        step = number(row.cells[curve.axis], at, row.place)
        reason = _reason(_Found(row), columns)
        empty = [c.key for c in columns.numbers if not row.cells.get(c.header, "").strip()]
        empty = [key for key in empty if key != "loss_se"]
        if reason is None and (empty or step == 0):
            what = f"{', '.join(empty)} empty" if empty else "before the first step"
            reason = f"{row.place}: {what}"
        if reason:
            label = f"{who['name']} at {curve.axis} {step:g}, this evaluation only"
            gaps.append(LeftOut(label, who["identity"], item.path, reason))
            continue
        rows.append({**_values(row, columns), **who, "step": step})
    return rows, gaps


def _scaled(rows: list[dict], columns: Columns, source: str, convention: str) -> Table:
    """Counts and losses in the units of a table; C = 6 N D where that was asked for."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    used = {c.key: (c.key, c.unit) for c in columns.numbers if c.key not in ("loss", "loss_se")}
    losses = [key for key in ("loss", "loss_se") if key in columns]
    used |= {key: (key, columns.loss_unit) for key in losses}
    texts = ("name", "identity", "source", "schedule")
    used |= {key: (key, "text") for key in texts if key in frame}
    table = from_frame(frame, columns=used, source=source, convention=convention)
    if columns.compute_6nd:
        compute = FLOPS_PER_PARAMETER_TOKEN * table.variable("N") * table.variable("D")
        table.runs[COLUMN_OF["C"]] = compute
    return table


def _curve_frame(rows: list[dict], columns: Columns, source: str, table: Table) -> pd.DataFrame:
    """Evaluations with the columns that run directories give: step, tokens, flops, loss."""
    import pandas as pd

    losses = [column_of(key, table.loss_unit) for key in ("loss", "loss_se")]
    heads = ["identity", "name", "step", "tokens", "flops", "weights", *losses]
    if not rows:
        return pd.DataFrame(columns=heads)
    frame = _scaled(rows, columns, source, table.convention).runs
    frame = frame.rename(columns={COLUMN_OF["D"]: "tokens", COLUMN_OF["C"]: "flops"})
    frame = frame.assign(step=[row["step"] for row in rows], weights="as exported")
    return frame.reindex(columns=heads)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m analysis import`."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="what the other tool exported")
    parser.add_argument("--kind", required=True, choices=[kind.value for kind in Kind])
    parser.add_argument(
        "--columns", action="append", required=True, metavar="KEY=HEADER:UNIT,...", help=EXAMPLE
    )
    parser.add_argument("--runs", metavar="FILE", help="one row a run, for files that are curves")
    parser.add_argument("--convention", default="as given", metavar="TEXT", help="what N counts")
    parser.add_argument(
        "--where", action="append", default=[], metavar="HEADER=VALUE", help="keep these rows only"
    )
    parser.add_argument("--output", required=True, metavar="TABLE.csv", help="the table to write")
    parser.add_argument("--json", action="store_true", help="print JSON, units in the keys")


def run_import(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Write the table, name what was left out, and say what to do next."""
    from analysis.run_table import write_table

    where = {}
    for item in options.where:
        header, equals, value = item.partition("=")
        if not equals:
            raise AnalysisError(f"--where {item!r}: allowed is HEADER=VALUE")
        where[header] = value
    table = import_runs(
        options.files,
        kind=options.kind,
        columns=options.columns,
        runs=options.runs,
        where=where,
        convention=options.convention,
    )
    path = write_table(table, options.output)
    if options.json:
        left = [vars(run) | {"path": str(run.path)} for run in table.left_out]
        out = {"table": str(path), "runs": len(table), "loss_unit": table.loss_unit}
        out |= {"convention_of_N": table.convention, "table_sha256": table.digest}
        say(json.dumps(out | {"evaluations": len(table.evaluations), "left_out": left}, indent=1))
        return
    say(f"wrote {path}: {len(table)} runs, losses in {table.loss_unit}")
    for run in table.left_out:
        say(f"left out: {run}")
    say(f"next: python -m analysis fit {path}")
