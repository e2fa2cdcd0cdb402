"""TPU generations: what one chip has, and which slices there are.

Peaks and bandwidths are the vendor's (the pages of each generation in Cloud TPU's documentation).
`usable_hbm_bytes` is what the compiler gives to a program on one device, as libtpu 0.0.52 says
where a program does not fit.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

from lab.core.errors import LabError

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One generation."""

    name: str
    kind: str  # as jax names the device
    devices: int  # of jax, on one chip
    libtpu_config: str  # "default", or "megacore": both cores are one device
    usable_hbm_bytes: int  # of one device
    peak_flops_per_s: float  # bfloat16, one chip
    hbm_bytes_per_s: float  # one chip
    links: int  # of the interconnect: two for each dimension of the torus
    link_bytes_per_s: float  # one link, one way
    dcn_bytes_per_s: float  # between slices, one chip's share
    chips_per_host: int
    largest: int  # chips of the largest slice
    shapes: tuple[tuple[int, ...], ...] = ()  # all of a flat torus; of a cubic one the small ones

    @property
    def flat(self) -> bool:
        """Whether its slices have two dimensions."""
        return self.links == 4

    def has(self, shape: Sequence[int]) -> bool:
        """Whether there is a slice of this shape."""
        if tuple(shape) in self.shapes:
            return True
        cubes = len(shape) == 3 and all(side % 4 == 0 and side > 0 for side in shape)
        ordered = list(shape) == sorted(shape)
        return not self.flat and cubes and ordered and math.prod(shape) <= self.largest

    @property
    def allowed(self) -> str:
        """The shapes in words."""
        listed = ", ".join(map(shape_text, self.shapes))
        if self.flat:
            return listed
        return f"{listed}, and AxBxC of multiples of 4 that do not fall, up to {self.largest} chips"


def shape_text(shape: Sequence[int]) -> str:
    """A shape as commands and labels have it: "4x4x8"."""
    return "x".join(map(str, shape))


_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_CUBIC = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))

CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            kind="TPU v4",
            devices=1,
            libtpu_config="megacore",
            usable_hbm_bytes=int(30.75 * GIB),
            peak_flops_per_s=275e12,
            hbm_bytes_per_s=1228e9,
            links=6,
            link_bytes_per_s=50e9,
            dcn_bytes_per_s=6.25e9,
            chips_per_host=4,
            largest=4096,
            shapes=_CUBIC,
        ),
        Chip(
            name="v5e",
            kind="TPU v5 lite",
            devices=1,
            libtpu_config="default",
            usable_hbm_bytes=int(15.75 * GIB),
            peak_flops_per_s=197e12,
            hbm_bytes_per_s=819e9,
            links=4,
            link_bytes_per_s=50e9,
            dcn_bytes_per_s=3.125e9,
            chips_per_host=4,
            largest=256,
            shapes=_FLAT,
        ),
        Chip(
            name="v5p",
            kind="TPU v5",
            devices=1,
            libtpu_config="default",
            usable_hbm_bytes=int(95.73 * GIB),
            peak_flops_per_s=459e12,
            hbm_bytes_per_s=2765e9,
            links=6,
            link_bytes_per_s=100e9,
            dcn_bytes_per_s=6.25e9,
            chips_per_host=4,
            largest=6144,
            shapes=_CUBIC,
        ),
        Chip(
            name="v6e",
            kind="TPU v6 lite",
            devices=1,
            libtpu_config="default",
            usable_hbm_bytes=int(31.24 * GIB),
            peak_flops_per_s=918e12,
            hbm_bytes_per_s=1638e9,
            links=4,
            link_bytes_per_s=100e9,
            dcn_bytes_per_s=12.5e9,
            chips_per_host=4,
            largest=256,
            shapes=_FLAT,
        ),
        Chip(
            name="tpu7x",
            kind="TPU7x",
            devices=2,
            libtpu_config="default",
            usable_hbm_bytes=int(94.74 * GIB),
            peak_flops_per_s=2307e12,
            hbm_bytes_per_s=7380e9,
            links=6,
            link_bytes_per_s=100e9,
            dcn_bytes_per_s=12.5e9,
            chips_per_host=4,
            largest=9216,
            shapes=_CUBIC,
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Slices:
    """One or several slices of one shape."""

    chip: Chip
    shape: tuple[int, ...]
    count: int = 1

    @property
    def topology(self) -> str:
        """One of them, as commands and libtpu take it: "v5e:16x16"."""
        return f"{self.chip.name}:{shape_text(self.shape)}"

    @property
    def name(self) -> str:
        """For people; several slices have their number: "2 x v5e:16x16"."""
        return self.topology if self.count == 1 else f"{self.count} x {self.topology}"

    @property
    def chips(self) -> int:
        """In all slices."""
        return self.count * math.prod(self.shape)

    @property
    def devices(self) -> int:
        """In all slices, as jax counts them."""
        return self.chips * self.chip.devices


def parse_slices(text: str, *, count: int = 1) -> Slices:
    """Slices from "v5p:4x4x8". Raises LabError naming what is allowed."""
    name, _, sides = text.partition(":")
    if name not in CHIPS:
        raise LabError(
            f"topology {text}: the generation is one of {', '.join(CHIPS)}, like v5p:4x4x8"
        )
    chip = CHIPS[name]
    shape = tuple(map(int, sides.split("x"))) if re.fullmatch(r"\d+(x\d+)+", sides) else ()
    if not chip.has(shape):
        raise LabError(f"topology {text}: slices of {name} are {chip.allowed}")
    if count < 1:
        raise LabError(f"{count} slices: at least 1 is expected")
    return Slices(chip, shape, count)
