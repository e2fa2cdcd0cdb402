"""A table of runs as one CSV file that says its own units, and back.

The first line is `# ` and a JSON object: schema, units, what N counts, types of the columns, runs
that were left out. Curves, where there are any, lie beside it in NAME.evaluations.csv.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import AnalysisError
from analysis.exports import Row, csv_rows
from analysis.records import LeftOut
from analysis.table import COLUMN_OF, Table, column_of, filtered

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "analysis.table/1"
MARK = "# "
TYPES = {"f": "number", "i": "integer", "u": "integer", "b": "text", "O": "text"}
NUMBER_TYPES = ("number", "integer")


def write_table(table: Table, path: str | Path) -> Path:
    """Write the table; a file that is no table of ours is never overwritten."""
    path = Path(path)
    if path.suffix != ".csv":
        raise AnalysisError(f"{path}: a table is written as .csv")
    if path.exists() and not is_table(path):
        raise AnalysisError(f"{path}: is there and is not a table of {SCHEMA}; name a new file")
    path.parent.mkdir(parents=True, exist_ok=True)
    curves = path.with_suffix(".evaluations.csv")
    curve_digest = None
    if len(table.evaluations):
        text = table.evaluations.to_csv(index=False)
        _replace(curves, text)
        curve_digest = hashlib.sha256(text.encode()).hexdigest()
    runs = _with_source(table)
    head = {
        "schema": SCHEMA,
        "units": dict.fromkeys(COLUMN_OF.values(), "count") | {"loss": table.loss_unit},
        "convention_of_N": table.convention,
        "columns": {name: TYPES.get(runs[name].dtype.kind, "text") for name in runs},
        "made_from": table.source,
        "held": dict(table.held),
        "not_used": list(table.not_used),
        "left_out": [asdict(run) | {"path": str(run.path)} for run in table.left_out],
        "evaluations_sha256": curve_digest,
    }
    _replace(path, f"{MARK}{json.dumps(head)}\n{runs.to_csv(index=False)}")
    return path


def _with_source(table: Table) -> pd.DataFrame:
    """Runs with the file of each point; a record is named relative to where the table came from."""
    runs = table.runs
    if "record" not in runs:
        return runs
    places = [str(Path(table.source) / record) for record in runs["record"]]
    return runs.drop(columns="record").assign(source=places)


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def is_table(path: Path) -> bool:
    """True where the first line of the file is that of a table."""
    with path.open("rb") as file:
        line = file.readline()
    return line.startswith(MARK.encode()) and SCHEMA.encode() in line


def read_table(
    path: str | Path, *, where: Mapping[str, object] | None = None, convention: str | None = None
) -> Table:
    """The table of a file that `write_table` wrote; its digest is that of the table written.

    An AnalysisError where the file is another CSV, its numbers were edited into something else, or
    N counts something else than `convention`. `where` keeps the runs with one value of a column.
    """
    path = Path(path)
    head = _head(path)
    given = str(_entry(head, "convention_of_N", path))
    if convention not in (None, given):
        raise AnalysisError(f"{path}: N counts {given!r}, not {convention!r}; import it again")
    unit = str(_entry(head, "units", path, "loss"))
    for column in COLUMN_OF.values():
        if (other := _entry(head, "units", path).get(column, "count")) != "count":
            raise AnalysisError(f"{path}:1: unit of {column} {other!r}; allowed is count")
    rows = csv_rows(path, skip=1)
    if not rows:
        raise AnalysisError(f"{path}: a table without runs")
    types = _entry(head, "columns", path)
    if not isinstance(types, dict) or list(types) != list(rows[0].cells):
        raise AnalysisError(f"{path}: columns {', '.join(rows[0].cells)} are not those of line 1")
    runs = _runs(rows, types, unit)
    _refuse_repeats(rows)
    try:
        left = tuple(
            LeftOut(str(run["name"]), str(run["identity"]), Path(run["path"]), str(run["reason"]))
            for run in _entry(head, "left_out", path)
        )
        held = {str(key): float(value) for key, value in _entry(head, "held", path).items()}
        not_used = tuple(map(str, _entry(head, "not_used", path)))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise AnalysisError(f"{path}: line 1 is damaged ({error})") from error
    runs = filtered(runs, where or {}, str(path))
    curves = _curves(path, _entry(head, "evaluations_sha256", path), set(runs["identity"]))
    return Table(runs, curves, given, str(path), left, unit, held, not_used)


def _head(path: Path) -> dict:
    if not path.is_file():
        raise AnalysisError(f"{path}: no such file")
    if not is_table(path):
        raise AnalysisError(
            f"{path}: not a table with units; make one: "
            f"python -m analysis import {path} --kind csv --columns ... --output table.csv"
        )
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    try:
        head = json.loads(line[len(MARK) :])
    except ValueError as error:
        raise AnalysisError(f"{path}:1: not JSON ({error})") from error
    if not isinstance(head, dict) or head.get("schema") != SCHEMA:
        raise AnalysisError(f"{path}:1: schema is not {SCHEMA!r}")
    return head


def _entry(head: dict, name: str, path: Path, *inner: str) -> Any:
    value: Any = head
    for part in (name, *inner):
        if not isinstance(value, dict) or part not in value:
            raise AnalysisError(f"{path}:1: no {part!r}")
        value = value[part]
    return value


def _runs(rows: list[Row], types: Mapping[str, str], unit: str) -> pd.DataFrame:
    """Columns by type; N, D, C and the losses must be finite and above zero."""
    import pandas as pd

    out: dict[str, object] = {}
    for name, kind in types.items():
        cells = [row.cells[name] for row in rows]
        if kind not in NUMBER_TYPES:
            out[name] = cells
            continue
        values = [_number(row, name) for row in rows]
        if name in (*COLUMN_OF.values(), column_of("loss", unit)):
            _refuse_not_positive(rows, values, name)
        whole = kind == "integer" and all(value.is_integer() for value in values)
        out[name] = [int(value) for value in values] if whole else values
    frame = pd.DataFrame(out)
    for name in ("identity", "name", column_of("loss", unit)):
        if name not in frame:
            raise AnalysisError(f"{rows[0].place.rpartition(':')[0]}: no column {name!r}")
    return frame


def _number(row: Row, name: str) -> float:
    text = row.cells[name]
    try:
        return float(text) if text else float("nan")
    except ValueError as error:
        raise AnalysisError(f"{row.place}: {name} = {text!r} is not a number") from error


def _refuse_not_positive(rows: list[Row], values: list[float], name: str) -> None:
    for row, value in zip(rows, values, strict=True):
        if not (math.isfinite(value) and value > 0):
            shown = row.cells[name] or "empty"
            raise AnalysisError(f"{row.place}: {name} is {shown}; allowed are numbers above zero")


def _refuse_repeats(rows: list[Row]) -> None:
    places: dict[str, str] = {}
    for row in rows:
        identity = row.cells["identity"]
        if identity in places:
            raise AnalysisError(f"{row.place}: run {identity!r} is already at {places[identity]}")
        places[identity] = row.place


def _curves(path: Path, digest: str | None, identities: set[str]) -> pd.DataFrame:
    """Evaluations of these runs from the file beside the table, checked by its digest."""
    import pandas as pd

    if digest is None:
        return pd.DataFrame(columns=["identity", "name", "step", "tokens", "flops", "weights"])
    curves = path.with_suffix(".evaluations.csv")
    if not curves.is_file():
        raise AnalysisError(f"{curves}: missing; {path} says that it was written with it")
    if hashlib.sha256(curves.read_bytes()).hexdigest() != digest:
        raise AnalysisError(f"{curves}: not the file that was written with {path}")
    frame = pd.read_csv(curves, dtype=str, keep_default_na=False)
    for name in frame.columns.difference(["identity", "name", "weights"]):
        frame[name] = [float(cell) if cell else float("nan") for cell in frame[name]]
    return frame[frame["identity"].isin(identities)].reset_index(drop=True)
