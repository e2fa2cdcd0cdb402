"""What any process of several wishes, known to all of them at the same step.

A wish enters the devices beside an update, one number a device, and comes back as the largest one
together with that update's metrics, which are read one update late. So every process sees it
before the same update, and nobody waits for it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lab.core.layout import Layout
from lab.core.peers import Peers


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What a process may wish of all."""

    stop: bool = False
    save: bool = False

    def either(self, other: Self) -> "Wishes":
        """What one or the other wishes."""
        return Wishes(stop=self.stop or other.stop, save=self.save or other.save)


def meet(layout: Layout, peers: Peers) -> None:
    """Connect the devices of all processes along every axis of a mesh, while all are here.

    Gloo makes a connection at the first collective that needs it, and gives up where the other side
    is not there within 30 s; a process may compile for longer than another.
    """
    axes = layout.mesh.axis_names
    sums = [_sum_over(layout, spec) for spec in sorted({axes, *((axis,) for axis in axes)})]
    peers.gather("meet", "")
    for each in sums:
        jax.block_until_ready(each())


def _sum_over(layout: Layout, axes: tuple[str, ...]) -> Callable[[], jax.Array]:
    """A compiled sum over these axes of the mesh, not yet run."""
    size = math.prod(layout.mesh.shape[axis] for axis in axes)
    rows = jax.make_array_from_callback(
        (size,),
        NamedSharding(layout.mesh, PartitionSpec(axes)),
        lambda index: np.ones(size, np.int32)[index],
    )
    compiled = jax.jit(jnp.sum, out_shardings=layout.replicated()).lower(rows).compile()
    return lambda: compiled(rows)


class Agreement:
    """The wishes of the processes of a layout's devices."""

    def __init__(self, layout: Layout) -> None:
        mesh = layout.mesh
        self._shape = (mesh.size, 2)
        self._row_a_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        # Unused arguments are kept: the update's metrics make this wait for the update, so that
        # the devices of all processes come to the two collectives in one order.
        self._largest = jax.jit(
            lambda rows, after: jnp.max(rows, axis=0),
            out_shardings=layout.replicated(),
            keep_unused=True,
        )
        self._placed = functools.cache(self._place)

    def propose(self, wishes: Wishes, *, after: jax.Array) -> jax.Array:
        """Send them beside the update that gives `after`; `read` takes what this returns."""
        return self._largest(self._placed(wishes), after)

    def read(self, sent: jax.Array) -> Wishes:
        """What any process wished; waits for the update."""
        stop, save = np.asarray(sent)
        return Wishes(stop=bool(stop), save=bool(save))

    def _place(self, wishes: Wishes) -> jax.Array:
        row = np.array([[wishes.stop, wishes.save]], np.int32)
        return jax.make_array_from_callback(self._shape, self._row_a_device, lambda _: row)
