"""Forecasts written down before the run, and the judgement of them after it.

A frozen forecast is a JSON file with the digest of the table, the form, its parameters, the
interval, the date and the digest of this package's code. `verify` judges one later run against it
and appends the verdict to a history beside it (NAME.verdicts.jsonl).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from analysis.compare import Comparison
from analysis.errors import AnalysisError
from analysis.fit import Fit
from analysis.groups import COMPARABLE
from analysis.prediction import Images
from analysis.quality_metric import MEASURED
from analysis.table import SAME_TOKENS, Table
from analysis.units import suffix

SCHEMA = "analysis.forecast/1"
SAME_VARIABLE = 1e-9  # relative difference of N below which the forecast and the run are of one N


@dataclass(frozen=True)
class Forecast:
    """The loss of one run nobody has trained, with the interval, and what it was made from.

    `comparable` are the values (data, tokenizer, ...) that a run must share to be judged.
    """

    variables: Mapping[str, float]
    held: Mapping[str, float]
    loss: float
    low: float
    high: float
    level: float
    loss_unit: str
    convention: str
    distance: float
    widening: float
    notes: tuple[str, ...]
    fit: Mapping[str, object]
    identities: tuple[str, ...]
    comparable: Mapping[str, str]
    table_sha256: str
    code_sha256: str
    date: str = ""

    @property
    def sentence(self) -> str:
        """The forecast in one line, before the run is measured."""
        at = ", ".join(f"{name} = {_count(value)}" for name, value in self.variables.items())
        return (
            f"forecast for {at}: L = {self.loss:.4f} {self.loss_unit}, "
            f"{self.level * 100:.4g} % interval [ {self.low:.4f}, {self.high:.4f} ]"
        )


@dataclass(frozen=True)
class Verdict:
    """A forecast judged by one measured run."""

    sentence: str
    inside: bool
    winkler: float
    identity: str
    name: str
    measured: float
    loss_unit: str


def _count(value: float) -> str:
    """331,776; numbers too large to read are 1.234e+18."""
    return f"{value:,.0f}" if value < 1e15 else f"{value:.4g}"


def code_digest() -> str:
    """sha256 of this package's source files, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _comparable(table: Table) -> dict[str, str]:
    return {
        column: str(table.runs[column].iloc[0])
        for column in (*COMPARABLE, *MEASURED, "settings")
        if column in table.runs
    }


def forecast(
    fit: Fit | Comparison,
    *,
    N: float | None = None,
    D: float | None = None,
    C: float | None = None,
    U: float | None = None,
    level: float = 0.9,
    images: Images = Images.SAME,
) -> Forecast:
    """The loss of a new run at the variables of the form, with its interval."""
    prediction = fit.predict(N=N, D=D, C=C, U=U, level=level, images=images)
    given = {"N": N, "D": D, "C": C, "U": U}
    variables = {name: float(given[name] or 0.0) for name in fit.variables}
    return Forecast(
        variables=variables,
        held=dict(fit.table.held),
        loss=float(prediction.loss[0]),
        low=float(prediction.low[0]),
        high=float(prediction.high[0]),
        level=level,
        loss_unit=fit.table.loss_unit,
        convention=fit.table.convention,
        distance=float(prediction.distance[0]),
        widening=float(prediction.widening[0]),
        notes=tuple(dict.fromkeys([*fit.notes, *prediction.notes])),
        fit=fit.as_json(),
        identities=tuple(sorted(fit.table.runs["identity"].astype(str))),
        comparable=_comparable(fit.table),
        table_sha256=fit.table.digest,
        code_sha256=code_digest(),
    )


