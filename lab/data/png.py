"""Images to PNG bytes and encoded bytes to images, by Pillow."""

from __future__ import annotations

import io

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
