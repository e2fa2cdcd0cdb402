"""One admitted run, from its config to its outcome: what `train` and every sweep worker call."""

import dataclasses
import functools
import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import jax

from lab.core.config import DataConfig, RunConfig, identity, plain, run_directory
from lab.core.errors import LabError, Stopped
from lab.core.layout import make_layout
from lab.core.record import finished, read_rows
from lab.data.progress import Progress
from lab.data.sources import open_source
from lab.data.tokens import open_rows
from lab.launch.claim import HeldElsewhere, claimed
from lab.launch.door import ROOT
from lab.tokenizers.spec import Tokenizer
from lab.train.job import Images, Job, Split
from lab.train.loop import Hooks, Loop, Outcome, Status

CACHE = pathlib.Path(".cache/xla").absolute()


def set_up_jax(runs: Sequence[RunConfig]) -> None:
    """Make as many CPU devices as the runs ask for; keep compiled programs between processes."""
    devices = max(run.execution.devices for run in runs)
    if devices > 1:
        jax.config.update("jax_num_cpu_devices", devices)  # no effect on accelerators
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


@dataclasses.dataclass(frozen=True)
class Preparing:
    """What is prepared before the first step, and how many of how many images are done."""

    what: str
    done: int = 0
    total: int | None = None


Watch = Callable[[Preparing], None]


def train_run(run: RunConfig, hooks: Hooks, watch: Watch) -> Outcome:
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


def make_job(run: RunConfig, watch: Watch) -> Job:
    """The job of a run on this process's devices."""
    from configs.layouts import LAYOUTS

    devices = jax.devices()
    wanted = run.execution.devices or len(devices)
    if jax.process_count() > 1:
        raise LabError(f"{jax.process_count()} processes: several hosts are not supported yet")
    if wanted > len(devices):
        raise LabError(f"config.execution.devices = {wanted}: {len(devices)} are here")
    layout = make_layout(run.execution.layout, LAYOUTS, devices[:wanted])
    tokenizer = make_tokenizer(run)
    return Job(
        run, layout=layout, tokenizer=tokenizer, images=images_of(run.data, tokenizer, watch)
    )


def make_tokenizer(run: RunConfig) -> Tokenizer:
    """The tokenizer that a config names: `make` of its file in lab/tokenizers."""
    module = importlib.import_module(f"lab.tokenizers.{run.tokenizer.name}")
    return module.make(run.tokenizer)


_KEPT: dict[tuple[DataConfig, Tokenizer], Images] = {}
_MOST_KEPT = 2


def images_of(data: DataConfig, tokenizer: Tokenizer, watch: Watch) -> Images:
    """Both splits, encoded once for all runs of this process that share them."""
    key = (data, tokenizer)
    if key not in _KEPT:
        made = Images(
            train=_split(data, tokenizer, data.train_split, data.train_examples, watch),
            validation=_split(
                data, tokenizer, data.validation_split, data.validation_examples, watch
            ),
        )
        while len(_KEPT) >= _MOST_KEPT:
            del _KEPT[next(iter(_KEPT))]  # the oldest
        _KEPT[key] = made
    return _KEPT[key]


def _split(data: DataConfig, tokenizer: Tokenizer, name: str, examples: int, watch: Watch) -> Split:
    def told(what: str) -> Progress:
        return lambda done, total: watch(Preparing(f"{name} {what}", done, total))

    source = open_source(
        data.name,
        split=name,
        examples=examples or None,
        data_dir=data.data_dir or None,
        manual_dir=data.manual_dir or None,
        progress=told("images"),
    )
    info = source.info
    return Split(
        rows=open_rows(source, tokenizer, progress=told("tokens")),
        name=info.name,
        digest=info.digest,
        classes=info.classes,
    )


def write_config(directory: pathlib.Path, run: RunConfig) -> None:
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