def as_text(data: dict) -> str:
    """JSON text that every parser reads: a number that is not there is null."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(data), indent=1, allow_nan=False)


def as_json(made: Forecast) -> dict:
    """The forecast as JSON, units in the keys."""
    out = {"schema": SCHEMA} | asdict(made)
    unit = suffix(made.loss_unit)
    for name in ("loss", "low", "high"):
        out[f"{name}_{unit}"] = out.pop(name)
    out["distance_factor"] = out.pop("distance")
    out["widening_factor"] = out.pop("widening")
    return json.loads(as_text(out))


def _from_json(data: dict, path: Path) -> Forecast:
    if data.get("schema") != SCHEMA:
        raise AnalysisError(f"{path}: schema {data.get('schema')!r}; known is {SCHEMA!r}")
    data = {name: value for name, value in data.items() if name != "schema"}
    try:
        unit = suffix(data["loss_unit"])
        for name in ("loss", "low", "high"):
            data[name] = float(data.pop(f"{name}_{unit}"))
        data["distance"] = data.pop("distance_factor")
        data["widening"] = data.pop("widening_factor")
        data["notes"], data["identities"] = tuple(data["notes"]), tuple(data["identities"])
        return Forecast(**data)
    except (KeyError, TypeError, ValueError) as error:
        raise AnalysisError(f"{path}: not a frozen forecast ({error})") from error


def freeze(made: Forecast, path: str | Path, *, date: str) -> Path:
    """Write the forecast; a file that holds another forecast is never overwritten."""
    path = Path(path)
    data = as_json(made) | {"date": date}
    if path.exists():
        kept = as_json(read_frozen(path))
        undated = ("date", "code_sha256")
        if {k: v for k, v in kept.items() if k not in undated} != {
            k: v for k, v in data.items() if k not in undated
        }:
            raise AnalysisError(
                f"{path}: holds another forecast, of {kept['date']}; name a new file"
            )
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".part")
    scratch.write_text(json.dumps(data, indent=1) + "\n")
    scratch.replace(path)
    return path


def read_frozen(path: str | Path) -> Forecast:
    """A frozen forecast; an AnalysisError where the file is missing or something else."""
    path = Path(path)
    if not path.is_file():
        raise AnalysisError(f"{path}: no frozen forecast; write one with forecast --freeze")
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise AnalysisError(f"{path}: not JSON ({error})") from error
    if not isinstance(data, dict):
        raise AnalysisError(f"{path}: not a frozen forecast")
    return _from_json(data, path)


def _run_to_judge(frozen: Forecast, table: Table, identity: str | None) -> int:
    """Row of the one new run at the variables of the forecast."""
    if table.convention != frozen.convention or table.loss_unit != frozen.loss_unit:
        raise AnalysisError(
            f"{table.source}: N counts {table.convention}, losses in {table.loss_unit}; "
            f"the forecast has {frozen.convention}, {frozen.loss_unit}"
        )
    tolerances = {name: (value, SAME_VARIABLE) for name, value in frozen.variables.items()}
    tolerances |= {name: (value, SAME_TOKENS) for name, value in frozen.held.items()}
    names = table.runs["identity"].astype(str).to_list()
    at = [
        row
        for row in range(len(table))
        if all(
            abs(table.variable(name)[row] / value - 1) <= tolerance
            for name, (value, tolerance) in tolerances.items()
        )
    ]
    where = ", ".join(f"{name} = {_count(value)}" for name, (value, _) in tolerances.items())
    if not at:
        raise AnalysisError(
            f"{table.source}: no finished run with {where} to judge the forecast by"
        )
    if identity is not None:
        at = [row for row in at if names[row] == identity]
        if not at:
            raise AnalysisError(f"{table.source}: {identity} is not a run with {where}")
    new = [row for row in at if names[row] not in frozen.identities]
    if not new:
        raise AnalysisError(f"{names[at[0]]}: was in the table that the forecast was made from")
    if len(new) > 1:
        choices = ", ".join(names[row] for row in new)
        raise AnalysisError(f"{len(new)} runs have {where}; name one identity of {choices}")
    return new[0]


def judge(frozen: Forecast, table: Table, *, identity: str | None = None) -> Verdict:
    """Inside or outside, and the Winkler score in the unit of the loss; writes nothing."""
    row = _run_to_judge(frozen, table, identity)
    own = {column: str(table.runs[column].iloc[row]) for column in frozen.comparable}
    for column, value in frozen.comparable.items():
        if own[column] != value:
            raise AnalysisError(f"the forecast is for {column} {value}; the run has {own[column]}")
    measured = float(table.loss[row])
    inside = frozen.low <= measured <= frozen.high
    missed = max(frozen.low - measured, measured - frozen.high, 0.0)
    winkler = frozen.high - frozen.low + 2.0 / (1.0 - frozen.level) * missed
    word = "inside" if inside else "outside"
    run = table.runs.iloc[row]
    return Verdict(
        sentence=f"{frozen.sentence}; measured {measured:.4f}; {word}",
        inside=inside,
        winkler=winkler,
        identity=str(run["identity"]),
        name=str(run["name"]),
        measured=measured,
        loss_unit=table.loss_unit,
    )


def history_path(path: str | Path) -> Path:
    """The verdicts beside a frozen forecast."""
    return Path(path).with_suffix(".verdicts.jsonl")


def _without_date(line: str) -> dict:
    """A kept verdict; nothing for the half line that a kill leaves."""
    try:
        return {key: value for key, value in json.loads(line).items() if key != "date"}
    except ValueError:
        return {}


def verify(
    path: str | Path, table: Table, *, identity: str | None = None, date: str = ""
) -> Verdict:
    """Judge a frozen forecast and keep the verdict; the same verdict is kept once."""
    verdict = judge(read_frozen(path), table, identity=identity)
    unit = suffix(verdict.loss_unit)
    row = {
        "identity": verdict.identity,
        "name": verdict.name,
        f"measured_{unit}": verdict.measured,
        "inside": verdict.inside,
        f"winkler_{unit}": verdict.winkler,
        "sentence": verdict.sentence,
    }
    history = history_path(path)
    lines = history.read_text().splitlines() if history.is_file() else []
    if row not in [_without_date(line) for line in lines]:
        torn = bool(lines) and not history.read_text().endswith("\n")
        with history.open("a") as stream:
            stream.write("\n" * torn + json.dumps(row | {"date": date}) + "\n")
    return verdict
