"""One admitted run, from its config to its outcome: what `train` and every sweep worker call."""

import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
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
from lab.core.errors import LabError, Stopped
from lab.core.fields import plain
from lab.core.layout import make_layout
from lab.core.record import finished, read_rows
from lab.launch.claim import HeldElsewhere, claimed
from lab.launch.door import ROOT
from lab.launch.jobs import Preparing, Watch, classifier_job, generator_job, tokenizer_job
from lab.train.job import Job
from lab.train.loop import Hooks, Loop, Outcome, Status


def train_run(run: AnyRun, hooks: Hooks, watch: Watch) -> Outcome:
    """Train a run to its end unless it has ended; refuses a directory held by another process.

    A wish to stop while the data are prepared leaves at once: there is nothing to save.
    """

    def watched(preparing: Preparing) -> None:
        if hooks.should_stop():
            raise Stopped
        watch(preparing)

    directory = run_directory(run)
    with claimed(directory) as ours:
        if not ours:
            raise HeldElsewhere(f"{directory}: another process is training this run")
        rows = read_rows(directory / "record.jsonl")
        if finished(rows):
            end = rows[-1]
            return Outcome(Status(end["status"]), end["step"], end.get("reason", "done before"))
        write_config(directory, run)
        try:
            watched(Preparing("data"))
            job = make_job(run, watched)
            watched(Preparing("model"))
        except Stopped:
            return Outcome(Status.INTERRUPTED, 0, "before the first step")
        return Loop(job, hooks).run()


def make_job(run: AnyRun, watch: Watch) -> Job:
    """The job of a run on this process's devices."""
    devices = jax.devices()
    wanted = run.execution.devices or len(devices)
    if jax.process_count() > 1:
        raise LabError(f"{jax.process_count()} processes: several hosts are not supported yet")
    if wanted > len(devices):
        raise LabError(f"config.execution.devices = {wanted}: {len(devices)} are here")
    layout = make_layout(run.execution.layout, LAYOUTS, devices[:wanted])
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
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }
