"""Mean and covariance of features: of an array, or summed batch by batch on a mesh.

B batch, N images, F features.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.errors import LabError
from lab.core.layout import Layout

Sums = tuple[Any, Any, Any]  # count (), sum (F,), products (F, F), about the shift


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean (F,) and unbiased covariance (F, F) of features, in float64.

    Raises LabError for fewer than two images, and for numbers that are not finite.
    """

    count: int
    mean_F: np.ndarray
    covariance_FF: np.ndarray

    def __post_init__(self) -> None:
        size = self.mean_F.size
        if self.mean_F.shape != (size,) or self.covariance_FF.shape != (size, size):
            raise ValueError(f"mean {self.mean_F.shape}, covariance {self.covariance_FF.shape}")
        if self.count < 2:
            raise LabError(f"features of {self.count} images: a covariance needs at least 2")
        if not (np.isfinite(self.mean_F).all() and np.isfinite(self.covariance_FF).all()):
            raise LabError("features: their mean or covariance is not finite")

    @property
    def features(self) -> int:
        """F."""
        return self.mean_F.size

    @functools.cached_property
    def root_FR(self) -> np.ndarray:
        """A factor of the covariance, root root^T, with a column a direction that varies."""
        values_F, vectors_FF = np.linalg.eigh(self.covariance_FF)
        kept_F = values_F > self.features * np.finfo(np.float64).eps * values_F[-1]
        return vectors_FF[:, kept_F] * np.sqrt(values_F[kept_F])

    def merged(self, other: Moments) -> Moments:
        """Moments of both sets of images together (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        if self.features != other.features:
            raise LabError(f"moments of {self.features} and of {other.features} features")
        count = self.count + other.count
        apart_F = other.mean_F - self.mean_F
        products_FF = (
            (self.count - 1) * self.covariance_FF
            + (other.count - 1) * other.covariance_FF
            + np.outer(apart_F, apart_F) * (self.count * other.count / count)
        )
        mean_F = self.mean_F + apart_F * (other.count / count)
        return Moments(count, mean_F, products_FF / (count - 1))


def moments_of(features_NF: np.ndarray) -> Moments:
    """Moments of host features, centred before they are multiplied."""
    features_NF = host_features(features_NF)
    mean_F = features_NF.mean(axis=0)
    centred_NF = features_NF - mean_F
    return Moments(len(features_NF), mean_F, centred_NF.T @ centred_NF / (len(features_NF) - 1))


def host_features(features_NF: np.ndarray) -> np.ndarray:
    """Features (N, F) as float64; a LabError where one is not finite or there are under two."""
    features_NF = np.asarray(features_NF, np.float64)
    if features_NF.ndim != 2:
        raise ValueError(f"features (N, F), not {features_NF.shape}")
    if len(features_NF) < 2:
        raise LabError(f"features of {len(features_NF)} images: at least 2 are needed")
    finite_N = np.isfinite(features_NF).all(axis=1)
    if not finite_N.all():
        raise LabError(f"features of image {int(np.argmin(finite_N))} are not finite")
    return features_NF


class MomentSums:
    """Moments of batches of features that may be sharded over a mesh.

    A batch is summed in float32 where it lies, about the mean of the first batch, so that features
    far from 0 lose nothing; batches are added in float64 on the host. The split into batches and
    devices changes the result by float32's rounding of one batch only.
    """

    def __init__(self, layout: Layout | None = None) -> None:
        """`layout` is that of the batches; its devices all hold the sums of a batch."""
        whole = None if layout is None else layout.replicated()
        self._mean = _compiled_mean(whole)
        self._sums = _compiled_sums(whole)
        self._shift: jax.Array | None = None
        self._waiting: Sums | None = None  # fetched when the next one is under way
        self._count = 0
        self._sum_F: Any = 0.0
        self._products_FF: Any = 0.0

    def add(self, features_BF: jax.Array, weight_B: jax.Array) -> None:
        """Count in the images of weight 1; those of weight 0 are padding and may hold anything."""
        if features_BF.ndim != 2 or weight_B.shape != features_BF.shape[:1]:
            raise ValueError(f"features {features_BF.shape}, weight {weight_B.shape}")
        if self._shift is None:
            count, mean_F = self._mean(features_BF, weight_B)
            if float(count) == 0:
                return
            self._shift = mean_F
        waiting = self._sums(features_BF, weight_B, self._shift)
        self._fetch()
        self._waiting = waiting

    def moments(self) -> Moments:
        """Of all batches so far; a LabError where they hold fewer than two images."""
        self._fetch()
        if self._count < 2 or self._shift is None:
            raise LabError(f"features of {self._count} images: a covariance needs at least 2")
        apart_F = self._sum_F / self._count
        products_FF = self._products_FF - np.outer(apart_F, apart_F) * self._count
        return Moments(
            self._count,
            np.asarray(self._shift, np.float64) + apart_F,
            products_FF / (self._count - 1),
        )

    def _fetch(self) -> None:
        if self._waiting is None:
            return
        count, sum_F, products_FF = (np.asarray(part, np.float64) for part in self._waiting)
        self._waiting = None
        self._count += round(float(count))
        self._sum_F = self._sum_F + sum_F
        self._products_FF = self._products_FF + products_FF


@functools.cache
def _compiled_mean(whole: Any) -> Any:
    def mean(features_BF: jax.Array, weight_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        kept_BF = _kept(features_BF, weight_B)
        count = jnp.sum(weight_B > 0, dtype=jnp.float32)
        return count, jnp.sum(kept_BF, axis=0) / jnp.maximum(count, 1)

    return jax.jit(mean, out_shardings=whole)


@functools.cache
def _compiled_sums(whole: Any) -> Any:
    def sums(features_BF: jax.Array, weight_B: jax.Array, shift_F: jax.Array) -> Sums:
        apart_BF = _kept(features_BF.astype(jnp.float32) - shift_F[None], weight_B)
        products_FF = jnp.matmul(apart_BF.T, apart_BF, precision=jax.lax.Precision.HIGHEST)
        return jnp.sum(weight_B > 0, dtype=jnp.float32), jnp.sum(apart_BF, axis=0), products_FF

    return jax.jit(sums, out_shardings=whole)


def _kept(x_BF: jax.Array, weight_B: jax.Array) -> jax.Array:
    """Zero where the weight is: by choice and not by product, since padding may be nan."""
    return jnp.where(weight_B[:, None] > 0, x_BF.astype(jnp.float32), 0.0)
