"""The pixels tokenizer against loops over rational numbers."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest

from lab.core.errors import LabError
from lab.tokenizers.pixels import Pixels, area_sums, overlaps


def area_mean(plane, resolution):
    """Exact area mean of a (S, S) plane: a loop over new and old pixels in fractions."""
    side = len(plane)
    step = Fraction(side, resolution)
    out = [[Fraction(0)] * resolution for _ in range(resolution)]
    for r in range(resolution):
        for c in range(resolution):
            for i in range(int(r * step), ceil((r + 1) * step)):
                for j in range(int(c * step), ceil((c + 1) * step)):
                    height = min((r + 1) * step, i + 1) - max(r * step, i)
                    width = min((c + 1) * step, j + 1) - max(c * step, j)
                    if height > 0 and width > 0:
                        out[r][c] += height * width * int(plane[i][j])
            out[r][c] /= step * step
    return out


def images(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "side, resolution, levels",
    [(8, 8, 32), (16, 4, 256), (12, 4, 7), (28, 8, 32), (28, 14, 16), (10, 7, 32), (9, 1, 100)],
)
def test_rgb_tokens_equal_exact_area_means(side, resolution, levels):
    pictures = images((2, side, side, 3))
    tokens = Pixels(resolution=resolution, channels="rgb", levels=levels).encode(pictures)
    grid = tokens.reshape(2, resolution, resolution, 3)
    for b in range(2):
        for channel in range(3):
            mean = area_mean(pictures[b, :, :, channel].tolist(), resolution)
            expected = [[int(x * levels / 256) for x in row] for row in mean]
            assert grid[b, :, :, channel].tolist() == expected


@pytest.mark.parametrize("side, resolution", [(16, 8), (28, 8)])
def test_grey_tokens_are_luma_of_rec_601(side, resolution):
    pictures = images((2, side, side, 3), seed=1)
    tokens = Pixels(resolution=resolution, channels="grey", levels=32).encode(pictures)
    weights = [Fraction(299, 1000), Fraction(587, 1000), Fraction(114, 1000)]
    for b in range(2):
        planes = [area_mean(pictures[b, :, :, k].tolist(), resolution) for k in range(3)]
        for r in range(resolution):
            for c in range(resolution):
                luma = sum(w * planes[k][r][c] for k, w in enumerate(weights))
                assert tokens[b, r * resolution + c] == int(luma * 32 / 256)


def test_grey_of_equal_channels_and_of_grey_is_the_same():
    grey = images((3, 14, 14, 1))
    tokenizer = Pixels(resolution=7, channels="grey", levels=256)
    assert np.array_equal(tokenizer.encode(grey), tokenizer.encode(np.repeat(grey, 3, axis=-1)))


def test_full_resolution_and_256_levels_are_the_identity():
    pictures = images((2, 6, 6, 3))
    tokenizer = Pixels(resolution=6, channels="rgb", levels=256)
    tokens = tokenizer.encode(pictures)
    assert tokens.tolist() == pictures.reshape(2, -1).tolist()  # raster order, channel fastest
    assert np.array_equal(tokenizer.decode(tokens), pictures)


@pytest.mark.parametrize("levels", [2, 3, 7, 16, 32, 100, 150, 200, 255, 256])
def test_decode_then_encode_is_exact_for_every_token(levels):
    tokenizer = Pixels(resolution=4, channels="rgb", levels=levels)
    tokens = np.resize(np.arange(levels), (levels, 48)).astype(np.uint8)
    pictures = tokenizer.decode(tokens)
    assert pictures.dtype == np.uint8 and pictures.shape == (levels, 4, 4, 3)
    assert np.array_equal(tokenizer.encode(pictures), tokens)


def test_decoded_values_are_bin_centres():
    values = Pixels(resolution=1, channels="grey", levels=32).decode(np.arange(32)[:, None])
    assert values.reshape(-1).tolist() == [8 * level + 4 for level in range(32)]


@pytest.mark.parametrize("height, width", [(8, 13), (13, 8), (9, 12)])
def test_an_oblong_image_is_cut_to_its_centre(height, width):
    pictures = images((2, height, width, 3))
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    tokenizer = Pixels(resolution=4, channels="rgb", levels=64)
    cut = np.ascontiguousarray(pictures[:, top : top + side, left : left + side])
    assert np.array_equal(tokenizer.encode(pictures), tokenizer.encode(cut))


def test_large_images_are_summed_exactly():
    white = np.full((1, 600, 600, 1), 255, np.uint8)
    sums, weight = area_sums(white, 7)
    assert (sums == 255 * weight).all()


@pytest.mark.parametrize("side, resolution", [(28, 8), (32, 8), (7, 7), (10, 3)])
def test_overlaps_cover_every_old_pixel_equally(side, resolution):
    lengths = overlaps(side, resolution)
    assert len(set(lengths.sum(axis=0).tolist())) == 1
    assert len(set(lengths.sum(axis=1).tolist())) == 1


def test_chunks_do_not_show():
    pictures = images((600, 4, 4, 1))
    tokenizer = Pixels(resolution=2, channels="grey", levels=16)
    alone = np.concatenate([tokenizer.encode(picture[None]) for picture in pictures])
    assert np.array_equal(tokenizer.encode(pictures), alone)
    assert tokenizer.encode(pictures[:0]).shape == (0, 4)


def test_spec():
    tokenizer = Pixels(resolution=8, channels="rgb", levels=32)
    spec = tokenizer.spec
    assert (spec.vocabulary, spec.tokens_per_image, spec.dims_per_image) == (32, 192, 192)
    assert spec.grid == (8, 8, 3)
    others = [Pixels(resolution=7), Pixels(channels="grey"), Pixels(levels=31)]
    assert len({spec.identity, *(other.identity for other in others)}) == 4


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"channels": "hsv"}, "'hsv' is not allowed; allowed: grey, rgb"),
        ({"levels": 1}, "levels 1 is not allowed; allowed: 2 to 256"),
        ({"levels": 257}, "levels 257 is not allowed"),
        ({"resolution": 0}, "resolution 0 is not allowed"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(LabError, match=message):
        Pixels(**fields)


@pytest.mark.parametrize(
    "pictures, message",
    [
        (np.zeros((1, 8, 8, 1), np.uint8), "'rgb' of grey images"),
        (np.zeros((1, 8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 3), np.uint8), "allowed: uint8"),
        (np.zeros((1, 7, 9, 3), np.uint8), "resolution 8 of images 7 x 9; allowed: at most 7"),
    ],
)
def test_wrong_images(pictures, message):
    with pytest.raises(LabError, match=message):
        Pixels(resolution=8, channels="rgb").encode(pictures)


def test_wrong_tokens():
    with pytest.raises(LabError, match="not in 0 to 31"):
        Pixels(levels=32).decode(np.full((1, 192), 32))
