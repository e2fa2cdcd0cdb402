"""The programs of a run, and who may share them.

Runs that differ in numbers only (lab/core/program.py) have one program: numbers are its arguments.
To trace, lower and find it takes one to two seconds a run on a slow core, as long as a hundred
updates of a small model, so that a process that trains such runs one after the other keeps it.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import AbstractMesh

from lab.core.layout import Layout
from lab.core.program import program
from lab.train.dispatch import Train, several
from lab.train.guard import Guard, guarded
from lab.train.state import State

if TYPE_CHECKING:
    from lab.train.job import Job

HELD = 4  # programs: runs of one size lie together in a sweep, or nearly


@dataclasses.dataclass(frozen=True)
class Steps:
    """The compiled functions of a run.

    train(state, batch, key, numbers) -> state, metrics (scalars; the job's training loss and
    grad_norm among them; under a guard its verdict too); the state is donated.
    several(state, batches (most, B, ...), keys, numbers, count) -> state, metrics: see
    lab/train/dispatch.py; None where one at a time is asked for.
    evaluate(params, batch) -> arrays (B, ...) of each image.
    update is `train` before compilation, which takes the trees `frozen` after all else.
    """

    train: Train
    several: Train | None
    evaluate: Callable[..., dict[str, jax.Array]]
    update: Train
    frozen: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class JobPrograms:
    """What jobs that differ in numbers only may share; none of it holds a job or its data."""

    bare_state: State  # shapes and dtypes
    make_initial: Callable[[jax.Array], State]
    steps: Steps


def compiled_steps(
    layout: Layout,
    shardings: Any,
    *,
    train: Train,
    evaluate: Callable[..., dict[str, jax.Array]],
    guard: Guard | None,
    most: int,
    frozen: tuple[Any, ...] = (),
) -> Steps:
    """Compile-on-first-use steps under a layout; `most` updates in a dispatch.

    `frozen` are trees of weights that training takes after all else and does not change: arguments,
    for constants would be compiled.
    """
    whole, rows, step = layout.replicated(), layout.batch_sharding(), guarded(train, guard)
    placed = tuple(layout.replicate(tree) for tree in frozen)

    def jitted(step: Train, batches: Any, numbers: int) -> Train:
        compiled = jax.jit(
            step,
            in_shardings=(shardings, batches, *(whole,) * (numbers + len(frozen))),
            out_shardings=(shardings, whole),
            donate_argnums=0,
        )
        return (lambda *given: compiled(*given, *placed)) if placed else compiled

    group = several(step, most=most, layout=layout, shardings=shardings)
    looked = jax.jit(evaluate, in_shardings=(shardings["params"], rows), out_shardings=whole)
    return Steps(
        train=jitted(step, rows, 2),
        several=jitted(group, layout.batch_sharding(axis=1), 3) if most > 1 else None,
        evaluate=_OneAtATime(looked) if _are_cpus(layout) else looked,
        update=step,
        frozen=placed,
    )


def _are_cpus(layout: Layout) -> bool:
    """Whether the mesh is of several CPU devices that are here."""
    mesh = layout.mesh
    here = [] if isinstance(mesh, AbstractMesh) else list(mesh.devices.flat)
    return len(here) > 1 and here[0].platform == "cpu"


@dataclasses.dataclass(frozen=True)
class _OneAtATime:
    """An evaluation that is over before another one starts.

    CPU devices share a few threads. Where two programs with collectives run that do not depend on
    each other, one may take every thread to wait for its other half, and neither goes on.
    """

    evaluate: Any  # as jax.jit gives it

    def __call__(self, params: Any, batch: Any) -> dict[str, jax.Array]:
        return jax.block_until_ready(self.evaluate(params, batch))

    def lower(self, *given: Any) -> Any:
        """What is compiled, for who reads it."""
        return self.evaluate.lower(*given)


class Programs:
    """Those of the runs that a process has trained, the last few."""

    def __init__(self) -> None:
        self._held: collections.OrderedDict[Hashable, JobPrograms] = collections.OrderedDict()

    def share(self, job: Job[Any]) -> None:
        """Give a job the programs of one before it, where that differs in numbers only."""
        layout = job.layout
        name = (program(job.run), layout.name, layout.mesh)
        if name in self._held:
            job.use(self._held[name])
            self._held.move_to_end(name)
            return
        self._held[name] = job.programs
        if len(self._held) > HELD:
            self._held.popitem(last=False)
