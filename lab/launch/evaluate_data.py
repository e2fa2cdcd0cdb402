"""Images to judge by, and to look at: the first so many of a split, as a tokenizer sees them.

B images of a batch, N of a set.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from lab.core.canonical import json_sha256
from lab.core.config import DataConfig
from lab.core.errors import LabError
from lab.data.progress import Progress
from lab.data.sources import Source, open_source
from lab.data.tokens import Encoder, Rows, encode_rows
from lab.launch.jobs import AnyTokenizer
from lab.tokenizers.latents import LatentTokenizer
from lab.tokenizers.pixel_bits import PixelBits
from lab.tokenizers.pixels import Pixels, frames_of


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """The images of an opened split: its largest centred squares, area-averaged, not quantised."""

    source: Source
    frames: Pixels  # of 256 levels: how an image is cut and scaled

    def __len__(self) -> int:
        return len(self.source)

    @functools.cached_property
    def identity(self) -> str:
        """Equal only when all images are equal, in their order, as the tokenizer sees them."""
        what = {"digest": self.source.info.digest, "frames": self.frames.identity}
        return json_sha256(what)[:12]

    def about(self) -> dict[str, Any]:
        """What a row says of the set."""
        return {
            "data": self.source.info.name,
            "split": self.source.info.split,
            "images": len(self),
            "identity": self.identity,
            "resolution": self.frames.resolution,
            "channels": self.frames.channels,
        }

    def images(self, first: int, stop: int) -> np.ndarray:
        """Images [first, stop) (B, R, R, C) uint8."""
        rows = encode_rows(self.source, self.frames, range(first, stop))
        return rows.tokens.reshape(-1, *self.frames.spec.grid)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All images in their order, `size` at a time."""
        for first in range(0, len(self), size):
            yield self.images(first, min(first + size, len(self)))

    def rows(self, encoder: Encoder, first: int, stop: int) -> Rows:
        """Images [first, stop) as tokens, with their labels."""
        return encode_rows(self.source, encoder, range(first, stop))

    def labels(self, count: int, progress: Progress) -> np.ndarray:
        """The classes (N,) int32 of the first N images, from the start again where it ends."""
        here, found = min(count, len(self)), []
        for first in range(0, here, CHUNK):
            stop = min(first + CHUNK, here)
            found += [example["label"] for example in self.source.read(range(first, stop))]
            progress(stop, here)
        return np.asarray(found, np.int32)[np.arange(count) % here]


CHUNK = 512


def frames_seen(tokenizer: AnyTokenizer) -> Pixels:
    """How a tokenizer cuts and scales an image, with all its 256 levels."""
    if isinstance(tokenizer, PixelBits):
        tokenizer = tokenizer.pixels
    if isinstance(tokenizer, Pixels):
        return frames_of(tokenizer.resolution, tokenizer.channels)
    return tokenizer.trained.frames


def model_tokens(tokenizer: AnyTokenizer, rows: np.ndarray) -> np.ndarray:
    """Rows of a tokenizer as a generator takes them (B, T, S); of latents the mean, not a draw."""
    if not isinstance(tokenizer, LatentTokenizer):
        tokens = rows.reshape(len(rows), -1, tokenizer.spec.subcodes)
        return tokens.astype(np.int32)
    moments = rows.reshape(len(rows), -1, 2 * tokenizer.channels)
    return moments[..., : tokenizer.channels].astype(np.float32)


class Sources:
    """Splits that are opened once, prepared where that has not been done."""

    def __init__(self, *, data_dir: str | None, manual_dir: str | None, progress: Progress):
        self._dirs = data_dir, manual_dir
        self._progress = progress
        self._opened: dict[tuple[str | int | None, ...], Source] = {}

    def first(self, data: DataConfig, split: str, images: int | None, *, flag: str) -> Source:
        """The first `images` of a split (None: the whole). Raises LabError naming the flag."""
        try:
            return self._open(data, split, images)
        except LabError as error:
            raise LabError(f"{flag}: {error}") from None

    def at_most(self, data: DataConfig, split: str, images: int) -> Source:
        """The first `images` of a split, or the whole where it has fewer."""
        try:
            return self._open(data, split, images)
        except LabError:
            whole = self._open(data, split, None)
            if len(whole) >= images:
                raise
            return whole

    def _open(self, data: DataConfig, split: str, images: int | None) -> Source:
        data_dir, manual_dir = self._dirs
        key = (data.name, data.data_dir, split, images)
        if key not in self._opened:
            self._opened[key] = open_source(
                data.name,
                split=split,
                examples=images,
                data_dir=data_dir or data.data_dir or None,
                manual_dir=manual_dir or data.manual_dir or None,
                progress=self._progress,
            )
        return self._opened[key]
