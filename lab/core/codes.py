"""Codes of images: what lies at a position of a grid, and how bits fall into sub-codes."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from lab.core.errors import LabError


class CodeKind(enum.StrEnum):
    """What lies at a position of the grid."""

    IDS = "ids"  # one index into a codebook
    BITS = "bits"  # a vector of bits
    GAUSSIAN = "gaussian"  # mean and log variance of a latent


@dataclasses.dataclass(frozen=True)
class Alphabet:
    """The codes of a position: how many ids, bits or channels there are.

    On the host codes are arrays (B, rows, columns) of the smallest of uint8, uint16 and int32 for
    ids, (B, rows, columns, bits) uint8 of 0 and 1, (B, rows, columns, 2 channels) float32, means
    before log variances.
    """

    kind: CodeKind
    size: int

    @property
    def dtype(self) -> np.dtype:
        """The dtype of a host array of codes."""
        if self.kind is CodeKind.GAUSSIAN:
            return np.dtype(np.float32)
        if self.kind is CodeKind.BITS or self.size <= 2**8:
            return np.dtype(np.uint8)
        return np.dtype(np.uint16 if self.size <= 2**16 else np.int32)

    @property
    def values(self) -> int:
        """Numbers at a position of the grid."""
        return {CodeKind.IDS: 1, CodeKind.BITS: self.size, CodeKind.GAUSSIAN: 2 * self.size}[
            self.kind
        ]

    def __str__(self) -> str:
        return f"{self.size} {'channels' if self.kind is CodeKind.GAUSSIAN else self.kind}"


def bits_to_subcodes(bits: np.ndarray, subcodes: int) -> np.ndarray:
    """Sub-codes (..., t) of bits (..., d): t contiguous big-endian groups (ELM, 3.2).

    The dtype is the smallest of uint8, uint16 and int32. Raises LabError where t does not divide d
    or a group is longer than 31 bits.
    """
    total = bits.shape[-1]
    check_split(total, subcodes)
    each = total // subcodes
    dtype = Alphabet(CodeKind.IDS, 2**each).dtype
    places = 2 ** np.arange(each - 1, -1, -1, dtype=np.int64)
    groups = bits.reshape(*bits.shape[:-1], subcodes, each)
    return (groups.astype(np.int64) @ places).astype(dtype)


def subcodes_to_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Bits (..., d) uint8 of sub-codes (..., t): the inverse of `bits_to_subcodes`."""
    subcodes = codes.shape[-1]
    check_split(bits, subcodes)
    each = bits // subcodes
    shifts = np.arange(each - 1, -1, -1)
    groups = (codes.astype(np.int64)[..., None] >> shifts) & 1
    return groups.reshape(*codes.shape[:-1], bits).astype(np.uint8)


def check_split(bits: int, subcodes: int) -> None:
    """Raise LabError unless `bits` fall into `subcodes` groups of 1 to 31 bits."""
    if subcodes < 1 or bits % subcodes or bits // subcodes > 31:
        allowed = [t for t in range(1, bits + 1) if bits % t == 0 and bits // t <= 31]
        listed = ", ".join(map(str, allowed))
        raise LabError(f"{bits} bits in {subcodes} sub-codes: allowed sub-codes are {listed}")
