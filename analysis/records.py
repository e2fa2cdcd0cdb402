"""One run directory, read as docs/run_directory.md states it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from analysis.errors import AnalysisError
from analysis.recipe import recipe

RECORD_SCHEMA = "lab.record/1"
CHECKPOINT_SCHEMA = "lab.checkpoint/1"
UNITS = {"loss": "nats/token", "params": "count", "flops": "count", "tokens": "count"}
NO_GENERATOR = ("tokenizer", "classifier")  # families whose losses are of another unit, by nature
CLOSE = 1e-6  # relative difference at which two files disagree about one number


@dataclass(frozen=True)
class Run:
    """A finished run: its header, its evaluation rows in order, the last of them, its spikes."""

    path: Path
    header: dict
    evaluations: tuple[dict, ...]
    final: dict
    commit: str
    recipe: dict[str, str]
    spikes: tuple[dict, ...] = ()  # updates that the run left out, or because of which it went back
    is_trunk: bool = False  # at a constant rate, and the cooldowns of other runs begin in it


@dataclass(frozen=True)
class LeftOut:
    """A run that no fit uses, and why."""

    name: str
    identity: str
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.identity[:12]}): {self.reason}"


def record_paths(directory: Path) -> list[Path]:
    """Every record.jsonl under the directory, sorted; an AnalysisError where there is none."""
    if not directory.is_dir():
        raise AnalysisError(f"{directory}: not a directory")
    own = directory / "record.jsonl"
    paths = [own] if own.is_file() else sorted(directory.rglob("record.jsonl"))
    if not paths:
        raise AnalysisError(f"{directory}: no record.jsonl here or below; give a study or a run")
    return paths


def read_rows(path: Path) -> list[dict]:
    """The rows of a record; a half-written last line is dropped, any other bad line is refused."""
    lines = path.read_bytes().split(b"\n")
    tail = lines.pop()
    rows = [_parsed(line, path, number) for number, line in enumerate(lines, start=1) if line]
    if tail.strip():
        try:
            rows.append(_parsed(tail, path, len(lines) + 1))
        except AnalysisError:
            pass  # what a kill leaves
    return rows


def _parsed(line: bytes, path: Path, number: int) -> dict:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise AnalysisError(f"{path}:{number}: not JSON ({error})") from error
    if not isinstance(row, dict) or "kind" not in row:
        raise AnalysisError(f"{path}:{number}: a row is a JSON object with a 'kind'")
    return row


def field(row: dict, name: str, path: Path):
    """row[name] for a dotted name; an AnalysisError names the record and the field."""
    value = row
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise AnalysisError(f"{path}: {row.get('kind', 'row')} has no {name!r}")
        value = value[part]
    return value


def number(row: dict, name: str, path: Path) -> float:
    """A finite number; "nan" and "inf" are refused by name."""
    value = field(row, name, path)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AnalysisError(f"{path}: {name} = {value!r} is not a finite number")
    return float(value)


def _header(rows: list[dict], path: Path) -> dict:
    header = rows[0] if rows else {}
    if header.get("kind") != "header":
        raise AnalysisError(f"{path}: the first row is not a header")
    if header.get("schema") != RECORD_SCHEMA:
        raise AnalysisError(
            f"{path}: schema {header.get('schema')!r}; this reader knows {RECORD_SCHEMA!r}"
        )
    if header.get("family") in NO_GENERATOR:
        return header
    for quantity, unit in UNITS.items():
        given = field(header, f"units.{quantity}", path)
        if given != unit:
            raise AnalysisError(f"{path}: unit of {quantity} is {given!r}; allowed is {unit!r}")
    return header


def _reason_to_leave_out(header: dict, rows: list[dict]) -> str | None:
    if header.get("family") in NO_GENERATOR:
        unit = header.get("units", {}).get("loss", "another unit")
        return f"no generator: a {header['family']}'s run, its loss is in {unit}"
    ends = [row for row in rows if row["kind"] == "end"]
    if not ends:
        steps = [row["step"] for row in rows if isinstance(row.get("step"), int)]
        at = f"at step {max(steps)} of {header.get('steps')}" if steps else "before its first row"
        return f"unfinished: stopped {at}"
    status = ends[-1].get("status")
    if status != "finished":
        return f"{status}: {ends[-1].get('reason', 'no reason given')}"
    return None


def _final(evaluations: list[dict], header: dict, weights: str | None, path: Path) -> dict:
    """The validation row at the last step, of the weights asked for (raw where both exist)."""
    steps = number(header, "steps", path)
    last = {
        str(row.get("weights")): row for row in evaluations if number(row, "step", path) == steps
    }
    if not last:
        raise AnalysisError(f"{path}: finished, but no validation row at step {steps:.0f}")
    wanted = weights or ("raw" if "raw" in last else next(iter(last)))
    if wanted not in last:
        found = ", ".join(map(str, last))
        raise AnalysisError(f"{path}: no evaluation of {wanted!r} weights; there are: {found}")
    return last[wanted]


def _object(path: Path) -> dict:
    """A file that holds one JSON object."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise AnalysisError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise AnalysisError(f"{path}: not a JSON object")
    return found


