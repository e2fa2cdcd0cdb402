"""quality.jsonl beside a record: what was measured of a finished run, a line a task.

docs/run_directory.md has the fields. A task is one evaluation (samples judged, probes, attention,
likelihood); its values are numbers with an interval each.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from analysis.errors import AnalysisError
from analysis.records import field

FILE = "quality.jsonl"
SCHEMA = "lab.quality/1"
RESULTS = ("key", "values", "clock")  # what the key does not stand for
BETTER = ("lower", "higher", None)
REAL = "_real"  # ending of a metric that was measured on real images instead of samples


@dataclass(frozen=True)
class Value:
    """One number with its interval; low and high are NaN where none was stated.

    `quantile` is half of the interval in standard errors, NaN where none is to be read from it.
    `layer` and `per_head` are there for what is measured inside a model, `penalty_at_edge` for a
    probe: whether the penalty it chose is the largest or smallest that was tried.
    """

    metric: str
    value: float
    low: float
    high: float
    level: float
    method: str
    better: str | None
    unit: str
    samples: int
    layer: int | None = None
    per_head: tuple[float, ...] = ()
    stack: str = ""
    likelihood: str = ""  # of nats: exact or a bound
    quantile: float = math.nan
    penalty_at_edge: bool | None = None

    @property
    def se(self) -> float:
        """Standard error: half of the interval over the quantile it was made with; NaN without."""
        width = self.high - self.low
        return width / (2.0 * self.quantile) if width else width


@dataclass(frozen=True)
class Task:
    """One line: all that defines the numbers, and the numbers."""

    key: str
    what: str
    step: int
    weights: str
    settings: Mapping[str, object]
    extractor: Mapping[str, object]
    reference: Mapping[str, object]
    values: tuple[Value, ...]

    @property
    def extractor_name(self) -> str:
        """NAME@IDENTITY of the network whose features were compared; empty where there was none."""
        return _named(self.extractor, "name")

    @property
    def reference_name(self) -> str:
        """DATA SPLIT, IMAGES @IDENTITY of the real images; empty where there were none."""
        if not self.reference:
            return ""
        words = [str(self.reference.get(name, "")) for name in ("data", "split")]
        images = self.reference.get("images")
        count = [f"{images:,} images"] if isinstance(images, int) else []
        return " ".join([word for word in words if word] + count) + _at(self.reference)


def _at(found: Mapping[str, object]) -> str:
    return f"@{str(found['identity'])[:12]}" if found.get("identity") else ""


def _named(found: Mapping[str, object], key: str) -> str:
    return f"{found.get(key, '')}{_at(found)}" if found else ""


def read_quality(directory: Path) -> tuple[Task, ...]:
    """The tasks of a run directory in the order of the file; none where there is no file.

    A half-written last line is dropped. Another schema, a missing field or two different lines of
    one key are an AnalysisError with file and line.
    """
    path = Path(directory) / FILE
    if not path.is_file():
        return ()
    found: dict[str, Task] = {}
    complete = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is half a line
    for number, line in enumerate(complete, start=1):
        place = Path(f"{path}:{number}")
        task = _task(_row(line, place), place)
        kept = found.setdefault(task.key, task)
        if repr(kept.values) != repr(task.values):  # NaN is itself here
            raise AnalysisError(f"{place}: key {task.key} is there twice with different values")
    return tuple(found.values())


def _row(line: bytes, place: Path) -> dict:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise AnalysisError(f"{place}: not JSON ({error})") from error
    schema = row.get("schema") if isinstance(row, dict) else None
    if schema != SCHEMA:
        raise AnalysisError(f"{place}: schema {schema!r}; this reader knows {SCHEMA!r}")
    if (key := key_of(row)) != row.get("key"):
        raise AnalysisError(f"{place}: its fields give the key {key}, it says {row.get('key')}")
    return row


def key_of(row: Mapping[str, object]) -> str:
    """Twelve hex digits of all of a row but its values and clock: sha256 of sorted, tight JSON."""
    task = {name: value for name, value in row.items() if name not in RESULTS}
    text = json.dumps(task, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _task(row: dict, place: Path) -> Task:
    return Task(
        key=_text(row, "key", place),
        what=_text(row, "what", place),
        step=_whole(row, "step", place),
        weights=_text(row, "weights", place),
        settings=_mapping(row, "settings", place),
        extractor=_mapping(row, "extractor", place),
        reference=_mapping(row, "reference", place),
        values=tuple(_value(one, place) for one in _list(row, "values", place)),
    )


def _value(row: object, place: Path) -> Value:
    if not isinstance(row, dict):
        raise AnalysisError(f"{place}: a value is a JSON object, not {row!r}")
    level = _number(row, "level", place)
    if not 0 < level < 1:
        raise AnalysisError(f"{place}: level = {level}; allowed is between 0 and 1")
    better = field(row, "better", place)
    if better not in BETTER:
        raise AnalysisError(f"{place}: better = {better!r}; allowed are lower, higher and null")
    layer, edge = row.get("layer"), row.get("penalty_at_edge")
    if edge is not None and not isinstance(edge, bool):
        raise AnalysisError(f"{place}: penalty_at_edge = {edge!r}; allowed are true, false, null")
    return Value(
        metric=_text(row, "metric", place),
        value=_number(row, "value", place),
        low=_number(row, "low", place),
        high=_number(row, "high", place),
        level=level,
        method=_text(row, "method", place),
        better=better,
        unit=_text(row, "unit", place),
        samples=_whole(row, "samples", place),
        layer=None if layer is None else _whole(row, "layer", place),
        per_head=tuple(_head(one, place) for one in row.get("per_head") or ()),
        stack=str(row.get("stack") or ""),
        likelihood=str(row.get("likelihood") or ""),
        quantile=_quantile(row, place),
        penalty_at_edge=edge,
    )


def _quantile(row: dict, place: Path) -> float:
    """Above zero; NaN where it is null, and in rows of before it was recorded."""
    found = _float(row.get("quantile"), "quantile", place)
    if found <= 0:
        raise AnalysisError(f"{place}: quantile = {found}; allowed is above 0, or null")
    return found


def _number(row: dict, name: str, place: Path) -> float:
    """A number; null and "nan" are NaN, "inf" is infinite; anything else is refused."""
    return _float(field(row, name, place), name, place)


def _float(value: object, name: str, place: Path) -> float:
    if value is None:
        return math.nan
    if value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnalysisError(f"{place}: {name} = {value!r} is not a number")
    return float(value)


def _head(value: object, place: Path) -> float:
    """A head is a number, or an object with a `value`."""
    return _float(value.get("value") if isinstance(value, dict) else value, "per_head", place)


def _whole(row: dict, name: str, place: Path) -> int:
    value = field(row, name, place)
    if isinstance(value, bool) or not isinstance(value, int):
        raise AnalysisError(f"{place}: {name} = {value!r} is not a whole number")
    return value


def _text(row: dict, name: str, place: Path) -> str:
    value = field(row, name, place)
    if not isinstance(value, str):
        raise AnalysisError(f"{place}: {name} = {value!r} is not a text")
    return value


def _mapping(row: dict, name: str, place: Path) -> dict:
    """An object; empty for null."""
    value = field(row, name, place)
    if value is not None and not isinstance(value, dict):
        raise AnalysisError(f"{place}: {name} = {value!r} is not an object")
    return value or {}


def _list(row: dict, name: str, place: Path) -> list:
    value = field(row, name, place)
    if not isinstance(value, list):
        raise AnalysisError(f"{place}: {name} is not a list")
    return value


def flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Settings by dotted path, as text."""
    out: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return out
