"""Where the time of a run goes: `time.jsonl` in its directory, written beside training.

A session is what one process does with a run, from the claim to the end. The loop says what it is
at (`Hooks.beat`), so each second of a session is of one kind, and the kinds sum to its time. A line
holds all seconds of the session so far and the step reached. Rows of the record are cut back when a
run goes on from a checkpoint; these lines are not, so that they tell what was done twice
(lab/launch/goodput.py reads them). Training never reads the file, and a run whose file can not be
written trains on.
"""

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import platform
import time
import uuid
from collections.abc import Callable, Iterator

from lab.launch.claim import ClaimLost
from lab.train.hooks import Doing, Hooks, Outcome

TIMES = "time.jsonl"
SCHEMA = "lab.time/1"
KINDS = ("startup", "compile", "data", "evaluation", "save", "update")
EVERY_S = 5.0  # between lines, at least
SHARE = 0.01  # of the session so far, at least: a long one has some hundred lines
SAVES = 0.2  # of that pace, where a save has ended: to what is saved a run goes back
_KIND = {
    Doing.PREPARING: "startup",
    Doing.RESTORING: "startup",
    Doing.COMPILING: "compile",
    Doing.READING: "data",
    Doing.EVALUATING: "evaluation",
    Doing.SAVING: "save",
    Doing.UPDATING: "update",
}
_BEFORE_STEPS = (Doing.PREPARING, Doing.RESTORING)


class Startup:
    """What a process took before it could train: of its first run, for it happens once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def take(self) -> float:
        """The seconds, once; 0 after that."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class TimeSheet:
    """The lines of one session."""

    def __init__(
        self,
        path: pathlib.Path,
        *,
        clock: Callable[[], float],
        startup_s: float = 0.0,
        wall: Callable[[], float] = time.time,
        check_claim: Callable[[], None] = lambda: None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`startup_s` went by before the claim; `check_claim` raises where that is lost."""
        self._path = path
        self._clock, self._wall = clock, wall
        self._check_claim, self._warn = check_claim, warn
        self._session = uuid.uuid4().hex[:12]
        self._seconds = {**dict.fromkeys(KINDS, 0.0), "startup": startup_s}
        self._since_s = clock()
        self._began_s = self._since_s - startup_s
        self._told_s = self._since_s
        self._doing = Doing.PREPARING
        self._step: int | None = None  # not known before a state is restored
        self._file = -1
        with self._or_stop_writing():
            self._file = _open(path)
        self._tell(host=platform.node(), pid=os.getpid(), before_claim_s=round(startup_s, 3))

    def beat(self, doing: Doing, step: int) -> None:
        """Be told what is done from now on; `step` counts the updates before."""
        before, self._doing = self._doing, doing
        self._count(before)
        back = doing in _BEFORE_STEPS  # the step is that to which the run goes
        if back and before not in _BEFORE_STEPS:
            self._tell()
        if not back:
            self._step = step
        restored = before in _BEFORE_STEPS and not back
        if restored or doing is Doing.COMPILING != before or self._is_due(saved=before):
            self._tell()

    def end(self, outcome: str) -> None:
        """The last line: what came of the session."""
        self._count(self._doing)
        self._tell(ended=outcome)
        self._stop_writing()

    def _count(self, doing: Doing) -> None:
        now_s = self._clock()
        self._seconds[_KIND[doing]] += now_s - self._since_s
        self._since_s = now_s

    def _is_due(self, *, saved: Doing) -> bool:
        pace_s = max(EVERY_S, SHARE * (self._since_s - self._began_s))
        share = SAVES if saved is Doing.SAVING else 1.0
        return self._since_s - self._told_s >= share * pace_s

    def _tell(self, **more: str | float) -> None:
        if self._file < 0:
            return
        self._told_s = self._since_s
        seconds = {f"{kind}_s": round(spent_s, 3) for kind, spent_s in self._seconds.items()}
        row = {
            "schema": SCHEMA,
            "session": self._session,
            "at_unix_s": round(self._wall(), 3),
            "step": self._step,
            "doing": str(self._doing),
            "elapsed_s": round(self._since_s - self._began_s, 3),
            **seconds,
            **more,
        }
        with self._or_stop_writing():
            self._check_claim()  # the file is another's, like the run
            line = (json.dumps(row) + "\n").encode()
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def _or_stop_writing(self) -> Iterator[None]:
        """Training goes on without the file, and looks at its claim by itself."""
        try:
            yield
        except ClaimLost:
            self._stop_writing()
        except OSError as error:
            self._stop_writing()
            reason = error.strerror or error
            self._warn(f"{self._path}: cannot be written: {reason}; where time goes is not told")

    def _stop_writing(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            with contextlib.suppress(OSError):
                os.close(file)


def _open(path: pathlib.Path) -> int:
    """The file at its end, without the half line that a kill left."""
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        os.truncate(file, path.read_bytes().rfind(b"\n") + 1)
    return file


def timed(sheet: TimeSheet, hooks: Hooks, train: Callable[[Hooks], Outcome]) -> Outcome:
    """Train with hooks whose beats the sheet hears as well; it ends with that."""

    def beat(doing: Doing, step: int) -> None:
        hooks.beat(doing, step)
        sheet.beat(doing, step)

    status = "error"
    try:
        outcome = train(dataclasses.replace(hooks, beat=beat))
        status = str(outcome.status)
        return outcome
    finally:
        sheet.end(status)
