"""The run record: header, rows, end; append-only, cut back to the step that was restored.

docs/run_directory.md states the schema. A kill can leave a half-written last line; it is cut off.
"""

import collections
import json
import math
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TextIO

from lab.core.errors import LabError
from lab.core.writing import writing

SCHEMA = "lab.record/1"


def strict(value: Any) -> Any:
    """The value with numbers that JSON cannot hold written as "nan", "inf", "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    return value


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """All complete rows; a half-written last line is left out, any other bad line is an error."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
        except ValueError:
            raise LabError(f"{path}, line {number}: not JSON: {line[:60]!r}") from None
        if not isinstance(row, dict) or "kind" not in row:
            raise LabError(f'{path}, line {number}: an object with a "kind" is expected')
        rows.append(row)
    if rows and (rows[0]["kind"] != "header" or rows[0].get("schema") != SCHEMA):
        found = rows[0].get("schema", rows[0]["kind"])
        raise LabError(f'{path}, line 1: a header of schema "{SCHEMA}" is expected, not "{found}"')
    return rows


def write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a whole record at once; a kill leaves the one before."""
    fresh = path.with_suffix(".tmp")
    with writing(path):
        with open(fresh, "w", encoding="utf-8") as file:
            file.write("".join(_line(row) for row in rows))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)


def finished(rows: list[dict[str, Any]]) -> bool:
    """Whether the run came to its end, a divergence included."""
    return bool(rows) and rows[-1]["kind"] == "end"


def has_ended(path: pathlib.Path) -> bool:
    """Whether a record says so; of one that cannot be read who trains it says what is wrong."""
    try:
        return finished(read_rows(path))
    except LabError:
        return False


def differing(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], *, but: Collection[str]
) -> list[str]:
    """The fields in which two headers differ, sorted, some apart."""
    names = (set(ours) | set(theirs)) - set(but)
    return [name for name in sorted(names) if theirs.get(name) != ours.get(name)]


class Record:
    """The open record of one run; one process writes it.

    Other processes of the job follow: they know the same rows at its opening, and write none.
    """

    def __init__(
        self,
        path: pathlib.Path,
        header: Mapping[str, Any],
        *,
        step: int,
        rollbacks: int = 0,
        evaluation_rows: int = 1,
        follows: bool = False,
    ):
        """Open or begin the record and drop what comes after `step`, the step restored, which has
        so many rollbacks behind it, and evaluations of fewer than `evaluation_rows` rows.

        Raises LabError for a record of another run, NotSaved where nothing can be written.
        """
        self._path = path
        self._evaluation_rows = evaluation_rows
        rows = read_rows(path)
        header = {"kind": "header", "schema": SCHEMA, **header}
        if rows:
            _check_same_run(path, rows[0], json.loads(_line(header)))
        if step and not rows:
            raise LabError(f"{path}: missing, but a checkpoint of step {step} is there")
        first = {**rows[0]} if rows else header
        kept = self._standing(rows, step, rollbacks) if step or rollbacks else []
        self._file = None
        if not follows:
            self._rewrite([first, *kept])
            self._file = self._opened()
        self.steps = {kind: [r["step"] for r in kept if r["kind"] == kind] for kind in _ROWS}
        self._since: list[tuple[str, int]] = []  # kind and step of rows written since

    def set_back(self, step: int, *, rollbacks: int) -> None:
        """Drop what comes after `step`, to which the run returns with so many rollbacks behind."""
        for kind, written in self._since:
            self.steps[kind].append(written)
        self.steps = {kind: [s for s in self.steps[kind] if s <= step] for kind in _ROWS}
        self._since = []
        if self._file:
            self._file.close()
            rows = read_rows(self._path)
            self._rewrite([rows[0], *self._standing(rows, step, rollbacks)])
            self._file = self._opened()

    def _standing(
        self, rows: list[dict[str, Any]], step: int, rollbacks: int
    ) -> list[dict[str, Any]]:
        """The rows behind a state of so many updates and rollbacks.

        A rollback stands by its number: its step was given up, and may be reached only later. Of an
        evaluation that a kill cut short none does: it is made anew.
        """
        found = collections.Counter(row["step"] for row in rows if row["kind"] == "evaluation")
        cut = {each for each, count in found.items() if count < self._evaluation_rows}

        def stands(row: dict[str, Any]) -> bool:
            if "rollback" in row:
                return row["rollback"] <= rollbacks
            whole = row["kind"] != "evaluation" or row["step"] not in cut
            return row["kind"] != "end" and row["step"] <= step and whole

        return [row for row in rows[1:] if stands(row)]

    def _opened(self) -> TextIO:
        with writing(self._path):
            return open(self._path, "a", encoding="utf-8")

    def _rewrite(self, rows: list[Mapping[str, Any]]) -> None:
        text = "".join(_line(row) for row in rows)
        if not (self._path.exists() and self._path.read_text(encoding="utf-8") == text):
            write_rows(self._path, rows)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row and hand it to the operating system, so that a kill cannot lose it."""
        if row["kind"] in _ROWS:
            self._since.append((row["kind"], row["step"]))
        if self._file:
            with writing(self._path):
                self._file.write(_line(row))
                self._file.flush()

    def sync(self) -> None:
        """Force the rows to the disk; before a checkpoint that stands for them."""
        if self._file:
            with writing(self._path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file:
            with writing(self._path):
                self._file.close()


_ROWS = ("train", "evaluation")
_LABELS = ("name", "study")  # may change without making another run


def _check_same_run(path: pathlib.Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a record of another run, or of this one on data that are no longer the same."""
    if theirs["identity"] != ours["identity"]:
        raise LabError(
            f"{path}: belongs to the run {theirs['identity']}, not to {ours['identity']}"
        )
    for key in differing(theirs, ours, but=_LABELS):
        raise LabError(
            f"{path}: {key} was {theirs.get(key)} and is now {ours.get(key)}; "
            "move the folder away to train the run anew"
        )


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(strict(row), separators=(", ", ": "), allow_nan=False) + "\n"
