"""Images as tokens for looking inside: from the run's folder of codes, or encoded again."""

import types

import numpy as np
import pytest

from lab.core.errors import LabError
from lab.data.sources import open_source
from lab.launch.evaluate_data import ImageSet, frames_seen
from lab.launch.evaluate_inside import Inside
from lab.tokenizers.trained import SplitTokenizer
from tests.launch.test_encode_trained import encode


def reader(tokenizer, codes):
    """What `Inside` reads images with, without a model."""
    data = types.SimpleNamespace(name="dead_leaves")
    run = types.SimpleNamespace(data=data, tokenizer=types.SimpleNamespace(codes=str(codes)))
    tools = types.SimpleNamespace(told=lambda what: lambda done, total: None)
    made = object.__new__(Inside)
    vars(made).update(tokenizer=tokenizer, size=32, _run=run, _tools=tools)
    return made


def test_codes_of_the_run_are_what_encoding_again_gives(tmp_path):
    source = open_source("dead_leaves", split="train", examples=75, data_dir=tmp_path / "tfds")
    trained = encode(source, "configs/tokenizers/binary.py:small-16", tmp_path / "train", devices=1)
    tokenizer = SplitTokenizer(trained, subcodes=2)
    images = ImageSet(source, frames_seen(tokenizer))
    inside = reader(tokenizer, tmp_path)
    coded, encoded = inside._coded(images), inside._encoded(images)
    np.testing.assert_array_equal(coded.tokens, encoded.tokens)
    np.testing.assert_array_equal(coded.labels, encoded.labels)
    fewer = open_source("dead_leaves", split="train", examples=50, data_dir=tmp_path / "tfds")
    first = inside._coded(ImageSet(fewer, images.frames))
    np.testing.assert_array_equal(first.tokens, encoded.tokens[:50])
    assert reader(tokenizer, tmp_path / "moved")._coded(images) is None
    more = open_source("dead_leaves", split="train", examples=76, data_dir=tmp_path / "tfds")
    assert inside._coded(ImageSet(more, images.frames)) is None  # not all are there
    assert reader(tokenizer, "")._coded(images) is None


def test_codes_of_other_images_are_refused(tmp_path):
    source = open_source("dead_leaves", split="train", examples=75, data_dir=tmp_path / "tfds")
    trained = encode(source, "configs/tokenizers/binary.py:small-16", tmp_path / "train", devices=1)
    tokenizer = SplitTokenizer(trained, subcodes=2)
    info = types.SimpleNamespace(split="train", name="dead_leaves", digest="another")

    class Other:
        source = types.SimpleNamespace(info=info)

        def __init__(self, count, labels):
            self.count, self.found = count, labels

        def __len__(self):
            return self.count

        def labels(self, count, progress):
            return self.found[:count]

    right = ImageSet(source, frames_seen(tokenizer)).labels(75, lambda *_: None)
    with pytest.raises(LabError, match="codes of other images"):
        reader(tokenizer, tmp_path)._coded(Other(75, right))  # by the digest
    assert reader(tokenizer, tmp_path)._coded(Other(50, right)) is not None
    with pytest.raises(LabError, match="codes of other images"):
        reader(tokenizer, tmp_path)._coded(Other(50, (right + 1) % 3))  # by the labels
