"""The embedded data set: determinism, the prefix property, splits that share nothing."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from lab.core.errors import LabError
from lab.data import leaves
from lab.data.dead_leaves import DeadLeaves, DeadLeavesConfig
from lab.data.leaves import BLOCK, Knobs
from lab.data.sources import open_source

DIGEST = """
import hashlib, sys
from lab.data.sources import open_source
source = open_source("dead_leaves", split="train", examples=70, data_dir=sys.argv[1])
whole = b"".join(e["image"].tobytes() + bytes([e["label"]]) for e in source.read(range(70)))
print(hashlib.sha256(whole).hexdigest())
print(source.info.digest)
print("tensorflow" in sys.modules)
"""


def hashes(source):
    return [
        hashlib.sha256(e["image"].tobytes()).hexdigest() for e in source.read(range(len(source)))
    ]


def test_an_example_is_an_image_and_a_label(leaves_100):
    example = leaves_100[7]
    assert example["image"].shape == (32, 32, 3) and example["image"].dtype == np.uint8
    assert isinstance(example["label"], int) and 0 <= example["label"] < 10
    assert leaves_100.info.classes == 10 and len(leaves_100) == leaves_100.info.examples == 100


def test_what_is_stored_is_what_the_generator_makes(leaves_100):
    block = leaves.make_block(Knobs(), 0, "train", 1)
    for index in (BLOCK, BLOCK + 5, 99):
        assert np.array_equal(leaves_100[index]["image"], block.images[index - BLOCK])
        assert leaves_100[index]["label"] == block.labels[index - BLOCK]


def test_image_i_does_not_depend_on_how_many_are_made(leaves_100, data_dir):
    ten = open_source("dead_leaves", split="train", examples=10, data_dir=data_dir)
    assert hashes(ten) == hashes(leaves_100)[:10]
    assert ten.info.digest != leaves_100.info.digest


def test_another_seed_makes_other_images(leaves_100, data_dir):
    other = open_source("dead_leaves", split="train", examples=100, data_dir=data_dir, seed=1)
    assert not set(hashes(other)) & set(hashes(leaves_100))
    assert other.info.digest != leaves_100.info.digest


def test_splits_share_no_image(leaves_100, data_dir):
    held_out = open_source("dead_leaves", split="validation", examples=100, data_dir=data_dir)
    both = hashes(leaves_100) + hashes(held_out)
    assert len(set(both)) == 200


def test_one_builder_can_hold_both_splits(tmp_path):
    config = DeadLeavesConfig({"train": 5, "validation": 3}, seed=0)
    builder = DeadLeaves(data_dir=str(tmp_path), config=config)
    builder.download_and_prepare(file_format="array_record")
    assert {key: split.num_examples for key, split in builder.info.splits.items()} == {
        "train": 5,
        "validation": 3,
    }


def test_two_processes_make_the_same_bytes_without_tensorflow(tmp_path):
    def run(name):
        command = [sys.executable, "-W", "error", "-c", DIGEST, str(tmp_path / name)]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    first, second = run("a"), run("b")
    assert first.stdout == second.stdout
    assert first.stdout.split()[-1] == "False"
    assert first.stderr == ""


def test_wrong_requests_are_one_clear_line(tmp_path):
    with pytest.raises(LabError, match="split 'val' is not allowed; allowed: train, validation"):
        open_source("dead_leaves", split="val", data_dir=tmp_path)
    with pytest.raises(LabError, match="split 'test' is not there; allowed: train, validation"):
        open_source("dead_leaves", split="test", data_dir=tmp_path)
    with pytest.raises(LabError, match="0 train examples; allowed: at least 1"):
        open_source("dead_leaves", split="train", examples=0, data_dir=tmp_path)


@pytest.mark.parametrize("knobs", [Knobs(zipf=1.5), Knobs(palette=8), Knobs(world=3)])
def test_knobs_are_in_the_name(knobs):
    plain = DeadLeavesConfig({"train": 5}, seed=0)
    assert DeadLeavesConfig({"train": 5}, seed=0, knobs=knobs).name != plain.name
    assert DeadLeavesConfig({"train": 5}, seed=0, knobs=Knobs()).name == plain.name
