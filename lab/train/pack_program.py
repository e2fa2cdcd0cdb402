"""The compiled program of a pack (lab/train/pack.py), and what puts its arrays together.

L seats of a device, M updates in a dispatch, P devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from lab.core.keys import Stream, keys
from lab.train.dispatch import Train, loop
from lab.train.state import State

AXIS = "seat"


def program(update: Train, *, mesh: Mesh | None, side_by_side: bool) -> Callable[..., Any]:
    """All updates of all seats.

    run(states (L, ...), batches (L, M, B, ...), keys (L, M), numbers (L, M), counts (L,), *frozen)
    -> states, metrics (L, M, ...); the states are donated. With a mesh everything but `frozen` is
    that of each device, one after the other in the first axis: P L of them.

    Of several seats on a device the updates are `side_by_side` in one computation, or one after
    the other; of one seat they are those of the run alone.
    """

    def of_device(states: State, batches: Any, keys: Any, numbers: Any, counts: Any, *frozen: Any):
        def of_seat(given: tuple[Any, ...]) -> tuple[State, dict[str, jax.Array]]:
            return loop(update, *given, *frozen)

        given = (states, batches, keys, numbers, counts)
        if counts.size == 1:
            found = of_seat(jax.tree.map(lambda x: x[0], given))
            return jax.tree.map(lambda x: x[None], found)
        over = jax.vmap(of_seat) if side_by_side else functools.partial(jax.lax.map, of_seat)
        return over(given)

    if mesh is None:
        return jax.jit(of_device, donate_argnums=0)

    def of_all(*given: Any) -> Any:
        own, frozen = given[:5], given[5:]
        rows, whole = PartitionSpec(AXIS), PartitionSpec()
        specs = (*(rows,) * len(own), *(whole,) * len(frozen))
        run = jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)
        return run(*given)

    return jax.jit(of_all, donate_argnums=0)


@jax.jit
def stack(trees: Sequence[Any]) -> Any:
    """Trees of one device in one, a new first axis."""
    return jax.tree.map(lambda *rows: jnp.stack(rows), *trees)


@jax.jit
def keys_of(seeds_L: Any, updates_LM: Any) -> jax.Array:
    """The keys (L, M) of updates (L, M) of runs with these seeds (L,)."""
    return jax.vmap(lambda seed, updates: keys(seed, Stream.TRAIN, updates))(seeds_L, updates_LM)


def stacked(states: Sequence[State], device: jax.Device) -> State:
    """States (L, ...) on a device."""
    return stack([jax.device_put(state, device) for state in states])


@functools.partial(jax.jit, donate_argnums=0)
def replaced(states: State, state: State, slot: Any) -> State:
    """The states with one in the place of what was in its slot."""
    return jax.tree.map(lambda rows, row: rows.at[slot].set(row), states, state)


@jax.jit
def picked(states: State, slot: Any) -> State:
    """The state of a slot."""
    return jax.tree.map(lambda rows: rows[slot], states)


def shard_on(leaf: jax.Array, device: jax.Device) -> jax.Array:
    """What of an array lies on a device."""
    return next(shard.data for shard in leaf.addressable_shards if shard.device == device)
