"""Features of images by an extractor on all devices of this host, and of a reference from a cache.

B images of a batch, N of all, F features, K classes.
"""

import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from lab.core.canonical import json_sha256
from lab.core.digest import array_digest
from lab.core.layout import data_layout
from lab.launch.evaluate_data import ImageSet
from lab.launch.evaluate_task import Tools
from lab.metrics.moments import Moments, MomentSums

if TYPE_CHECKING:
    from lab.extractors.extractor import Extractor

FOLDER = "references"  # of a workdir: features of reference images
SCHEMA = "lab.reference/1"


class Found(NamedTuple):
    """What an extractor says of images; mean and covariance were summed where they were read."""

    features_NF: np.ndarray  # float32
    log_probabilities_NK: np.ndarray
    mean_F: np.ndarray  # float64
    covariance_FF: np.ndarray

    @property
    def moments(self) -> Moments:
        """Of the features."""
        return Moments(len(self.features_NF), self.mean_F, self.covariance_FF)


class Reader:
    """An extractor compiled once for a size of batch, which is split over the devices."""

    def __init__(self, extractor: "Extractor", *, batch: int) -> None:
        layout = data_layout(jax.local_devices())
        self.size = -(-batch // layout.batch_shards) * layout.batch_shards
        self._layout, self._rows = layout, layout.batch_sharding()
        # An argument, for weights that are closed over become constants of the program.
        self._extractor = jax.device_put(extractor, layout.replicated())
        self._read: Callable = jax.jit(lambda of, images: of(images), out_shardings=self._rows)

    def __call__(
        self, batches: Iterable[np.ndarray], *, told: Callable[[int, int | None], None], total: int
    ) -> Found:
        """Features of all images; the last batch is filled up, so that one program reads all."""
        parts, done, sums = [], 0, MomentSums(self._layout)
        told(0, total)
        for images in batches:
            padded = np.concatenate([images, np.repeat(images[-1:], self.size - len(images), 0)])
            features, logs = self._read(self._extractor, jax.device_put(padded, self._rows))
            weight_B = (np.arange(self.size) < len(images)).astype(np.float32)
            sums.add(features, jax.device_put(weight_B, self._rows))
            parts.append((np.asarray(features)[: len(images)], np.asarray(logs)[: len(images)]))
            done += len(images)
            told(done, total)
        features_NF, logs_NK = (np.concatenate(each) for each in zip(*parts, strict=True))
        moments = sums.moments()
        return Found(features_NF, logs_NK, moments.mean_F, moments.covariance_FF)


class Readers:
    """A reader for each extractor, and what they said of sets of images, which is kept on disk."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._readers: dict[str, Reader] = {}
        self._kept: dict[tuple[str, str], Found] = {}

    def read(self, extractor: "Extractor", batches: Iterable[np.ndarray], *, total: int) -> Found:
        """Features of images (B, H, W, C) uint8 in batches of at most the tools' size."""
        told = self._tools.told(f"features by {extractor.name}")
        return self._reader(extractor)(batches, told=told, total=total)

    def of_set(self, extractor: "Extractor", images: ImageSet, workdir: pathlib.Path) -> Found:
        """Features of a set of images: those in `workdir`/references where they are there."""
        key = extractor.identity, images.identity
        if key not in self._kept:
            path = workdir / FOLDER / f"{reference_key(extractor, images)}.npz"
            found = self._stored(path, extractor, images)
            if found is None:
                reader = self._reader(extractor)
                told = self._tools.told(f"{images.source.info.split} images by {extractor.name}")
                found = reader(images.batches(reader.size), told=told, total=len(images))
                write_found(path, found)
            self._kept[key] = found
        return self._kept[key]

    def _reader(self, extractor: "Extractor") -> Reader:
        if extractor.identity not in self._readers:
            self._readers[extractor.identity] = Reader(extractor, batch=self._tools.batch)
        return self._readers[extractor.identity]

    def _stored(self, path: pathlib.Path, extractor: "Extractor", images: ImageSet) -> Found | None:
        if not path.exists():
            return None
        found = read_found(path)
        shapes = (len(images), extractor.features), (len(images), extractor.classes)
        if found is None or tuple(each.shape for each in found[:2]) != shapes:
            self._tools.warn(f"{path}: damaged; the features are made again")
            return None
        return found


def reference_key(extractor: "Extractor", images: ImageSet) -> str:
    """What the features of a set of images are known by."""
    return json_sha256({"extractor": extractor.identity, "images": images.identity})[:12]


def write_found(path: pathlib.Path, found: Found) -> None:
    """Write features with their digests; a reader sees the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}-{os.getpid()}.npz")
    digests = [array_digest(each) for each in found]
    try:
        np.savez(draft, schema=SCHEMA, digests=np.array(digests), **found._asdict())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_found(path: pathlib.Path) -> Found | None:
    """The features of a file; None where it is not as it was written."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = Found(*(file[name] for name in Found._fields))
            digests = file["digests"].tolist()
            known = str(file["schema"]) == SCHEMA
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found if known and digests == [array_digest(each) for each in found] else None
