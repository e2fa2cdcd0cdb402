"""Batches as pure functions of the step: nothing about the data order has to be saved.

The order is that of one global stream, shuffled anew for each epoch before it is cut for hosts:
host h of H takes rows h, h + H, h + 2H, ... of each global batch, so the global batch is the same
for any number of hosts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from lab.core.errors import LabError
from lab.data.tokens import ImageRows, Rows

Batch = dict[str, np.ndarray]  # tokens (b, T) uint8 or int32, label (b,) int32, weight (b,) float32


class Batches:
    """Training batches without end: each epoch is a new permutation of all examples.

    A batch may hold the end of one epoch and the start of the next. batch_size is global.
    """

    def __init__(
        self,
        rows: ImageRows,
        *,
        seed: int,
        batch_size: int,
        host: int = 0,
        hosts: int = 1,
    ):
        import grain

        _check_hosts(batch_size, host, hosts)
        self.examples = len(rows)
        self.batch_size = batch_size
        self._rows = rows
        self._seed, self._host, self._hosts = seed, host, hosts
        order = grain.MapDataset.range(len(rows)).seed(seed).shuffle().repeat()
        indices = order[host::hosts].batch(batch_size // hosts, batch_fn=np.asarray)
        self._batches = indices.map_with_index(self._batch)

    def _batch(self, step: int, indices: np.ndarray) -> Batch:
        rows = self._rows.rows(indices, self._views(step))
        return _as_batch(rows, np.ones(len(indices), np.float32))

    def _views(self, step: int) -> np.ndarray | None:
        """Which view of each of this host's images: drawn for the global batch, then cut."""
        if self._rows.views == 1:
            return None
        draws = np.random.Generator(np.random.Philox(key=[self._seed, step]))
        return draws.integers(self._rows.views, size=self.batch_size)[self._host :: self._hosts]

    def at(self, step: int) -> Batch:
        """This host's rows of the batch of a step."""
        if step < 0:
            raise IndexError(f"step {step} is negative")
        batch = self._batches[step]
        assert batch is not None  # Grain's type allows for filtered elements; nothing filters here
        return batch

    @contextlib.contextmanager
    def prefetched(self, start: int, stop: int, *, ahead: int = 4) -> Iterator[Iterator[Batch]]:
        """Batches of steps [start, stop), made ahead by a thread that the context ends."""
        import grain

        steps = self._batches.slice(slice(start, stop))
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
        iterator = iter(steps.to_iter_dataset(options))
        try:
            yield iterator
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
        host: int = 0,
        hosts: int = 1,
    ):
        _check_hosts(batch_size, host, hosts)
        if not 1 <= examples <= len(rows):
            raise LabError(
                f"validation: {examples} examples are not there; allowed: 1 to {len(rows)}"
            )
        self.examples = examples
        self.batch_size = batch_size
        self._host, self._hosts = host, hosts
        self._rows = rows

    def __len__(self) -> int:
        return -(-self.examples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return (self.at(index) for index in range(len(self)))

    def at(self, index: int) -> Batch:
        """This host's rows of one batch; padding has tokens 0, label 0 and weight 0."""
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} is not in [0, {len(self)})")
        first = index * self.batch_size
        wanted = np.arange(first + self._host, first + self.batch_size, self._hosts)
        weight = (wanted < self.examples).astype(np.float32)
        batch = _as_batch(self._rows.rows(np.minimum(wanted, self.examples - 1)), weight)
        padding = weight == 0
        batch["tokens"][padding] = 0
        batch["label"][padding] = 0
        return batch


def validation_batches(
    rows: ImageRows,
    *,
    batch_size: int,
    examples: int | None = None,
    host: int = 0,
    hosts: int = 1,
) -> ValidationBatches:
    """Batches over the first examples of the rows, or over all of them."""
    count = len(rows) if examples is None else examples
    return ValidationBatches(rows, examples=count, batch_size=batch_size, host=host, hosts=hosts)


def _as_batch(rows: Rows, weight: np.ndarray) -> Batch:
    return {"tokens": rows.tokens, "label": rows.labels, "weight": weight}


def _check_hosts(batch_size: int, host: int, hosts: int) -> None:
    if batch_size < 1 or hosts < 1 or batch_size % hosts:
        raise LabError(f"batch_size {batch_size} on {hosts} hosts: allowed: a multiple of {hosts}")
    if not 0 <= host < hosts:
        raise LabError(f"host {host} of {hosts}: allowed: 0 to {hosts - 1}")
