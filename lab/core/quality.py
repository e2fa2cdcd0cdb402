"""What was measured of a run after its end: quality.jsonl, a line a finished task; append-only.

docs/run_directory.md states the schema. A kill can leave a half-written last line: it is left out
when the file is read, and cut off before the next line is written.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from lab.core.canonical import json_sha256
from lab.core.errors import LabError

SCHEMA = "lab.quality/1"
FILE = "quality.jsonl"
RESULTS = ("key", "values", "clock")  # what the key does not stand for
FIELDS = ("what", "step", "weights", "settings", "extractor", "reference", "values")


def key_of(row: Mapping[str, Any]) -> str:
    """Twelve hex digits that stand for all of a row but its values and its clock: for the task."""
    task = {name: value for name, value in row.items() if name not in RESULTS}
    return json_sha256(_strict({"schema": SCHEMA, **task}))[:12]


def read_quality(directory: pathlib.Path) -> list[dict[str, Any]]:
    """All complete rows of a run directory, in the order in which they were written.

    A half-written last line is left out. Raises LabError with the line for anything else that is
    no row of this schema, and for a row that its key does not stand for.
    """
    path = directory / FILE
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_row(line, where=f"{path}, line {n}") for n, line in enumerate(lines, start=1)]


def _row(line: bytes, *, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise LabError(f"{where}: not JSON: {line[:60]!r}") from None
    found = row.get("schema") if isinstance(row, dict) else None
    if found != SCHEMA:
        raise LabError(f'{where}: a row of schema "{SCHEMA}" is expected, not "{found}"')
    missing = [name for name in ("key", *FIELDS) if name not in row]
    if missing:
        raise LabError(f"{where}: {', '.join(missing)}: missing")
    if key_of(row) != row["key"]:
        raise LabError(f"{where}: its fields give the key {key_of(row)}, it says {row['key']}")
    return row


def append_quality(directory: pathlib.Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Write one finished task, with its schema and its key, and force it to the disk.

    One process writes a run directory: hold its claim. Gives back the row as it is read again.
    """
    missing = [name for name in FIELDS if name not in row]
    if missing:
        raise LabError(f"{directory / FILE}: a row without {', '.join(missing)}")
    task = _strict({name: value for name, value in row.items() if name not in RESULTS})
    rest = _strict({name: row[name] for name in ("values", "clock") if name in row})
    whole = {"schema": SCHEMA, "key": key_of(row), **task, **rest}
    line = json.dumps(whole, separators=(", ", ": "), allow_nan=False) + "\n"
    with open(directory / FILE, "a+b") as file:
        _cut_tail(file)
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    return json.loads(line)


def _cut_tail(file: Any) -> None:
    """Drop what comes after the last complete line."""
    file.seek(0)
    content = file.read()
    file.truncate(content.rfind(b"\n") + 1)


def _strict(value: Any) -> Any:
    """The value as JSON holds it: lists for tuples, "nan" and "inf" for what is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return value
