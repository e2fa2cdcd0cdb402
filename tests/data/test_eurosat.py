"""EuroSAT: from its archive, split by a hash of the path."""

import hashlib
import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from lab.core.errors import LabError
from lab.data import eurosat
from lab.data.eurosat import CLASSES, read_archive, split_of
from lab.data.sources import open_source


def tile(value):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (value, 255 - value, 128)).save(buffer, format="jpeg", quality=95)
    return buffer.getvalue()


TILES = {f"{c}/{c}_{n}.jpg": tile(3 * k + 25 * n) for k, c in enumerate(CLASSES) for n in range(6)}


def write_tar(path, tiles):
    with tarfile.open(path, "w:xz") as archive:
        for key, content in tiles.items():
            member = tarfile.TarInfo(f"EuroSAT_RGB/{key}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_zip(path, tiles):
    with zipfile.ZipFile(path, "w") as archive:
        for key, content in tiles.items():
            archive.writestr(f"2750/{key}", content)


WRITERS = {"eurosat-rgb.tar.xz": write_tar, "EuroSAT.zip": write_zip}


def place(folder, name, monkeypatch, tiles=TILES):
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[name](folder / name, tiles)
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(eurosat, "SHA256", eurosat.SHA256 | {name: digest})
    monkeypatch.setattr(eurosat, "EXAMPLES", len(TILES))


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_both_archives_hold_every_image_once(name, tmp_path, monkeypatch):
    place(tmp_path / "m" / "eurosat-rgb", name, monkeypatch)
    found = {}
    for split in ("train", "validation", "test"):
        source = open_source("eurosat", split=split, data_dir=tmp_path, manual_dir=tmp_path / "m")
        found[split] = [(e["label"], e["image"].tobytes()) for e in source.read(range(len(source)))]
    for split, examples in found.items():
        expected = [
            (CLASSES.index(key.split("/")[0]), np.asarray(Image.open(io.BytesIO(jpeg))).tobytes())
            for key, jpeg in TILES.items()
            if split_of(key) == split
        ]
        assert sorted(examples) == sorted(expected)
    assert sum(map(len, found.values())) == 60


def test_the_split_is_a_hash_of_the_path():
    keys = [f"{c}/{c}_{n}.jpg" for c in CLASSES for n in range(1, 2701)]
    splits = [split_of(key) for key in keys]
    share = {name: splits.count(name) / len(splits) for name in ("train", "validation", "test")}
    assert share == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.01)
    first = hashlib.sha256(b"River/River_7.jpg").hexdigest()[:16]
    assert (
        split_of("River/River_7.jpg")
        == (["train"] * 8 + ["validation", "test"])[int(first, 16) % 10]
    )


def test_a_wrong_checksum(tmp_path, monkeypatch):
    place(tmp_path / "m", "eurosat-rgb.tar.xz", monkeypatch)
    with (tmp_path / "m" / "eurosat-rgb.tar.xz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(LabError, match="eurosat-rgb.tar.xz: wrong checksum: sha256 .* expected"):
        open_source("eurosat", split="train", data_dir=tmp_path, manual_dir=tmp_path / "m")


def test_a_missing_archive(tmp_path):
    with pytest.raises(LabError, match="eurosat-rgb.tar.xz or EuroSAT.zip is not there"):
        open_source("eurosat", split="train", data_dir=tmp_path, manual_dir=tmp_path)


def test_an_archive_with_too_few_images(tmp_path, monkeypatch):
    few = dict(list(TILES.items())[:50])
    place(tmp_path / "m", "eurosat-rgb.tar.xz", monkeypatch, few)
    with pytest.raises(LabError, match="holds 50 images; expected 60"):
        open_source("eurosat", split="train", data_dir=tmp_path / "d", manual_dir=tmp_path / "m")
    assert not (tmp_path / "d" / "eurosat").exists()


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_broken_archive(name, tmp_path):
    WRITERS[name](tmp_path / name, TILES)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(LabError, match=f"{name}: not a whole tar.xz or zip archive"):
        read_archive(tmp_path / name)
    (tmp_path / name).write_bytes(b"junk" * 100)
    with pytest.raises(LabError, match="not a whole"):
        read_archive(tmp_path / name)


def test_an_unknown_class(tmp_path):
    write_tar(tmp_path / "a.tar.xz", {"Moon/Moon_1.jpg": tile(0)})
    with pytest.raises(LabError, match="Moon/Moon_1.jpg is of no known class; allowed: AnnualCrop"):
        read_archive(tmp_path / "a.tar.xz")


@pytest.mark.slow
def test_the_real_archive(real_files, tmp_path):
    sizes, seen, told = {}, set(), []
    for split in ("train", "validation", "test"):
        source = open_source(
            "eurosat",
            split=split,
            data_dir=tmp_path,
            manual_dir=real_files,
            progress=lambda *counts: told.append(counts),
        )
        sizes[split] = len(source)
        hashes = [
            hashlib.sha256(e["image"].tobytes()).digest()
            for at in range(0, len(source), 1000)
            for e in source.read(range(at, min(at + 1000, len(source))))
        ]
        assert not seen & set(hashes)
        seen |= set(hashes)
    assert told[-1] == (27_000, 27_000), "all splits are made together"
    assert sum(sizes.values()) == 27_000 and sizes["train"] > 21_000
