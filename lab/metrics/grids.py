"""Tokens of many units (images, blocks of text) as grids of ids, in random order."""

from __future__ import annotations

import dataclasses

import numpy as np

from lab.core.codes import Alphabet, CodeKind, bits_to_subcodes
from lab.core.errors import LabError
from lab.metrics.usage import MOST_BITS, code_ids


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TokenGrids:
    """Tokens of one source. U units in random order, V views of each, H rows, W columns.

    Views of an image belong to its unit: they say little that is new. A text is blocks of one row.
    """

    name: str
    unit: str  # what a unit is: "images", "blocks of 256 characters"
    alphabet: int  # ids that there are
    ids_UVHW: np.ndarray
    bits_UVHWD: np.ndarray | None = None  # of binary codes
    note: str = ""

    @property
    def units(self) -> int:
        """Units."""
        return len(self.ids_UVHW)

    def subcodes(self, split: int) -> list[TokenGrids]:
        """Each of the `split` sub-codes of binary codes as a source of its own."""
        if self.bits_UVHWD is None:
            return []
        parts = bits_to_subcodes(self.bits_UVHWD, split)
        bits = self.bits_UVHWD.shape[-1] // split
        return [
            TokenGrids(
                name=f"{self.name} [{i + 1}/{split}]",
                unit=self.unit,
                alphabet=2**bits,
                ids_UVHW=parts[..., i],
            )
            for i in range(split)
        ]


def grids_of_codes(codes: np.ndarray, alphabet: Alphabet, *, name: str, seed: int) -> TokenGrids:
    """Host codes (U, V, H, W) of ids or (U, V, H, W, d) of bits, units shuffled by the seed.

    Raises LabError for continuous codes, for bits that fold into no id of 63 bits, and for codes
    outside the alphabet.
    """
    check_countable(alphabet, name=name)
    order = np.random.default_rng(seed).permutation(len(codes))
    codes = codes[order]
    bits = codes if alphabet.kind is CodeKind.BITS else None
    shape = codes.shape[:-1] if bits is not None else codes.shape
    return TokenGrids(
        name=name,
        unit="images",
        alphabet=2**alphabet.size if bits is not None else alphabet.size,
        ids_UVHW=code_ids(codes, alphabet).reshape(shape),
        bits_UVHWD=bits,
    )


def check_countable(alphabet: Alphabet, *, name: str) -> None:
    """Raise LabError where codes of this alphabet have no distribution of tokens."""
    if alphabet.kind is CodeKind.GAUSSIAN:
        raise LabError(f"{name}: {alphabet}: continuous codes have no token distribution")
    if alphabet.kind is CodeKind.BITS and alphabet.size > MOST_BITS:
        raise LabError(f"{name}: {alphabet}: at most {MOST_BITS} bits fold into one id")


def grids_of_sequence(
    ids: np.ndarray, *, name: str, unit: str, block: int, alphabet: int, seed: int, note: str = ""
) -> TokenGrids:
    """A sequence (N,) cut into blocks of one row, which are shuffled; a rest is left out."""
    blocks = len(ids) // block
    if not blocks:
        raise LabError(f"{name}: {len(ids)} {unit}; a block is {block}")
    grid = ids[: blocks * block].reshape(blocks, 1, 1, block)
    order = np.random.default_rng(seed).permutation(blocks)
    return TokenGrids(
        name=name,
        unit=f"blocks of {block} {unit}",
        alphabet=alphabet,
        ids_UVHW=grid[order],
        note=note,
    )
