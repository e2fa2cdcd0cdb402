"""Preparing: atomic under SIGKILL, once for two processes, never a half data set."""

import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lab.core.errors import LabError
from lab.data import sources
from lab.data.prepare import default_data_dir, default_manual_dir, prepare
from lab.data.recipe import Recipe
from lab.data.sources import open_source, source_names, split_spans, stored_split

OPEN = """
import sys
from lab.data.sources import open_source
source = open_source("dead_leaves", split="train", examples=int(sys.argv[2]), data_dir=sys.argv[1])
print(len(source), source[len(source) - 1]["label"])
"""


def start(folder, examples):
    command = [sys.executable, "-W", "error", "-c", OPEN, str(folder), str(examples)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_prepare_once(tmp_path):
    both = [start(tmp_path, 600) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert said[0] == said[1] != "" and [process.returncode for process in both] == [0, 0]
    left = [p.name for p in (tmp_path / ".preparing").iterdir() if p.is_dir()]
    assert left == []


def test_a_killed_preparation_leaves_nothing_that_loads(tmp_path):
    process = start(tmp_path, 200_000)
    drafts = tmp_path / ".preparing"
    end = time.monotonic() + 60
    while not (drafts.is_dir() and any(p.is_dir() for p in drafts.iterdir())):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "dead_leaves").exists()
    # The same data set again finds the draft of the dead process, removes it, and goes on.
    draft = next(p for p in drafts.iterdir() if p.is_dir())
    small = drafts / draft.name.replace("train200000", "train100")
    draft.rename(small)
    (small / "rubbish").write_text("x")
    assert len(open_source("dead_leaves", split="train", examples=100, data_dir=tmp_path)) == 100
    assert not small.exists()


def shard_of(folder) -> pathlib.Path:
    return next((folder / "dead_leaves").rglob("*.array_record*"))


def test_a_truncated_shard_is_an_error(tmp_path):
    open_source("dead_leaves", split="train", examples=70, data_dir=tmp_path)
    shard = shard_of(tmp_path)
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(LabError, match="dead_leaves/train70"):
        open_source("dead_leaves", split="train", examples=70, data_dir=tmp_path).read(range(70))


@pytest.mark.parametrize("place", [0.3, 0.6])
def test_a_flipped_bit_in_a_shard_is_an_error(tmp_path, place):
    open_source("dead_leaves", split="train", examples=70, data_dir=tmp_path)
    shard = shard_of(tmp_path)
    content = bytearray(shard.read_bytes())
    written = [at for at, byte in enumerate(content) if byte]  # the rest is padding
    content[written[int(len(written) * place)]] ^= 4
    shard.write_bytes(content)
    with pytest.raises(LabError, match="cannot be read"):
        open_source("dead_leaves", split="train", examples=70, data_dir=tmp_path).read(range(70))


def test_a_missing_shard_is_an_error(tmp_path):
    open_source("dead_leaves", split="train", examples=70, data_dir=tmp_path)
    shard_of(tmp_path).unlink()
    with pytest.raises(LabError, match="dead_leaves/train70"):
        open_source("dead_leaves", split="train", examples=70, data_dir=tmp_path).read([0])


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot be written here"):
        open_source("dead_leaves", split="train", data_dir=tmp_path / "file")


def test_an_unknown_name_lists_what_there_is(tmp_path):
    assert source_names() == ["dead_leaves", "eurosat", "fashion_mnist"]
    with pytest.raises(LabError, match="'dead_leafs' is not known; allowed: dead_leaves, eurosat"):
        open_source("dead_leafs", split="train", data_dir=tmp_path)
    with pytest.raises(LabError, match="'batches' is not known"):
        open_source("batches", split="train", data_dir=tmp_path)


def test_a_new_module_of_the_room_is_found(tmp_path, monkeypatch):
    import lab.data

    text = (pathlib.Path(lab.data.__path__[0]) / "dead_leaves.py").read_text()
    (tmp_path / "new_leaves.py").write_text(text.replace('"dead_leaves"', '"new_leaves"'))
    monkeypatch.setattr(lab.data, "__path__", [*lab.data.__path__, str(tmp_path)])
    monkeypatch.setattr(sources, "_room", lambda: lab.data.__path__)
    try:
        source = open_source("new_leaves", split="train", examples=5, data_dir=tmp_path / "d")
    finally:
        sys.modules.pop("lab.data.new_leaves", None)
    assert source.info.name.startswith("new_leaves/train5")


def test_a_stock_data_set_without_a_network_fails_at_once(tmp_path, monkeypatch):
    import socket
    import urllib.request

    def no_name(*args):
        raise socket.gaierror("no name")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with pytest.raises(LabError, match="cifar10: cannot be downloaded: .* allowed: a network"):
        open_source("cifar10", split="train", data_dir=tmp_path)
    with pytest.raises(LabError, match="imagenet2012: .*Manual directory"):
        open_source("imagenet2012", split="train", data_dir=tmp_path)
    with pytest.raises(LabError, match="cifar10/no_such': TFDS has no such configuration"):
        open_source("cifar10/no_such", split="train", data_dir=tmp_path)


class ArrayImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Gives arrays, as many stock builders do; TFDS would hand them to TensorFlow."""

    name = "array_images"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index in range(20):
            yield index, {"image": np.full((4, 4, 3), index, np.uint8), "label": index % 3}


@pytest.fixture
def array_images(monkeypatch):
    recipe = Recipe(make_builder=lambda folder: ArrayImages(data_dir=folder), provenance=None)
    monkeypatch.setattr(sources, "find_recipe", lambda name, request: recipe)


def test_arrays_of_a_stock_builder_are_encoded_without_tensorflow(array_images, tmp_path):
    parts = [open_source("x", split=s, data_dir=tmp_path) for s in ("train", "validation")]
    assert [len(part) for part in parts] == [18, 2]
    examples = [e for part in parts for e in part.read(range(len(part)))]
    assert sorted(int(e["image"][0, 0, 0]) for e in examples) == list(range(20))
    assert all(e["image"][0, 0, 0] % 3 == e["label"] for e in examples)
    assert parts[0].info.digest != parts[1].info.digest


def test_data_in_another_format_are_refused(array_images, tmp_path):
    open_source("x", split="train", data_dir=tmp_path)
    info = tmp_path / "array_images" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(LabError, match="1.0.0: stored as tfrecord; allowed: array_record"):
        open_source("x", split="train", data_dir=tmp_path)


def test_data_that_appear_after_the_first_look_are_read_from_the_disk(tmp_path):
    """Another process may finish between the making of the builder and the look at the folder."""
    calm = Recipe(make_builder=lambda folder: ArrayImages(data_dir=folder), provenance=None)
    made = []

    def raced(folder):
        made.append(ArrayImages(data_dir=folder))
        if len(made) == 1:
            prepare(calm, folder)
        return made[-1]

    builder = prepare(Recipe(make_builder=raced, provenance=None), tmp_path)
    assert builder.info.file_format.value == "array_record"
    assert builder.info.splits["train"].num_examples == 20


def test_making_a_builder_leaves_no_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    prepare(Recipe(make_builder=lambda f: ArrayImages(data_dir=f), provenance=None), tmp_path)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_held_out_images_are_not_trained_on():
    spans = split_spans({"train": 105, "test": 10}, held_out_tenths=1)
    assert stored_split("x", spans, "train", examples=None) == "train[0:95]"
    assert stored_split("x", spans, "validation", examples=None) == "train[95:105]"
    assert stored_split("x", spans, "validation", examples=3) == "train[95:98]"
    assert stored_split("x", spans, "test", examples=None) == "test"
    own = split_spans({"train": 105, "validation": 10}, held_out_tenths=1)
    assert stored_split("x", own, "train", examples=None) == "train"
    with pytest.raises(LabError, match="'test' is not in this data set; allowed: train, valid"):
        stored_split("x", own, "test", examples=None)


def test_default_folders(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.delenv("TFDS_MANUAL_DIR", raising=False)
    assert default_data_dir() == tmp_path / ".cache" / "tfds" and default_manual_dir() is None
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "a"))
    monkeypatch.setenv("TFDS_MANUAL_DIR", "b")
    assert default_data_dir() == tmp_path / "a" and default_manual_dir() == tmp_path / "b"
