"""Starting updates on the devices: one at a time, or several by one program.

The host needs some tenths of a millisecond to start an update, which a small model on a fast device
does not take itself. A program of several updates has their batches, keys and rates as arguments
and goes through as many of them as it is told: the numbers of an update are the same whichever
updates it shares a dispatch with, so that a run may stop and go on anywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.keys import Stream, key, keys
from lab.core.layout import Layout, constrain_batch
from lab.train.guard import Verdict
from lab.train.state import State

if TYPE_CHECKING:
    from lab.train.job import Job, Steps

Train = Callable[..., tuple[State, dict[str, Any]]]


def several(train: Train, *, most: int, layout: Layout, shardings: Any) -> Train:
    """`count` of `most` updates in one program.

    run(state, batches, keys (most,), rates (most,), count, *frozen) -> state, metrics (most, ...);
    `batches` are `most` of them, and what lies beyond `count` is of no account.
    """
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings)

    def run(state: State, batches: Any, keys_K: Any, rates_K: Any, count: Any, *frozen: Any):
        with jax.sharding.use_abstract_mesh(layout.abstract_mesh):
            stacked = jax.tree.map(lambda *rows: constrain_batch(jnp.stack(rows), axis=1), *batches)
        given = (state, batches[0], keys_K[0], rates_K[0], *frozen)
        _, like = jax.eval_shape(train, *given)
        nothing = jax.tree.map(lambda m: jnp.zeros((most, *m.shape), m.dtype), like)

        def one(number: jax.Array, carried: tuple[State, Any]) -> tuple[State, Any]:
            before, found = carried
            batch = jax.tree.map(lambda x: x[number], stacked)
            after, metrics = train(before, batch, keys_K[number], rates_K[number], *frozen)
            with jax.sharding.use_abstract_mesh(layout.abstract_mesh):
                after = jax.lax.with_sharding_constraint(after, specs)
            return after, jax.tree.map(lambda rows, m: rows.at[number].set(m), found, metrics)

        return jax.lax.fori_loop(0, count, one, (state, nothing))

    return run


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
        self._job = job
        self._steps = steps

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
        seed, number = self._job.run.seed, first + shift
        placed = [self._job.place(b, Stream.TRAIN, number + at) for at, b in enumerate(batches)]
        if self._steps.several is None:
            given = (placed[0], key(seed, Stream.TRAIN, number), jnp.float32(rates[0]))
            state, metrics = self._steps.train(state, *given)
            return state, Started(first, rates, metrics, stacked=False)
        padding = self.most - len(placed)
        numbers = number + np.arange(self.most, dtype=np.uint32)
        padded = np.asarray([*rates, *[0.0] * padding], np.float32)
        state, metrics = self._steps.several(
            state,
            (*placed, *placed[-1:] * padding),
            keys(seed, Stream.TRAIN, numbers),
            padded,
            np.int32(len(placed)),
        )
        return state, Started(first, rates, metrics, stacked=True)
