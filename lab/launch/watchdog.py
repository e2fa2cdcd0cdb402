"""A thread that sees where a process of several died, stopped or stands still, and then leaves.

Where one process of a job is gone, the others wait for it in a collective, and jax notices late
(one that is gone) or never (one that is alive and does nothing). So every process writes each
second what it is at into a file of the run directory, and holds a lock on the file that dies with
it. All read all of them:

- the lock is free: that process died;
- the lock is held and nothing new comes: it is stopped, or its machine is gone;
- no progress here: whoever has made the fewest steps through the loop holds up all.

Times are counted in looks of this thread, never between clocks of two machines, and a look counts
for five seconds at most: where this process itself stood still, nobody else is to blame.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import platform
import threading
import time
from collections.abc import Callable

from lab.core.errors import ExitCode, LabError
from lab.train.loop import Doing

LOOK_S = 1.0
LOCK_S = 5.0  # a look of another holds a lock for an instant; one that is killed lets go of it late
MOST_S = 5.0  # that one look counts for
# Below half of jax's own limit (lab/launch/hosts.py), after which jax may abort: this knows a name.
SILENT_S = 12.0
SLOW = 10  # compiling, restoring and saving may take so many times as long as a step
GRACE_S = 4.0  # to leave on one's own, once another has left
LAST_S = 5.0  # the first process leaves last: jax aborts the others where it is gone
WIDTH = 512  # bytes: every beat writes over all of the one before


@dataclasses.dataclass(frozen=True)
class Beat:
    """What a process says of itself."""

    session: str
    process: int
    host: str
    pid: int
    doing: str
    step: int
    count: int  # of changes since data were prepared: the same in all processes at one place
    tick: int = 0
    left: int | None = None  # the exit code with which it leaves

    @property
    def name(self) -> str:
        """For people."""
        return f"process {self.process} (pid {self.pid} on {self.host})"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Why this process must leave, and with which code."""

    code: ExitCode
    line: str


