"""Token tables and streams over a source."""

import numpy as np
import pytest

from lab.core.errors import LabError
from lab.data.batches import Batches
from lab.data.tokens import Stream, TokenTable, encode_rows, open_rows, table_bytes
from lab.tokenizers.pixels import Pixels

TOKENIZER = Pixels(resolution=8, channels="rgb", levels=16)


def test_a_table_holds_the_tokens_of_every_image(leaves_100):
    table = TokenTable.build(leaves_100, TOKENIZER)
    assert len(table) == 100 and table.tokens.dtype == np.uint8
    for index in (0, 63, 64, 99):
        example = leaves_100[index]
        blocks = example["image"].reshape(8, 4, 8, 4, 3).astype(np.float64).mean(axis=(1, 3))
        assert np.array_equal(table.tokens[index], (blocks / 16).astype(int).reshape(-1))
        assert table.labels[index] == example["label"]


def test_the_stated_limit_decides(leaves_100):
    needed = 100 * (192 + 4)
    assert table_bytes(leaves_100, TOKENIZER) == needed
    assert isinstance(open_rows(leaves_100, TOKENIZER, limit_bytes=needed), TokenTable)
    assert isinstance(open_rows(leaves_100, TOKENIZER, limit_bytes=needed - 1), Stream)
    with pytest.raises(LabError, match=f"takes {needed} bytes; allowed: {needed - 1}"):
        TokenTable.build(leaves_100, TOKENIZER, limit_bytes=needed - 1)


def test_a_stream_serves_the_batches_of_a_table(leaves_100):
    table = TokenTable.build(leaves_100, TOKENIZER)
    stream = Stream(leaves_100, TOKENIZER)
    with Batches(stream, seed=0, batch_size=8).prefetched(0, 15) as ahead:
        for step, batch in enumerate(ahead):
            expected = Batches(table, seed=0, batch_size=8).at(step)
            assert all(np.array_equal(batch[name], expected[name]) for name in expected)


def test_images_of_several_shapes_keep_their_places():
    class Mixed:
        def read(self, indices):
            sides = {0: 8, 1: 16, 2: 8, 3: 12}
            return [
                {"image": np.full((sides[i], sides[i], 3), 16 * i, np.uint8), "label": i}
                for i in indices
            ]

    rows = encode_rows(Mixed(), TOKENIZER, [3, 0, 1, 2])  # type: ignore[arg-type]
    assert rows.tokens[:, 0].tolist() == rows.labels.tolist() == [3, 0, 1, 2]


def test_progress_is_told(leaves_100):
    told = []
    TokenTable.build(leaves_100, TOKENIZER, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (100, 100)
