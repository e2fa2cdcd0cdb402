"""A generator on this host's devices, and the tokens of images as it takes them.

B images of a batch, T positions, S numbers at a position.
"""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from lab.core.errors import LabError
from lab.core.layout import Layout, data_layout
from lab.data.code_manifest import read_manifest
from lab.data.progress import silent
from lab.data.tokens import Rows
from lab.launch.evaluate_data import ImageSet, model_tokens
from lab.launch.evaluate_task import Task, Tools
from lab.launch.jobs import AnyTokenizer, coded_split, make_tokenizer
from lab.tokenizers.pixel_bits import PixelBits
from lab.tokenizers.pixels import Pixels

CHECKED = 256  # labels of a part of a split, whose digest is that of the whole


class Batch(NamedTuple):
    """Images of one size of batch, the last of them repeated; `count` of them are meant."""

    tokens_BTS: jax.Array
    label_B: jax.Array
    count: int


class Inside:
    """A model on all devices of this host, and the tokens of images as it takes them."""

    def __init__(self, task: Task, tools: Tools) -> None:
        self.tokenizer: AnyTokenizer = make_tokenizer(task.trained.run)
        self.layout: Layout = data_layout(jax.local_devices())
        self.size = -(-tools.batch // self.layout.batch_shards) * self.layout.batch_shards
        model = task.trained.open(self.tokenizer.spec, platform=jax.local_devices()[0].platform)
        self.model = jax.device_put(model, self.layout.replicated())
        self._run, self._tools = task.trained.run, tools

    def batches(self, images: ImageSet) -> Iterator[Batch]:
        """All images in their order."""
        found, where = self._rows(images), self.layout.batch_sharding()
        for first in range(0, len(images), self.size):
            stop = min(first + self.size, len(images))
            part = first + np.minimum(np.arange(self.size), stop - first - 1)
            yield Batch(
                jax.device_put(model_tokens(self.tokenizer, found.tokens[part]), where),
                jax.device_put(found.labels[part], where),
                stop - first,
            )

    def _rows(self, images: ImageSet) -> Rows:
        """Images as tokens, made once for all runs of this process on one tokenizer."""
        key = self.tokenizer.identity, images.identity
        if key not in _KEPT:
            found = self._coded(images) or self._encoded(images)
            while len(_KEPT) >= _MOST_KEPT:
                del _KEPT[next(iter(_KEPT))]  # the oldest
            _KEPT[key] = found
        return _KEPT[key]

    def _coded(self, images: ImageSet) -> Rows | None:
        """From the folder of codes that the run was trained on, where it is there still and holds
        these images uncropped. Raises LabError where it is of other images.
        """
        run, split, tokenizer = self._run, images.source.info.split, self.tokenizer
        if isinstance(tokenizer, Pixels | PixelBits) or not run.tokenizer.codes:
            return None
        folder = pathlib.Path(run.tokenizer.codes) / split
        if not folder.is_dir():
            return None
        held = read_manifest(folder).what
        if held.views == "ten_crop" or held.data.examples < len(images):
            return None
        coded = coded_split(
            run,
            tokenizer,
            split,
            lambda what: self._tools.told(f"{split} {what}"),
            examples=len(images),
            augmentation="none",
        )
        rows = coded.rows.rows(np.arange(len(images)))
        first = min(len(images), CHECKED)
        whole = held.data.examples == len(images)  # a part of dead leaves has a name of its own
        if (whole and coded.digest != images.source.info.digest) or not np.array_equal(
            rows.labels[:first], images.labels(first, silent)
        ):
            raise LabError(f"{folder}: codes of other images than {images.source.info.name} has")
        return rows

    def _encoded(self, images: ImageSet) -> Rows:
        told, parts = self._tools.told(f"{images.source.info.split} images to tokens"), []
        for first in range(0, len(images), self.size):
            told(first, len(images))
            stop = min(first + self.size, len(images))
            parts.append(images.rows(self.tokenizer, first, stop))
        return Rows(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )


_KEPT: dict[tuple[str, str], Rows] = {}
_MOST_KEPT = 4
