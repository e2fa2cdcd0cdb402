"""Views against slicing by hand."""

import numpy as np
import pytest
from PIL import Image

from lab.core.errors import LabError
from lab.data.views import crop, enlarged, framed_view, view, views_of
from lab.tokenizers.pixels import Pixels


def images(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_names_and_counts():
    assert [views_of(name) for name in ("none", "flip", "ten_crop")] == [1, 2, 10]
    with pytest.raises(LabError, match="'flips'.*none, flip, ten_crop"):
        views_of("flips")
    with pytest.raises(LabError, match="no view 2; allowed: 0 to 1"):
        view(images((1, 4, 4, 3)), "flip", 2)


def test_mirror_reverses_columns_and_nothing_else():
    pictures = images((2, 5, 7, 3))
    mirrored = view(pictures, "flip", 1)
    for b, row, column in np.ndindex(2, 5, 7):
        assert (mirrored[b, row, column] == pictures[b, row, 6 - column]).all()
    assert (view(mirrored, "flip", 1) == pictures).all()
    assert (view(pictures, "flip", 0) == pictures).all()
    assert (view(pictures, "none", 0) == pictures).all()


def test_ten_crops_are_slices_of_the_enlarged_image():
    pictures = images((2, 20, 20, 3))
    big = enlarged(pictures, 20)
    assert big.shape == (2, 22, 22, 3)
    starts = [(1, 1), (0, 0), (0, 2), (2, 0), (2, 2)]
    for index, (top, left) in enumerate(starts):
        cut = big[:, top : top + 20, left : left + 20]
        assert (view(pictures, "ten_crop", index) == cut).all()
        assert (view(pictures, "ten_crop", index + 5) == np.flip(cut, axis=2)).all()


@pytest.mark.parametrize("side, size", [(64, 70), (256, 282), (8, 9), (5, 6), (28, 31), (15, 17)])
def test_enlarged_is_11_tenths_rounded_half_up(side, size):
    assert enlarged(images((1, 40, 40, 1)), side).shape[1:] == (size, size, 1)


def test_enlarging_is_pillow_on_the_centre_square():
    pictures = images((1, 30, 45, 3))
    square = Image.fromarray(pictures[0, :, 7:37])
    expected = np.asarray(square.resize((22, 22), Image.Resampling.BICUBIC))
    assert (enlarged(pictures, 20)[0] == expected).all()


def test_enlarging_keeps_what_is_constant_and_what_is_linear():
    flat = np.full((1, 16, 16, 1), 77, np.uint8)
    assert (enlarged(flat, 16) == 77).all()
    ramp = np.broadcast_to((np.arange(40, dtype=np.uint8) * 6)[None, None, :, None], (1, 40, 40, 1))
    big = enlarged(np.ascontiguousarray(ramp), 40)[0, 20, :, 0].astype(float)  # 44 wide
    inside = slice(4, -4)  # away from the border
    centres = (np.arange(44) + 0.5) * 40 / 44 - 0.5
    assert np.abs(big - 6 * centres)[inside].max() <= 1


def test_frames_of_views():
    framer = Pixels(resolution=8, channels="rgb", levels=256)
    pictures = images((3, 16, 21, 3))  # an odd margin: the mirror is that of the frame
    frames = framer.encode(pictures).reshape(3, 8, 8, 3)
    assert (framed_view(pictures, framer, "none", 0, side=8) == frames).all()
    assert (framed_view(pictures, framer, "flip", 1, side=8) == frames[:, :, ::-1]).all()
    for index in range(10):
        found = framed_view(pictures, framer, "ten_crop", index, side=8)
        assert (found == crop(enlarged(pictures, 8), index, side=8)).all()


def test_grey_frames_of_colour_crops():
    framer = Pixels(resolution=8, channels="grey", levels=256)
    found = framed_view(images((2, 16, 16, 3)), framer, "ten_crop", 9, side=8)
    assert found.shape == (2, 8, 8, 1)
