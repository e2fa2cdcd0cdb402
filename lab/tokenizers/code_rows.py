"""Rows of tokens from encoded images: what training on codes reads instead of images."""

from typing import Protocol

import numpy as np

from lab.core.errors import LabError
from lab.data.code_format import Codes
from lab.data.progress import Progress, silent
from lab.data.tokens import LIMIT_BYTES, ImageRows, Indices, Rows, TokenTable, ViewedRows
from lab.tokenizers.latents import LatentTokenizer
from lab.tokenizers.trained import SplitTokenizer

CodeTokenizer = SplitTokenizer | LatentTokenizer


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
    in_memory = False

    def __init__(
        self, shards: Shards, tokenizer: CodeTokenizer, *, examples: int, augmentation: str
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


CHUNK = 4096  # images turned to tokens together


def open_code_rows(
    shards: Shards,
    tokenizer: CodeTokenizer,
    *,
    examples: int,
    augmentation: str,
    limit_bytes: int = LIMIT_BYTES,
    progress: Progress = silent,
) -> ImageRows:
    """Rows of a folder of codes: tokens in memory where they fit the limit, else made as read.

    Bits are then unpacked once and not for each batch. `progress` counts images, of each view.
    """
    rows = CodeRows(shards, tokenizer, examples=examples, augmentation=augmentation)
    first = rows.rows([0])
    if (first.tokens.nbytes + first.labels.nbytes) * len(rows) * rows.views > limit_bytes:
        return rows
    tables = [_table(rows, view, progress) for view in range(rows.views)]
    return tables[0] if len(tables) == 1 else ViewedRows(tables)


def _table(rows: CodeRows, view: int, progress: Progress) -> TokenTable:
    """All rows of a view, written where they stay: no second copy of a large table is made."""
    images = rows.views * len(rows)
    tokens, labels = None, np.empty(len(rows), np.int32)
    for first in range(0, len(rows), CHUNK):
        part = np.arange(first, min(first + CHUNK, len(rows)))
        found = rows.rows(part, np.full(len(part), view))
        if tokens is None:
            tokens = np.empty((len(rows), found.tokens.shape[1]), found.tokens.dtype)
        tokens[part], labels[part] = found.tokens, found.labels
        progress(view * len(rows) + int(part[-1]) + 1, images)
    assert tokens is not None  # a folder of codes holds at least one image
    return TokenTable(Rows(tokens, labels))
