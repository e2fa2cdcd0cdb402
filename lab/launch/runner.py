"""One admitted run, from its config to its outcome: what `train` and every sweep worker call."""

import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import jax

from configs.layouts import LAYOUTS
from lab.core.config import (
    AnyRun,
    ClassifierRunConfig,
    TokenizerRunConfig,
    identity,
    run_directory,
)
from lab.core.cores import usable_cores
from lab.core.errors import LabError, Stopped
from lab.core.execution_config import ExecutionConfig
from lab.core.fields import plain
from lab.core.layout import Layout, layout_of
from lab.core.peers import Peers
from lab.core.record import finished, read_rows
from lab.core.writing import writing
from lab.launch.branching import begin_in_trunk
from lab.launch.claim import HeldElsewhere, claimed
from lab.launch.door import ROOT
from lab.launch.jobs import Preparing, Watch, classifier_job, generator_job, tokenizer_job
from lab.launch.timesheet import TIMES, Startup, TimeSheet, timed
from lab.train.job import Job
from lab.train.loop import Hooks, Loop, Outcome, Status
from lab.train.pack import Seat
from lab.train.programs import Programs

# Runs of a pack are threads: what they share is made once, and a module that is imported when it is
# first used does not survive two of them at once (seen: `email`, under importlib.metadata).
_ONE_AT_A_TIME = threading.Lock()


def train_run(
    run: AnyRun,
    hooks: Hooks,
    watch: Watch,
    *,
    startup: Startup,
    programs: Programs | None = None,
    seat: Seat | None = None,
) -> Outcome:
    """Train a run to its end unless it has ended; refuses a directory held by another process.

    A wish to stop while the data are prepared leaves at once: there is nothing to save.
    `startup` is what this process took before, for the file of where its time goes. `programs` are
    those of the runs that it trained before. With a seat the run's updates are started together
    with those of other runs (lab/train/pack.py), whose programs it shares.
    """

    peers = Peers.of_jax()

    def watched(preparing: Preparing) -> None:
        if hooks.should_stop() and peers.count == 1:  # several stop together, in the loop
            raise Stopped
        watch(preparing)

    directory = run_directory(run)
    if not peers.leads:
        ended = follow(run, peers)
        return ended or Loop(make_job(run, watched), hooks).run()
    checks: list[Callable[[], None]] = []
    with claimed(directory, on_claim=checks.append) as ours:
        if not ours:
            raise HeldElsewhere(f"{directory}: another process is training this run")
        hooks = _checked(hooks, checks[0])
        ended = ended_before(directory)
        lead(run, peers, ended)
        if ended:
            return ended
        with _ONE_AT_A_TIME:
            write_config(directory, run)

        sheet = TimeSheet(
            directory / TIMES,
            clock=hooks.clock,
            startup_s=startup.take(),
            check_claim=hooks.check_claim,
            warn=hooks.warn,
        )
        try:
            return timed(
                sheet, hooks, lambda told: _prepared_and_trained(run, told, watched, programs, seat)
            )
        except Exception:
            hooks.check_claim()  # a save that another holder's work spoilt is no failure of the run
            raise


def _prepared_and_trained(
    run: AnyRun, hooks: Hooks, watch: Watch, programs: Programs | None, seat: Seat | None
) -> Outcome:
    try:
        watch(Preparing("data"))
        job = make_job(run, watch, seat)
        if programs and seat is None:
            programs.share(job)
        watch(Preparing("model"))
        begin_in_trunk(job, warn=hooks.warn)
    except Stopped:
        return Outcome(Status.INTERRUPTED, 0, "before the first step")
    return Loop(job, hooks, seat).run()


def ended_before(directory: pathlib.Path) -> Outcome | None:
    """How the run of a directory ended; None where it did not."""
    rows = read_rows(directory / "record.jsonl")
    if not finished(rows):
        return None
    end = rows[-1]
    return Outcome(Status(end["status"]), end["step"], end.get("reason", "done before"))


