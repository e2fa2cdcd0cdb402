"""The state of a sweep's runs, read from their directories."""

import dataclasses
import enum
import pathlib
from collections.abc import Sequence
from typing import Any

from lab.core.config import AnyRun, RunConfig, identity, run_directory
from lab.core.errors import LabError
from lab.core.record import read_rows
from lab.launch.claim import is_claimed
from lab.models.sizes import llama_blocks

FAILURE = "failure.txt"


class RunState(enum.StrEnum):
    """What a run's directory says."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run of a sweep and how far it is."""

    name: str
    identity: str
    directory: pathlib.Path
    state: RunState
    params: int | None  # of a generator's blocks or of a whole tokenizer; None: not yet counted
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    loss_se: float | None = None
    loss_unit: str = ""
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "directory": str(self.directory)}


def read_entry(run: AnyRun, directory: pathlib.Path) -> Entry:
    """What the directory says of this run; a record that can not be read is a failure."""
    try:
        return _entry(run, directory, read_rows(directory / "record.jsonl"))
    except LabError as error:
        entry = _entry(run, directory, [])
        return dataclasses.replace(entry, state=RunState.FAILED, reason=str(error))


def _entry(run: AnyRun, directory: pathlib.Path, rows: list[dict[str, Any]]) -> Entry:
    entry = Entry(
        name=run.name,
        identity=identity(run),
        directory=directory,
        state=_state(directory, rows),
        params=_params(run, rows),
    )
    if entry.state is RunState.FAILED:
        lines = (directory / FAILURE).read_text(encoding="utf-8").splitlines()
        entry = dataclasses.replace(entry, reason=lines[0] if lines else "")
    if not rows:
        return entry
    header, last = rows[0], rows[-1]
    evaluations = [r for r in rows if r["kind"] == "evaluation" and r["weights"] == "raw"]
    entry = dataclasses.replace(
        entry,
        step=last.get("step", 0),
        total_steps=header["steps"],
        reason=last.get("reason", entry.reason),
    )
    if not evaluations:
        return entry
    row = evaluations[-1]
    unit = next(name for name in row if name.startswith("loss_se_")).removeprefix("loss_se_")
    return dataclasses.replace(
        entry,
        loss=row[f"loss_{unit}"],
        loss_se=row[f"loss_se_{unit}"],
        loss_unit=header["units"]["loss"],
    )


def _params(run: AnyRun, rows: list[dict[str, Any]]) -> int | None:
    """From the record; of plain Llama blocks before there is one, for forecasts come first."""
    if not rows:
        return llama_blocks(run.model) if isinstance(run, RunConfig) else None
    params = rows[0]["params"]
    return params["blocks"] if "blocks" in params else sum(params.values())


def forget_failures(runs: Sequence[AnyRun]) -> None:
    """Let failed runs be tried again."""
    for run in runs:
        (run_directory(run) / FAILURE).unlink(missing_ok=True)


def _state(directory: pathlib.Path, rows: list[dict[str, Any]]) -> RunState:
    if rows and rows[-1]["kind"] == "end":
        return RunState(rows[-1]["status"])
    if is_claimed(directory):
        return RunState.RUNNING
    return RunState.FAILED if (directory / FAILURE).exists() else RunState.WAITING
