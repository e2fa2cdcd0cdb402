"""Training and sampling on a CPU against a plain PyTorch model with the same weights.

    python -m benchmarks.against_torch                          # half an hour on two cores
    python -m benchmarks.against_torch --widths 64 --dtypes float32 --rounds 3
    python -m benchmarks.against_torch --out benchmarks/results/against_torch.json

PyTorch is no requirement of the laboratory: `pip install --target FOLDER torch`, and FOLDER in
PYTHONPATH. The model is configs/elm.py on 8 x 8 RGB pixels, 192 tokens an image, four layers of the
width. First loss and gradients are compared (tolerances in TOLERANCE), then real training steps
take turns in rounds: ours (lab/train/step.py), PyTorch as it is, and PyTorch compiled where a C++
compiler is there. A ratio is PyTorch's median over ours, of its faster way; above one we are
faster. "one core" is process CPU time, pinned; "two cores" is time on the wall. Sampling: our cache
against a loop that runs the whole prefix again for every token, guidance on in both.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import importlib.util
import math
import multiprocessing
import pathlib
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.rows import add_flags, named, report
from lab.core.cores import core_count, keep_to, usable_cores
from lab.core.errors import LabError
from lab.launch.memory import keep_freed_memory

HEAD_FEATURES = {64: 16, 128: 16, 256: 16, 512: 64}  # as the ladder's sizes, and published ones
DEPTH, BATCH, IMAGES, GUIDANCE = 4, 8, 8, 2.0
WARM_STEPS, PAUSE_S = 3, 0.05  # threads of the other library spin for a while after its turn
LEAST = {"float32": (1.2, 1.0), "bfloat16": (1.3, 0.0)}  # geometric mean, every single one
LEAST_SAMPLING = 4.0
# Relative: of the loss, and of the gradients (the largest of norm(difference) / norm of a leaf).
TOLERANCE = {"float32": (1e-5, 1e-4), "bfloat16": (5e-3, 6e-2)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What one process measures."""

    width: int
    dtype: str
    cores: int
    rounds: int
    batch: int = BATCH
    depth: int = DEPTH

    @property
    def words(self) -> str:
        """For a row's name."""
        return f"width {self.width}, {self.dtype}, {'two cores' if self.cores > 1 else 'one core'}"


@dataclasses.dataclass(frozen=True)
class Times:
    """Median seconds: ours, and PyTorch's by the way it runs."""

    ours_s: float
    theirs_s: dict[str, float]

    @property
    def ratio(self) -> float:
        """How many times as fast as PyTorch's faster way ours is."""
        return min(self.theirs_s.values()) / self.ours_s

    @property
    def words(self) -> str:
        """The ratio and what it is made of."""
        theirs = ", ".join(f"{way} {1e3 * t:.1f}" for way, t in self.theirs_s.items())
        return f"{self.ratio:.2f} (ours {1e3 * self.ours_s:.1f} ms; {theirs})"


