"""Many small runs in one program: runs of one compiled program, updated together.

A small model does not fill a device, and a host needs as long to start its update as that of a
large one. Runs that differ in numbers only (lab/core/program.py) take their updates by one call:
on one device one after the other or side by side, on several devices each on its own.

Every run keeps its own loop, record, checkpoints and place in its data. The loops are threads of
one process; where one asks for its next updates it waits until all have asked (or ended), and then
all are started at once. They need not be at one step: batches, keys and numbers are arguments. A
run that evaluates or saves holds the others up, one that ends or fails leaves its seat.

L seats of a device, M updates in a dispatch, P devices.
"""

from __future__ import annotations

import dataclasses
import functools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lab.train.dispatch import Asked, Started
from lab.train.pack_metrics import Fetched, Row
from lab.train.pack_program import (
    AXIS,
    keys_of,
    picked,
    program,
    replaced,
    shard_on,
    stack,
    stacked,
)
from lab.train.state import State

if TYPE_CHECKING:
    from lab.train.job import Job
    from lab.train.programs import JobPrograms, Steps


class Pack:
    """The seats of some runs on some devices."""

    def __init__(self, seats: int, devices: Sequence[jax.Device]) -> None:
        """No more devices are used than there are seats."""
        self.devices = list(devices)[:seats]
        self._order: list[list[int | None]] = [[] for _ in self.devices]  # seats of each device
        for seat in range(seats):
            self._order[seat % len(self.devices)].append(seat)
        most = max(len(order) for order in self._order)
        for order in self._order:
            order += [None] * (most - len(order))
        self.seats = [Seat(self, number) for number in range(seats)]
        self._open = set(range(seats))
        self._asked: dict[int, tuple[Any, Asked]] = {}
        # What comes of the updates: a box for each, since threads that wake under one lock queue.
        self._given = [queue.SimpleQueue[Row | BaseException]() for _ in self.seats]
        self._lock = threading.Lock()
        self._states: list[State] = []  # of each device: (L, ...)
        self._spare: list[Asked] = []  # of each device: for seats that nobody sits on
        self._steps: Steps | None = None
        self._run: Callable[..., Any] | None = None
        self._programs: dict[jax.Device, JobPrograms] = {}

    def device_of(self, number: int) -> jax.Device:
        """Where a seat's run lives."""
        return self.devices[self._place(number)[0]]

    def _place(self, number: int) -> tuple[int, int]:
        """Device and slot of a seat."""
        for device, order in enumerate(self._order):
            if number in order:
                return device, order.index(number)
        raise KeyError(number)

    def programs(self, device: jax.Device, job: Job[Any]) -> JobPrograms:
        """What the runs of a device compile once: those of the first one that came."""
        with self._lock:
            if device not in self._programs:
                made = job.programs
                evaluate = _by_one_thread(made.steps.evaluate)
                self._programs[device] = dataclasses.replace(
                    made,
                    make_initial=_by_one_thread(made.make_initial),
                    steps=dataclasses.replace(made.steps, evaluate=evaluate),
                )
            return self._programs[device]

    def leave(self, number: int) -> None:
        """The run of a seat asks for nothing more.

        Where the others waited for it only, this starts (and may compile) their updates.
        """
        with self._lock:
            self._open.discard(number)
            self._asked.pop(number, None)
            self._start_if_all_asked()

    def started(self, number: int, steps: Steps, state: Any, asked: Asked) -> Row:
        """Wait until all have asked, the last of whom starts; what comes of this seat's updates."""
        with self._lock:
            self._steps = self._steps or steps
            self._asked[number] = (state, asked)
            self._start_if_all_asked()
        given = self._given[number].get()
        if isinstance(given, BaseException):
            raise given
        return given

    def _start_if_all_asked(self) -> None:
        """Under the lock, while all others wait."""
        if not self._asked or set(self._asked) != self._open:
            return
        asked, self._asked = self._asked, {}
        try:
            given: Mapping[int, Row | BaseException] = self._update(asked)
        except BaseException as error:  # noqa: BLE001 every one of the runs raises it
            given = dict.fromkeys(asked, error)
        for number, each in given.items():
            self._given[number].put(each)

    def _update(self, asked: Mapping[int, tuple[Any, Asked]]) -> dict[int, Row]:
        assert self._steps is not None  # who asked brought them
        self._seat_states(asked)
        self._spare = self._spare or self._spares(next(iter(asked.values()))[1])
        slots: list[list[Asked]] = []
        for device, order in enumerate(self._order):
            here = [asked[number][1] for number in order if number in asked]
            self._spare[device] = here[0] if here else self._spare[device]
            idle = dataclasses.replace(self._spare[device], count=0)
            slots.append([asked[n][1] if n in asked else idle for n in order])
        flat = [each for device in slots for each in device]
        given = (
            self._assembled(self._states),
            self._batches(flat),
            self._spread(
                keys_of(
                    np.asarray([each.seed for each in flat], np.int32),
                    np.stack([each.updates_K for each in flat]),
                )
            ),
            jax.tree.map(lambda *rows: self._spread(np.stack(rows)), *(e.numbers_K for e in flat)),
            self._spread(np.asarray([each.count for each in flat], np.int32)),
        )
        if self._run is None:
            alike = self.devices[0].platform == "cpu"
            self._run = program(self._steps.update, mesh=self._mesh, side_by_side=not alike)
        states, metrics = self._run(*given, *self._frozen)
        self._states = self._parts(states)
        fetched, slots_each = Fetched(metrics), len(self._order[0])
        return {
            number: Row(fetched, device * slots_each + slot)
            for device, order in enumerate(self._order)
            for slot, number in enumerate(order)
            if number in asked
        }

    def _spares(self, asked: Asked) -> list[Asked]:
        """For each device what a seat there may have that nobody sits on."""
        if self._mesh is None or _on_host(asked):
            return [asked] * len(self.devices)
        return [
            dataclasses.replace(asked, batches=jax.device_put(dict(asked.batches), device))
            for device in self.devices
        ]

    @functools.cached_property
    def _frozen(self) -> tuple[Any, ...]:
        """The weights that do not train, on every device."""
        assert self._steps is not None  # who asked brought them
        if self._mesh is None:
            return self._steps.frozen
        return jax.device_put(self._steps.frozen, NamedSharding(self._mesh, PartitionSpec()))

    @functools.cached_property
    def _mesh(self) -> Mesh | None:
        if len(self.devices) == 1:
            return None
        return Mesh(np.asarray(self.devices), (AXIS,), axis_types=(AxisType.Auto,))

    def _seat_states(self, asked: Mapping[int, tuple[Any, Asked]]) -> None:
        """Put the states of runs that come from a checkpoint or the beginning into their slots."""
        fresh = {n: state for n, (state, _) in asked.items() if not isinstance(state, Lane)}
        if not self._states:
            any_state = next(iter(fresh.values()))
            self._states = [
                stacked([fresh[n] if n in fresh else any_state for n in order], device)
                for order, device in zip(self._order, self.devices, strict=True)
            ]
            return
        for number, state in fresh.items():
            device, slot = self._place(number)
            self._states[device] = replaced(self._states[device], state, slot)
        self._close_ranks(asked)

    def _close_ranks(self, asked: Mapping[int, Any]) -> None:
        """On one device half the slots go where the rest is enough; the program is made anew."""
        (order, *others) = self._order
        left = [slot for slot, number in enumerate(order) if number in asked]
        if others or 2 * len(left) > len(order):
            return
        chosen = np.asarray(left)
        self._states = [jax.tree.map(lambda x: x[chosen], self._states[0])]
        self._order = [[order[slot] for slot in left]]

    def _spread(self, rows: Any) -> Any:
        """Rows (P L, ...) of all slots, each where its device is."""
        if self._mesh is None:
            return rows
        return jax.device_put(rows, NamedSharding(self._mesh, PartitionSpec(AXIS)))

    def _joined(self, parts: Sequence[jax.Array]) -> jax.Array:
        """One array of equal parts on the devices, one after the other in the first axis."""
        assert self._mesh is not None  # of several devices
        shape = (len(parts) * parts[0].shape[0], *parts[0].shape[1:])
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        return jax.make_array_from_single_device_arrays(shape, sharding, list(parts))

    def _assembled(self, states: Sequence[State]) -> State:
        if self._mesh is None:
            return states[0]
        return jax.tree.map(lambda *parts: self._joined(parts), *states)

    def _batches(self, flat: Sequence[Asked]) -> Any:
        """(P L, M, B, ...): by one transfer where they are on the host."""
        if all(map(_on_host, flat)):
            stacked = {name: np.stack([e.batches[name] for e in flat]) for name in flat[0].batches}
            return self._spread(stacked)
        each, count = [dict(asked.batches) for asked in flat], len(self.devices)
        slots = len(each) // count
        parts = [stack(each[at * slots : (at + 1) * slots]) for at in range(count)]
        if self._mesh is None:
            return parts[0]
        return jax.tree.map(lambda *shards: self._joined(shards), *parts)

    def _parts(self, states: State) -> list[State]:
        if self._mesh is None:
            return [states]
        return [
            jax.tree.map(lambda leaf, d=device: shard_on(leaf, d), states)
            for device in self.devices
        ]

    def taken(self, number: int) -> State:
        """The state of a seat, in arrays of its own."""
        device, slot = self._place(number)
        return picked(self._states[device], slot)


