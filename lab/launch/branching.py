"""A branch begins where its trunk stands: the checkpoint before its cooldown, and the rows so far.

What is written into the branch's directory is what the run would have written itself, so that it
goes on from there as after any stop, and ends with the record and the parameters of a run that was
trained alone. `branch.json` says where it came from.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lab.core import manifest as manifests
from lab.core.branches import first_step_of_cooldown, trunk_of
from lab.core.config import AnyRun, identity, run_directory
from lab.core.errors import LabError
from lab.core.record import SCHEMA, finished, read_rows, strict, write_rows
from lab.core.step_folders import SAVING, numbered
from lab.core.writing import writing

if TYPE_CHECKING:
    from lab.train.job import Job

ABOUT = "branch.json"
_OF_THE_RUN = ("identity", "name", "study", "steps")  # in a header; all else two branches share


def begin_in_trunk(job: Job[Any], *, warn: Callable[[str], None]) -> None:
    """Put the trunk's state and rows into a branch that has no checkpoint of its own.

    Without a good checkpoint of the trunk nothing is done, with a warning: the run is then trained
    from its beginning, to the same end. Raises LabError where the trunk was trained on other data.
    """
    run = job.run
    if not run.execution.trunk or _steps(job.directory):
        return
    trunk = run_directory(trunk_of(run))
    last = first_step_of_cooldown(run, run.train.duration, job.step_size)
    for step in [step for step in reversed(_steps(trunk)) if step <= last]:
        try:
            manifest = manifests.read(trunk / "checkpoints" / str(step))
            manifests.check_files(trunk / "checkpoints" / str(step), manifest)
        except manifests.Damaged as damage:
            warn(f"{trunk / 'checkpoints' / str(step)}: {damage}; an older one is looked for")
            continue
        _take(job, trunk, step)
        return
    warn(f"{trunk}: no checkpoint of the trunk up to step {last}; trained from the beginning")


def _steps(directory: pathlib.Path) -> list[int]:
    folder = directory / "checkpoints"
    return sorted(numbered(folder)) if folder.is_dir() else []


def _take(job: Job[Any], trunk: pathlib.Path, step: int) -> None:
    """Rows first and the checkpoint last, by one rename: half of it is begun anew."""
    rows = read_rows(trunk / "record.jsonl")
    header = strict({"kind": "header", "schema": SCHEMA, **job.header()})
    _check_same_data(trunk / "record.jsonl", rows, header)
    folder = job.directory / "checkpoints"
    with writing(job.directory):
        about = {"schema": "lab.branch/1", "trunk": trunk.name, "step": step}
        (job.directory / ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")
        write_rows(job.directory / "record.jsonl", [header, *_rows_of_branch(job, rows, step)])
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / f"{SAVING}{step}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(trunk / "checkpoints" / str(step), copy)
        os.rename(copy, folder / str(step))


def _rows_of_branch(
    job: Job[Any], rows: Sequence[dict[str, Any]], step: int
) -> list[dict[str, Any]]:
    """The rows up to a step that a run alone has too: not what the trunk wrote at its own end.

    A rollback has the step of its spike, which may lie further on; which of them are behind the
    state is seen when the record is opened.
    """
    train = job.run.train
    every = {"train": train.log_every_steps, "evaluation": train.evaluate_every_steps}

    def belongs(row: dict[str, Any]) -> bool:
        if row["kind"] == "spike":
            return row["step"] <= step or "rollback" in row
        steps = every.get(row["kind"])
        return row["step"] <= step and bool(steps) and row["step"] % steps == 0

    return [row for row in rows[1:] if belongs(row)]


def _check_same_data(
    path: pathlib.Path, rows: Sequence[dict[str, Any]], ours: dict[str, Any]
) -> None:
    if not rows:
        raise LabError(f"{path}: missing, but there are checkpoints beside it")
    theirs = rows[0]
    for key in sorted((set(ours) | set(theirs)) - set(_OF_THE_RUN)):
        if theirs.get(key) != ours.get(key):
            raise LabError(
                f"{path}: {key} of the trunk is {theirs.get(key)}, of its branch {ours.get(key)}; "
                'set config.execution.trunk = "" to train the branch alone'
            )


def waits_for_trunk(run: AnyRun, runs: Sequence[AnyRun], failed: Callable[[AnyRun], bool]) -> bool:
    """Whether a branch should wait: its trunk is one of `runs` and has neither ended nor failed."""
    if not run.execution.trunk or _steps(run_directory(run)):
        return False
    wanted = identity(trunk_of(run))
    for each in runs:
        if not each.execution.trunk and identity(each) == wanted:
            return not failed(each) and not finished(_rows(each))
    return False


def _rows(run: AnyRun) -> list[dict[str, Any]]:
    try:
        return read_rows(run_directory(run) / "record.jsonl")
    except LabError:
        return []  # who trains it says what is wrong with the record
