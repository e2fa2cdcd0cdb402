"""Training on the device at hand: model FLOPs against the rate of its own matrix products.

    python -m benchmarks.training                              # ELM-L and LlamaGen-L: a GPU
    python -m benchmarks.training --size s6 --batches 8 --steps 3
    python -m benchmarks.training --out benchmarks/results/h200.json

Each row of a model is one way to run the real training step, most to least memory; a way that does
not fit says so. MFU is the FLOPs that the model needs (lab/core/counts.py: causal attention is
half) over time and over the rate that products of 8,192 x 8,192 bfloat16 matrices reach on a device
here, which is lower than the data sheet's, times the devices. Times are medians of steps after the
compilation. Sampling is with guidance, the class and the null class at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.rows import Row, add_flags, named, report, row
from lab.launch.compile_search import REMATS

TARGET = 0.50  # of the measured rate of products
MODELS = {"elm": (4096, 2), "llamagen": (16384, 1)}  # codes of a sub-code, sub-codes
GRID = 16  # positions a side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """One way to run a step."""

    batch: int
    remat: str
    head_chunks: int = 0

    @property
    def words(self) -> str:
        """For a row's name."""
        chunks = {0: "softmax as memory asks", 1: "softmax whole"}[self.head_chunks]
        return f"batch {self.batch}, remat {self.remat}, {chunks}"


def ways(batches: list[int]) -> Iterator[Way]:
    """Every remat at every batch with the automatic softmax; the whole softmax once."""
    for batch, remat in itertools.product(batches, REMATS):
        yield Way(batch=batch, remat=remat)
    yield Way(batch=batches[0], remat=REMATS[0], head_chunks=1)


def matmul_flops_per_s(side: int) -> float:
    """The rate of products of square matrices in the dtype of training, the best of five."""
    import jax
    import jax.numpy as jnp

    dtype = jnp.float32 if jax.devices()[0].platform == "cpu" else jnp.bfloat16
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(lambda x: functools.reduce(lambda y, _: y @ a * side**-0.5, range(8), x))
    jax.block_until_ready(product(a))
    taken = []
    for _ in range(5):
        began_s = time.perf_counter()
        jax.block_until_ready(product(a))
        taken.append(time.perf_counter() - began_s)
    return 8 * 2 * side**3 / min(taken)


def job_of(family: str, size: str, way: Way) -> Any:
    """The job of a run on all devices here, on made-up codes."""
    import jax

    from configs.layouts import LAYOUTS
    from lab.core.config import RunConfig
    from lab.core.layout import make_layout
    from lab.launch.compile_job import World, abstract_job, planned_spec
    from lab.launch.door import load_config

    vocabulary, subcodes = MODELS[family]
    overrides = {
        "model.subcodes": subcodes,
        "train.batch_size": way.batch,
        "execution.remat": way.remat,
        "execution.head_chunks": way.head_chunks,
    }
    run = load_config(f"configs/{family}.py:{size}", overrides)
    assert isinstance(run, RunConfig)
    spec = planned_spec((GRID, GRID, 1), vocabulary=vocabulary, subcodes=subcodes)
    layout = make_layout("ddp", LAYOUTS, jax.devices())
    return abstract_job(run, layout, World(spec=spec, classes=1000, examples=1_281_167))


def step_s(job: Any, steps: int) -> float:
    """Seconds of a training step, the median of so many after the compilation."""
    import jax
    import numpy as np

    from lab.core.keys import Stream, key
    from lab.launch.compile_job import abstract_batch
    from lab.train.optimizer import numbers_at

    rng = np.random.default_rng(0)
    batch = {
        name: jax.device_put(
            np.ones(like.shape, like.dtype)
            if name == "weight"
            else rng.integers(0, 200, like.shape).astype(like.dtype),
            like.sharding,
        )
        for name, like in abstract_batch(job, job.run.train.batch_size).items()
    }
    train, state, taken = job.steps().train, job.initial_state(), []
    for step in range(steps + 1):
        began_s = time.perf_counter()
        state, metrics = train(
            state, batch, key(0, Stream.TRAIN, step), numbers_at(job.run.optimizer, 1e-4)
        )
        jax.block_until_ready(metrics)
        taken.append(time.perf_counter() - began_s)
    return statistics.median(taken[1:])


def mfu_of(job: Any, seconds: float, rate: float) -> float:
    """The model's FLOPs of a step over its time and `rate`, the FLOPs a second of one device.

    All devices share the batch, so that the rate counts once for each.
    """
    needed = job.run.train.batch_size * job.spec.tokens_per_image * job.flops_per_token.total
    return needed / seconds / (rate * job.layout.mesh.size)


def measured(family: str, flags: argparse.Namespace, rate: float) -> Any:
    """Rows of one model: every way, and the best of them against the target."""
    import jax

    rows, best = [], 0.0
    for way in ways(flags.batches):
        name = f"{family} {flags.size}, {way.words}"
        job = job_of(family, flags.size, way)
        try:
            seconds = step_s(job, flags.steps)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            rows.append(Row(f"{name}: MFU", "does not fit", "", None))
            continue
        mfu = mfu_of(job, seconds, rate)
        best = max(best, mfu)
        speed = f"{mfu:.3f} ({1e3 * seconds:.1f} ms, {way.batch / seconds:,.0f} images/s)"
        rows.append(Row(f"{name}: MFU", speed, "", None))
    rows.append(row(f"{family} {flags.size}: MFU, best", best, TARGET, best="at least", form=".3f"))
    return rows


def sampled(family: str, flags: argparse.Namespace) -> Any:
    """Images a second of the cached sampler."""
    from benchmarks.sampling import measured as sampling

    return sampling(family, flags.size, flags.images)


def main(argv: list[str]) -> int:
    """Print the rows; 1 where the target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", default="L", help="of lab/models/sizes.py (L)")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 256], metavar="N")
    parser.add_argument("--steps", type=int, default=10, help="timed, of each way (10)")
    parser.add_argument("--images", type=int, default=64, help="drawn at once (64)")
    parser.add_argument("--side", type=int, default=8192, help="of the matrices (8192)")
    parser.add_argument("--only", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    add_flags(parser)
    flags = parser.parse_args(argv)
    import jax

    rate = matmul_flops_per_s(flags.side)
    device = jax.devices()[0].device_kind
    speed = Row(f"{device}: products on one, TFLOP/s", f"{rate / 1e12:.3f}", "", None)
    parts = [named("products", lambda: [speed])]
    for family in flags.only:
        parts.append(named(family, measured, family, flags, rate))
        parts.append(named(f"{family}, drawn", sampled, family, flags))
    return report(parts, flags, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
