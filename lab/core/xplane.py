"""A profile of the devices (xplane), read: for how long each operation ran, and nothing twice.

Events lie on lines: threads of a CPU, streams of a GPU, the core of a TPU. They contain others (a
loop its body) and lie beside others (threads, streams). The time of a device in which anything ran
is divided so that the operations sum to it:

- on a line an event has the time in which no event inside it runs;
- of several lines, those with work share an instant equally; a transfer has what no work hides,
  a loop or a call what is left between its operations;
- what a thread of a CPU starts and leaves to others goes on after the thread's own event: that
  counts where no work has an event.
"""

import bisect
import dataclasses
import pathlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from lab.core.hlo_parts import Kind

Op = tuple[str, str]  # module, instruction
RANKS = [(kind, later) for kind in Kind for later in (False, True)]


@dataclasses.dataclass(frozen=True)
class Event:
    """One run of an operation on one line of a device."""

    line: int
    module: str
    op: str
    start_ns: float
    end_ns: float
    finish_ns: float = 0.0  # when what it left to other threads was done, where that is later


class _Segment(NamedTuple):
    start_ns: float
    end_ns: float
    op: Op
    rank: tuple[Kind, bool]  # the lowest counts; whether it is beyond the operation's own event


def self_times(events: Iterable[Event], kind_of: Callable[[Op], Kind]) -> dict[Op, float]:
    """Nanoseconds of each operation of one device; their sum is the time in which any ran."""
    by_line: defaultdict[int, list[Event]] = defaultdict(list)
    for event in events:
        by_line[event.line].append(event)
    segments = [s for line in by_line.values() for s in _innermost(line, kind_of)]
    for line in by_line.values():
        for event in line:
            if event.finish_ns > event.end_ns:
                op = (event.module, event.op)
                rank = (kind_of(op), True)
                segments.append(_Segment(event.end_ns, event.finish_ns, op, rank))
    return _shared(segments)


def _innermost(line: Sequence[Event], kind_of: Callable[[Op], Kind]) -> Iterator[_Segment]:
    """The times of a line in which each event is the one that began last."""
    open_: list[Event] = []
    at_ns = 0.0

    def ran_until(end_ns: float) -> Iterator[_Segment]:
        nonlocal at_ns
        while open_ and at_ns < end_ns:
            event = open_[-1]
            until = min(end_ns, event.end_ns)
            if until > at_ns:
                op = (event.module, event.op)
                yield _Segment(at_ns, until, op, (kind_of(op), False))
                at_ns = until
            if event.end_ns <= at_ns:
                open_.pop()
        at_ns = max(at_ns, end_ns)

    for event in sorted(line, key=lambda e: (e.start_ns, -e.end_ns)):
        yield from ran_until(event.start_ns)
        open_.append(event)
    yield from ran_until(max((event.end_ns for event in line), default=0.0))


def _shared(segments: Sequence[_Segment]) -> dict[Op, float]:
    """Each instant in equal parts among the segments of the lowest rank that are there."""
    found: defaultdict[Op, float] = defaultdict(float)
    bounds = [(s.start_ns, True, number) for number, s in enumerate(segments)]
    bounds += [(s.end_ns, False, number) for number, s in enumerate(segments)]
    active: dict[tuple[Kind, bool], set[int]] = {rank: set() for rank in RANKS}
    before_ns = 0.0
    for time_ns, begins, number in sorted(bounds):
        first = next((active[rank] for rank in RANKS if active[rank]), None)
        if first and time_ns > before_ns:
            for each in first:
                found[segments[each].op] += (time_ns - before_ns) / len(first)
        before_ns = time_ns
        among = active[segments[number].rank]
        if begins:
            among.add(number)
        else:
            among.discard(number)
    return dict(found)


def read(path: pathlib.Path) -> dict[str, list[Event]]:
    """The events of operations in a trace file, by device: "CPU 0", "/device:TPU:0"."""
    from jax.profiler import ProfileData

    data = ProfileData.from_file(str(path))
    accelerators: dict[str, list[Event]] = {}
    host: dict[str, list[Event]] = {}
    with warnings.catch_warnings():
        # Of jaxlib's own types, under Python 3.12; as an error it would end the process.
        warnings.simplefilter("ignore", DeprecationWarning)
        for plane in data.planes:
            if plane.name.startswith("/host:CPU"):
                host = _of_threads(list(plane.lines))
            elif plane.name.startswith("/device:"):
                events = list(_of_device(list(plane.lines)))
                if events:
                    accelerators[plane.name] = events
    return accelerators or host


def _of_threads(lines: Sequence[Any]) -> dict[str, list[Event]]:
    """A CPU device: each thread's event of an operation, and when it was done.

    Where an operation goes on in other threads, "end: NAME" marks its end on one of them.
    """
    found: defaultdict[str, list[Event]] = defaultdict(list)
    numbered = [(line, list(each.events)) for line, each in enumerate(lines)]
    ends: dict[Any, float] = {}
    for _, events in numbered:
        for event in events:
            if event.name.startswith("end: "):
                ends[dict(event.stats).get("_c")] = event.start_ns
    for line, events in numbered:
        for event in events:
            stats = dict(event.stats)
            if "hlo_op" not in stats:
                continue
            found[f"CPU {stats.get('device_ordinal', 0)}"].append(
                Event(
                    line,
                    str(stats.get("hlo_module", "")),
                    str(stats["hlo_op"]),
                    event.start_ns,
                    event.end_ns,
                    ends.get(stats.get("_p", object()), 0.0),
                )
            )
    return dict(found)


def _of_device(lines: Sequence[Any]) -> Iterator[Event]:
    """A TPU's core, or the streams of a GPU."""
    ops = [each for each in lines if each.name == "XLA Ops"]
    if not ops:
        ops = [each for each in lines if each.name.startswith("Stream")]
    modules = _Modules(e for line in lines if line.name == "XLA Modules" for e in line.events)
    for line, each in enumerate(ops):
        for event in each.events:
            stats = dict(event.stats)
            module = stats.get("hlo_module") or modules.at(event.start_ns)
            op = stats.get("hlo_op") or instruction_name(event.name)
            yield Event(line, str(module), str(op), event.start_ns, event.end_ns)


def instruction_name(text: str) -> str:
    """The name in an instruction's text, as a TPU gives it: "%fusion.3 = bf16[8] fusion(...)"."""
    return text.partition(" = ")[0].strip().removeprefix("%")


class _Modules:
    """Which program ran when, of a line with an event a call: "jit_train(1234)"."""

    def __init__(self, events: Iterable[Any]) -> None:
        calls = sorted((e.start_ns, e.end_ns, e.name.partition("(")[0]) for e in events)
        self._starts = [start for start, _, _ in calls]
        self._calls = calls

    def at(self, time_ns: float) -> str:
        """The program of an instant; "" between calls."""
        index = bisect.bisect_right(self._starts, time_ns) - 1
        if index < 0 or time_ns > self._calls[index][1]:
            return ""
        return self._calls[index][2]
