"""How a sweep stands: its runs, the time that they need yet, and where their time went.

All is read from run directories, so that any machine that sees them can tell.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from lab.core.canonical import json_sha256
from lab.core.config import AnyRun, run_directory
from lab.core.errors import LabError
from lab.core.fields import plain
from lab.core.program import NUMBERS
from lab.launch.board import Entry, RunState, read_entry
from lab.launch.goodput import Goodput, Session, goodput, read_sessions
from lab.launch.timesheet import TIMES

SCHEMA = "lab.status/1"
ENDED = (RunState.FINISHED, RunState.DIVERGED)
_LEFT = (RunState.RUNNING, RunState.WAITING)
# What may differ, beside the numbers of a step, between two runs whose updates, evaluations and
# saves cost the same; how often a run is evaluated costs time, though it changes no program.
_COSTS_NOTHING = {
    "": ("name", "study"),
    "data": ("data_dir", "manual_dir"),
    "train": ("explode_factor",),
    "execution": ("workdir", "tensorboard", "keep_last", "keep_every_steps", "branches", "trunk"),
}


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """How one run stands."""

    run: AnyRun
    entry: Entry
    goodput: Goodput | None  # None: nothing is known of its time
    host: str = ""  # of the last session
    doing: str = ""  # of a run that is running, when it last told
    step_s: float | None = None  # of its own, with evaluations and saves
    time_left_s: float | None = None  # None: unknown, or nothing is left
    time_left_by: str = ""  # the run whose speed tells it

    def as_json(self) -> dict[str, Any]:
        """Plain values, units in their names."""
        return {
            **self.entry.as_json(),
            "host": self.host,
            "doing": self.doing,
            "step_s": _rounded(self.step_s),
            "time_left_s": _rounded(self.time_left_s),
            "time_left_by": self.time_left_by,
            "goodput": self.goodput.as_json() if self.goodput else None,
        }


@dataclasses.dataclass(frozen=True)
class SweepStatus:
    """How a sweep stands."""

    title: str
    runs: tuple[RunStatus, ...]

    @property
    def counts(self) -> dict[RunState, int]:
        """How many runs are in each state."""
        found = collections.Counter(each.entry.state for each in self.runs)
        return {state: found[state] for state in RunState}

    @property
    def is_over(self) -> bool:
        """Whether every run has ended, and none can go on."""
        return all(each.entry.state in ENDED for each in self.runs)

    @property
    def goodput(self) -> Goodput:
        """Of all its runs."""
        return sum((each.goodput for each in self.runs if each.goodput), Goodput())

    def left(self, state: RunState) -> tuple[list[float], int]:
        """Seconds that runs in this state need, and of how many that is unknown."""
        needs = [each.time_left_s for each in self.runs if each.entry.state is state]
        return [need for need in needs if need is not None], needs.count(None)

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is not known is null."""
        running, running_unknown = self.left(RunState.RUNNING)
        waiting, waiting_unknown = self.left(RunState.WAITING)
        return {
            "schema": SCHEMA,
            "sweep": self.title,
            "counts": {str(state): count for state, count in self.counts.items()},
            "running_longest_left_s": _rounded(max(running, default=None)),
            "running_of_unknown_time": running_unknown,
            "waiting_work_s": _rounded(sum(waiting) if waiting else None),
            "waiting_of_unknown_time": waiting_unknown,
            "goodput": self.goodput.as_json(),
            "goodput_share": {name: round(s, 5) for name, s in self.goodput.shares().items()},
            "runs": [each.as_json() for each in self.runs],
        }


class StatusReader:
    """Reads the status of a sweep, again and again; what has ended is read once."""

    def __init__(self, runs: Sequence[AnyRun], *, title: str) -> None:
        self._runs = runs
        self._title = title
        self._ended: dict[pathlib.Path, RunStatus] = {}

    def read(self) -> SweepStatus:
        """As it is now."""
        found = [self._read(run) for run in self._runs]
        return SweepStatus(self._title, tuple(_with_time_left(each, found) for each in found))

    def _read(self, run: AnyRun) -> RunStatus:
        directory = run_directory(run)
        if directory in self._ended:
            return self._ended[directory]
        status = read_status(run, directory)
        if status.entry.state in ENDED:
            self._ended[directory] = status
        return status


def read_status(run: AnyRun, directory: pathlib.Path) -> RunStatus:
    """What one run directory says; a file of times that can not be read is said in the reason."""
    entry = read_entry(run, directory)
    try:
        sessions = read_sessions(directory / TIMES)
    except LabError as error:
        reason = entry.reason or str(error)
        return RunStatus(run, dataclasses.replace(entry, reason=reason), goodput=None)
    if not sessions:
        return RunStatus(run, entry, goodput=None)
    last, running = sessions[-1], entry.state is RunState.RUNNING
    return RunStatus(
        run,
        entry,
        goodput=goodput(sessions),
        host=last.host,
        doing=last.lines[-1].doing if running and not last.ended else "",
        step_s=_step_s(sessions),
    )


def _step_s(sessions: Sequence[Session]) -> float | None:
    """Of the newest session that made steps."""
    return next((s for s in (each.step_s() for each in reversed(sessions)) if s is not None), None)


def _with_time_left(status: RunStatus, others: Sequence[RunStatus]) -> RunStatus:
    """By its own speed, else by that of a run of the same cost, else unknown."""
    if status.entry.state not in _LEFT:
        return status
    cost = cost_of(status.run)
    for by in (status, *others):
        if by.step_s is None or cost_of(by.run) != cost:
            continue
        total = status.entry.total_steps or _steps_like(by, status.run)
        if total:
            left_s = by.step_s * max(0, total - status.entry.step)
            return dataclasses.replace(status, time_left_s=left_s, time_left_by=by.entry.name)
    return status


def cost_of(run: AnyRun) -> str:
    """Equal for runs whose steps cost the same on the same machine."""
    values = plain(run)
    for section, names in (*NUMBERS.items(), *_COSTS_NOTHING.items()):
        for name in set(names) - {"evaluate_every_steps"}:
            (values[section] if section else values).pop(name, None)
    return json_sha256(values)


def _steps_like(by: RunStatus, run: AnyRun) -> int | None:
    """Of a run without a record; None where durations are in two units, or a part is taken over."""
    theirs, ours = by.run.train.duration, run.train.duration
    if theirs.unit is not ours.unit or not theirs.amount or run.execution.trunk:
        return None
    return round(by.entry.total_steps * ours.amount / theirs.amount)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
