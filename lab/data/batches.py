"""Batches as pure functions of the step: nothing about the data order has to be saved.

The order is that of one global stream, shuffled anew for each epoch before it is cut for hosts: a
host is given the places in the global batch that its devices hold, and makes those rows only. So
the global batch, in its order, is the same for any number of hosts.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from lab.core.errors import LabError
from lab.data.order import images_at
from lab.data.tokens import ImageRows, Rows

Batch = dict[str, np.ndarray]  # tokens (b, T) uint8 or int32, label (b,) int32, weight (b,) float32


class Batches:
    """Training batches without end: each epoch is a new permutation of all examples.

    A batch may hold the end of one epoch and the start of the next. batch_size is global; `places`
    are those of its rows that are made here (None: all). So many batches are made `together` ahead
    of their use: to hand one over takes a thread longer than to make a small one.
    """

    def __init__(
        self,
        rows: ImageRows,
        *,
        seed: int,
        batch_size: int,
        places: Sequence[int] | np.ndarray | None = None,
        together: int = 1,
    ):
        self._places = _checked_places(batch_size, places)
        self.examples = len(rows)
        self.batch_size = batch_size
        self._rows = rows
        self._seed = seed
        self._together = together

    def _batch(self, step: int) -> Batch:
        places = step * self.batch_size + self._places
        indices = images_at(self.examples, self._seed, places)
        rows = self._rows.rows(indices, self._views(step))
        return _as_batch(rows, np.ones(len(indices), np.float32))

    def _views(self, step: int) -> np.ndarray | None:
        """Which view of each of these images: drawn for the global batch, then cut."""
        if self._rows.views == 1:
            return None
        draws = np.random.Generator(np.random.Philox(key=[self._seed, step]))
        return draws.integers(self._rows.views, size=self.batch_size)[self._places]

    def at(self, step: int) -> Batch:
        """The rows made here of the batch of a step."""
        if step < 0:
            raise IndexError(f"step {step} is negative")
        return self._batch(step)

    @contextlib.contextmanager
    def prefetched(self, start: int, stop: int, *, ahead: int = 4) -> Iterator[Iterator[Batch]]:
        """Batches of steps [start, stop), made ahead by a thread that the context ends."""
        import grain

        def made(first: int) -> list[Batch]:
            return [self._batch(step) for step in range(first, min(first + self._together, stop))]

        groups = grain.MapDataset.range(start, stop, self._together).map(made)
        buffered = max(2, ahead // self._together)
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=buffered)
        iterator = iter(groups.to_iter_dataset(options))
        try:
            yield itertools.chain.from_iterable(iterator)
        finally:
            iterator.close()


class ValidationBatches:
    """The first examples of a source in their stored order; the last batch padded, by weight 0."""

    def __init__(
        self,
        rows: ImageRows,
        *,
        examples: int,
        batch_size: int,
        places: Sequence[int] | np.ndarray | None = None,
    ):
        self._places = _checked_places(batch_size, places)
        if not 1 <= examples <= len(rows):
            raise LabError(
                f"validation: {examples} examples are not there; allowed: 1 to {len(rows)}"
            )
        self.examples = examples
        self.batch_size = batch_size
        self._rows = rows

    def __len__(self) -> int:
        return -(-self.examples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return (self.at(index) for index in range(len(self)))

    def at(self, index: int) -> Batch:
        """The rows made here of one batch; padding has tokens 0, label 0 and weight 0."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} is not in [0, {len(self)})")
        wanted = index * self.batch_size + self._places
        weight = self.weights(index)[self._places]
        batch = _as_batch(self._rows.rows(np.minimum(wanted, self.examples - 1)), weight)
        padding = weight == 0
        batch["tokens"][padding] = 0
        batch["label"][padding] = 0
        return batch

    def weights(self, index: int) -> np.ndarray:
        """The weights of all rows of one batch, wherever they are made: float32 (batch_size,)."""
        number = index * self.batch_size + np.arange(self.batch_size)
        return (number < self.examples).astype(np.float32)


def validation_batches(
    rows: ImageRows,
    *,
    batch_size: int,
    examples: int | None = None,
    places: Sequence[int] | np.ndarray | None = None,
) -> ValidationBatches:
    """Batches over the first examples of the rows, or over all of them."""
    count = len(rows) if examples is None else examples
    return ValidationBatches(rows, examples=count, batch_size=batch_size, places=places)


def _as_batch(rows: Rows, weight: np.ndarray) -> Batch:
    return {"tokens": rows.tokens, "label": rows.labels, "weight": weight}


def _checked_places(batch_size: int, places: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """The places as an array; raises LabError for none, and for one outside the batch."""
    if batch_size < 1:
        raise LabError(f"batch_size {batch_size}: allowed: 1 or more")
    found = np.arange(batch_size) if places is None else np.asarray(places, np.int64)
    if not found.size or found.min() < 0 or found.max() >= batch_size:
        raise LabError(f"places {found.tolist()}: allowed: some of 0 to {batch_size - 1}")
    return found
