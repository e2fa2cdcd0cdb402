"""The operations of a trace, by the part of a training step that they belong to.

An operation is known by the program that ran it, which is asked of jax as the compiler left it, and
belongs to a part by the scopes in the program's text (lab/core/scopes.py).
"""

import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from lab.core.errors import LabError
from lab.core.hlo import Program
from lab.core.hlo_parts import COPIES, OTHER, Kind, Place, places
from lab.core.scopes import OPTIMIZER
from lab.core.xplane import Event, Op, read, self_times

BATCH = "batch"  # programs beside the step: keys, codes of images that devices encode


def parts_of(path: pathlib.Path, *, dispatches: int) -> dict[tuple[str, str], float]:
    """Seconds by part and direction of all updates of a trace, a mean over its devices."""
    devices = read(path)
    if not devices:
        raise LabError(f"{path}: no operation of a device is in this trace")
    events = [event for each in devices.values() for event in each]
    owner = Owner(live_programs({event.module for event in events}), events)
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for name, each in devices.items():
        owner.check_whole(each, dispatches=dispatches, device=name)
        for op, time_ns in self_times(each, owner.kind_of).items():
            found[owner.part_of(op)] += time_ns / 1e9 / len(devices)
    return dict(found)


def live_programs(modules: Iterable[str]) -> dict[str, list[Program]]:
    """The compiled programs of this process that have these names, as the compiler left them."""
    import jax

    from lab.core import hlo

    wanted, found = set(modules), defaultdict(list)
    for executable in jax.devices()[0].client.live_executables():
        for module in executable.hlo_modules():
            if module.name in wanted or "" in wanted:
                found[module.name].append(hlo.read(module.to_string()))
    return dict(found)


class Owner:
    """Says of an operation of a trace to which part it belongs.

    What a GPU runs from a graph is told as the graph and the kernel, and belongs to no part: the
    number in a kernel's name is not that of its instruction, and equal instructions share one.
    """

    def __init__(self, programs: Mapping[str, Sequence[Program]], events: Iterable[Event]) -> None:
        seen: defaultdict[str, set[str]] = defaultdict(set)
        for event in events:
            seen[event.module].add(event.op)
        self._places: dict[str, dict[str, Place]] = {}
        self._once: dict[str, set[str]] = {}  # what an update's program runs once
        for name, named in programs.items():
            read = [(program, places(program)) for program in named]
            program, of = max(read, key=lambda each: len(seen[name] & set(each[1])))
            self._places[name] = of
            if any(place.part == OPTIMIZER for place in of.values()):
                self._once[name] = set(program.computations[program.entry].instructions)
        if not self._once:
            raise LabError(f"the trace has no program that updates parameters, but {sorted(seen)}")

    def kind_of(self, op: Op) -> Kind:
        """What counts first where several run at once."""
        return self._place(op).kind

    def part_of(self, op: Op) -> tuple[str, str]:
        """Part and direction; of other programs BATCH."""
        if op[0] in self._once or not op[0]:
            place = self._place(op)
            return place.part, place.direction or ""
        return BATCH, ""

    def _place(self, op: Op) -> Place:
        module, name = op
        place = self._places.get(module, {}).get(name)
        if place is None and name.startswith(("Memcpy", "Memset")):
            place = Place(COPIES, None, Kind.TRANSFER)
        return place or Place(OTHER, None, Kind.WORK)

    def check_whole(self, events: Iterable[Event], *, dispatches: int, device: str) -> None:
        """Raises LabError where a device's part of the trace lacks updates."""
        runs = Counter(e.op for e in events if e.op in self._once.get(e.module, ()))
        most = max(runs.values(), default=0)
        if runs and most < dispatches:
            raise LabError(
                f"--profile-updates: the trace of {device} has {most} of {dispatches} dispatches, "
                "its buffer is full; ask for fewer"
            )
