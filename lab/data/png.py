"""Images to PNG bytes and encoded bytes to images, by Pillow."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image


def encode_png(np_image: np.ndarray) -> bytes:
    """PNG bytes of an image (row, column, 1 or 3) uint8; light compression, for speed."""
    buffer = io.BytesIO()
    pixels = np_image[..., 0] if np_image.shape[-1] == 1 else np_image
    Image.fromarray(pixels).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def decode_image(encoded: bytes, *, channels: int) -> np.ndarray:
    """(row, column, channels) uint8; an odd colour mode (CMYK, palette) is converted."""
    with Image.open(io.BytesIO(encoded)) as image:
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[..., None] if channels == 1 else pixels


def save_grid(path: pathlib.Path, rows: Sequence[np.ndarray], *, gap: int = 2) -> None:
    """Write a PNG of rows of images (n, H, W, C) uint8, all of one shape, white between them."""
    height, width, channels = rows[0].shape[1:]
    most = max(len(row) for row in rows)
    shape = (len(rows) * (height + gap) - gap, most * (width + gap) - gap, channels)
    canvas = np.full(shape, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (height + gap), j * (width + gap)
            canvas[top : top + height, left : left + width] = image
    path.write_bytes(encode_png(canvas))
