"""Whole pixels as bits: the bits by hand, one image under every split, and what is refused."""

import itertools

import numpy as np
import pytest

from lab.core.errors import LabError
from lab.tokenizers.pixel_bits import PixelBits
from lab.tokenizers.pixels import Pixels


def made(subcodes: int, *, levels: int = 8, channels: str = "rgb", side: int = 4) -> PixelBits:
    pixels = Pixels(resolution=side, channels=channels, levels=levels)
    return PixelBits(pixels=pixels, subcodes=subcodes)


def images(count: int = 5, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def by_hand(tokenizer: PixelBits, image_u8: np.ndarray) -> list[int]:
    """Tokens of one image as strings of binary digits say them."""
    width = (tokenizer.pixels.levels - 1).bit_length()
    levels = tokenizer.pixels.encode(image_u8[None])[0].reshape(-1, 3)
    each = tokenizer.bits // tokenizer.subcodes
    found = []
    for pixel in levels:
        digits = "".join(format(int(level), f"0{width}b") for level in pixel)
        found += [int(digits[at : at + each], 2) for at in range(0, len(digits), each)]
    return found


@pytest.mark.parametrize("subcodes", [1, 3, 9])
def test_tokens_are_the_binary_digits_of_the_levels_of_a_pixel(subcodes):
    tokenizer = made(subcodes)
    expected = [by_hand(tokenizer, image) for image in images()]
    np.testing.assert_array_equal(tokenizer.encode(images()), expected)


def test_one_subcode_a_channel_are_the_tokens_of_pixels():
    tokenizer = made(3)
    np.testing.assert_array_equal(tokenizer.encode(images()), tokenizer.pixels.encode(images()))


@pytest.mark.parametrize(("levels", "subcodes"), [(8, 1), (8, 9), (16, 12), (2, 3), (256, 1)])
def test_every_split_decodes_to_the_image_of_pixels_and_encodes_back(levels, subcodes):
    tokenizer = made(subcodes, levels=levels)
    tokens = tokenizer.encode(images())
    again = tokenizer.decode(tokens)
    np.testing.assert_array_equal(again, tokenizer.pixels.decode(tokenizer.pixels.encode(images())))
    np.testing.assert_array_equal(tokenizer.encode(again), tokens)


def test_the_map_of_colours_is_one_to_one():
    """All 2^6 colours of two bits a channel have tokens of their own."""
    colours = np.array(list(itertools.product([32, 96, 160, 224], repeat=3)), np.uint8)
    tokenizer = made(1, levels=4, side=1)
    tokens = tokenizer.encode(colours.reshape(-1, 1, 1, 3))
    assert sorted(tokens.ravel().tolist()) == list(range(64))


def test_spec_has_a_position_a_pixel_and_a_dimension_a_channel():
    spec = made(9).spec
    assert (spec.vocabulary, spec.subcodes, spec.tokens_per_image) == (2, 9, 16)
    assert (spec.dims_per_image, spec.grid) == (48, (4, 4, 1))
    grey = made(3, channels="grey").spec
    assert (grey.vocabulary, grey.dims_per_image) == (2, 16)
    identities = {made(s, levels=each).identity for s in (1, 3) for each in (8, 64)}
    assert len(identities) == 4


@pytest.mark.parametrize(
    ("subcodes", "levels", "line"),
    [
        (1, 6, "config.tokenizer.levels = 6: bits of pixels want a power of two"),
        (2, 8, "config.model.subcodes = 2: 9 bits in 2 sub-codes: allowed sub-codes are 1, 3, 9"),
    ],
)
def test_what_is_no_split_of_bits_is_refused(subcodes, levels, line):
    with pytest.raises(LabError, match=line):
        made(subcodes, levels=levels)


def test_tokens_outside_the_vocabulary_are_refused():
    with pytest.raises(LabError, match="not in 0 to 1"):
        made(9).decode(np.full((1, 16 * 9), 2, np.uint8))
