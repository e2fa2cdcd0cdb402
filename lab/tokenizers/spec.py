"""What the rest of the laboratory knows of a tokenizer."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class TokenSpec:
    """Sizes of a tokenizer's output. Tokens are in raster order with the channel fastest."""

    name: str
    vocabulary: int
    tokens_per_image: int
    subcodes: int  # codes at one position
    dims_per_image: int  # the dimensions that bits per dimension divide by
    grid: tuple[int, int, int]  # rows, columns, tokens a cell
    identity: str  # equal only when the tokens of every image are equal
    channels: int = 0  # of continuous latents, whose vocabulary is 0


class Specified(Protocol):
    """A tokenizer, or what stands for one where only its sizes are needed."""

    @property
    def spec(self) -> TokenSpec:
        """Its sizes."""
        ...


class Tokenizer(Protocol):
    """Images to tokens and back."""

    @property
    def spec(self) -> TokenSpec:
        """Its sizes."""
        ...

    @property
    def identity(self) -> str:
        """The identity of its spec: the data room keys its tables by it."""
        ...

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Tokens (B, T) of images (B, H, W, C) uint8."""
        ...

    def frame(self, images: np.ndarray) -> np.ndarray:
        """Rows (B, F) of images (B, H, W, C) uint8 of one shape: the first step of `encode`."""
        ...

    def finish(self, frames: np.ndarray) -> np.ndarray:
        """Tokens (B, T) of rows of `frame`: the rest of it."""
        ...

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Images (B, rows, columns, C) uint8 of tokens (B, T)."""
        ...
