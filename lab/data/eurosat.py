"""EuroSAT RGB (Helber et al. 2019), split by a hash of the path, so by image before any crop."""

from __future__ import annotations

import hashlib
import lzma
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

import tensorflow_datasets as tfds

from lab.core.errors import LabError
from lab.data import manual
from lab.data.recipe import Recipe, Request

URL = "http://madm.dfki.de/files/sentinel/EuroSAT.zip"
FOLDERS = ("eurosat-rgb", "eurosat")
SHA256 = {  # either archive will do; they hold the same images
    "eurosat-rgb.tar.xz": "ef1a671fe8ac5a38f3ee18458682b443e75a3fa1dbfad29164684129a8c01f28",
    "EuroSAT.zip": "8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
}
EXAMPLES = 27_000
CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
SPLIT_RULE = "first 8 bytes of sha256(Class/Class_N.jpg) mod 10: 0-7 train, 8 validation, 9 test"


def split_of(key: str) -> str:
    """The split of the image Class/Class_N.jpg: 80, 10 and 10 per cent by SPLIT_RULE."""
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10
    return "train" if bucket < 8 else ("validation" if bucket == 8 else "test")


class Eurosat(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The RGB tiles; the configuration says that it is not the stock one, which has no splits."""

    name = "eurosat"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="rgb_80_10_10", description=SPLIT_RULE)]

    def __init__(self, *, manual_dir: pathlib.Path | None = None, **kwargs):
        self._manual_dir = manual_dir
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Sentinel-2 tiles, 64 x 64 RGB JPEG, ten classes of land use.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "filename": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/phelber/EuroSAT",
        )

    def _split_generators(self, dl_manager):
        # 92 MB of JPEG, held while three splits are written: the archive is unpacked once.
        images = read_archive(self._path(dl_manager))
        if len(images) != EXAMPLES:
            raise LabError(f"eurosat: the archive holds {len(images)} images; expected {EXAMPLES}")
        return {
            split: self._generate_examples(images, split)
            for split in ("train", "validation", "test")
        }

    def _path(self, dl_manager) -> pathlib.Path:
        for name, sha256 in SHA256.items():
            path = manual.find_file(name, self._manual_dir, folders=FOLDERS)
            if path is not None:
                return manual.verify(path, sha256)
        if self._manual_dir is not None:
            raise manual.missing(" or ".join(SHA256), self._manual_dir, folders=FOLDERS)
        manual.require_network([URL], what="eurosat")
        return manual.verify(pathlib.Path(dl_manager.download(URL)), SHA256["EuroSAT.zip"])

    def _generate_examples(self, images: dict[str, bytes], split: str) -> Iterator:
        for key in sorted(images):
            if split_of(key) == split:
                label = key.split("/")[0]
                yield key, {"image": images[key], "label": label, "filename": key.split("/")[1]}


def read_archive(path: pathlib.Path) -> dict[str, bytes]:
    """JPEG bytes by Class/Class_N.jpg, from the tar.xz or from the official zip."""
    try:
        members = dict(_zip_members(path) if zipfile.is_zipfile(path) else _tar_members(path))
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise LabError(f"{path}: not a whole tar.xz or zip archive: {error}") from error
    for key in members:
        if key.split("/")[0] not in CLASSES:
            allowed = ", ".join(CLASSES)
            raise LabError(f"{path}: {key} is of no known class; allowed: {allowed}")
    return members


def _tar_members(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r:xz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None and member.name.endswith(".jpg"):
                yield _key(member.name), file.read()


def _zip_members(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".jpg"):
                yield _key(name), archive.read(name)


def _key(member: str) -> str:
    return "/".join(pathlib.PurePosixPath(member).parts[-2:])


def recipe(request: Request) -> Recipe:
    """The recipe; the manual directory matters only until the data set is prepared."""

    def make_builder(data_dir: pathlib.Path) -> Eurosat:
        return Eurosat(data_dir=str(data_dir), manual_dir=request.manual_dir)

    # Not the archive's digest: the two archives hold the same images.
    provenance = {"name": "eurosat", "config": "rgb_80_10_10", "rule": SPLIT_RULE}
    return Recipe(make_builder=make_builder, provenance=provenance, images=EXAMPLES)
