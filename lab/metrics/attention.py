"""How far, how evenly and at what a block attends: numbers of attention maps.

B batch, H heads, Q queries, K keys, N tokens of a stack. All are means over the queries that are
positions of the image; those of a prefix (the class) are left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.errors import LabError
from lab.metrics.draws import t_quantile
from lab.metrics.interval import Interval
from lab.models.generator import Generator
from lab.models.inside import AttentionMap, Site, attention_reads, attention_sites

METHOD = "Student's t over images"


class AttentionNumbers(NamedTuple):
    """Of one block, for each image and head, (B, H) in float32."""

    # Expected distance from query to key over keys that are positions of the image, whose weights
    # are made to sum to one; NaN where every query gives all of its weight to the prefix.
    distance_cells: jax.Array
    entropy_nats: jax.Array  # of the weights over all keys
    sink_mass: jax.Array  # weight of the prefix; 0 without one
    first_mass: jax.Array  # weight of the first position of the image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """A mean over images: of the mean over heads with its interval, and of each head."""

    mean: Interval
    per_head: tuple[float | None, ...]  # None where no image has it
    standard_error_per_head: tuple[float | None, ...]  # over images; None of fewer than two


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockAttention:
    """What a block attends to, and what attending evenly to all visible keys would give.

    Under a causal mask the latter grows along the image: distances of causal blocks compare with
    it, and with those of other families by their ratio to it only.
    """

    layer: int
    stack: str
    images: int
    distance_cells: Measured
    entropy_nats: Measured
    sink_mass: Measured
    first_mass: Measured
    uniform_distance_cells: float
    uniform_entropy_nats: float


def numbers_of(attention: AttentionMap) -> AttentionNumbers:
    """Numbers of a map; runs under jit."""
    cells = attention.query_cell_Q, attention.key_cell_K
    return _numbers(attention.weights_BHQK, *cells)


def generator_attention(
    model: Generator, tokens_BTS: jax.Array, label_B: jax.Array, *, time: int = 0
) -> list[AttentionNumbers]:
    """Numbers of every block of a generator, in order; one map at a time is held. Runs under jit.

    `time` as in `layer_states` of lab/models/inside.py.
    """
    cell_N = attention_sites(model)[0].cell_N

    def read(weights_BHQK: jax.Array) -> AttentionNumbers:
        return _numbers(weights_BHQK, cell_N, cell_N)

    return attention_reads(model, tokens_BTS, label_B, read, time=time)


def uniform_distance_cells(
    query_cell_Q: np.ndarray, key_cell_K: np.ndarray, *, causal: bool
) -> float:
    """The distance of a block that attends evenly to every key that it sees."""
    cells = np.asarray(query_cell_Q, np.float64), np.asarray(key_cell_K, np.float64)
    distance_QK = np.linalg.norm(cells[0][:, None] - cells[1][None], axis=-1)
    seen_QK = _seen(len(cells[0]), len(cells[1]), causal) & (cells[1][:, 0] >= 0)[None]
    of_image_Q = cells[0][:, 0] >= 0
    means_Q = (distance_QK * seen_QK)[of_image_Q].sum(1) / seen_QK[of_image_Q].sum(1)
    return float(means_Q.mean())


def uniform_entropy_nats(
    query_cell_Q: np.ndarray, key_cell_K: np.ndarray, *, causal: bool
) -> float:
    """The entropy of a block that attends evenly to every key that it sees: the most there is."""
    seen_QK = _seen(len(query_cell_Q), len(key_cell_K), causal)
    return float(np.log(seen_QK[np.asarray(query_cell_Q)[:, 0] >= 0].sum(1)).mean())


class AttentionTally:
    """Means over images of the numbers of every block, batch by batch."""

    def __init__(self, sites: Sequence[Site]):
        self._sites = sites
        self._sums = [[_Sums() for _ in AttentionNumbers._fields] for _ in sites]

    def add(self, numbers: Sequence[AttentionNumbers]) -> None:
        """Numbers of all blocks for a batch of images that were not yet added."""
        for sums, of_block in zip(self._sums, numbers, strict=True):
            for each, value_BH in zip(sums, of_block, strict=True):
                each.add(np.asarray(value_BH, np.float64))

    def blocks(self, *, level: float) -> list[BlockAttention]:
        """Every block with intervals of this level. LabError for fewer than two images."""
        return [
            BlockAttention(
                layer=site.layer,
                stack=site.stack,
                images=sums[0].images,
                **{
                    name: each.measured(level, where=f"{name} of block {site.layer}")
                    for name, each in zip(AttentionNumbers._fields, sums, strict=True)
                },
                uniform_distance_cells=_uniform(uniform_distance_cells, site),
                uniform_entropy_nats=_uniform(uniform_entropy_nats, site),
            )
            for site, sums in zip(self._sites, self._sums, strict=True)
        ]


def _uniform(number, site: Site) -> float:
    return number(site.cell_N, site.cell_N, causal=site.causal)


def _seen(queries: int, keys: int, causal: bool) -> np.ndarray:
    return np.tril(np.ones((queries, keys), bool)) if causal else np.ones((queries, keys), bool)


def _numbers(weights_BHQK: jax.Array, query_cell_Q, key_cell_K) -> AttentionNumbers:
    """Sums of products of elements, not matrix products: float32 on every device."""
    query_Q, key_K = (jnp.asarray(cell, jnp.float32) for cell in (query_cell_Q, key_cell_K))
    distance_QK = jnp.linalg.norm(query_Q[:, None] - key_K[None], axis=-1)
    of_image_Q, of_image_K = query_Q[:, 0] >= 0, key_K[:, 0] >= 0
    queries = jnp.sum(of_image_Q)

    def mean(value_BHQ: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(of_image_Q[None, None], value_BHQ, 0.0), axis=-1) / queries

    mass_BHQ = jnp.sum(weights_BHQK * of_image_K[None, None, None], axis=-1)
    far_QK = distance_QK * of_image_K[None]
    far_BHQ = jnp.sum(weights_BHQK * far_QK[None, None], axis=-1)
    has_BHQ = (mass_BHQ > 0) & of_image_Q[None, None]
    each_BHQ = jnp.where(has_BHQ, far_BHQ / jnp.where(has_BHQ, mass_BHQ, 1.0), 0.0)
    return AttentionNumbers(
        distance_cells=jnp.sum(each_BHQ, axis=-1) / jnp.sum(has_BHQ, axis=-1),
        entropy_nats=mean(jnp.sum(jax.scipy.special.entr(weights_BHQK), axis=-1)),
        sink_mass=mean(jnp.sum(weights_BHQK * ~of_image_K[None, None, None], axis=-1)),
        first_mass=mean(jnp.take(weights_BHQK, jnp.argmax(of_image_K), axis=-1)),
    )


class _Sums:
    """Count, mean and squared deviations of each head, and of the mean over heads (last).

    Batches are merged as by Chan et al. (1983): no images are kept. NaN is left out.
    """

    def __init__(self):
        self.images = 0
        self._count = self._mean = self._squares = np.zeros(1)

    def add(self, value_BH: np.ndarray) -> None:
        there_BH = np.isfinite(value_BH)
        heads_B = there_BH.sum(axis=1)
        sum_B = np.where(there_BH, value_BH, 0.0).sum(axis=1)
        of_all_B = np.where(heads_B > 0, sum_B / np.maximum(heads_B, 1), np.nan)
        columns_BC = np.concatenate([value_BH, of_all_B[:, None]], axis=1)
        there_BC = np.isfinite(columns_BC)
        count_C = there_BC.sum(axis=0)
        mean_C = np.where(there_BC, columns_BC, 0.0).sum(axis=0) / np.maximum(count_C, 1)
        squares_C = (np.where(there_BC, columns_BC - mean_C, 0.0) ** 2).sum(axis=0)
        step_C = mean_C - self._mean
        both_C = self._count + count_C
        share_C = count_C / np.maximum(both_C, 1)
        self._squares = self._squares + squares_C + step_C**2 * self._count * share_C
        self._mean = self._mean + step_C * share_C
        self._count = both_C
        self.images += len(value_BH)

    def measured(self, level: float, *, where: str) -> Measured:
        if not 0 < level < 1:
            raise LabError(f"level {level}: allowed is between 0 and 1")
        images = int(self._count[-1])
        if images < 2:
            raise LabError(f"attention, {where}: {images} images; an interval needs at least 2")
        value, error = float(self._mean[-1]), self._error(-1)
        quantile = t_quantile(images, level=level)
        half = quantile * error
        heads = range(len(self._mean) - 1)
        return Measured(
            mean=Interval(value, value - half, value + half, level, METHOD, quantile),
            per_head=tuple(float(self._mean[h]) if self._count[h] else None for h in heads),
            standard_error_per_head=tuple(
                self._error(h) if self._count[h] > 1 else None for h in heads
            ),
        )

    def _error(self, column: int) -> float:
        count = float(self._count[column])
        return math.sqrt(float(self._squares[column]) / (count - 1) / count)
