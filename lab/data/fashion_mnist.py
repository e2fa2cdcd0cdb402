"""Fashion-MNIST under its stock TFDS name and version, prepared without TensorFlow."""

from __future__ import annotations

import gzip
import pathlib
import zlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from lab.core.errors import LabError
from lab.data import manual
from lab.data.png import encode_png
from lab.data.recipe import Recipe, Request

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FOLDERS = ("fashion-mnist", "fashion_mnist")
SHA256 = {
    f"{name}-ubyte.gz": digest
    for name, digest in (
        ("train-images-idx3", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    )
}
EXAMPLES = 70_000
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class FashionMnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Reads and writes the same directory as the stock builder (fashion_mnist/3.0.1)."""

    name = "fashion_mnist"
    VERSION = tfds.core.Version("3.0.1")

    def __init__(self, *, manual_dir: pathlib.Path | None = None, **kwargs):
        self._manual_dir = manual_dir
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Zalando's article images: 28 x 28 grey, ten classes.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1)),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
        )

    def _split_generators(self, dl_manager):
        paths = {name: self._path(name, dl_manager) for name in SHA256}
        return {
            split: self._generate_examples(
                paths[f"{part}-images-idx3-ubyte.gz"], paths[f"{part}-labels-idx1-ubyte.gz"]
            )
            for split, part in (("train", "train"), ("test", "t10k"))
        }

    def _path(self, name: str, dl_manager) -> pathlib.Path:
        path = manual.find_file(name, self._manual_dir, folders=FOLDERS)
        if path is None and self._manual_dir is not None:
            raise manual.missing(name, self._manual_dir, folders=FOLDERS)
        if path is None:
            manual.require_network([URL], what=f"fashion_mnist: {name}")
            path = pathlib.Path(dl_manager.download(URL + name))
        return manual.verify(path, SHA256[name])

    def _generate_examples(self, images: pathlib.Path, labels: pathlib.Path) -> Iterator:
        pixels, classes = read_idx(images), read_idx(labels)
        if pixels.shape != (*classes.shape, 28, 28):
            raise LabError(f"{images}: shape {pixels.shape} with {classes.shape} labels")
        for index, (image, label) in enumerate(zip(pixels, classes, strict=True)):
            yield index, {"image": encode_png(image[..., None]), "label": int(label)}


def read_idx(path: pathlib.Path) -> np.ndarray:
    """The uint8 array of a gzipped IDX file (magic 0, 0, 8, rank; big-endian sizes; bytes)."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise LabError(f"{path}: not a whole gzip file: {error}") from error
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise LabError(f"{path}: header {content[:4]!r} is not that of IDX bytes (0, 0, 8, rank)")
    shape = tuple(np.frombuffer(content, ">u4", count=content[3], offset=4).tolist())
    pixels = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if pixels.size != np.prod(shape, dtype=np.int64):
        raise LabError(f"{path}: {pixels.size} bytes of data; its header says {shape}")
    return pixels.reshape(shape)


def recipe(request: Request) -> Recipe:
    """The recipe; the manual directory matters only until the data set is prepared."""

    def make_builder(data_dir: pathlib.Path) -> FashionMnist:
        return FashionMnist(data_dir=str(data_dir), manual_dir=request.manual_dir)

    provenance = {"name": "fashion_mnist", "files": SHA256}
    return Recipe(make_builder=make_builder, provenance=provenance, images=EXAMPLES)