def _check_manifest(final: dict, path: Path) -> None:
    """Refuse a record whose last evaluation differs from the checkpoint's own metrics."""
    manifest_path = path.parent / "checkpoints" / str(final["step"]) / "manifest.json"
    if not manifest_path.is_file():
        return
    manifest = _object(manifest_path)
    if manifest.get("schema") != CHECKPOINT_SCHEMA:
        raise AnalysisError(
            f"{manifest_path}: schema {manifest.get('schema')!r}; known is {CHECKPOINT_SCHEMA!r}"
        )
    metrics = manifest.get("metrics")
    if not isinstance(metrics, dict):
        raise AnalysisError(f"{manifest_path}: no metrics")
    if metrics.get("weights", final.get("weights")) != final.get("weights"):
        return  # the checkpoint keeps the metrics of the other weights
    for name, own in final.items():
        other = metrics.get(name)
        if not isinstance(own, int | float) or not isinstance(other, int | float):
            continue
        if not math.isclose(own, other, rel_tol=CLOSE):
            raise AnalysisError(f"{manifest_path}: {name} = {other}, but {path} says {own}")


def _config(path: Path, identity: str) -> dict:
    """config.json beside the record, or an empty dictionary; its identity must be the record's."""
    config_path = path.parent / "config.json"
    if not config_path.is_file():
        return {}
    config = _object(config_path)
    if config.get("identity", identity) != identity:
        raise AnalysisError(
            f"{config_path}: identity {config['identity']!r}, but {path} says {identity!r}"
        )
    return config


def read_run(path: Path, *, weights: str | None = None) -> Run | LeftOut:
    """The run of one record.jsonl; unfinished and diverged runs come back as LeftOut."""
    rows = read_rows(path)
    if not rows:
        return LeftOut(path.parent.name, path.parent.name, path, "unfinished: empty record")
    header = _header(rows, path)
    identity = str(field(header, "identity", path))
    config = _config(path, identity)
    reason = _reason_to_leave_out(header, rows)
    if reason:
        return LeftOut(str(header.get("name", identity)), identity, path, reason)
    evaluations = [
        row for row in rows if row["kind"] == "evaluation" and row.get("split") == "validation"
    ]
    final = _final(evaluations, header, weights, path)
    _check_manifest(final, path)
    commit = str(header.get("commit") or config.get("commit") or "")
    spikes = tuple(row for row in rows if row["kind"] == "spike")
    made_by = recipe(config.get("config", {}))
    execution = config.get("config", {}).get("execution", {})
    is_trunk = bool(execution.get("branches"))
    return Run(path, header, tuple(evaluations), final, commit, made_by, spikes, is_trunk)
