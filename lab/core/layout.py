"""The mesh of a named layout, and logical axes of parameters to shardings.

Modules name the axes of their parameters; a layout maps the names to mesh axes. The mesh is made
here and nowhere else, with `axis_types=Auto`: under jax's default (Explicit) a weight sharded over
the axis that also splits the batch raises.
"""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lab.core.errors import LabError
from lab.core.execution_config import ExecutionConfig

TENSOR_AXIS = "tensor"  # the one mesh axis that never splits a batch
REPLICAS = 2  # of "slices" where all devices lie in one: the layout can be tried there


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, which of its axes split the batch, and where each logical axis goes."""

    name: str
    mesh: Mesh | AbstractMesh  # abstract: to lower for devices that are not here
    batch: tuple[str, ...]
    rules: Mapping[str, str | None]
    traced: bool = True  # False in a pack on several devices (lab/train/pack.py): of its updates

    def tracing(self, *, update: bool = True) -> contextlib.AbstractContextManager[Any]:
        """What an update, or an evaluation, is traced in: under the mesh, where `traced`."""
        if update and not self.traced:
            return contextlib.nullcontext()
        return jax.sharding.use_abstract_mesh(self.abstract_mesh)

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

    def batch_sharding(self, *, axis: int = 0) -> NamedSharding:
        """The sharding of an array whose first axis, or another one, is the batch."""
        return NamedSharding(self.mesh, PartitionSpec(*(None,) * axis, self.batch))

    def replicate(self, tree: Any) -> Any:
        """A tree whole on every device; each process gives the same values."""
        whole = self.replicated()
        if whole.is_fully_addressable:
            return jax.device_put(tree, whole)

        def of(leaf: Any) -> jax.Array:
            values = np.asarray(leaf)
            return jax.make_array_from_callback(values.shape, whole, lambda index: values[index])

        return jax.tree.map(of, tree)

    def places_here(self, batch: int) -> np.ndarray:
        """Which rows of a batch of this size the devices of this process hold: int (rows,).

        With an axis that does not split the batch, several processes may hold the same rows.
        """
        held = self.batch_sharding().addressable_devices_indices_map((batch,)).values()
        return np.unique(np.concatenate([np.arange(batch)[index] for index in held]))

    def batch_of(self, rows: np.ndarray, *, axis: int = 0) -> jax.Array:
        """The global batch of which this process gives the rows at its places, in their order.

        They stand in the first axis, or in another one.
        """
        sharding = self.batch_sharding(axis=axis)
        if sharding.is_fully_addressable:
            return jax.device_put(rows, sharding)
        shards_here = len(self.places_here(self.batch_shards))
        batch = rows.shape[axis] // shards_here * self.batch_shards
        first = {place: row for row, place in enumerate(self.places_here(batch).tolist())}

        def shard(index: Any) -> np.ndarray:
            start, stop, _ = index[axis].indices(batch)
            taken = slice(first[start], first[start] + stop - start)
            return rows[(*index[:axis], taken)]

        shape = (*rows.shape[:axis], batch, *rows.shape[axis + 1 :])
        return jax.make_array_from_callback(shape, sharding, shard)

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
    name: str,
    tables: Mapping[str, Mapping[str, Any]],
    devices: Sequence[jax.Device],
    *,
    tensor: int = 0,
    replicas: int = 0,
) -> Layout:
    """The named layout over these devices, in the order in which their links serve it best.

    `tensor` (config.execution.tensor) is the size of the mesh axis of that name, and `replicas`
    (config.execution.replicas) of the one that goes across slices; 0 is the table's own.
    Raises LabError where there is no such layout, or the devices do not divide into its mesh.
    """
    if name not in tables:
        raise LabError(f'layout "{name}": allowed are {", ".join(sorted(tables))}')
    table, slices = tables[name], slices_of(devices)
    asked = {"tensor": tensor, "replicas": replicas}
    sizes = mesh_sizes(name, table, devices=len(devices), slices=slices, **asked)
    axes, types = tuple(sizes), (AxisType.Auto,) * len(sizes)
    if slices == 1:
        mesh = _of_one_slice(tuple(sizes.values()), axes, types, devices)
    else:
        mesh = Mesh(across_slices(name, sizes, devices, slices=slices), axes, axis_types=types)
    return Layout(name=name, mesh=mesh, batch=tuple(table["batch"]), rules=table["rules"])


def _of_one_slice(shape: tuple[int, ...], axes: Any, types: Any, devices: Any) -> Mesh:
    """A mesh along the links; an axis that is no product of whole axes of the torus takes a part of
    one: two replicas of 128 chips each are halves of a torus of 16 x 16.
    """
    try:
        return jax.make_mesh(shape, axes, axis_types=types, devices=devices)
    except NotImplementedError:
        placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(placed, axes, axis_types=types)


def layout_of(
    execution: ExecutionConfig,
    tables: Mapping[str, Mapping[str, Any]],
    devices: Sequence[jax.Device],
) -> Layout:
    """The layout that a config asks for, over these devices. Raises LabError as `make_layout`."""
    return make_layout(
        execution.layout, tables, devices, tensor=execution.tensor, replicas=execution.replicas
    )


def slices_of(devices: Sequence[jax.Device]) -> int:
    """How many slices of a pod these devices lie in: 1 where they do not say."""
    return len({getattr(device, "slice_index", None) or 0 for device in devices})


def mesh_sizes(
    name: str,
    table: Mapping[str, Any],
    *,
    devices: int,
    slices: int = 1,
    tensor: int = 0,
    replicas: int = 0,
) -> dict[str, int]:
    """The size of each mesh axis of a layout's table; see configs/layouts.py for what it may say.

    Raises LabError where so many devices do not divide into the mesh, with what would.
    """
    sizes: dict[str, Any] = dict(table["mesh"])
    if tensor and TENSOR_AXIS not in sizes:
        raise LabError(
            f'config.execution.tensor = {tensor}: layout "{name}" has no mesh axis '
            f'"{TENSOR_AXIS}", only {", ".join(sizes)}; 0 is expected'
        )
    if tensor:
        sizes[TENSOR_AXIS] = tensor
    if replicas and "slices" not in sizes.values():
        raise LabError(
            f'config.execution.replicas = {replicas}: layout "{name}" has no mesh axis of '
            f"replicas, only {', '.join(sizes)}; 0 is expected"
        )
    across = replicas or (slices if slices > 1 else REPLICAS)
    sizes = {axis: across if size == "slices" else size for axis, size in sizes.items()}
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if devices % fixed or (-1 not in sizes.values() and fixed != devices):
        needed = f"a multiple of {fixed} is needed"
        if tensor:
            fit = [n for n in range(1, devices + 1) if devices % (fixed // tensor * n) == 0]
            allowed = ", ".join(map(str, fit)) or "none"
            needed = f"allowed for config.execution.tensor = {tensor} are {allowed}"
        raise LabError(
            f'layout "{name}" with mesh {sizes} does not divide {devices} devices; {needed}'
        )
    return {axis: devices // fixed if size == -1 else size for axis, size in sizes.items()}


def across_slices(
    name: str, sizes: Mapping[str, int], devices: Sequence[jax.Device], *, slices: int
) -> np.ndarray:
    """The devices as a mesh of these sizes whose first axis alone goes across slices.

    Between slices links are slower by an order of magnitude: what one step sends there should be
    the gradients alone. Raises LabError where the first axis is no multiple of the slices.
    """
    first, *rest = sizes
    if sizes[first] % slices:
        raise LabError(
            f'layout "{name}": its first mesh axis "{first}" of size {sizes[first]} goes across '
            f"the {slices} slices of these devices; a multiple of {slices} is needed"
        )
    each = collections.Counter(device.slice_index for device in devices)
    if len(set(each.values())) > 1:
        raise LabError(
            f'layout "{name}": slices of {", ".join(map(str, each.values()))} devices; as many of '
            "each are needed (config.execution.devices = 0 takes all)"
        )
    inside = (sizes[first] // slices, *(sizes[axis] for axis in rest))
    outside = (slices, *(1 for _ in rest))
    try:
        return mesh_utils.create_hybrid_device_mesh(inside, outside, devices)
    except NotImplementedError:  # as in one slice
        return mesh_utils.create_hybrid_device_mesh(
            inside, outside, devices, allow_split_physical_axes=True
        )


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


def traced_batch_axes() -> tuple[str, ...]:
    """The axes that split a batch of the mesh under which a step is traced; outside one, none.

    An axis that a shard_map has taken (a pack's, whose devices train apart) splits nothing more.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(a for a, kind in kinds if a != TENSOR_AXIS and kind is not AxisType.Manual)


def constrain_batch(x: jax.Array, *, axis: int = 0) -> jax.Array:
    """Keep an activation split along its first axis, or another one, like the batch.

    The mesh is that under which the step is traced (lab/train/step.py); outside one, nothing.
    """
    return _split(x, axis=axis, others=None)


Placed = Callable[[jax.Array], jax.Array]  # says where rows lie: those of their images, or anywhere


def anywhere(x: jax.Array) -> jax.Array:
    """Leave it to the compiler: the rows of one image, in a sampler."""
    return x


def split_batch(x: jax.Array, *, axis: int) -> jax.Array:
    """Keep an array split along `axis` like the batch, its other axes as the compiler likes.

    Of what a loop carries: left alone it may stand whole on every device. As `constrain_batch`.
    """
    return _split(x, axis=axis, others=PartitionSpec.UNCONSTRAINED)


def _split(x: jax.Array, *, axis: int, others: Any) -> jax.Array:
    mesh, axes = jax.sharding.get_abstract_mesh(), traced_batch_axes()
    if math.prod(mesh.shape[name] for name in axes) == 1:
        return x
    spec = [axes if at == axis else others for at in range(x.ndim)]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))
