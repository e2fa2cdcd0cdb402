"""A tokenizer without training: block sums of 12 x 12 images as bits, ids or numbers.

Run as a command it is `python -m lab.launch.encode` with this tokenizer in the place of a trained
one; the run directory holds {"kind", "delay_s"} in thresholds.json.
"""

import functools
import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.codes import Alphabet, CodeKind
from lab.core.layout import data_layout
from lab.launch import encode
from lab.launch.door import leave
from lab.tokenizers.pixels import Pixels

PER_DEVICE = 8
LEVELS = (1800, 2300)  # of sums over 16 sub-pixels
SIZES = {CodeKind.BITS: 6, CodeKind.IDS: 4081, CodeKind.GAUSSIAN: 3}


class Thresholds:
    """3 x 3 positions of 4 x 4 pixels each."""

    grid = (3, 3)
    dims_per_image = 432
    image_shape = (12, 12, 3)
    frames = Pixels(resolution=12, channels="rgb", levels=256)

    def __init__(self, kind, *, devices, delay_s=0.0, version=1):
        self.kind = CodeKind(kind)
        self.name = f"thresholds-{kind}"
        self.identity = f"thresholds/{version}:{kind}"
        self.alphabet = Alphabet(self.kind, SIZES[self.kind])
        self.delay_s = delay_s
        self.layout = data_layout(devices)

    def encode_frames(self, images):
        time.sleep(self.delay_s)
        size, found = PER_DEVICE * self.layout.batch_shards, []
        for at in range(0, len(images), size):
            part = images[at : at + size]
            padded = np.zeros((size, *self.image_shape), np.uint8)
            padded[: len(part)] = part
            placed = jax.device_put(padded, self.layout.batch_sharding())
            found.append(np.asarray(self._sums(placed))[: len(part)])
        return codes_of(np.concatenate(found), self.kind)

    @functools.cached_property
    def _sums(self):
        def sums(images):
            blocks = images.reshape(-1, 3, 4, 3, 4, 3).astype(jnp.int32)
            return blocks.sum(axis=(2, 4))

        rows = self.layout.batch_sharding()
        return jax.jit(sums, in_shardings=rows, out_shardings=rows)


def codes_of(sums, kind):
    """Codes of block sums (b, 3, 3, 3)."""
    if kind is CodeKind.IDS:
        return sums[..., 0].astype(np.uint16)
    if kind is CodeKind.GAUSSIAN:
        return np.concatenate([sums / 4080, -sums / 1000], axis=-1).astype(np.float32)
    bits = [sums > level for level in LEVELS]
    return np.concatenate(bits, axis=-1).astype(np.uint8)


def open_thresholds(directory, *, devices):
    """The tokenizer of a run directory."""
    content = json.loads((directory / "thresholds.json").read_text())
    return Thresholds(devices=devices, **content)


if __name__ == "__main__":
    leave(lambda argv: encode.main(argv, open_thresholds))
