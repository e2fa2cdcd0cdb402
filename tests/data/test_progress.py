"""What preparing tells, and that a callback that raises stops it and leaves nothing behind."""

import fcntl

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lab.core.errors import Stopped
from lab.data import dead_leaves
from lab.data.progress import count_examples
from lab.data.recipe import Request
from lab.data.sources import open_source


def leaves(folder, examples, progress):
    return open_source(
        "dead_leaves", split="train", examples=examples, data_dir=folder, progress=progress
    )


def listener():
    """What is told, and the callback that hears it."""
    told = []
    return told, lambda done, total: told.append((done, total))


def stop_at(images):
    """A callback that wishes to stop when so many images are done."""

    def progress(done, total):
        if done >= images:
            raise Stopped

    return progress


def test_images_are_counted_while_they_are_made_and_not_again(tmp_path):
    told, hear = listener()
    leaves(tmp_path, 200, hear)
    assert told == [(0, 200), (64, 200), (128, 200), (192, 200), (200, 200)]
    told.clear()
    leaves(tmp_path, 200, hear)
    assert told == []


@pytest.mark.parametrize("images", [0, 128, 200])
def test_a_wish_to_stop_leaves_nothing_and_the_next_one_prepares(tmp_path, images):
    with pytest.raises(Stopped):
        leaves(tmp_path, 200, stop_at(images))
    assert not (tmp_path / "dead_leaves").exists()
    assert [p.suffix for p in (tmp_path / ".preparing").iterdir()] == [".lock"]
    assert [p.suffix for p in tmp_path.rglob("*") if p.is_file()] == [".lock"]
    assert len(leaves(tmp_path, 200, lambda done, total: None)) == 200


def test_who_waits_for_another_process_is_told_and_may_stop(tmp_path):
    made = dead_leaves.recipe(Request(split="train", examples=70, manual_dir=None, seed=0))
    final = made.make_builder(tmp_path).data_path
    lock = tmp_path / ".preparing" / ("-".join(final.relative_to(tmp_path).parts) + ".lock")
    lock.parent.mkdir()
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = []

        def wait_twice(done, total):
            told.append((done, total))
            if len(told) == 2:
                raise Stopped

        with pytest.raises(Stopped):
            leaves(tmp_path, 70, wait_twice)
        assert told == [(0, 70)] * 2
    assert len(leaves(tmp_path, 70, lambda done, total: None)) == 70


class TwoSplits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A stock builder's ways: two splits, one of them described as TFDS did it at first."""

    name = "two_splits"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"label": tfds.features.Scalar(np.int32)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return [
            tfds.core.SplitGenerator(name=name, gen_kwargs={"examples": count})
            for name, count in (("train", 70), ("test", 10))
        ]

    def _generate_examples(self, examples):
        for index in range(examples):
            yield index, {"label": index}


def test_the_splits_of_any_builder_are_counted_together(tmp_path):
    builder = TwoSplits(data_dir=tmp_path)
    told, hear = listener()
    count_examples(builder, total=None, progress=hear)
    builder.download_and_prepare(file_format="array_record")
    assert told == [(0, None), (64, None), (70, None), (80, None)]
    assert builder.info.splits["test"].num_examples == 10
