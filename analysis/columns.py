"""Which column of a file holds what, in which unit: loss=val/loss:nats/token,N=params:million."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.errors import AnalysisError
from analysis.table import COLUMN_OF
from analysis.units import LOSS_UNITS, count_factor, loss_unit

NUMBERS = (*COLUMN_OF, "loss", "loss_se")
TEXTS = ("name", "identity", "unit", "schedule")
STATUS = "status"
KEYS = (*NUMBERS, *TEXTS, STATUS)
PERPLEXITY = "perplexity"  # its logarithm is a loss in nats/token
FROM_6ND = "6ND"
EXAMPLE = "loss=val/loss:nats/token,N=params:million,D=_step:6144/step,C=6ND"
_NEXT = re.compile(rf",(?=\s*(?:{'|'.join(KEYS)})=)")  # headers may hold commas


@dataclass(frozen=True)
class Column:
    """One header and its unit; for `status` the unit is the value of a run that finished."""

    key: str
    header: str
    unit: str


@dataclass(frozen=True)
class Columns:
    """A checked column map; `compute_6nd` where C is made of N and D because the user said so."""

    by_key: Mapping[str, Column]
    compute_6nd: bool

    def __contains__(self, key: str) -> bool:
        return key in self.by_key

    def __getitem__(self, key: str) -> Column:
        return self.by_key[key]

    @property
    def numbers(self) -> tuple[Column, ...]:
        return tuple(self.by_key[key] for key in NUMBERS if key in self.by_key)

    @property
    def loss_unit(self) -> str:
        """Unit of the losses once read: perplexities have become nats/token."""
        unit = self.by_key["loss"].unit
        return "nats/token" if unit == PERPLEXITY else unit

    def with_default(self, key: str, header: str, unit: str = "text") -> Columns:
        """The map with one more column, unless it has that key."""
        return Columns({key: Column(key, header, unit), **self.by_key}, self.compute_6nd)


def parse_columns(given: str | Sequence[str] | Mapping[str, tuple[str, str]]) -> Columns:
    """The map from KEY=HEADER:UNIT texts joined by commas, or from {key: (header, unit)}."""
    if isinstance(given, Mapping):
        found = [Column(key, *value) for key, value in given.items()]
    else:
        texts = [given] if isinstance(given, str) else given
        found = [_column(part.strip()) for text in texts for part in _NEXT.split(text)]
    by_key = {}
    for column in found:
        if column.key in by_key:
            raise AnalysisError(f"columns: {column.key} is given twice")
        by_key[column.key] = column
    compute = by_key.pop("C") if by_key.get("C") == Column("C", "", FROM_6ND) else None
    columns = Columns(by_key, compute is not None)
    _check(columns)
    return columns


def _column(text: str) -> Column:
    key, equals, rest = text.partition("=")
    if not equals or key not in KEYS or not rest:
        raise AnalysisError(
            f"columns {text!r}: allowed is KEY=HEADER:UNIT with KEY one of {', '.join(KEYS)}; "
            f"for example {EXAMPLE}"
        )
    if text == f"C={FROM_6ND}":
        return Column("C", "", FROM_6ND)
    if key in TEXTS:
        return Column(key, rest.removesuffix(":text"), "text")
    header, colon, unit = rest.rpartition(":")
    if not colon or not header or not unit:
        what = "value of a finished run" if key == STATUS else "unit"
        raise AnalysisError(f"columns {text!r}: no {what}; allowed is {key}=HEADER:{what.upper()}")
    return Column(key, header, unit)


def _check(columns: Columns) -> None:
    """Refuse unknown keys and units, and a standard error in another unit than its loss."""
    for key in columns.by_key:
        if key not in KEYS:
            raise AnalysisError(f"columns: {key!r}; allowed are {', '.join(KEYS)}")
    if "loss" not in columns:
        raise AnalysisError(f"columns name no loss; for example {EXAMPLE}")
    for column in columns.numbers:
        if column.key in COLUMN_OF:
            count_factor(column.key, column.unit, "columns")
    given = columns["loss"].unit
    if given != PERPLEXITY and given not in LOSS_UNITS:
        loss_unit(given, f"columns (also allowed: {PERPLEXITY})")
    if "loss_se" in columns and columns["loss_se"].unit != given:
        raise AnalysisError(f"columns: loss_se in {columns['loss_se'].unit!r}, loss in {given!r}")
    if "loss_se" in columns and given == PERPLEXITY:
        raise AnalysisError("columns: loss_se with a loss in perplexity; give both in nats/token")
    if columns.compute_6nd and not ("N" in columns and "D" in columns):
        raise AnalysisError("columns: C=6ND needs N and D")


def number(text: str, column: Column, place: str) -> float:
    """A cell as a number; NaN where it is empty, an AnalysisError where it is a word or 1.3B."""
    if not text.strip():
        return float("nan")
    try:
        value = float(text)
    except ValueError as error:
        raise AnalysisError(
            f"{place}: {column.key} = {text!r} (column {column.header}) is not a number; "
            f"allowed are plain numbers, here in the unit {column.unit}"
        ) from error
    if column.unit == PERPLEXITY and value > 0:
        return math.log(value)
    return value


def positive(text: str, column: Column, place: str) -> float:
    """A finite number above zero."""
    value = number(text, column, place)
    if not (math.isfinite(value) and value > 0):
        shown = f"{text!r}" if text.strip() else "empty"
        least = "1" if column.unit == PERPLEXITY else "zero"
        raise AnalysisError(
            f"{place}: {column.key} is {shown} (column {column.header}); "
            f"allowed are finite numbers above {least}"
        )
    return value
