"""What a compiled program does in one call: FLOPs of its products, bytes of HBM, collectives.

Every count is of one device, and of each instruction as often as it runs (`Program.runs`). A FLOP
is a multiplication or an addition of a product; element-wise work is not counted, as in
lab/core/counts.py, so that the two can be compared.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lab.core.errors import LabError
from lab.core.hlo import COLLECTIVES, Array, Computation, Instruction, Program


def product_flops(program: Program) -> float:
    """FLOPs of all products of matrices and convolutions."""
    total = 0.0
    for computation, instruction, runs in program.running():
        if instruction.opcode in ("dot", "convolution"):
            total += runs * _product(computation, instruction)
    return total


def _product(computation: Computation, instruction: Instruction) -> float:
    left, right = computation.given(instruction)[:2]
    (out,) = instruction.arrays
    if instruction.opcode == "dot":
        contracted = _braced(instruction, "lhs_contracting_dims")
        return 2 * out.size * math.prod(left.dims[int(d)] for d in contracted.split(",") if d)
    return 2 * _multiplications(instruction, left, right, out)


def _braced(instruction: Instruction, name: str) -> str:
    found = re.search(rf"(?:^|[ ,]){name}=\{{([^}}]*)\}}", instruction.attributes)
    return found[1] if found else ""


def _multiplications(instruction: Instruction, image: Array, kernel: Array, out: Array) -> float:
    """Of a convolution; where the window hangs over the border nothing is multiplied.

    The compiler for TPUs writes products with a batch as convolutions with a window as large as
    the batch, dilated so that all but one place of the window falls between the numbers.
    """
    labels = instruction.attribute("dim_labels") or ""
    found = re.fullmatch(r"(\w+)_(\w+)->(\w+)", labels)
    if not found:
        raise LabError(f"HLO: {instruction.name}: dim_labels={labels} is not understood")
    of_image, of_kernel, of_out = found.groups()
    window = _window(_braced(instruction, "window"))
    pairs = 1.0
    for label in (c for c in of_out if c.isdigit()):
        sizes = (
            image.dims[of_image.index(label)],
            kernel.dims[of_kernel.index(label)],
            out.dims[of_out.index(label)],
        )
        pairs *= _pairs(*sizes, **window[int(label)] if window else {})
    batch = out.dims[of_out.index("b")] if "b" in of_out else 1
    features = kernel.dims[of_kernel.index("o")] * kernel.dims[of_kernel.index("i")]
    return batch * features * pairs / int(instruction.attribute("batch_group_count") or 1)


def _window(text: str) -> list[dict[str, int]]:
    """The window along each dimension: size=1x8 pad=0_0x7_7 and so on."""
    columns = dict(part.split("=") for part in text.split() if "=" in part)
    if "size" not in columns:
        return []
    found: list[dict[str, int]] = []
    for at in range(len(columns["size"].split("x"))):

        def of(name: str, default: str, at: int = at) -> str:
            return columns[name].split("x")[at] if name in columns else default

        found.append(
            {
                "stride": int(of("stride", "1")),
                "before": int(of("pad", "0_0").split("_")[0]),
                "image_dilation": int(of("lhs_dilate", "1")),
                "window_dilation": int(of("rhs_dilate", "1")),
            }
        )
    return found


def _pairs(
    image: int,
    window: int,
    out: int,
    *,
    stride: int = 1,
    before: int = 0,
    image_dilation: int = 1,
    window_dilation: int = 1,
) -> int:
    """How many places of the window, over all outputs along a dimension, meet a number."""
    at = np.arange(out)[:, None] * stride + np.arange(window)[None, :] * window_dilation - before
    inside = (at >= 0) & (at <= (image - 1) * image_dilation)
    return int(np.sum(inside & (at % image_dilation == 0)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """All collectives of one kind over the same axes of the mesh."""

    kind: str
    axes: str  # "fsdp", "fsdp+tensor"; "some" where the groups are no axes of the mesh
    devices: int  # of one group
    times: float  # in one call of the program
    wire_bytes: float  # that a device sends, in the cheapest known way (rings)
    between_slices: bool = False


def collectives(program: Program, mesh: Mapping[str, int], *, slices: int = 1) -> list[Collective]:
    """The collectives of a program over the devices of a mesh (axis: size), largest first.

    Of several slices, over which the mesh's first axis goes, a program is that of one: its groups
    are of the slice's devices, and what goes between slices is sent and received through the hosts.
    """
    first = next(iter(mesh))
    inside = {**mesh, first: mesh[first] // slices}
    found: dict[tuple[str, str, int, bool], list[float]] = {}
    for what, runs, sent in (*_within(program, inside), *_between(program, first, slices)):
        times, wire = found.setdefault(what, [0.0, 0.0])
        found[what] = [times + runs, wire + runs * sent]
    made = [
        Collective(
            kind=kind,
            axes=axes,
            devices=size,
            times=times,
            wire_bytes=wire,
            between_slices=between,
        )
        for (kind, axes, size, between), (times, wire) in found.items()
        if size > 1
    ]
    return sorted(made, key=lambda c: -c.wire_bytes)


# Kind, axes, devices of a group, between slices or not; how often; bytes that a device sends.
_Run = tuple[tuple[str, str, int, bool], float, float]


def _between(program: Program, axis: str, slices: int) -> Iterator[_Run]:
    """What the runtime of several slices (megascale) does with what a device hands to its host."""
    for computation, instruction, runs in program.running():
        how = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.attributes)
        if instruction.opcode == "send" and how:
            kind = how[1].lower().replace("_", "-")
            sent = _ring(kind, slices, computation.given(instruction)[0].bytes)
            yield (kind, axis, slices, True), runs, sent


def _within(program: Program, mesh: Mapping[str, int]) -> Iterator[_Run]:
    """Over the devices of one slice."""
    named = _named_groups(mesh)
    for computation, instruction, runs in _once_a_channel(program):
        kind = _kind(computation, instruction)
        groups = _groups(instruction, math.prod(mesh.values()))
        if kind == "collective-permute":
            axes, size = _axes_of_pairs(groups, mesh), 2
        else:
            axes, size = named.get(_key(groups), "some"), len(groups[0])
        given = sum(array.bytes for array in computation.given(instruction))
        yield (kind, axes, size, False), runs, _ring(kind, size, given)


def _kind(computation: Computation, instruction: Instruction) -> str:
    """The kind of a collective; a sum of which each device keeps its part is a reduce-scatter,
    which the compiler for TPUs writes as a fusion of both.
    """
    kind = instruction.opcode.removesuffix("-start")
    users = computation.users[instruction.name]
    if kind == "all-reduce" and users and instruction.name != computation.root:
        if all(user.opcode == "dynamic-slice" for user in users):
            return "reduce-scatter"
    return kind


def _once_a_channel(program: Program) -> Iterator[tuple[Computation, Instruction, float]]:
    """Each collective once: one that is spread over several fusions, so that products hide it,
    stands in all of them under one channel. Its start runs as often as it does.
    """
    least: dict[str, tuple[Computation, Instruction, float]] = {}
    for computation, instruction, runs in program.running():
        if instruction.opcode.removesuffix("-start") not in COLLECTIVES:
            continue
        channel = instruction.attribute("channel_id") or instruction.name
        if channel not in least or runs < least[channel][2]:
            least[channel] = (computation, instruction, runs)
    return iter(least.values())


def _ring(kind: str, size: int, given: float) -> float:
    """Bytes that each of `size` devices sends which give so many; of other kinds to one other."""
    share = (size - 1) / size
    of_given = {
        "all-reduce": 2 * share,
        "all-gather": size - 1,
        "reduce-scatter": share,
        "all-to-all": share,
    }
    return given * of_given.get(kind, 1)


def _groups(instruction: Instruction, devices: int) -> tuple[tuple[int, ...], ...]:
    """Who takes part with whom: the pairs of a permutation, the groups of the others."""
    text = instruction.attributes
    pairs = re.search(r"source_target_pairs=\{(.*?)\}\}", text)
    if pairs:
        return _listed(pairs[1])
    tiled = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if tiled:
        order = _moved(tiled[3], tiled[4])
        return _tuples(order.reshape(int(tiled[1]), int(tiled[2])))
    meshed = re.search(
        r"replica_groups=mesh\[(.*?)\],? *(?:device_ids=\((.*?)\),? *)?\{(.*?)\}", text
    )
    if meshed:
        return _of_mesh(meshed[1], meshed[2], meshed[3])
    listed = re.search(r"replica_groups=\{(\{.*?\})\}", text)
    if listed:
        return _listed(listed[1])
    if "replica_groups=" in text and "replica_groups={}" not in text:
        raise LabError(f"HLO: {text[text.index('replica_groups=') :][:80]} is not understood")
    return (tuple(range(devices)),)  # no groups: all with all


def _listed(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(int(n) for n in group.split(",") if n.strip())
        for group in re.findall(r"\{([\d, ]*)\}?", text)
    )


def _of_mesh(axes: str, ids: str | None, over: str) -> tuple[tuple[int, ...], ...]:
    """Groups over some axes of a mesh; its devices in order, or in that of `ids`: [16,16]T(1,0)."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    names = re.findall(r"'([^']+)'", over)
    if not set(names) <= set(sizes):
        raise LabError(f"HLO: replica_groups=mesh[{axes}] {{{over}}} is not understood")
    order = _device_ids(ids, math.prod(sizes.values())).reshape(tuple(sizes.values()))
    kept = [at for at, name in enumerate(sizes) if name not in names]
    moved = order.transpose(kept + [list(sizes).index(name) for name in names])
    return _tuples(moved.reshape(-1, math.prod(sizes[name] for name in names)))


