"""The identity tokenizer: quantised sub-pixels at a chosen resolution, so likelihoods are exact."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from lab.core.errors import LabError
from lab.data.views import centre_square
from lab.tokenizers.spec import TokenSpec

CHANNELS = {"grey": 1, "rgb": 3}
LUMA_PER_MILLE = np.array([299, 587, 114])  # Rec. 601
CHUNK = 256  # images down-scaled at once: what fits the cache


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
    """Centre square, exact area mean, floor(x * levels / 256).

    All of it is integer arithmetic: a mean is kept as its weighted sum, so no rounding decides a
    token. Grey images cannot become RGB, and nothing is scaled up.
    """

    resolution: int = 8  # pixels a side
    channels: str = "rgb"
    levels: int = 32

    def __post_init__(self):
        if self.channels not in CHANNELS:
            allowed = ", ".join(CHANNELS)
            raise LabError(f"pixels: channels {self.channels!r} is not allowed; allowed: {allowed}")
        if not 2 <= self.levels <= 256:
            raise LabError(f"pixels: levels {self.levels} is not allowed; allowed: 2 to 256")
        if self.resolution < 1:
            raise LabError(f"pixels: resolution {self.resolution} is not allowed; at least 1")

    @property
    def spec(self) -> TokenSpec:
        """One token a sub-pixel, and one dimension a token."""
        grid = (self.resolution, self.resolution, CHANNELS[self.channels])
        identity = f"pixels/1:{self.resolution}:{self.channels}:{self.levels}"
        count = math.prod(grid)
        return TokenSpec(
            name="pixels",
            vocabulary=self.levels,
            tokens_per_image=count,
            subcodes=1,
            dims_per_image=count,
            grid=grid,
            identity=identity,
        )

    @property
    def identity(self) -> str:
        """The identity of the spec."""
        return self.spec.identity

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Tokens (B, T) uint8 of images (B, H, W, 1 or 3) uint8."""
        self._check(images)
        chunks = [images[at : at + CHUNK] for at in range(0, len(images), CHUNK)]
        empty = np.zeros((0, self.spec.tokens_per_image), np.uint8)
        return np.concatenate([empty, *(self._encode(chunk) for chunk in chunks)])

    def frame(self, images: np.ndarray) -> np.ndarray:
        """`encode`: there is no second step."""
        return self.encode(images)

    def finish(self, frames: np.ndarray) -> np.ndarray:
        """Tokens as they are."""
        return frames

    def _check(self, images: np.ndarray) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            found = f"{images.dtype} {images.shape}"
            raise LabError(f"pixels: images {found}; allowed: uint8 (B, H, W, 1 or 3)")
        if images.shape[-1] < CHANNELS[self.channels]:
            raise LabError("pixels: channels 'rgb' of grey images; allowed: grey")
        if min(images.shape[1:3]) < self.resolution:
            height, width = images.shape[1:3]
            raise LabError(
                f"pixels: resolution {self.resolution} of images {height} x {width}; allowed: at "
                f"most {min(height, width)}"
            )

    def _encode(self, images: np.ndarray) -> np.ndarray:
        square = centre_square(images)
        sums, weight = area_sums(square, self.resolution)
        if sums.shape[-1] > CHANNELS[self.channels]:
            sums, weight = sums @ LUMA_PER_MILLE[:, None], weight * 1000
        tokens = sums * self.levels // (256 * weight)
        return tokens.reshape(len(images), -1).astype(np.uint8)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Images (B, resolution, resolution, C) uint8 at the bin centres; encodes back exactly."""
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.levels:
            raise LabError(f"pixels: a token is not in 0 to {self.levels - 1}")
        return self._centres()[tokens].reshape(-1, *self.spec.grid)

    def _centres(self) -> np.ndarray:
        level = np.arange(self.levels)
        first = -(-256 * level // self.levels)  # a narrow bin's centre may round down out of it
        return np.maximum((2 * level + 1) * 128 // self.levels, first).astype(np.uint8)


def frames_of(resolution: int, channels: str) -> Pixels:
    """Whole images as tokens: 256 levels, so that a token is a sub-pixel's 8 bits."""
    return Pixels(resolution=resolution, channels=channels, levels=256)


def area_sums(images: np.ndarray, resolution: int) -> tuple[np.ndarray, int]:
    """Weighted sums (B, R, R, C) int64 over the area of each new pixel, and their total weight.

    A new pixel covers side / R old ones a side; in units of 1 / (R / gcd) of an old pixel every
    overlap is an integer. Products of floats that hold small integers are exact, and fast.
    """
    count, side, _, channels = images.shape
    weights = overlaps(side, resolution)
    total = int(weights[0].sum()) ** 2
    exact = np.float32 if 255 * total < 2**24 else np.float64
    weights = weights.astype(exact)
    rows = weights @ images.reshape(count, side, side * channels).astype(exact)
    rows = rows.reshape(count * resolution, side, channels)
    sums = np.matmul(weights, rows)
    return sums.reshape(count, resolution, resolution, channels).astype(np.int64), total


@functools.cache
def overlaps(side: int, resolution: int) -> np.ndarray:
    """Lengths (new, old) that new pixel and old pixel share, in units of gcd / R old pixels."""
    divisor = math.gcd(side, resolution)
    new_length, old_length = side // divisor, resolution // divisor
    new, old = np.arange(resolution)[:, None] * new_length, np.arange(side)[None] * old_length
    shared = np.minimum(new + new_length, old + old_length) - np.maximum(new, old)
    return np.maximum(shared, 0)
