"""Runs in a pack against the same runs one by one: updates a second, and how equal they are.

    python -m benchmarks.packing [--size s1] [--runs 8] [--devices 1] [--json]

Both ways train the same runs for the same updates on one process, in turns, without evaluations and
saves: K runs one after the other, each on one device, and K runs in a pack on all devices. On
several CPU devices the process is given as many virtual ones; a ratio above 1 needs as many free
cores. The difference is that of the parameters after the first two dispatches, of the run that
differs most: norm over norm. Targets: .95 of as many devices; 5 on one GPU for models under a
million parameters; on one CPU device none, for its cores are busy with one run already.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.rows import Row, add_flags, named, report, row

ROUNDS = 5
LEAST_S = 1.0


def config(size: str, seed: int, *, dispatch: int) -> Any:
    """A run of the first ladder's kind."""
    from lab.launch.door import load_config

    return load_config(
        f"configs/elm.py:{size}",
        {
            "study": "packing",
            "seed": seed,
            "data.name": "dead_leaves",
            "data.train_examples": 2048,
            "data.validation_examples": 64,
            "tokenizer.channels": "rgb",
            "tokenizer.resolution": 8,
            "tokenizer.levels": 16,
            "train.batch_size": 8,
            "train.duration": "100000 steps",
            "model.init_std": 0.3,
            "execution.unroll_layers": True,
            "execution.devices": 1,
            "execution.steps_per_dispatch": dispatch,
        },
    )


def one_by_one(jobs: list[Any]) -> tuple[Callable[[int], float], Callable[[], list[Any]]]:
    """A function that trains every run for so many dispatches and gives the seconds; the states."""
    import jax

    from lab.train.dispatch import Dispatcher

    kept: list[list[Any]] = [[job.initial_state(), 0] for job in jobs]
    steps = jobs[0].steps()  # one compiled program serves them all
    starters = [Dispatcher(job, steps) for job in jobs]

    def run(dispatches: int) -> float:
        began_s = time.perf_counter()
        for job, starter, held in zip(jobs, starters, kept, strict=True):
            updates(job, starter, held, dispatches)
            jax.block_until_ready(held[0])
        return time.perf_counter() - began_s

    return run, lambda: [held[0] for held in kept]


def updates(job: Any, starter: Any, held: list[Any], dispatches: int) -> None:
    """Start so many dispatches from where the run stands, one ahead of what is looked at."""
    before = None
    most = job.run.execution.steps_per_dispatch
    with job.train_batches().prefetched(held[1], held[1] + dispatches * most) as batches:
        for _ in range(dispatches):
            given = [next(batches) for _ in range(most)]
            held[0], started = starter.start(held[0], held[1], given, [0.003] * most)
            held[1] += most
            if before is not None:
                list(before.each(job.training_loss.key))
            before = started
    assert before is not None  # at least one dispatch
    list(before.each(job.training_loss.key))


def seated(job: Any, seat: Any, held: list[Any], dispatches: int) -> None:
    """`updates` in a pack; the others do not wait for a run that fails."""
    try:
        updates(job, seat, held, dispatches)
    except BaseException:
        seat.leave()
        raise


def in_a_pack(
    runs: list[Any], devices: int, make: Callable[..., Any]
) -> tuple[Callable[[int], float], Callable[[], list[Any]]]:
    """The same in a pack on so many devices."""
    import jax

    from lab.train.pack import Pack

    pack = Pack(len(runs), jax.devices()[:devices])
    jobs = [make(run, seat) for run, seat in zip(runs, pack.seats, strict=True)]
    kept = [[job.initial_state(), 0] for job in jobs]

    threads = concurrent.futures.ThreadPoolExecutor(len(runs))

    def run(dispatches: int) -> float:
        began_s = time.perf_counter()
        started = [
            threads.submit(seated, job, seat, held, dispatches)
            for job, seat, held in zip(jobs, pack.seats, kept, strict=True)
        ]
        for each in started:
            each.result()  # raises what the thread has
        return time.perf_counter() - began_s

    def states() -> list[Any]:
        return [seat.whole(held[0]) for seat, held in zip(pack.seats, kept, strict=True)]

    return run, states


def difference(states: list[Any], others: list[Any]) -> float:
    """norm(difference) / norm of the parameters, of the run that differs most."""
    import jax
    import numpy as np

    def flat(state: Any) -> np.ndarray:
        leaves = jax.tree.leaves(state["params"])
        return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])

    pairs = [(flat(one), flat(other)) for one, other in zip(states, others, strict=True)]
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in pairs)


def measured(size: str, runs: int, devices: int, dispatch: int) -> list[Any]:
    """The rows of one shape."""
    import jax

    from lab.launch.runner import make_job

    made = [config(size, seed, dispatch=dispatch) for seed in range(runs)]

    def quiet(run: Any, seat: Any = None) -> Any:
        return make_job(run, lambda preparing: None, seat)

    ways = {
        "alone": one_by_one([quiet(run) for run in made]),
        "pack": in_a_pack(made, devices, quiet),
    }
    for way, _ in ways.values():
        way(2)  # compiles
    differ = difference(*(states() for _, states in ways.values()))
    each_s = ways["alone"][0](2) / 2
    dispatches = max(2, round(LEAST_S / each_s))
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (way, _) in ways.items():
            taken[name].append(way(dispatches))
    ratios = [one / other for one, other in zip(taken["alone"], taken["pack"], strict=True)]
    ratio = statistics.median(ratios)
    updates = dispatches * dispatch
    alone_ms, pack_ms = (1e3 * statistics.median(each) / updates for each in taken.values())
    what = f"{runs} runs of {size}, {dispatch} updates a dispatch, {devices} device(s)"
    name = f"{what}: pack over one by one"
    spread = f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    spread += f": {alone_ms / runs:.3f} ms an update alone, {pack_ms:.3f} of all in a pack"
    equal = Row(f"{what}: difference", f"{differ:.1e}", "", None)
    if devices > 1:
        target = 0.95 * min(devices, runs)
    elif jax.devices()[0].platform == "gpu":
        target = 5.0
    else:
        return [Row(name, spread, "none", None), equal]
    found = row(name, ratio, target, best="at least", form=".2f")
    return [Row(found.name, spread, found.target, found.met), equal]


def main(argv: list[str]) -> int:
    """Measure and print; 1 where a target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.packing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", nargs="+", default=["s1", "s4"], help="of configs/elm.py")
    parser.add_argument("--runs", type=int, nargs="+", default=[8], help="in a pack")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--dispatch", type=int, nargs="+", default=[1, 8], help="updates")
    add_flags(parser)
    flags = parser.parse_args(argv)
    from lab.launch.devices import set_up_jax
    from lab.launch.memory import keep_freed_memory

    keep_freed_memory()
    set_up_jax(flags.devices)
    shapes = itertools.product(flags.size, flags.runs, flags.dispatch)
    parts = [
        named(f"{runs} of {size}", measured, size, runs, flags.devices, dispatch)
        for size, runs, dispatch in shapes
    ]
    return report(parts, flags, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
