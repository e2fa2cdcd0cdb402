"""Bringing images to an extractor: size, grey and colour."""

import numpy as np
import pytest

from lab.core.errors import LabError
from lab.extractors.extractor import resized


def bilinear(image, side):
    """Half-pixel centres, edges repeated: float64, pixel by pixel."""
    old = len(image)
    place = np.clip((np.arange(side) + 0.5) * old / side - 0.5, 0, old - 1)
    low = np.floor(place).astype(int)
    high, part = np.minimum(low + 1, old - 1), place - low
    rows = image[low] * (1 - part)[:, None] + image[high] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


@pytest.mark.parametrize(("old", "side"), [(8, 64), (5, 7), (9, 4), (6, 6)])
def test_bilinear_with_half_pixel_centres(old, side):
    images = np.random.default_rng(0).integers(0, 256, (2, old, old, 1)).astype(np.uint8)
    found = resized(images, side=side, channels=1, antialias=False)
    for ours, image in zip(found, images, strict=True):
        wanted = bilinear(image[..., 0].astype(np.float64), side)
        np.testing.assert_allclose(ours[..., 0], wanted, atol=1e-3)


def test_antialiasing_averages_what_shrinks():
    """Halving with a kernel twice as wide: weights 1, 3, 3, 1 of 8 in the middle of an image."""
    image = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 1)).astype(np.uint8)
    found = np.asarray(resized(image, side=4, channels=1, antialias=True))[0, :, :, 0]
    weights = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    wanted = (image[0, 1:5, 3:7, 0] * weights).sum()
    assert found[1, 2] == pytest.approx(wanted, rel=1e-5)
    plain = np.asarray(resized(image, side=4, channels=1, antialias=False))[0, :, :, 0]
    assert plain[1, 2] == pytest.approx(image[0, 2:4, 4:6, 0].mean(), rel=1e-5)


def test_grey_is_repeated_and_colour_weighed():
    grey = np.random.default_rng(2).integers(0, 256, (2, 4, 4, 1)).astype(np.uint8)
    three = np.asarray(resized(grey, side=4, channels=3, antialias=True))
    np.testing.assert_array_equal(three, np.repeat(grey, 3, axis=3).astype(np.float32))
    colour = np.random.default_rng(3).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    one = resized(colour, side=4, channels=1, antialias=True)
    np.testing.assert_allclose(one[..., 0], colour @ [0.299, 0.587, 0.114], rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 4, 3), (1, 4, 5, 3), (1, 4, 4, 2)])
def test_what_is_no_batch_of_square_images_is_refused(shape):
    with pytest.raises(LabError, match=r"uint8 \(B, R, R, 1 or 3\)"):
        resized(np.zeros(shape, np.uint8), side=4, channels=3, antialias=True)
    with pytest.raises(LabError, match="float32"):
        resized(np.zeros((1, 4, 4, 3), np.float32), side=4, channels=3, antialias=True)