class _Seen:
    """What is known of another process, and for how long nothing new came."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.beat: Beat | None = None
        self.silent_s = 0.0
        self.left_s = 0.0

    def look(self, session: str, passed_s: float) -> None:
        beat = read_beat(self.path)
        if beat is not None and beat.session == session and beat != self.beat:
            self.beat, self.silent_s = beat, 0.0
        else:
            self.silent_s += passed_s
        if self.beat is not None and self.beat.left is not None:
            self.left_s += passed_s

    def is_dead(self) -> bool:
        """Whether nobody holds its lock; asked where it was silent."""
        with contextlib.suppress(OSError), open(self.path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True
        return False


class Watchdog:
    """Beats of this process and looks at the others'; enter it to begin.

    `leave` is called by the thread with a verdict and does not return in a real process.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        process: int,
        processes: int,
        session: str,
        hang_timeout_s: float,
        leave: Callable[[Verdict], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._leave = leave
        self._clock = clock
        self._hang_timeout_s = hang_timeout_s
        self._mine = Beat(
            session, process, platform.node(), os.getpid(), str(Doing.PREPARING), step=0, count=0
        )
        self._others = [_Seen(folder / str(i)) for i in range(processes) if i != process]
        self._processes = processes
        self._moved = False
        self._still_s = 0.0
        self._guard = threading.Lock()
        self._writing = threading.Lock()  # apart: who trains does not wait for a slow disk
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        """Raises LabError where another process holds the lock for longer than a moment."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / str(self._mine.process)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            _lock(self._file, path)
        except (LabError, OSError):
            os.close(self._file)
            raise
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        os.close(self._file)

    def beat(self, doing: Doing, step: int) -> None:
        """Say what this process is at now."""
        with self._guard:
            begins = Doing.PREPARING in (doing, self._mine.doing)
            count = 0 if begins else self._mine.count + 1
            self._mine = dataclasses.replace(self._mine, doing=str(doing), step=step, count=count)
            self._moved = True

    def left(self, code: int) -> None:
        """Say that this process leaves, so that nobody takes it for dead."""
        with self._guard:
            self._mine = dataclasses.replace(self._mine, left=code)
        self._write()

    def wait_for_others(self) -> None:
        """Wait a while until all others have left, or died; not for one that is silent."""
        silent = {other.path for other in self._others if other.silent_s >= SILENT_S}
        for _ in range(round(LAST_S / LOOK_S)):
            if all(other.path in silent or _is_gone(other) for other in self._fresh()):
                return
            time.sleep(LOOK_S)

    def why(self, *, wait_s: float) -> Verdict | None:
        """Whose end explains an error of a collective here; None where nobody's is seen."""
        for _ in range(max(1, round(wait_s / LOOK_S))):
            for other in self._fresh():
                if verdict := _gone(other):
                    return verdict
            time.sleep(LOOK_S)
        return None

    def _fresh(self) -> list[_Seen]:
        """The others as they are now; the thread has its own view of them."""
        fresh = [_Seen(other.path) for other in self._others]
        for other in fresh:
            other.look(self._mine.session, 0.0)
        return fresh

    def _watch(self) -> None:
        before_s = self._clock()
        while not self._ended.wait(LOOK_S):
            now_s = self._clock()
            passed_s, before_s = min(now_s - before_s, MOST_S), now_s
            self._write()
            verdict = self._look(passed_s)
            if verdict and not self._ended.is_set():
                self._leave(verdict)
                return

    def _look(self, passed_s: float) -> Verdict | None:
        with self._guard:
            self._still_s = 0.0 if self._moved else self._still_s + passed_s
            self._moved = False
            mine = self._mine
        for other in self._others:
            other.look(mine.session, passed_s)
        for other in self._others:
            verdict = self._judged(other)
            if verdict:
                return verdict
        return self._hang(mine)

    def _judged(self, other: _Seen) -> Verdict | None:
        if other.beat is not None and other.beat.left is not None:
            return _gone(other) if other.left_s > GRACE_S else None
        if other.silent_s >= 3 * LOOK_S and (verdict := _gone(other)):
            return verdict
        if other.silent_s < SILENT_S:
            return None
        if other.beat is None:
            line = f"the process of {other.path} never began to train"
            return Verdict(ExitCode.HOST_LOST, line)
        return Verdict(
            ExitCode.HANG,
            f"{other.beat.name} says nothing since {other.silent_s:.0f} s, at step "
            f"{other.beat.step} ({other.beat.doing}): it is stopped, or its machine is gone",
        )

    def _hang(self, mine: Beat) -> Verdict | None:
        limit_s = _limit_s(mine.doing, self._hang_timeout_s)
        if self._still_s <= limit_s:
            return None
        beats = [mine, *(other.beat for other in self._others if other.beat is not None)]
        fewest = min(beat.count for beat in beats)
        behind = [beat for beat in beats if beat.count == fewest]
        still = f"no progress for {self._still_s:.0f} s"
        if len(behind) == len(beats):
            line = f"{still}: all processes are at step {mine.step} ({mine.doing}), none is behind"
            return Verdict(ExitCode.HANG, line)
        named = ", ".join(f"{b.name}, at step {b.step} ({b.doing})" for b in behind)
        return Verdict(ExitCode.HANG, f"{still}: all wait for {named}")

    def _write(self) -> None:
        with self._writing:  # two threads call this: an older beat never replaces a newer one
            with self._guard:
                self._mine = dataclasses.replace(self._mine, tick=self._mine.tick + 1)
                text = json.dumps(dataclasses.asdict(self._mine)).encode()
            with contextlib.suppress(OSError):  # a full disk is no reason to leave; silence is
                os.pwrite(self._file, text.ljust(WIDTH - 1) + b"\n", 0)


def _lock(file: int, path: pathlib.Path) -> None:
    end_s = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end_s:
                beat = read_beat(path)
                who = beat.name if beat else "another process"
                raise LabError(
                    f"{path}: {who} holds it, of another job with this run or stopped; end it first"
                ) from None
            time.sleep(0.05)
        except OSError as error:  # flock names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        else:
            return


def _limit_s(doing: str, hang_timeout_s: float) -> float:
    """How long a process may be at this; preparing data may take any time."""
    if doing == Doing.PREPARING:
        return float("inf")
    slow = doing in (Doing.RESTORING, Doing.COMPILING, Doing.SAVING)
    return hang_timeout_s * (SLOW if slow else 1)


def _is_gone(other: _Seen) -> bool:
    return other.beat is None or other.beat.left is not None or other.is_dead()


def _gone(other: _Seen) -> Verdict | None:
    """A verdict where it died, or left with an error of its own."""
    if other.beat is None:
        return None
    if other.beat.left is not None:
        if other.beat.left in (ExitCode.DONE, ExitCode.DIVERGED, ExitCode.INTERRUPTED):
            return None
        line = f"{other.beat.name} left with exit code {other.beat.left}: see what it says"
        return Verdict(ExitCode(other.beat.left), line)
    if not other.is_dead():
        return None
    line = f"{other.beat.name} died at step {other.beat.step} ({other.beat.doing})"
    return Verdict(ExitCode.HOST_LOST, line)


def read_beat(path: pathlib.Path) -> Beat | None:
    """What stands in a file of beats; None for half of one, and for none."""
    try:
        return Beat(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