def has_fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers itself."""
    info = pathlib.Path("/proc/cpuinfo")
    return info.is_file() and "avx512_bf16" in info.read_text(encoding="utf-8")


def job_of(case: Case) -> Any:
    """The job of a run of this size on pixels of no data."""
    import jax

    from configs.layouts import LAYOUTS
    from lab.core.config import RunConfig
    from lab.core.layout import make_layout
    from lab.launch.compile_job import World, abstract_job
    from lab.launch.door import load_config
    from lab.tokenizers.pixels import Pixels

    heads = max(1, case.width // HEAD_FEATURES.get(case.width, 16))
    overrides = {
        "model.depth": case.depth,
        "model.width": case.width,
        "model.heads": heads,
        "model.mlp_hidden": 8 * math.ceil(case.width / 3),
        "model.class_dropout": 0.0,  # PyTorch would draw others
        "train.batch_size": case.batch,
        "execution.compute_dtype": case.dtype,
        "execution.unroll_layers": True,
    }
    run = load_config("configs/elm.py:s1", overrides)
    assert isinstance(run, RunConfig)
    spec = Pixels(resolution=8, channels="rgb", levels=16).spec
    layout = make_layout("ddp", LAYOUTS, jax.devices()[:1])
    return abstract_job(run, layout, World(spec=spec, classes=10, examples=4096))


def state_of(job: Any) -> Any:
    """The state before the first update, its head not zero: every leaf has gradients."""
    import jax

    state = job.initial_state()
    head = state["params"].head.out
    width = head.shape[0]
    drawn = jax.random.normal(jax.random.key(7), head.shape) * width**-0.5
    head[...] = jax.device_put(drawn, head[...].sharding)
    return state


def batch_of(job: Any) -> dict[str, Any]:
    """Codes and labels drawn at random, on the device."""
    import jax
    import numpy as np

    from lab.launch.compile_job import abstract_batch

    rng, drawn = np.random.default_rng(0), {"codes": job.spec.vocabulary, "label": 10}
    return {
        name: jax.device_put(
            (
                rng.integers(0, drawn[name], like.shape) if name in drawn else np.ones(like.shape)
            ).astype(like.dtype),
            like.sharding,
        )
        for name, like in abstract_batch(job, job.run.train.batch_size).items()
    }


def theirs_of(job: Any, params: Any) -> Any:
    """PyTorch's model with these weights."""
    from benchmarks.torch_llama import Llama

    spec, order = params.backbone.spec, params.order
    return Llama(params, order.angles(spec.width // spec.heads, order.path()))


def differences(job: Any, params: Any, batch: dict[str, Any], *, dtype: str) -> tuple[float, float]:
    """Of PyTorch from ours, relative: the loss, and the gradients' worst leaf."""
    import jax
    import numpy as np

    from benchmarks.torch_llama import arrays_of, as_tensors, losses
    from lab.train.step import loss_and_gradients

    with jax.sharding.use_abstract_mesh(job.layout.abstract_mesh):
        found = jax.jit(functools.partial(loss_and_gradients, parts=1))(params, batch, None)
    ours = {name: np.asarray(value) for name, value in arrays_of(found[1]).items()}
    model = theirs_of(job, params)
    loss = losses(model, dtype=dtype, compiled=False)(*as_tensors(batch))
    loss.backward()
    theirs = model.gradients()
    apart = [
        np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(theirs[name]) for name in ours
    ]
    return abs(float(found[0]) - float(loss.detach())) / float(loss.detach()), float(max(apart))


def check_equal(job: Any, params: Any, batch: dict[str, Any], *, dtype: str) -> None:
    """Raise LabError where loss or gradients are further apart than rounding explains."""
    found = differences(job, params, batch, dtype=dtype)
    for what, value, most in zip(("loss", "gradients"), found, TOLERANCE[dtype], strict=True):
        if not value <= most:
            raise LabError(
                f"{dtype}, width {params.backbone.spec.width}: {what} of PyTorch differ by "
                f"{value:.2g} of their size; allowed is at most {most:g}"
            )


def in_turns(
    calls: dict[str, Callable[[], Any]], *, rounds: int, each: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of a call, of so many rounds in which they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        order = list(calls) if number % 2 == 0 else list(reversed(calls))
        for name in order:
            time.sleep(PAUSE_S)
            began_s = clock()
            for _ in range(each):
                calls[name]()
            taken[name].append((clock() - began_s) / each)
    return {name: statistics.median(found) for name, found in taken.items()}


def clock_of(cores: int) -> Callable[[], float]:
    """CPU time of the process on one core, which others do not change; else time on the wall."""
    return time.process_time if cores == 1 else time.perf_counter


def set_cores(cores: int) -> None:
    """Keep this process on so many cores, the last ones; before the libraries count them."""
    keep_to(usable_cores()[-cores:])
    keep_freed_memory()  # for both
    from benchmarks.torch_llama import torch

    torch.set_num_threads(cores)


def trained(case: Case) -> Times:
    """Times of an update, loss and gradients compared before; in a process of its own."""
    set_cores(case.cores)
    import jax

    from benchmarks.torch_llama import as_tensors, losses, stepper
    from lab.core.keys import Stream, key
    from lab.train.optimizer import numbers_at

    job = job_of(case)
    state, batch = state_of(job), batch_of(job)
    check_equal(job, state["params"], batch, dtype=case.dtype)
    optimizer, tensors = job.run.optimizer, as_tensors(batch)
    calls: dict[str, Callable[[], Any]] = {}
    for way in ("eager", *(("compiled",) if shutil.which("g++") else ())):
        model = theirs_of(job, state["params"])
        loss = losses(model, dtype=case.dtype, compiled=way == "compiled")
        step = stepper(model, loss, optimizer, multiplier=optimizer.base_width / case.width)
        calls[way] = functools.partial(step, *tensors)
    train, carried = job.steps().train, [state]
    numbers = numbers_at(optimizer, optimizer.learning_rate)

    def ours() -> float:
        carried[0], metrics = train(carried[0], batch, key(0, Stream.TRAIN, 0), numbers)
        return float(jax.block_until_ready(metrics)[job.training_loss.key])

    calls = {"ours": ours, **calls}
    after = {name: float([call() for _ in range(WARM_STEPS)][-1]) for name, call in calls.items()}
    most = 10 * WARM_STEPS * TOLERANCE[case.dtype][0] * abs(after["ours"])
    if not all(abs(loss - after["ours"]) <= most for loss in after.values()):
        raise LabError(f"{case.words}: after {WARM_STEPS} updates the losses are {after}")
    once = in_turns({"ours": ours}, rounds=1, each=1, clock=time.perf_counter)
    each = max(1, round(0.2 / once["ours"]))
    found = in_turns(calls, rounds=case.rounds, each=each, clock=clock_of(case.cores))
    return Times(found.pop("ours"), found)


def sampled(case: Case) -> Times:
    """Times of drawing `IMAGES` images with the cache and by the plain loop."""
    set_cores(case.cores)
    import jax
    import jax.numpy as jnp

    from benchmarks.torch_llama import draw, torch
    from lab.sampling.conditions import image_keys
    from lab.sampling.guidance import Guidance
    from lab.sampling.sampler import sample
    from lab.sampling.settings import Settings

    job = job_of(case)
    params = state_of(job)["params"]
    settings, numbers = Settings(guidance=Guidance(scale=GUIDANCE)), jnp.arange(IMAGES)
    keys, model = image_keys(0, numbers), theirs_of(job, params)

    def theirs() -> Any:
        return draw(model, torch.arange(IMAGES) % 10, null=10, guidance=GUIDANCE)

    calls = {
        "ours": lambda: jax.block_until_ready(sample(params, numbers % 10, keys, settings)),
        "plain loop": theirs,
    }
    calls["ours"]()
    found = in_turns(calls, rounds=min(3, case.rounds), each=1, clock=clock_of(case.cores))
    return Times(found.pop("ours"), found)


def alone(work: Callable[[Case], Times], case: Case) -> Times:
    """The work in a process of its own, whose cores and threads are not those of another."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, case).result()


def training_rows(cases: Sequence[Case]) -> Any:
    """A row a width, and their geometric mean against the target."""
    from benchmarks.rows import Row, row

    mean_least, single_least = LEAST[cases[0].dtype]
    rows, ratios = [], []
    for case in cases:
        times = alone(trained, case)
        ratios.append(times.ratio)
        target = f"at least {single_least:.2f}" if single_least else ""
        met = times.ratio >= single_least if single_least else None
        rows.append(Row(f"training, {case.words}: times as fast", times.words, target, met))
    title = f"training, {cases[0].words.partition(', ')[2]}: geometric mean"
    mean = statistics.geometric_mean(ratios)
    return [*rows, row(title, mean, mean_least, best="at least", form=".2f")]


def sampling_rows(case: Case) -> Any:
    """A row of drawing."""
    from benchmarks.rows import Row

    times = alone(sampled, case)
    name = f"{IMAGES} images drawn, {case.words}: times as fast"
    target = f"at least {LEAST_SAMPLING:.2f}"
    return [Row(name, times.words, target, times.ratio >= LEAST_SAMPLING)]


def parts_of(flags: argparse.Namespace) -> list[Callable[[], Any]]:
    """What is measured, in order."""
    made: list[Callable[[], Any]] = []

    for cores in () if flags.no_training else flags.cores:
        for dtype in flags.dtypes:
            case = Case(width=0, dtype=dtype, cores=cores, rounds=flags.rounds)
            cases = [dataclasses.replace(case, width=width) for width in flags.widths]
            made.append(named(f"training, {dtype}, {cores} cores", training_rows, cases))
    for width in () if flags.no_sampling else flags.widths:
        case = Case(width=width, dtype="float32", cores=flags.cores[0], rounds=flags.rounds)
        made.append(named(f"sampling, width {width}", sampling_rows, case))
    return made


def check(flags: argparse.Namespace) -> None:
    """Raise LabError where something that is asked for is not here."""
    if importlib.util.find_spec("torch") is None:
        raise LabError(
            "torch is not installed: pip install --target FOLDER torch, and FOLDER in PYTHONPATH"
        )
    if max(flags.cores) > (here := core_count()):
        raise LabError(f"--cores {max(flags.cores)}: this process may use {here}")
    if flags.rounds < 1:
        raise LabError(f"--rounds {flags.rounds}: allowed is >= 1")


def parser() -> argparse.ArgumentParser:
    """The flags."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.against_torch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    dtypes = ["float32", *(["bfloat16"] if has_fast_bfloat16() else [])]
    widths = sorted(HEAD_FEATURES)
    made.add_argument("--widths", type=int, nargs="+", choices=widths, default=widths)
    made.add_argument("--dtypes", nargs="+", choices=sorted(LEAST), default=dtypes)
    made.add_argument("--cores", type=int, nargs="+", choices=(1, 2), default=[1, 2])
    made.add_argument("--rounds", type=int, default=9, help="in which the ways take turns (9)")
    only = made.add_mutually_exclusive_group()
    only.add_argument("--no-sampling", action="store_true", help="training only")
    only.add_argument("--no-training", action="store_true", help="sampling only")
    add_flags(made)
    return made


def main(argv: list[str]) -> int:
    """Print the rows; 1 where a target is missed, 2 where something is not here."""
    flags = parser().parse_args(argv)
    try:
        check(flags)
        return report(parts_of(flags), flags, argv)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
