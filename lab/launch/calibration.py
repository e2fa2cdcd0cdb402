"""How fast this machine trains: measured once a program, kept in WORKDIR/calibration.jsonl.

A program is what runs that differ in numbers share (lab/core/program.py). It is measured as it will
run: by as many processes at once as the sweep has workers, each on its share of the cores, with the
sweep's own data, layout and dispatches.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lab.core.config import AnyRun
from lab.core.cores import core_count
from lab.core.errors import LabError
from lab.core.program import program
from lab.core.writing import writing

SCHEMA = "lab.calibration/1"
FILE = "calibration.jsonl"
LEAST_S = 1.5  # of updates that are timed
LEAST_DISPATCHES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One program on one machine."""

    program: str
    machine: str
    workers: int
    update_s: float  # median over dispatches, mean over workers
    compile_s: float  # of the update and of an evaluation's batch; less where they are kept on disk
    evaluation_s: float  # of the whole validation split
    step_bytes: int  # of the compiled update: state, batch and activations, on one device
    startup_s: float  # of a process, once

    @property
    def key(self) -> tuple[str, str, int]:
        """What it was measured of."""
        return (self.program, self.machine, self.workers)


def machine() -> str:
    """This machine as far as speed goes: processor, cores, devices and jax."""
    import jax

    devices = jax.devices()
    kind, count = devices[0].device_kind, len(devices)
    if devices[0].platform != "cpu":  # of a CPU there are as many as one asks for
        kind = f"{count} x {kind}"
    return f"{processor()}, {core_count()} cores, {kind}, jax {jax.__version__}"


def processor() -> str:
    """The model of the processor, as the system tells it."""
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read(path: pathlib.Path) -> dict[tuple[str, str, int], Measured]:
    """All that was measured, the last of a kind; raises LabError for a line of another schema."""
    found: dict[tuple[str, str, int], Measured] = {}
    if not path.exists():
        return found
    fields = {field.name for field in dataclasses.fields(Measured)}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            if row.pop("schema") != SCHEMA or set(row) != fields:
                raise KeyError
        except (ValueError, KeyError, AttributeError):
            raise LabError(
                f"{path}, line {number}: a measurement of schema {SCHEMA} is expected; delete the "
                "file to measure anew"
            ) from None
        each = Measured(**row)
        found[each.key] = each
    return found


def append(path: pathlib.Path, found: Iterable[Measured]) -> None:
    """Add measurements to the file."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            for each in found:
                file.write(json.dumps({"schema": SCHEMA, **dataclasses.asdict(each)}) + "\n")


def merged(parts: Sequence[Measured]) -> Measured:
    """What several workers measured of one program at once."""
    first = parts[0]

    def mean(name: str) -> float:
        return statistics.fmean(getattr(part, name) for part in parts)

    return dataclasses.replace(
        first,
        update_s=mean("update_s"),
        compile_s=mean("compile_s"),
        evaluation_s=mean("evaluation_s"),
        startup_s=mean("startup_s"),
        step_bytes=max(part.step_bytes for part in parts),
    )


def measure(
    run: AnyRun, *, workers: int, startup_s: float, clock: Callable[[], float] = time.perf_counter
) -> Measured:
    """Train a run for some updates in memory, and evaluate once; nothing is written."""
    import jax

    from lab.core.keys import Stream
    from lab.launch.runner import make_job
    from lab.train.dispatch import Dispatcher
    from lab.train.optimizer import learning_rate

    job: Any = make_job(run, lambda preparing: None)
    steps, state = job.steps(), job.initial_state()
    jax.block_until_ready(state)
    most, dispatcher = run.execution.steps_per_dispatch, Dispatcher(job, steps)
    lengths = {"total_steps": job.total_steps, "warmup_steps": job.warmup_steps}
    rate = learning_rate(run.optimizer, 0, **lengths)
    times: list[float] = []
    given: list[Any] = []
    with job.train_batches().prefetched(0, 10**9) as batches:
        first = 0
        while sum(times[1:]) < LEAST_S or len(times) <= LEAST_DISPATCHES:
            began_s = clock()
            given = [next(batches) for _ in range(most)]
            state, started = dispatcher.start(state, first, given, [rate] * most)
            jax.block_until_ready(started.metrics)
            times.append(clock() - began_s)
            first += most
    placed = next(iter(job.validation_batches()))[0]
    began_s = clock()
    jax.block_until_ready(steps.evaluate(state["params"], placed))
    first_look_s = clock() - began_s
    began_s = clock()
    job.evaluate(steps, state["params"], between=lambda: None)
    evaluation_s = clock() - began_s
    batch = job.place(given[0], Stream.TRAIN, 0)
    return Measured(
        program=program(run),
        machine=machine(),
        workers=workers,
        update_s=statistics.median(times[1:]) / most,
        compile_s=max(0.0, times[0] - statistics.median(times[1:])) + first_look_s,
        evaluation_s=evaluation_s,
        step_bytes=_bytes([state, batch], job, steps, batch),
        startup_s=startup_s,
    )


def _bytes(held: Any, job: Any, steps: Any, batch: Any) -> int:
    """What the compiled update needs on a device, as XLA says; what is held where it does not."""
    import jax

    from lab.core.keys import Stream, key
    from lab.train.optimizer import numbers_at

    arguments = sum(leaf.nbytes for leaf in jax.tree.leaves(held))
    lower = getattr(steps.train, "lower", None)
    if lower is None:
        return arguments
    given = (key(0, Stream.TRAIN, 0), numbers_at(job.run.optimizer, 0.0))
    found = lower(job.abstract_state, batch, *given).compile().memory_analysis()
    if found is None:
        return arguments
    return found.argument_size_in_bytes + found.temp_size_in_bytes
