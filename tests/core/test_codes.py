"""Bits and sub-codes against strings of binary digits."""

import numpy as np
import pytest

from lab.core.codes import Alphabet, CodeKind, bits_to_subcodes, subcodes_to_bits
from lab.core.errors import LabError


@pytest.mark.parametrize("bits, subcodes", [(16, 1), (16, 2), (20, 2), (24, 3), (32, 2), (5, 5)])
def test_subcodes_are_the_numbers_that_the_digits_write(bits, subcodes):
    drawn = np.random.default_rng(bits).integers(0, 2, (3, 4, bits), dtype=np.uint8)
    codes = bits_to_subcodes(drawn, subcodes)
    each = bits // subcodes
    for place in np.ndindex(3, 4):
        digits = "".join(str(bit) for bit in drawn[place])
        words = [digits[at : at + each] for at in range(0, bits, each)]
        assert codes[place].tolist() == [int(word, 2) for word in words]
    assert (subcodes_to_bits(codes, bits) == drawn).all()


@pytest.mark.parametrize(
    "size, dtype", [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "i4")]
)
def test_ids_take_the_smallest_integer(size, dtype):
    assert Alphabet(CodeKind.IDS, size).dtype == np.dtype(dtype)
    assert np.iinfo(dtype).max >= size - 1


def test_a_split_that_leaves_bits_over_is_refused():
    with pytest.raises(LabError, match="allowed sub-codes are 1, 2, 4, 8, 16"):
        bits_to_subcodes(np.zeros((1, 16), np.uint8), 3)
    with pytest.raises(LabError, match="32 bits in 1"):
        bits_to_subcodes(np.zeros((1, 32), np.uint8), 1)
