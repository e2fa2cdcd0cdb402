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
from lab.core.record import SCHEMA, differing, has_ended, read_rows, strict, write_rows
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
    last = latest_beginning(job)
    for step in [step for step in reversed(_steps(trunk)) if step <= last]:
        try:
            _take(job, trunk, step)
        except manifests.Damaged as damage:
            warn(f"{trunk / 'checkpoints' / str(step)}: {damage}; an older one is looked for")
            continue
        return
    warn(f"{trunk}: no checkpoint of the trunk up to step {last}; trained from the beginning")


def latest_beginning(job: Job[Any]) -> int:
    """The last step at which a branch may take over its trunk's state.

    Its cooldown begins there or later, and one update at least is its own. Where a guard sets runs
    back it is the oldest step to which a spike in the cooldown may lead: the branch comes by the
    later ones itself and saves them, and the trunk goes back behind it for no spike of its own.
    """
    step = first_step_of_cooldown(job.run, job.run.train.duration, job.step_size)
    return job.oldest_return(min(step, job.total_steps - 1))


def _steps(directory: pathlib.Path) -> list[int]:
    folder = directory / "checkpoints"
    return sorted(numbered(folder)) if folder.is_dir() else []


def _take(job: Job[Any], trunk: pathlib.Path, step: int) -> None:
    """Rows first and the checkpoint last, by one rename: half of it is begun anew.

    The trunk may be in training: its rows are read before its step is copied, and what counts is
    the copy. Raises Damaged where that is not as it was written.
    """
    rows = read_rows(trunk / "record.jsonl")
    header = strict({"kind": "header", "schema": SCHEMA, **job.header()})
    _check_same_data(trunk / "record.jsonl", rows, header)
    folder, record = job.directory / "checkpoints", job.directory / "record.jsonl"
    with writing(job.directory):
        folder.mkdir(parents=True, exist_ok=True)
        copy = _copied(trunk / "checkpoints" / str(step), folder / f"{SAVING}{step}")
        about = {"schema": "lab.branch/1", "trunk": trunk.name, "step": step}
        (job.directory / ABOUT).write_text(json.dumps(about) + "\n", encoding="utf-8")
        if max((row.get("step", 0) for row in read_rows(record)), default=0) <= step:
            write_rows(record, [header, *_rows_of_branch(job, rows, step)])
        # else a near checkpoint may stand for rows beyond: those of the run alone, to this step too
        os.rename(copy, folder / str(step))


def _copied(source: pathlib.Path, copy: pathlib.Path) -> pathlib.Path:
    """A copy of a step with all its files; raises Damaged, and then leaves nothing."""
    manifest = manifests.read(source)
    shutil.rmtree(copy, ignore_errors=True)
    try:
        try:
            shutil.copytree(source, copy)
        except OSError:
            manifests.check_files(source, manifest)  # the trunk may have deleted it meanwhile
            raise
        manifests.check_files(copy, manifest)
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    return copy


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
    for key in differing(theirs, ours, but=_OF_THE_RUN):
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
            return not failed(each) and not has_ended(run_directory(each) / "record.jsonl")
    return False
