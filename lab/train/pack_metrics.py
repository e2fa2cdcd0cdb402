"""What a pack's updates found, copied to the host once for all its runs (lab/train/pack.py)."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np


class Fetched:
    """Metrics (P L, M, ...) of all seats, copied to the host once, when the first one looks."""

    def __init__(self, metrics: Mapping[str, jax.Array]) -> None:
        self.metrics = metrics
        self._lock = threading.Lock()
        self._host: dict[str, np.ndarray] = {}

    def of(self, name: str) -> np.ndarray:
        """All rows of a metric. Waits for the devices."""
        if not self._host:  # all metrics together, so that there is one lock to queue at
            with self._lock:
                self._host = self._host or {n: np.asarray(m) for n, m in self.metrics.items()}
        return self._host[name]


@dataclasses.dataclass(frozen=True)
class _Metric:
    """A metric (M, ...) of one seat: who makes an array of it waits for the devices."""

    fetched: Fetched
    name: str
    row: int

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.fetched.of(self.name)[self.row], dtype)


class Row(Mapping[str, Any]):
    """The metrics of one seat; to name one is not to wait for it."""

    def __init__(self, fetched: Fetched, row: int) -> None:
        self._fetched, self._row = fetched, row

    def __getitem__(self, name: str) -> _Metric:
        return _Metric(self._fetched, name, self._row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fetched.metrics)

    def __len__(self) -> int:
        return len(self._fetched.metrics)

    def block_until_ready(self) -> Row:
        """Wait for the devices."""
        jax.block_until_ready(dict(self._fetched.metrics))
        return self
