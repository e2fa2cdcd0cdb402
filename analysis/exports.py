"""Files that other tools export, as rows of text with their places: CSV, JSON lines, scalars."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from analysis.errors import AnalysisError

JSON_LINES = (".jsonl", ".ndjson")
SCALAR_HEADERS = ("Wall time", "Step", "Value")  # TensorBoard's own
_TENSORBOARD_NAME = re.compile(r"run-(?P<run>.+)-tag-.+")
_DESCRIBED = {"value", "desc"}  # W&B keeps config values as {"desc": ..., "value": ...}


@dataclass(frozen=True)
class Row:
    """Cells of one row by header, as text; place is FILE:LINE."""

    place: str
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Curve:
    """What one run logged: a row per evaluation in the order of the file; `axis` is the step."""

    run: str
    axis: str
    rows: tuple[Row, ...]
    place: str


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file or of JSON lines; an AnalysisError where it is something else."""
    if not path.is_file():
        raise AnalysisError(f"{path}: no such file")
    rows = _json_rows(path) if path.suffix in JSON_LINES else csv_rows(path)
    if not rows:
        raise AnalysisError(f"{path}: no rows")
    return rows


def csv_rows(path: Path, *, skip: int = 0) -> list[Row]:
    """Rows of a CSV file below `skip` lines; ragged rows and repeated headers are refused."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for _ in range(skip):
                file.readline()
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num + skip, cells) for cells in reader if cells]
    except (csv.Error, UnicodeDecodeError) as error:
        raise AnalysisError(f"{path}: not a CSV file ({error})") from error
    if not lines:
        raise AnalysisError(f"{path}: empty")
    head = [" ".join(header.splitlines()) for header in lines[0][1]]
    for header in head:
        if head.count(header) > 1:
            raise AnalysisError(f"{path}: column {header!r} is there {head.count(header)} times")
    for line, cells in lines:
        if len(cells) != len(head):
            raise AnalysisError(f"{path}:{line}: {len(cells)} cells; the header has {len(head)}")
    return [Row(f"{path}:{line}", dict(zip(head, cells, strict=True))) for line, cells in lines[1:]]


def _json_rows(path: Path) -> list[Row]:
    """Nested objects become dotted headers: {"summary": {"val/loss": 2}} is summary.val/loss."""
    rows = []
    for line, text in enumerate(_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            found = json.loads(text)
        except ValueError as error:
            raise AnalysisError(f"{path}:{line}: not JSON ({error})") from error
        if not isinstance(found, dict):
            raise AnalysisError(f"{path}:{line}: a line is one JSON object, a run")
        rows.append(Row(f"{path}:{line}", _flat(found)))
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnalysisError(f"{path}: not UTF-8 text ({error})") from error


def _flat(found: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for name, value in found.items():
        if isinstance(value, dict) and "value" in value and set(value) <= _DESCRIBED:
            value = value["value"]
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = _cell(value)
    return out


def _cell(value: object) -> str:
    """Text as it is, null as nothing, numbers and lists as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def panel_curves(rows: list[Row], metric: str) -> list[Curve]:
    """Curves of a W&B panel export, whose headers are "RUN - METRIC" beside a common axis.

    The column of a run's other metrics ("RUN - tokens") is a cell "tokens" of its rows; cells that
    W&B leaves empty at a step are no rows. The __MIN and __MAX columns are not used.
    """
    ending = f" - {metric}"
    heads = list(rows[0].cells)
    runs = [head.removesuffix(ending) for head in heads if head.endswith(ending)]
    return [_panel_curve(rows, run, heads[0], metric) for run in runs]


def _panel_curve(rows: list[Row], run: str, axis: str, metric: str) -> Curve:
    start = f"{run} - "
    kept = []
    for row in rows:
        cells = {h: text for h, text in row.cells.items() if " - " not in h}
        cells |= {h[len(start) :]: text for h, text in row.cells.items() if h.startswith(start)}
        if cells[metric].strip():
            kept.append(Row(row.place, cells))
    return Curve(run, axis, tuple(kept), rows[0].place.rpartition(":")[0])


def scalar_curve(path: Path) -> Curve:
    """TensorBoard's download of one run and one tag: CSV, or JSON [[wall time, step, value], ...].

    The run is what TensorBoard wrote in the name of the file, run-RUN-tag-TAG.csv, or the stem.
    """
    if not path.is_file():
        raise AnalysisError(f"{path}: no such file")
    rows = _scalar_json(path) if path.suffix == ".json" else csv_rows(path)
    if rows and tuple(rows[0].cells) != SCALAR_HEADERS:
        raise AnalysisError(
            f"{path}: columns {', '.join(rows[0].cells)}; a TensorBoard export has "
            f"{', '.join(SCALAR_HEADERS)}"
        )
    if not rows:
        raise AnalysisError(f"{path}: no rows")
    named = _TENSORBOARD_NAME.fullmatch(path.stem)
    return Curve(named["run"] if named else path.stem, "Step", tuple(rows), str(path))


def _scalar_json(path: Path) -> list[Row]:
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise AnalysisError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, list):
        raise AnalysisError(f"{path}: a TensorBoard export is a list of [wall time, step, value]")
    rows = []
    for index, item in enumerate(found):
        if not isinstance(item, list) or len(item) != len(SCALAR_HEADERS):
            raise AnalysisError(f"{path}: entry {index} is {item!r}, not [wall time, step, value]")
        cells = dict(zip(SCALAR_HEADERS, map(_cell, item), strict=True))
        rows.append(Row(f"{path}:entry {index}", cells))
    return rows