def _by_one_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for many threads, of which all but the first find it compiled."""
    lock = threading.Lock()

    def locked(*given: Any) -> Any:
        with lock:
            return function(*given)

    return locked


class Seat:
    """A run's place in a pack: starts its updates as a Dispatcher would."""

    def __init__(self, pack: Pack, number: int) -> None:
        self.number = number
        self._pack = pack
        self._job: Job[Any] | None = None

    @property
    def device(self) -> jax.Device:
        """Where the run lives."""
        return self._pack.device_of(self.number)

    @property
    def traced(self) -> bool:
        """Whether steps are traced under the mesh of the device, which is the only one."""
        return len(self._pack.devices) == 1

    def sit(self, job: Job[Any]) -> None:
        """Take the seat for a run, whose layout is that of the device."""
        self._job = job
        self.most = job.run.execution.steps_per_dispatch
        job.use(self._pack.programs(self.device, job))
        self.steps = job.steps()

    def start(
        self,
        state: Any,
        first: int,
        batches: Sequence[Mapping[str, np.ndarray]],
        rates: Sequence[float],
        *,
        shift: int = 0,
    ) -> tuple[Any, Started]:
        """Start updates together with those of the other runs; see Dispatcher.start."""
        assert self._job is not None  # it sat down before its loop began
        asked = Asked.of(self._job, first, batches, rates, shift=shift, most=self.most)
        row = self._pack.started(self.number, self.steps, state, asked)
        return Lane(self._pack, self.number), Started(first, rates, row, stacked=True)

    def whole(self, state: Any) -> State:
        """The state as a tree of arrays."""
        return self._pack.taken(self.number) if isinstance(state, Lane) else state

    def leave(self) -> None:
        """Ask for nothing more."""
        self._pack.leave(self.number)


class Lane(Mapping[str, Any]):
    """The state of a run that lies in its pack's; its parts are taken out where they are looked at.

    It changes by the run's own updates only.
    """

    def __init__(self, pack: Pack, number: int) -> None:
        self._pack, self._number = pack, number
        self._taken: State | None = None

    def _whole(self) -> State:
        self._taken = self._taken or self._pack.taken(self._number)
        return self._taken

    def __getitem__(self, part: str) -> Any:
        return self._whole()[part]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())


def _on_host(asked: Asked) -> bool:
    return all(isinstance(rows, np.ndarray) for rows in asked.batches.values())
