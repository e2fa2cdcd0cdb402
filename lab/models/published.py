"""What the authors say that their models weigh, as configs of ours.

Sources: the papers' tables and public code of ELM (2410.16257), LlamaGen (2406.06525), BiGR
(2410.14672), MAR (2406.11838) and DiT (2212.09748). A number in millions with a decimal is counted
from the public code, the others are as printed.
"""

from __future__ import annotations

import dataclasses
import math

GRID = (16, 16, 1)  # 256 x 256 pixels at f16
UNITS = {"M": 1e6, "B": 1e9}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A published size: the config that rebuilds it, its tokens, and the authors' number."""

    family: str
    size: str
    said: str  # "336M", "1.5B", "90.0M"
    vocabulary: int
    subcodes: int = 1
    channels: int = 0
    grid: tuple[int, int, int] = GRID
    unused: int = 0  # parameters of the public code that nothing reads, and ours leaves out
    up: bool = False  # the authors round up
    note: str = ""

    @property
    def config(self) -> str:
        """The config, as commands take it."""
        return f"configs/{self.family}.py:{self.size}"

    def met(self, parameters: float) -> bool:
        """Whether a count rounds to what was said, at its precision."""
        return self.rounded(parameters + self.unused) == self.said

    def rounded(self, parameters: float) -> str:
        """A count at the precision and in the unit of what was said."""
        number, unit = self.said[:-1], self.said[-1]
        decimals = len(number.partition(".")[2])
        value = parameters / UNITS[unit]
        if self.up:
            value = math.ceil(value * 10**decimals) / 10**decimals
        return f"{value:.{decimals}f}{unit}"


def _elm(size: str, said: str, *, subcodes: int, bits: int, note: str = "") -> Published:
    return Published(
        family="elm", size=size, said=said, vocabulary=2**bits, subcodes=subcodes, note=note
    )


def _llamagen(size: str, said: str) -> Published:
    return Published(family="llamagen", size=size, said=said, vocabulary=16384)


def _bigr(size: str, said: str, *, bits: int = 24) -> Published:
    grid = (32, 32, 1) if size == "L-512" else GRID
    return Published(family="bigr", size=size, said=said, vocabulary=2, subcodes=bits, grid=grid)


def _mar(size: str, said: str) -> Published:
    return Published(
        family="mar",
        size=size,
        said=said,
        vocabulary=0,
        channels=16,
        up=True,
        note="the parts of the public code, whose sums the authors round up",
    )


def _dit(size: str, said: str) -> Published:
    return Published(family="dit", size=size, said=said, vocabulary=0, channels=4, grid=(32, 32, 1))


def _mlm(size: str, said: str, width: int) -> Published:
    return Published(
        family="mlm",
        size=size,
        said=said,
        vocabulary=2**16,
        unused=width * 2**16,
        note="the public code also allocates an output matrix that it never uses",
    )


PUBLISHED = (
    _elm("B", "186.4M", subcodes=1, bits=16),
    _elm("B", "90.0M", subcodes=2, bits=10),
    _elm("L", "443.6M", subcodes=1, bits=16),
    _elm("L", "312.5M", subcodes=2, bits=8),
    _elm("L", "315.6M", subcodes=2, bits=10, note="printed 315M, which truncates"),
    _elm("L", "328.2M", subcodes=2, bits=12),
    _elm("XL", "741.3M", subcodes=2, bits=10),
    _elm("XL", "757M", subcodes=2, bits=12, note="printed beside 2-10, whose count is 741.3M"),
    _elm("XXL", "1.4B", subcodes=2, bits=12),
    _elm("2B", "1.9B", subcodes=2, bits=12),
    _elm("XXXL", "3832.7M", subcodes=2, bits=10),
    _llamagen("B", "111M"),
    _llamagen("L", "343M"),
    _llamagen("XL", "775M"),
    _llamagen("XXL", "1.4B"),
    _llamagen("XXXL", "3.9B"),
    _llamagen("3B", "3.1B"),
    _llamagen("7B", "6.6B"),
    _mlm("L", "444.7M", 1024),
    _mlm("XL", "902.2M", 1280),
    _mlm("XXL", "1564.4M", 1536),
    _bigr("L", "336M"),
    _bigr("XL", "799M"),
    _bigr("XXL", "1.5B"),
    _bigr("L-512", "373M", bits=32),
    _mar("B", "208M"),
    _mar("L", "479M"),
    _mar("H", "943M"),
    _dit("S", "33M"),
    _dit("B", "130M"),
    _dit("L", "458M"),
    _dit("XL", "675M"),
)
