"""Starting updates on the devices: one at a time, or several by one program.

The host needs some tenths of a millisecond to start an update, which a small model on a fast device
does not take itself. A program of several updates has their batches, keys and rates as arguments
and goes through as many of them as it is told: the numbers of an update are the same whichever
updates it shares a dispatch with, so that a run may stop and go on anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.keys import Stream, key, keys
from lab.core.layout import Layout
from lab.train.guard import Verdict
from lab.train.optimizer import Numbers, numbers_at
from lab.train.state import State

if TYPE_CHECKING:
    from lab.train.job import Job
    from lab.train.programs import Steps

Train = Callable[..., tuple[State, dict[str, Any]]]


def several(train: Train, *, most: int, layout: Layout, shardings: Any) -> Train:
    """`count` of `most` updates in one program.

    run(state, batches (most, B, ...), keys (most,), numbers (most,), count, *frozen) -> state,
    metrics of each (most, ...); what lies beyond `count` is of no account.
    """
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings)

    def kept(state: State) -> State:
        with layout.tracing():
            return jax.lax.with_sharding_constraint(state, specs)

    def run(state: State, *given: Any):
        return loop(train, state, *given, kept=kept)

    return run


def loop(
    train: Train,
    state: State,
    batches_K: Any,
    keys_K: jax.Array,
    numbers_K: Any,
    count: jax.Array,
    *frozen: Any,
    kept: Callable[[State], State] = lambda state: state,
) -> tuple[State, dict[str, jax.Array]]:
    """`count` of K updates one after the other, their batches in a first axis; metrics (K, ...)."""
    most = len(keys_K)
    train = jax.jit(train, inline=True)  # traced once, for its shapes and in the loop

    def at(number: Any) -> tuple[Any, ...]:
        return jax.tree.map(lambda x: x[number], (batches_K, keys_K, numbers_K))

    _, like = jax.eval_shape(lambda: train(state, *at(0), *frozen))
    nothing = jax.tree.map(lambda m: jnp.zeros((most, *m.shape), m.dtype), like)

    def one(number: jax.Array, carried: tuple[State, Any]) -> tuple[State, Any]:
        before, found = carried
        after, metrics = train(before, *at(number), *frozen)
        return kept(after), jax.tree.map(lambda rows, m: rows.at[number].set(m), found, metrics)

    return jax.lax.fori_loop(0, count, one, (state, nothing))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Updated:
    """The numbers of one update; `step` counts it. `others` are the further terms of its loss."""

    step: int
    learning_rate: float
    loss: float
    grad_norm: float
    others: Mapping[str, float]
    verdict: Verdict | None  # of a guard

    def row(self, loss_key: str) -> dict[str, float]:
        """As the record has it."""
        both = {"learning_rate": self.learning_rate, "grad_norm": self.grad_norm}
        return {loss_key: self.loss, **both, **self.others}


@dataclasses.dataclass(frozen=True)
class Started:
    """Updates that run on the devices; nothing of them is known before it is asked for."""

    first: int  # updates before them
    rates: Sequence[float]
    metrics: Mapping[str, jax.Array]  # of one update, or of several in a first axis
    stacked: bool

    @property
    def last(self) -> int:
        """Updates done when they are."""
        return self.first + len(self.rates)

    def each(self, loss_key: str) -> Iterator[Updated]:
        """One after the other. Waits for the devices."""
        found = {name: np.asarray(value) for name, value in self.metrics.items()}
        for number, rate in enumerate(self.rates):
            of = {name: value[number] if self.stacked else value for name, value in found.items()}
            judged = of.pop("guard", None)
            numbers = {name: float(value) for name, value in of.items()}
            yield Updated(
                step=self.first + number + 1,
                learning_rate=rate,
                loss=numbers.pop(loss_key),
                grad_norm=numbers.pop("grad_norm"),
                others=numbers,
                verdict=None if judged is None else Verdict.of(judged),
            )


class Dispatcher:
    """Starts the updates of a run; `most` of them by one program."""

    def __init__(self, job: Job[Any], steps: Steps) -> None:
        self.most = job.run.execution.steps_per_dispatch
        self.steps = steps
        self._job = job

    def start(
        self,
        state: State,
        first: int,
        batches: Sequence[Mapping[str, np.ndarray]],
        rates: Sequence[float],
        *,
        shift: int = 0,
    ) -> tuple[State, Started]:
        """Start updates on these batches, 1 to `most`; `first` were done before.

        What is random in a batch goes with its number, which is `shift` above its update's.
        """
        job, number = self._job, first + shift
        if self.steps.several is None:
            placed = job.place(batches[0], Stream.TRAIN, number)
            drawn = key(job.run.seed, Stream.TRAIN, number)
            numbers = numbers_at(job.run.optimizer, rates[0])
            state, metrics = self.steps.train(state, placed, drawn, numbers)
            return state, Started(first, rates, metrics, stacked=False)
        asked = Asked.of(job, first, batches, rates, shift=shift, most=self.most)
        placed = {
            name: job.layout.batch_of(rows, axis=1) if isinstance(rows, np.ndarray) else rows
            for name, rows in asked.batches.items()
        }
        drawn = keys(asked.seed, Stream.TRAIN, asked.updates_K)
        state, metrics = self.steps.several(
            state, placed, drawn, asked.numbers_K, np.int32(asked.count)
        )
        return state, Started(first, rates, metrics, stacked=True)

    def whole(self, state: State) -> State:
        """The state as a tree of arrays."""
        return state


@dataclasses.dataclass(frozen=True)
class Asked:
    """What K updates of a run are started with; those beyond `count` are padding.

    `batches` (K, B, ...) are on the host where the devices compute nothing of them before the
    update, and then placed by one transfer each.
    """

    batches: Mapping[str, np.ndarray | jax.Array]
    seed: int
    updates_K: np.ndarray  # the numbers that their keys are drawn by
    numbers_K: Numbers
    count: int

    @classmethod
    def of(
        cls,
        job: Job[Any],
        first: int,
        batches: Sequence[Mapping[str, np.ndarray]],
        rates: Sequence[float],
        *,
        shift: int,
        most: int,
    ) -> Self:
        """The batches with the numbers of their updates."""
        number, padding = first + shift, most - len(batches)
        return cls(
            batches=job.stacked([*batches, *[batches[-1]] * padding], number),
            seed=job.run.seed,
            updates_K=number + np.arange(most, dtype=np.uint32),
            numbers_K=numbers_at(job.run.optimizer, [*rates, *[0.0] * padding]),
            count=len(batches),
        )