def _device_ids(text: str | None, devices: int) -> np.ndarray:
    if text is None:
        return np.arange(devices)
    moved = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text.strip())
    if not moved:
        raise LabError(f"HLO: device_ids=({text}) is not understood")
    return _moved(moved[1], moved[2])


def _moved(dims: str, axes: str | None) -> np.ndarray:
    """The numbers from 0 on in an array of these dimensions, its axes in another order."""
    shape = [int(n) for n in dims.split(",")]
    order = np.arange(math.prod(shape)).reshape(shape)
    return order.transpose([int(n) for n in axes.split(",")]) if axes else order


def _tuples(array: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in row) for row in array)


def _key(groups: Sequence[Sequence[int]]) -> frozenset[frozenset[int]]:
    return frozenset(frozenset(group) for group in groups)


def _named_groups(mesh: Mapping[str, int]) -> dict[frozenset[frozenset[int]], str]:
    """The groups of every set of axes, by the fewest axes."""
    names = [name for name, size in mesh.items() if size > 1]
    order = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))
    found: dict[frozenset[frozenset[int]], str] = {}
    for mask in range(1, 2 ** len(names)):
        over = [name for at, name in enumerate(names) if mask >> at & 1]
        last = [list(mesh).index(name) for name in over]
        kept = [at for at in range(len(mesh)) if at not in last]
        groups = order.transpose(kept + last).reshape(-1, math.prod(mesh[name] for name in over))
        found.setdefault(_key(_tuples(groups)), "+".join(over))
    return found


def _axes_of_pairs(pairs: Sequence[Sequence[int]], mesh: Mapping[str, int]) -> str:
    """Along which axes the two of a pair differ, over all pairs."""
    sizes = tuple(mesh.values())
    ends = np.array([pair for pair in pairs if len(pair) == 2])
    if not len(ends):
        return "none"
    places = np.stack(np.unravel_index(ends, sizes))  # (axes, pairs, 2)
    differ = np.any(places[:, :, 0] != places[:, :, 1], axis=1)
    return "+".join(name for name, d in zip(mesh, differ, strict=True) if d) or "none"