def lead(run: AnyRun, peers: Peers, ended: Outcome | None) -> None:
    """Tell the other processes that the run is claimed, which it is, and whether it has ended."""
    about = {"config": _shared_config(run), "ended": dataclasses.asdict(ended) if ended else None}
    peers.tell("claim", json.dumps(about))


def follow(run: AnyRun, peers: Peers) -> Outcome | None:
    """Wait until process 0 holds the run; how it ended, or None.

    Raises LabError where process 0 trains another.
    """
    about = json.loads(peers.hear("claim", 0))
    for path, value in _shared_config(run).items():
        if about["config"].get(path) != value:
            raise LabError(
                f"{path} = {value}: process 0 has {about['config'].get(path)}; all processes of a "
                "run need the same command"
            )
    return Outcome(**about["ended"]) if about["ended"] else None


def _shared_config(run: AnyRun) -> dict[str, Any]:
    """What all processes of a run must have alike."""
    execution = plain(run.execution)
    del execution["workdir"]  # one folder may have two names
    shared = {f"config.execution.{name}": value for name, value in execution.items()}
    return {"the run's identity": identity(run), **shared}


def _checked(hooks: Hooks, check: Callable[[], None]) -> Hooks:
    """Hooks that look at the claim before every update and save, and leave where it is lost."""

    def should_stop() -> bool:
        check()
        return hooks.should_stop()

    return dataclasses.replace(hooks, should_stop=should_stop, check_claim=check)


def make_job(run: AnyRun, watch: Watch, seat: Seat | None = None) -> Job:
    """The job of a run on this process's devices, or on that of its seat in a pack."""
    if seat is not None:
        layout = layout_of(on_one_device(run.execution), LAYOUTS, [seat.device])
        with _ONE_AT_A_TIME:
            job = _job_on(run, dataclasses.replace(layout, traced=seat.traced), watch)
        seat.sit(job)
        return job
    devices = jax.devices()
    wanted = run.execution.devices or len(devices)
    if jax.process_count() > 1 and wanted != len(devices):
        raise LabError(
            f"config.execution.devices = {wanted}: {jax.process_count()} processes have "
            f"{len(devices)}; allowed: 0 (all)"
        )
    if wanted > len(devices):
        raise LabError(f"config.execution.devices = {wanted}: {len(devices)} are here")
    return _job_on(run, layout_of(run.execution, LAYOUTS, devices[:wanted]), watch)


def on_one_device(execution: ExecutionConfig) -> ExecutionConfig:
    """The same on one device, wherever it is."""
    return dataclasses.replace(
        execution, layout="ddp", devices=1, tensor=0, replicas=0, accumulation=1
    )


def _job_on(run: AnyRun, layout: Layout, watch: Watch) -> Job:
    if isinstance(run, TokenizerRunConfig):
        return tokenizer_job(run, layout, watch)
    if isinstance(run, ClassifierRunConfig):
        return classifier_job(run, layout, watch)
    return generator_job(run, layout, watch)


def write_config(directory: pathlib.Path, run: AnyRun) -> None:
    """Write config.json, or refuse a directory that holds another experiment's."""
    path = directory / "config.json"
    ours = identity(run)
    if path.exists():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))["identity"]
        except (ValueError, KeyError, TypeError):
            raise LabError(f"{path}: not a config of this laboratory; move it away") from None
        if theirs != ours:
            raise LabError(f"{path}: belongs to the run {theirs}, not to {ours}")
    document = {
        "schema": "lab.config/1",
        "identity": ours,
        "commit": commit(),
        "environment": environment(),
        "config": plain(run),
    }
    fresh = path.with_suffix(".tmp")
    with writing(path):
        fresh.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(fresh, path)


@functools.cache
def commit() -> str:
    """The commit of this code, marked where files differ from it; "" outside a checkout."""
    if shutil.which("git") is None:
        return ""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip()


def environment() -> dict[str, Any]:
    """What the numbers were made on; none of it is in the identity."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "device_kind": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "processes": jax.process_count(),
        "cores": len(usable_cores()) or None,
    }
