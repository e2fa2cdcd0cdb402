"""Fashion-MNIST: from its four files, under its stock name; bad files are one clear line."""

import gzip
import hashlib

import numpy as np
import pytest

from lab.core.errors import LabError
from lab.data import fashion_mnist
from lab.data.fashion_mnist import read_idx
from lab.data.sources import open_source


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with four small files whose checksums are the expected ones; and their arrays."""
    generator = np.random.default_rng(0)
    arrays, digests = {}, {}
    folder = tmp_path / "manual" / "fashion-mnist"
    folder.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 10)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}-images-idx3-ubyte.gz"] = images
        arrays[f"{part}-labels-idx1-ubyte.gz"] = (images[:, 0, 0] % 10).astype(np.uint8)
    for name, array in arrays.items():
        (folder / name).write_bytes(idx(array))
        digests[name] = hashlib.sha256(idx(array)).hexdigest()
    monkeypatch.setattr(fashion_mnist, "SHA256", digests)
    return folder, arrays


def open_split(split, files, tmp_path, **kwargs):
    manual = files[0].parent
    return open_source(
        "fashion_mnist", split=split, data_dir=tmp_path / "d", manual_dir=manual, **kwargs
    )


def test_images_and_labels_are_those_of_the_files(files, tmp_path):
    arrays = files[1]
    parts = [open_split(split, files, tmp_path) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [36, 4, 10]
    stored = [e for part in parts[:2] for e in part.read(range(len(part)))]
    found = sorted((e["image"][..., 0].tobytes(), e["label"]) for e in stored)
    images, labels = arrays["train-images-idx3-ubyte.gz"], arrays["train-labels-idx1-ubyte.gz"]
    assert found == sorted((i.tobytes(), int(k)) for i, k in zip(images, labels, strict=True))


def test_the_stock_name_and_version_are_kept(files, tmp_path):
    import tensorflow_datasets as tfds

    assert open_split("train", files, tmp_path).info.name == "fashion_mnist/3.0.1"
    stock = tfds.builder("fashion_mnist", data_dir=str(tmp_path / "d"))
    assert stock.info.splits["train"].num_examples == 40


def test_the_first_so_many_examples(files, tmp_path):
    few = open_split("train", files, tmp_path, examples=5)
    whole = open_split("train", files, tmp_path)
    assert [e["image"].tobytes() for e in few.read(range(5))] == [
        e["image"].tobytes() for e in whole.read(range(5))
    ]
    with pytest.raises(LabError, match="37 train examples are not there; allowed: 1 to 36"):
        open_split("train", files, tmp_path, examples=37)


def test_a_missing_file_is_named(files, tmp_path):
    (files[0] / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(LabError, match="t10k-labels-idx1-ubyte.gz is not there; looked in"):
        open_split("train", files, tmp_path)
    assert not (tmp_path / "d" / "fashion_mnist").exists()


def test_a_wrong_checksum_names_file_found_and_expected(files, tmp_path):
    path = files[0] / "train-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[12] ^= 1
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    expected = fashion_mnist.SHA256[path.name]
    with pytest.raises(LabError, match=f"{path}: wrong checksum: sha256 {found}; .* {expected}"):
        open_split("train", files, tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"not gzip", "not a whole gzip file"),
        (idx(np.zeros((4, 5), np.uint8))[:-9], "not a whole gzip file"),
        (gzip.compress(b"\0\0\x09\x01\0\0\0\x01\0", mtime=0), "is not that of IDX bytes"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05ab", mtime=0), "2 bytes of data; its header says"),
    ],
)
def test_a_file_that_is_not_idx(tmp_path, content, message):
    path = tmp_path / "bad.gz"
    path.write_bytes(content)
    with pytest.raises(LabError, match=f"{path}: .*{message}"):
        read_idx(path)


@pytest.mark.slow
def test_the_real_files(real_files, tmp_path):
    sizes, told = {"train": 54_000, "validation": 6_000, "test": 10_000}, []
    for split, size in sizes.items():
        source = open_source(
            "fashion_mnist",
            split=split,
            data_dir=tmp_path,
            manual_dir=real_files,
            progress=lambda *counts: told.append(counts),
        )
        assert len(source) == size and source[0]["image"].shape == (28, 28, 1)
    assert told[-1] == (70_000, 70_000)
