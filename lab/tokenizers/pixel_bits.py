"""Whole pixels as bits, in sub-codes: discrete heads of every kind see one and the same image."""

from __future__ import annotations

import dataclasses

import numpy as np

from lab.core.codes import bits_to_subcodes, check_split, subcodes_to_bits
from lab.core.config import TokenizerConfig
from lab.core.errors import LabError
from lab.tokenizers.pixels import CHANNELS, Pixels
from lab.tokenizers.spec import TokenSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelBits:
    """The levels of `pixels` by position: the bits of all channels of a pixel, highest first.

    They fall into `subcodes` groups as those of a binary tokenizer do (ELM's t-k split): one group
    is an id of the whole colour, as many as bits are for a Bernoulli head. The map is one to one,
    so nats of an image are those of `pixels` on the same levels, whatever the split.
    """

    pixels: Pixels
    subcodes: int

    def __post_init__(self) -> None:
        levels = self.pixels.levels
        if levels & (levels - 1):
            allowed = ", ".join(str(2**k) for k in range(1, 9))
            raise LabError(
                f"config.tokenizer.levels = {levels}: bits of pixels want a power of two; allowed: "
                f"{allowed}"
            )
        try:
            check_split(self.bits, self.subcodes)
        except LabError as error:
            raise LabError(f"config.model.subcodes = {self.subcodes}: {error}") from None

    @property
    def bits(self) -> int:
        """Of a pixel, all its channels."""
        return CHANNELS[self.pixels.channels] * self._bits_of_level

    @property
    def _bits_of_level(self) -> int:
        return (self.pixels.levels - 1).bit_length()

    @property
    def spec(self) -> TokenSpec:
        """One token a pixel, and a dimension each channel of it."""
        side = self.pixels.resolution
        return TokenSpec(
            name="pixel_bits",
            vocabulary=2 ** (self.bits // self.subcodes),
            tokens_per_image=side * side,
            subcodes=self.subcodes,
            dims_per_image=self.pixels.spec.dims_per_image,
            grid=(side, side, 1),
            identity=f"pixel_bits/1:{self.pixels.identity}:{self.subcodes}",
        )

    @property
    def identity(self) -> str:
        """The identity of the spec."""
        return self.spec.identity

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Tokens (B, R * R * S) of images (B, H, W, 1 or 3) uint8; a pixel's stand together."""
        return self.finish(self.frame(images))

    def frame(self, images: np.ndarray) -> np.ndarray:
        """Levels (B, R * R * C) uint8 of images (B, H, W, 1 or 3) uint8."""
        return self.pixels.encode(images)

    def finish(self, frames: np.ndarray) -> np.ndarray:
        """Tokens (B, R * R * S) of levels."""
        places = np.arange(self._bits_of_level - 1, -1, -1, dtype=np.uint8)
        bits = (frames[..., None] >> places) & 1
        grouped = bits.reshape(len(frames), -1, self.bits)
        return bits_to_subcodes(grouped, self.subcodes).reshape(len(frames), -1)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Images (B, R, R, C) uint8 at the bin centres; encodes back exactly."""
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.spec.vocabulary:
            raise LabError(f"pixel_bits: a token is not in 0 to {self.spec.vocabulary - 1}")
        bits = subcodes_to_bits(tokens.reshape(len(tokens), -1, self.subcodes), self.bits)
        places = 2 ** np.arange(self._bits_of_level - 1, -1, -1)
        levels = bits.reshape(len(tokens), -1, self._bits_of_level) @ places
        return self.pixels.decode(levels)


def pixel_tokenizer(config: TokenizerConfig, subcodes: int) -> Pixels | PixelBits:
    """The tokenizer of a config that names no trained one; `subcodes` are the model's."""
    made = Pixels(resolution=config.resolution, channels=config.channels, levels=config.levels)
    if config.name == "pixels":
        return made
    return PixelBits(pixels=made, subcodes=subcodes)
