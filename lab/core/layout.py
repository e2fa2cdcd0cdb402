"""The mesh of a named layout, and logical axes of parameters to shardings.

Modules name the axes of their parameters; a layout maps the names to mesh axes. The mesh is made
here and nowhere else, with `axis_types=Auto`: under jax's default (Explicit) a weight sharded over
the axis that also splits the batch raises.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lab.core.errors import LabError


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, which of its axes split the batch, and where each logical axis goes."""

    name: str
    mesh: Mesh | AbstractMesh  # abstract: to lower for devices that are not here
    batch: tuple[str, ...]
    rules: Mapping[str, str | None]

    @property
    def batch_shards(self) -> int:
        """Into how many parts the batch is cut."""
        return math.prod(self.mesh.shape[axis] for axis in self.batch)

    @property
    def abstract_mesh(self) -> AbstractMesh:
        """The mesh without its devices: what a step is traced under."""
        return self.mesh if isinstance(self.mesh, AbstractMesh) else self.mesh.abstract_mesh

    def replicated(self) -> NamedSharding:
        """The sharding of what every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def batch_sharding(self) -> NamedSharding:
        """The sharding of an array whose first axis is the batch."""
        return NamedSharding(self.mesh, PartitionSpec(self.batch))

    def sharding(self, axes: Sequence[str], shape: Sequence[int]) -> NamedSharding:
        """The sharding of a parameter with these logical axes and this shape."""
        if len(axes) != len(shape):
            raise ValueError(f"axes {tuple(axes)} do not fit the shape {tuple(shape)}")
        return NamedSharding(
            self.mesh,
            PartitionSpec(*(self._axis(a, n) for a, n in zip(axes, shape, strict=True))),
        )

    def _axis(self, logical: str, size: int) -> str | None:
        if logical not in self.rules:
            raise LabError(
                f'layout "{self.name}" does not map the axis "{logical}"; '
                f"it maps {', '.join(sorted(self.rules))}"
            )
        axis = self.rules[logical]
        if axis is not None and size % self.mesh.shape[axis]:
            raise LabError(
                f'layout "{self.name}": the axis "{logical}" of size {size} does not divide over '
                f'the {self.mesh.shape[axis]} devices of mesh axis "{axis}"'
            )
        return axis


def make_layout(
    name: str, tables: Mapping[str, Mapping[str, Any]], devices: Sequence[jax.Device]
) -> Layout:
    """The named layout over these devices; one mesh axis may be -1 and takes what is left."""
    if name not in tables:
        raise LabError(f'layout "{name}": allowed are {", ".join(sorted(tables))}')
    table = tables[name]
    sizes = dict(table["mesh"])
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(devices) % fixed or (-1 not in sizes.values() and fixed != len(devices)):
        raise LabError(
            f'layout "{name}" with mesh {sizes} does not divide {len(devices)} devices; '
            f"a multiple of {fixed} is needed"
        )
    sizes = {axis: len(devices) // fixed if n == -1 else n for axis, n in sizes.items()}
    mesh = jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )
    return Layout(name=name, mesh=mesh, batch=tuple(table["batch"]), rules=table["rules"])


def data_layout(devices: Sequence[jax.Device]) -> Layout:
    """The batch split over these devices, all else on each of them whole."""
    table = {"mesh": {"data": -1}, "batch": ("data",), "rules": {}}
    return make_layout("data", {"data": table}, devices)


def tree_shardings(
    layout: Layout, tree: Any, *, axes_of: Callable[[Any], tuple[str, ...] | None]
) -> Any:
    """A sharding for each leaf of an abstract state.

    `axes_of` gives the logical axes of a parameter and None for anything else; what has no axes
    (step counters) is replicated. The result has `tree`'s structure down to the parameters.
    """

    def of(leaf: Any) -> NamedSharding:
        axes = axes_of(leaf)
        return layout.replicated() if axes is None else layout.sharding(axes, leaf.shape)

    return jax.tree.map(of, tree, is_leaf=lambda leaf: axes_of(leaf) is not None)


TENSOR_AXIS = "tensor"  # the one mesh axis that never splits a batch


def constrain_batch(x: jax.Array) -> jax.Array:
    """Keep an activation split along its first axis like the batch.

    The mesh is that under which the step is traced (lab/train/step.py); outside one, nothing.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis in mesh.axis_names if axis != TENSOR_AXIS)
    if math.prod(mesh.shape[axis] for axis in axes) == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes))
