"""Where the time of a training step goes: some updates under jax's profiler, nothing kept.

The updates are those of training: the same batches, programs and dispatches. No run directory is
made or read.
"""

import argparse
import dataclasses
import math
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lab.core.config import AnyRun
from lab.core.errors import ExitCode, LabError, Stopped
from lab.core.step_folders import one_line
from lab.launch.signals import StopSignal

if TYPE_CHECKING:
    from lab.core.peers import Peers
    from lab.launch.hosts import Beat
    from lab.train.hooks import Doing
    from lab.train.job import Job

UPDATES = 10
WARM_UP = 2  # dispatches: the first compiles, the second finds where the first left the state
HOST = "host and waiting"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The time of one part in one pass, of one update."""

    part: str
    direction: str  # of lab.core.scopes.Direction; "" where none is told
    update_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Where the time of an update went on a device, a mean over those of this process."""

    rows: tuple[Row, ...]  # their times sum to `update_s`
    updates: int
    update_s: float  # under the profiler
    bare_update_s: float  # the same updates just before, without it
    flops: float  # of an update, as the model counts them; all devices
    trace: pathlib.Path


def check_flags(flags: argparse.Namespace) -> None:
    """Refuse flags that do not go together; before jax is imported."""
    if flags.profile is None:
        if flags.profile_updates is not None:
            raise LabError(f"--profile-updates {flags.profile_updates}: --profile is missing")
        return
    if flags.parameters:
        raise LabError("--parameters and --profile: one of the two")
    if flags.profile_updates is not None and flags.profile_updates < 1:
        raise LabError(f"--profile-updates {flags.profile_updates}: at least 1")


def profile(
    run: AnyRun, signals: StopSignal, flags: argparse.Namespace, command: list[str], beat: "Beat"
) -> ExitCode:
    """Profile some updates, write profile.json and print it; of several processes each its own."""
    import jax
    from rich.console import Console

    from lab.core.peers import Peers
    from lab.launch.profile_table import as_json, show, write
    from lab.launch.runner import make_job
    from lab.train.hooks import Doing

    peers, folder = Peers.of_jax(), flags.profile
    folder = _folder_of(run, folder, peers) if peers.count > 1 else folder
    empty_folder(folder)
    # Kept programs are found whatever their metadata, and might have scopes of another time.
    jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
    with Console(stderr=True, quiet=not peers.leads).status(Doing.PREPARING) as status:

        def tell(doing: Doing, step: int) -> None:
            if signals.came:
                raise Stopped
            beat(doing, step)
            status.update(doing)

        try:
            job: Any = make_job(run, lambda _: tell(Doing.PREPARING, 0))
            found = measure(job, folder, updates=flags.profile_updates or UPDATES, tell=tell)
        except Stopped:
            print("interrupted: nothing was profiled")
            return ExitCode.INTERRUPTED
    document = as_json(job, found, command)
    write(folder, document)
    if peers.leads:
        show(document, folder)
    return ExitCode.DONE


def _folder_of(run: AnyRun, folder: pathlib.Path, peers: "Peers") -> pathlib.Path:
    """That of one process of several; LabError where they have not the same command."""
    from lab.launch.runner import follow, lead

    if peers.leads:
        lead(run, peers, None)
    else:
        follow(run, peers)
    return folder / f"process_{peers.index}"


def empty_folder(folder: pathlib.Path) -> None:
    """Make the folder of a profile; LabError where something is in it or it cannot be written."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LabError(f"--profile {folder}: exists and is not an empty folder; name another")
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / "profile.json"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LabError(f"--profile {folder}: cannot be written: {one_line(error)}") from None


def measure(job: "Job[Any]", folder: pathlib.Path, *, updates: int, tell: "Beat") -> Profile:
    """Where the time of a job's updates goes; the trace is left in the folder.

    `tell` is told what this is at, and raises Stopped where that is wished.
    """
    from lab.core.peers import Peers
    from lab.launch.profile_parts import parts_of
    from lab.train.agreement import meet
    from lab.train.hooks import Doing

    peers, most = Peers.of_jax(), job.run.execution.steps_per_dispatch
    if peers.count > 1:
        meet(job.layout, peers)
    dispatches = math.ceil(updates / most)
    tell(Doing.COMPILING, 0)
    with job.train_batches().prefetched(0, 10**9) as batches:
        updating = _Updating(job, batches, tell)
        updating.dispatch(WARM_UP, Doing.COMPILING)
        bare_s = updating.dispatch(dispatches, Doing.UPDATING)
        with _tracing(folder):
            wall_s = updating.dispatch(dispatches, Doing.UPDATING)
    tell(Doing.SAVING, updating.done)
    count, path = dispatches * most, trace_file(folder)
    parts = parts_of(path, dispatches=dispatches)
    return Profile(
        rows=tuple(rows_of(parts, updates=count, wall_s=wall_s)),
        updates=count,
        update_s=max(wall_s, sum(parts.values())) / count,
        bare_update_s=bare_s / count,
        flops=job.amounts(1)["flops"],
        trace=path,
    )


def _tracing(folder: pathlib.Path) -> Any:
    """jax's profiler without its record of Python's calls, which slows the host down."""
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    return jax.profiler.trace(folder, create_perfetto_trace=True, profiler_options=options)


class _Updating:
    """Updates one after the other as the loop starts them: one dispatch ahead of the devices."""

    def __init__(self, job: Any, batches: Iterator[Any], tell: "Beat") -> None:
        from lab.train.dispatch import Dispatcher

        self._job, self._batches, self._tell = job, batches, tell
        self._dispatcher = Dispatcher(job, job.steps())
        self._state = job.initial_state()
        self.done = 0

    def dispatch(self, count: int, doing: "Doing") -> float:
        """So many dispatches, and the seconds until the devices are done."""
        import jax

        from lab.train.optimizer import learning_rate

        job, before = self._job, None
        jax.block_until_ready(self._state)
        began_s = time.perf_counter()
        for _ in range(count):
            self._tell(doing, self.done)
            numbers = range(self.done, self.done + self._dispatcher.most)
            given = [next(self._batches) for _ in numbers]
            lengths = {"total_steps": job.total_steps, "warmup_steps": job.warmup_steps}
            last = job.total_steps - 1  # of a run that is shorter than its profile
            rates = [
                learning_rate(job.run.optimizer, min(each, last), **lengths) for each in numbers
            ]
            self._state, started = self._dispatcher.start(self._state, self.done, given, rates)
            jax.block_until_ready(before)
            before, self.done = started.metrics, numbers.stop
        jax.block_until_ready((before, self._state))
        return time.perf_counter() - began_s


def trace_file(folder: pathlib.Path) -> pathlib.Path:
    """The one trace under a folder."""
    found = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    if len(found) != 1:
        raise LabError(f"{folder}: {len(found)} traces, expected one: jax's profiler wrote none")
    return found[0]


def rows_of(
    parts: Mapping[tuple[str, str], float], *, updates: int, wall_s: float
) -> Iterator[Row]:
    """Rows of one update, longest first, the time in which no operation ran last.

    Clocks of host and devices differ by a little: where operations take longer than the host
    measured, that rest is zero and the update as long as they are.
    """
    for (part, direction), spent_s in sorted(parts.items(), key=lambda each: -each[1]):
        yield Row(part=part, direction=direction, update_s=spent_s / updates)
    rest_s = max(0.0, wall_s - sum(parts.values()))
    yield Row(part=HOST, direction="", update_s=rest_s / updates)
