"""A generator on this host's devices, and the tokens of images as it takes them.

B images of a batch, T positions, S numbers at a position.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from lab.core.layout import Layout, data_layout
from lab.launch.evaluate_data import ImageSet, model_tokens
from lab.launch.evaluate_task import Task, Tools
from lab.launch.jobs import AnyTokenizer, make_tokenizer


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

    def batches(self, images: ImageSet) -> Iterator[Batch]:
        """All images in their order."""
        rows = self.layout.batch_sharding()
        for first in range(0, len(images), self.size):
            stop = min(first + self.size, len(images))
            found = images.rows(self.tokenizer, first, stop)
            part = np.minimum(np.arange(self.size), stop - first - 1)
            tokens = model_tokens(self.tokenizer, found.tokens)[part]
            yield Batch(
                jax.device_put(tokens, rows),
                jax.device_put(found.labels[part], rows),
                stop - first,
            )
