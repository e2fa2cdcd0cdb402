"""Reading a folder of codes: any rows of any views, checked against the manifest."""

from __future__ import annotations

import collections
import enum
import pathlib
import resource
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from lab.core.errors import LabError
from lab.data.code_format import LABEL_BYTES, Codes, CodeSet, labels_of, unpack
from lab.data.code_manifest import CodeManifest, check_length, check_shard, read_manifest
from lab.data.progress import Progress, silent

LIMIT_BYTES = 2 * 2**30
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # for random access

Indices = Sequence[int] | np.ndarray


class Verify(enum.StrEnum):
    """When the digest of a shard is compared with the manifest's; its length always is."""

    OPEN = "open"  # of all shards, when the folder is opened
    USE = "use"  # of a shard, before it is read for the first time
    LENGTH = "length"  # never


class CodeShards:
    """A finished folder of codes, by index; in memory, still packed, where that fits the limit.

    Opening it raises LabError where it is unfinished, damaged or not a folder of codes; a shard
    that is found damaged when it is first read raises then.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        *,
        verify: Verify = Verify.USE,
        limit_bytes: int = LIMIT_BYTES,
        progress: Progress = silent,
    ):
        self.directory = pathlib.Path(directory)
        self.manifest: CodeManifest = read_manifest(self.directory)
        for entry in self.manifest.shards:
            check_length(self.directory, entry)
        if verify is Verify.OPEN:
            for entry in self.manifest.shards:
                check_shard(self.directory, entry)
        self._ends = np.cumsum([entry.examples for entry in self.manifest.shards])
        self._readers: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._most_readers = most_readers()
        self._verified = [verify is not Verify.USE] * len(self.manifest.shards)
        self._lock = threading.Lock()
        whole = len(self) * self.what.record_bytes
        self._table = self._load(progress) if whole <= limit_bytes else None

    @property
    def what(self) -> CodeSet:
        """What the codes are: tokenizer, data, alphabet, grid, views, dims_per_image."""
        return self.manifest.what

    @property
    def views(self) -> int:
        """Views of each image; view 0 of "none" and "flip" is the image itself."""
        return self.what.view_count

    @property
    def views_name(self) -> str:
        """Which views they are: a name of lab/data/views.py."""
        return self.what.views

    @property
    def in_memory(self) -> bool:
        """Whether all records are in memory."""
        return self._table is not None

    def __str__(self) -> str:
        return str(self.directory)

    def __len__(self) -> int:
        return self.what.data.examples

    def require(
        self, *, tokenizer_identity: str | None = None, data_digest: str | None = None
    ) -> None:
        """Raise LabError unless the codes are of this tokenizer and of these images."""
        found = (self.what.tokenizer.identity, self.what.data.digest)
        names = ("tokenizer", "data")
        for name, theirs, ours in zip(names, found, (tokenizer_identity, data_digest), strict=True):
            if ours is not None and theirs != ours:
                raise LabError(f"{self.directory}: codes of {name} {theirs}, not of {ours}")

    def rows(self, indices: Indices, views: np.ndarray | int | None = None) -> Codes:
        """New arrays of the rows at these indices; `views` says which view of each, 0 by default.

        Raises IndexError for an index or a view that is not there, LabError for damage.
        """
        chosen = np.asarray(indices, np.int64).reshape(-1)
        view = np.broadcast_to(np.asarray(0 if views is None else views, np.int64), chosen.shape)
        for what, values, most in (("index", chosen, len(self)), ("view", view, self.views)):
            if values.size and not 0 <= values.min() <= values.max() < most:
                raise IndexError(f"{self.directory}: {what} outside of [0, {most})")
        records = self._table[chosen] if self._table is not None else self._read(chosen)
        packed = records[:, LABEL_BYTES:].reshape(len(chosen), self.views, self.what.view_bytes)
        packed = np.ascontiguousarray(packed[np.arange(len(chosen)), view])
        return Codes(unpack(packed, self.what), labels_of(records))

    def _read(self, chosen: np.ndarray) -> np.ndarray:
        """Records (b, record_bytes) uint8, read shard by shard."""
        records = np.empty((len(chosen), self.what.record_bytes), np.uint8)
        shards = np.searchsorted(self._ends, chosen, side="right")
        for shard in np.unique(shards):
            places = np.flatnonzero(shards == shard)
            first = self._ends[shard] - self.manifest.shards[shard].examples
            positions = (chosen[places] - first).tolist()
            records[places] = self._records(int(shard), positions)
        return records

    def _load(self, progress: Progress) -> np.ndarray:
        """All records (N, record_bytes) uint8."""
        table = np.empty((len(self), self.what.record_bytes), np.uint8)
        for shard, entry in enumerate(self.manifest.shards):
            stop = int(self._ends[shard])
            table[stop - entry.examples : stop] = self._records(shard, None)
            self._readers.pop(shard).close()
            progress(stop, len(self))
        return table

    def _records(self, shard: int, positions: list[int] | None) -> np.ndarray:
        """Records at these positions of a shard, or all."""
        path = self.directory / self.manifest.shards[shard].file
        size = self.what.record_bytes
        try:
            reader = self._reader(shard)
            records = reader.read_all() if positions is None else reader.read(positions)
        except (RuntimeError, ValueError, IndexError) as error:
            line = " ".join(str(error).split())[:200]
            raise LabError(f"{path}: a record cannot be read: {line}") from error
        if any(len(record) != size for record in records):
            raise LabError(f"{path}: a record that is not of {size} bytes")
        return np.frombuffer(b"".join(records), np.uint8).reshape(-1, size)

    def _reader(self, shard: int) -> Any:
        """The reader of a shard, verified once; those used last stay open, each a file."""
        with self._lock:
            reader = self._readers.pop(shard, None) or self._opened(shard)
            self._readers[shard] = reader
            if len(self._readers) > self._most_readers:
                self._readers.popitem(last=False)  # closes where no thread is reading it
            return reader

    def _opened(self, shard: int) -> Any:
        from array_record.python.array_record_module import ArrayRecordReader

        entry = self.manifest.shards[shard]
        path = self.directory / entry.file
        if not self._verified[shard]:
            check_shard(self.directory, entry)
            self._verified[shard] = True
        reader = ArrayRecordReader(str(path), READER_OPTIONS)
        if reader.num_records() != entry.examples:
            raise LabError(f"{path}: {reader.num_records()} records, {entry.examples} were written")
        return reader


def most_readers() -> int:
    """Shards that a folder keeps open: a third of the files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft // 3)
