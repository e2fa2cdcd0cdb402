"""Views of images by name: what stands in for augmentation where images are encoded beforehand."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lab.core.errors import LabError

VIEWS = {"none": 1, "flip": 2, "ten_crop": 10}
ENLARGED_TENTHS = 11  # of the side: LlamaGen's crop range 1.1


class Framer(Protocol):
    """Source images to frames: the part of the pixels tokenizer with 256 levels that is used."""

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Frames (B, R * R * C) uint8 of images (B, H, W, C) uint8."""
        ...


def views_of(name: str) -> int:
    """How many views there are of each image; raises LabError for a name that is not known."""
    if name not in VIEWS:
        raise LabError(f"views {name!r}: not known; allowed: {', '.join(VIEWS)}")
    return VIEWS[name]


def view(images: np.ndarray, name: str, index: int, *, side: int | None = None) -> np.ndarray:
    """View `index` of images (B, H, W, C) uint8, as a new array.

    "none" and "flip" keep the shape: the image, then its mirror. "ten_crop" gives (B, side, side,
    C), by default of the short side, cut as `crop` says from what `enlarged` gives.
    """
    if not 0 <= index < views_of(name):
        raise LabError(f"views {name!r}: no view {index}; allowed: 0 to {VIEWS[name] - 1}")
    if name == "ten_crop":
        side = side or min(images.shape[1:3])
        return crop(enlarged(images, side), index, side=side)
    return np.ascontiguousarray(images[:, :, ::-1] if index else images)


def framed_view(
    images: np.ndarray, framer: Framer, name: str, index: int, *, side: int
) -> np.ndarray:
    """View `index` as frames (B, side, side, C) uint8 of source images (B, H, W, C) uint8.

    Mirrors are those of the frames. Crops are cut from the source, which is finer than the frames,
    and then framed, which leaves their size as it is.
    """
    if name == "ten_crop":
        if min(images.shape[1:3]) < side:
            height, width = images.shape[1:3]
            raise LabError(f"views ten_crop of {side} pixels a side: images are {height} x {width}")
        return framed(view(images, name, index, side=side), framer, side=side)
    return view(framed(images, framer, side=side), name, index)


def framed(images: np.ndarray, framer: Framer, *, side: int) -> np.ndarray:
    """Frames (B, side, side, C) uint8 of source images."""
    return framer.encode(images).reshape(len(images), side, side, -1)


def centre_square(images: np.ndarray) -> np.ndarray:
    """The largest centred square of images (B, H, W, C)."""
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, top : top + side, left : left + side]


def enlarged(images: np.ndarray, side: int) -> np.ndarray:
    """The largest centred square of images, resized to 1.1 * side (rounded), (B, E, E, C) uint8.

    Pillow's bicubic filter, which averages over the area where it shrinks: the same bytes each
    time.
    """
    from PIL import Image

    square = centre_square(images)
    size = (side * ENLARGED_TENTHS * 2 + 10) // 20  # half rounds up
    out = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for index, picture in enumerate(square):
        plain = picture[..., 0] if picture.shape[-1] == 1 else picture
        resized = Image.fromarray(plain).resize((size, size), Image.Resampling.BICUBIC)
        out[index] = np.asarray(resized).reshape(out.shape[1:])
    return out


def crop(images: np.ndarray, index: int, *, side: int) -> np.ndarray:
    """One of ten crops (B, side, side, C): the centre, so that view 0 is the most like the image,
    the corners (top left, top right, bottom left, bottom right), then the mirrors of these five."""
    height, width = images.shape[1] - side, images.shape[2] - side
    places = [(height // 2, width // 2), (0, 0), (0, width), (height, 0), (height, width)]
    top, left = places[index % 5]
    cut = images[:, top : top + side, left : left + side]
    return np.ascontiguousarray(cut[:, :, ::-1] if index >= 5 else cut)
