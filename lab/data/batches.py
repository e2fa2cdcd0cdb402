"""Batches as pure functions of the step: nothing about the data order has to be saved.

The order is that of one global stream, shuffled anew for each epoch before it is cut for hosts: a
host is given the places in the global batch that its devices hold, and makes those rows only. So
the global batch, in its order, is the same for any number of hosts.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from lab.core.errors import LabError
from lab.data.order import images_at
from lab.data.tokens import ImageRows, Rows

AT_HAND_BYTES = 2**20  # to copy so many takes less time than to wake a thread, twice

Batch = dict[str, np.ndarray]  # tokens (b, T) uint8 or int32, label (b,) int32, weight (b,) float32


class Batches:
    """Training batches without end: each epoch is a new permutation of all examples.

    A batch may hold the end of one epoch and the start of the next. batch_size is global; `places`
    are those of its rows that are made here (None: all). Ahead of their use so many batches are
    made `together`, of rows in memory from one reading: for a small one most of the time is the
    call's.
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

    def _made(self, steps: range) -> list[Batch]:
        """The batches of some steps; what must be read first is read for one after the other."""
        if self._rows.in_memory:
            return self._from_one_reading(steps)
        each = (range(step, step + 1) for step in steps)
        return [batch for one in each for batch in self._from_one_reading(one)]

    def _from_one_reading(self, steps: range) -> list[Batch]:
        """The batches of some steps, parts of arrays that they share."""
        count = len(self._places)
        places = np.concatenate([step * self.batch_size + self._places for step in steps])
        indices = images_at(self.examples, self._seed, places)
        rows = self._rows.rows(indices, self._views(steps))
        return [
            _as_batch(
                Rows(rows.tokens[at : at + count], rows.labels[at : at + count]),
                np.ones(count, np.float32),
            )
            for at in range(0, len(indices), count)
        ]

    def _views(self, steps: range) -> np.ndarray | None:
        """Which view of each of these images: drawn for each global batch, then cut."""
        if self._rows.views == 1:
            return None
        draws = [np.random.Generator(np.random.Philox(key=[self._seed, step])) for step in steps]
        views = [draw.integers(self._rows.views, size=self.batch_size) for draw in draws]
        return np.concatenate([each[self._places] for each in views])

    def at(self, step: int) -> Batch:
        """The rows made here of the batch of a step."""
        if step < 0:
            raise IndexError(f"step {step} is negative")
        return self._made(range(step, step + 1))[0]

    @functools.cached_property
    def _at_hand(self) -> bool:
        """Whether batches are made where they are asked for, since a thread would take longer."""
        if not self._rows.in_memory:
            return False
        each_bytes = self._rows.rows([0]).tokens.nbytes
        return self._together * len(self._places) * each_bytes <= AT_HAND_BYTES

    @contextlib.contextmanager
    def prefetched(self, start: int, stop: int, *, ahead: int = 4) -> Iterator[Iterator[Batch]]:
        """Batches of steps [start, stop), made ahead by a thread that ends with the context.

        Small batches of rows in memory are made when they are asked for.
        """
        firsts = range(start, stop, self._together)
        groups = (range(first, min(first + self._together, stop)) for first in firsts)
        if self._at_hand:
            yield (batch for group in groups for batch in self._made(group))
            return
        made: collections.deque[concurrent.futures.Future[list[Batch]]] = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:

            def begin(most: int) -> None:
                made.extend(thread.submit(self._made, g) for g in itertools.islice(groups, most))

            def found() -> Iterator[Batch]:
                begin(max(2, ahead // self._together))
                while made:
                    group = made.popleft().result()  # raises what the thread has
                    begin(1)
                    yield from group

            try:
                yield found()
            finally:
                for waiting in made:
                    waiting.cancel()


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
