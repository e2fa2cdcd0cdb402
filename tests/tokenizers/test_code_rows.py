"""Rows of a folder of codes: what a table of them holds, and what making it takes."""

import tracemalloc

import numpy as np

from lab.data.code_format import Codes
from lab.tokenizers.code_rows import CHUNK, CodeRows, open_code_rows

IMAGES, POSITIONS = 10 * CHUNK + 7, 32


class Folder:
    """Codes that are the image's number and the view's."""

    views_name, views = "flip", 2

    def __len__(self):
        return IMAGES

    def rows(self, indices, views=None):
        view = np.zeros(len(indices), np.int64) if views is None else views
        first = (np.asarray(indices) * 2 + view).astype(np.int32)
        return Codes(first[:, None] + np.arange(POSITIONS, dtype=np.int32), first % 7)


class Tokenizer:
    """Codes are the tokens."""

    def tokens(self, codes):
        return codes


def test_a_table_holds_every_view_of_every_image():
    rows = open_code_rows(Folder(), Tokenizer(), examples=0, augmentation="flip")
    chosen, views = np.array([0, 1, CHUNK, IMAGES - 1]), np.array([0, 1, 1, 0])
    found = rows.rows(chosen, views)
    assert (found.tokens == Folder().rows(chosen, views).codes).all()
    assert len(rows) == IMAGES and rows.views == 2


def test_the_images_of_every_view_are_counted_as_they_are_made():
    told = []
    open_code_rows(
        Folder(),
        Tokenizer(),
        examples=CHUNK + 1,
        augmentation="flip",
        progress=lambda done, total: told.append((done, total)),
    )
    counted = (CHUNK, CHUNK + 1, 2 * CHUNK + 1, 2 * CHUNK + 2)
    assert told == [(done, 2 * CHUNK + 2) for done in counted]


def test_a_table_is_in_memory_once_while_it_is_made():
    tracemalloc.start()
    table = open_code_rows(Folder(), Tokenizer(), examples=0, augmentation="none")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.6 * (table.tokens.nbytes + table.labels.nbytes)


def test_what_passes_the_limit_is_read_as_it_is_asked_for():
    rows = open_code_rows(
        Folder(), Tokenizer(), examples=0, augmentation="none", limit_bytes=IMAGES * POSITIONS
    )
    assert isinstance(rows, CodeRows)
