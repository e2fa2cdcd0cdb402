"""Rows of tokens from encoded images: what training on codes reads instead of images."""

from typing import Protocol

import numpy as np

from lab.core.errors import LabError
from lab.data.code_format import Codes
from lab.data.tokens import Indices, Rows
from lab.tokenizers.trained import SplitTokenizer


class Shards(Protocol):
    """The part of a folder of codes that rows need."""

    @property
    def views_name(self) -> str:
        """Which views it holds."""
        ...

    @property
    def views(self) -> int:
        """How many."""
        ...

    def __len__(self) -> int: ...

    def rows(self, indices: Indices, views: np.ndarray | int | None = None) -> Codes:
        """Codes and labels."""
        ...


class CodeRows:
    """The first `examples` images of a folder of codes (0: all), in the views that are asked for.

    `augmentation` must be the views that the folder holds, or "none" where view 0 is the image.
    """

    are_images = False

    def __init__(
        self, shards: Shards, tokenizer: SplitTokenizer, *, examples: int, augmentation: str
    ) -> None:
        if examples > len(shards):
            raise LabError(f"{shards}: {examples} examples are not there; it holds {len(shards)}")
        held = shards.views_name
        if augmentation != held and (augmentation != "none" or held == "ten_crop"):
            raise LabError(
                f'config.data.augmentation = "{augmentation}": {shards} holds the views {held}'
                + (", the image itself not among them" if held == "ten_crop" else "")
            )
        self.views = shards.views if augmentation != "none" else 1
        self._shards, self._tokenizer = shards, tokenizer
        self._examples = examples or len(shards)

    def __len__(self) -> int:
        return self._examples

    def rows(self, indices: Indices, views: np.ndarray | None = None) -> Rows:
        """Tokens and labels of these images."""
        found = self._shards.rows(indices, views)
        return Rows(self._tokenizer.tokens(found.codes), found.labels)
