"""What Google's tools call each TPU generation; shapes and sizes are in lab/core/chips.py.

Labels of GKE's nodes: "Plan TPUs in GKE". Types and runtime versions of TPU VMs: "Cloud TPU VM
images" and the page of each generation; a type counts cores where a chip had two of them by name.
"""

import dataclasses
import itertools
import math

from lab.core.chips import CHIPS, Slices
from lab.core.errors import LabError

ACCELERATOR_LABEL = "cloud.google.com/gke-tpu-accelerator"
TOPOLOGY_LABEL = "cloud.google.com/gke-tpu-topology"
RESOURCE = "google.com/tpu"
HOST_CHIPS = {True: (1, 4, 8), False: (1, 4)}  # of flat and cubic ones: machine types -1t, -4t, -8t
LARGEST_VM = 8  # chips of a flat slice that is one TPU VM; larger ones have the usual hosts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """One generation's."""

    accelerator: str  # the label of GKE's nodes
    vm_type: str = ""  # before the number in a TPU VM's type; "": GKE only
    counted: int = 1  # in that number, for each chip
    runtime: str = ""  # image of a TPU VM


NAMES = {
    "v4": Names(
        accelerator="tpu-v4-podslice", vm_type="v4", counted=2, runtime="tpu-ubuntu2204-base"
    ),
    "v5e": Names(
        accelerator="tpu-v5-lite-podslice", vm_type="v5litepod", runtime="v2-alpha-tpuv5-lite"
    ),
    "v5p": Names(accelerator="tpu-v5p-slice", vm_type="v5p", counted=2, runtime="v2-alpha-tpuv5"),
    "v6e": Names(accelerator="tpu-v6e-slice", vm_type="v6e", runtime="v2-alpha-tpuv6e"),
    "tpu7x": Names(accelerator="tpu7x"),
}
assert NAMES.keys() == CHIPS.keys()


def chips_of_host(slices: Slices, wanted: int | None = None) -> int:
    """Chips of one host of a slice; `wanted` (None: the usual number) must divide the slice."""
    chips = math.prod(slices.shape)
    allowed = [n for n in HOST_CHIPS[slices.chip.flat] if chips % n == 0]
    found = min(chips, slices.chip.chips_per_host) if wanted is None else wanted
    if found not in allowed:
        raise LabError(
            f"--chips-per-host {found}: hosts of {slices.name} have one of "
            f"{', '.join(map(str, allowed))} chips"
        )
    return found


def chips_of_vm(slices: Slices) -> int:
    """Chips of one host of a slice of TPU VMs: v5litepod-8 and v6e-8 are one of eight."""
    chips = math.prod(slices.shape)
    if slices.chip.flat and chips <= LARGEST_VM:
        return chips
    return min(chips, slices.chip.chips_per_host)


def vm_type_of(slices: Slices) -> str:
    """The type of a TPU VM ("v5p-256"); LabError for a generation that GKE alone has.

    It has only a number, and stands for the usual shape of so many chips.
    """
    names = NAMES[slices.chip.name]
    if not names.vm_type:
        raise LabError(f"--topology {slices.name}: there are no TPU VMs of it; use --target jobset")
    return f"{names.vm_type}-{math.prod(slices.shape) * names.counted}"


def usual_shape(slices: Slices) -> tuple[int, ...]:
    """Of the shapes with as many chips the most compact: what a type of TPU VM stands for."""
    chips = math.prod(slices.shape)
    shapes = [shape for shape in slices.chip.shapes if math.prod(shape) == chips]
    sides = range(4, chips // 16 + 1, 4)
    pairs = itertools.combinations_with_replacement(sides, 2)
    cubic = [(a, b, chips // (a * b)) for a, b in pairs if chips % (a * b) == 0]
    shapes += [shape for shape in cubic if slices.chip.has(shape)]
    return min(shapes, key=sum)
