"""What `time.jsonl` of a run says: its sessions, and where the time of the run went.

Time is productive where updates that stand ran. Lost is what was thrown away: steps that were done
again after a kill or a rollback (`redone`), and time in which nobody told of the run between two
sessions (`unheld`), which holds the last seconds of one that was killed.
"""

import dataclasses
import json
import pathlib
from typing import Any

from lab.core.errors import LabError
from lab.launch.timesheet import KINDS, SCHEMA

_STEPWISE = ("data", "evaluation", "save", "update")  # what is done again with the steps

_FIELDS = ("session", "at_unix_s", "step", "doing", *(f"{kind}_s" for kind in KINDS))


@dataclasses.dataclass(frozen=True)
class Line:
    """What a session had told by then; `step` is None before a state is restored."""

    at_unix_s: float
    step: int | None
    doing: str
    seconds: dict[str, float]  # by kind, since the session began


@dataclasses.dataclass(frozen=True)
class Session:
    """What one process did with a run."""

    name: str
    host: str
    pid: int
    ended: str  # "": killed, or still at it
    lines: tuple[Line, ...]

    @property
    def at_unix_s(self) -> tuple[float, float]:
        """From its claim to the last that it told, by the clock of its host."""
        return self.lines[0].at_unix_s, self.lines[-1].at_unix_s

    def step_s(self) -> float | None:
        """Seconds an update takes, with its evaluations and saves, since the middle of the lines
        that told of steps; None where it made none.
        """
        lines = [line for line in self.lines if line.step is not None]
        if not lines:
            return None
        last, back = lines[-1], max(i for i, line in enumerate(lines) if _sets_back(lines, i))
        half = lines[back:][: max(1, len(lines[back:]) // 2)]
        made = [line for line in half if line.step != last.step]
        if not made:
            return None
        first = made[-1]
        assert last.step is not None and first.step is not None  # chosen so
        spent_s = sum(last.seconds[kind] - first.seconds[kind] for kind in _STEPWISE)
        return spent_s / (last.step - first.step)


def _sets_back(lines: list[Line], index: int) -> bool:
    """Whether the run is at an earlier step than in the line before; so it is in the first one."""
    before, here = lines[index - 1].step, lines[index].step
    assert before is not None and here is not None
    return index == 0 or here < before


@dataclasses.dataclass(frozen=True)
class Goodput:
    """Seconds of a run, or of several, by what became of them."""

    productive_s: float = 0.0
    compile_s: float = 0.0
    data_s: float = 0.0
    evaluation_s: float = 0.0
    save_s: float = 0.0
    startup_s: float = 0.0
    redone_s: float = 0.0
    unheld_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All of them."""
        return sum(dataclasses.asdict(self).values())

    def __add__(self, other: "Goodput") -> "Goodput":
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Goodput(**{name: ours[name] + theirs[name] for name in ours})

    def shares(self) -> dict[str, float]:
        """Parts of the whole by name, `lost` being the last two; none where there is no time."""
        if not self.total_s:
            return {}
        seconds = dataclasses.asdict(self)
        seconds["lost_s"] = seconds.pop("redone_s") + seconds.pop("unheld_s")
        return {name.removesuffix("_s"): value / self.total_s for name, value in seconds.items()}

    def as_json(self) -> dict[str, float]:
        """Seconds by name."""
        return {name: round(value, 3) for name, value in dataclasses.asdict(self).items()}


@dataclasses.dataclass
class _Part:
    """What one line adds to those before it: seconds by kind, between two steps."""

    first: int
    last: int
    seconds: dict[str, float]

    def cut(self, step: int) -> float:
        """Take out what was done beyond the step, which is done again; how many seconds."""
        if self.last <= step:
            return 0.0
        share = 1.0 if self.first >= step else (self.last - step) / (self.last - self.first)
        lost_s = 0.0
        for kind in _STEPWISE:
            lost_s += share * self.seconds[kind]
            self.seconds[kind] *= 1 - share
        self.first, self.last = min(self.first, step), step
        return lost_s


def goodput(sessions: list[Session]) -> Goodput:
    """Where the time of a run went, up to the last that was told of it."""
    parts: list[_Part] = []
    redone_s = unheld_s = 0.0
    told_s = None
    for session in sessions:
        began_s, ended_s = session.at_unix_s
        if told_s is not None:
            unheld_s += max(0.0, began_s - told_s)
        told_s = ended_s if told_s is None else max(told_s, ended_s)
        before = dict.fromkeys(KINDS, 0.0)
        for line in session.lines:
            at = parts[-1].last if parts else 0
            step = at if line.step is None else line.step
            if step < at:
                redone_s += sum(part.cut(step) for part in parts)
            seconds = {kind: line.seconds[kind] - before[kind] for kind in KINDS}
            parts.append(_Part(min(at, step), step, seconds))
            before = line.seconds
    sums = {kind: sum(part.seconds[kind] for part in parts) for kind in KINDS}
    sums["productive"] = sums.pop("update")
    told = {f"{kind}_s": seconds for kind, seconds in sums.items()}
    return Goodput(redone_s=redone_s, unheld_s=unheld_s, **told)


def read_sessions(path: pathlib.Path) -> list[Session]:
    """The sessions of a run in the order in which they began; none where there is no file.

    A half-written last line is left out; raises LabError for any other bad line.
    """
    if not path.exists():
        return []
    rows: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        row = _row(line, where=f"{path}, line {number}")
        rows.setdefault(row["session"], []).append(row)
    return [_session(name, found) for name, found in rows.items()]


def _row(line: bytes, *, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        raise LabError(f"{where}: not JSON: {line[:60]!r}") from None
    schema = row.get("schema") if isinstance(row, dict) else None
    if schema != SCHEMA:
        raise LabError(f'{where}: a line of schema "{SCHEMA}" is expected, not {schema!r}')
    missing = [name for name in _FIELDS if name not in row]
    if missing:
        raise LabError(f"{where}: {missing[0]} is missing")
    return row


def _session(name: str, rows: list[dict[str, Any]]) -> Session:
    lines = [
        Line(
            at_unix_s=row["at_unix_s"],
            step=row["step"],
            doing=row["doing"],
            seconds={kind: row[f"{kind}_s"] for kind in KINDS},
        )
        for row in rows
    ]
    return Session(
        name=name,
        host=rows[0].get("host", ""),
        pid=rows[0].get("pid", 0),
        ended=rows[-1].get("ended", ""),
        lines=tuple(lines),
    )
