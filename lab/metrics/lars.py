"""MAE's linear probe (He et al. 2022, appendix A.1): BatchNorm without affine, linear layer, LARS.

N images, B batch, F features, K classes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

EPOCHS, WARMUP_EPOCHS = 90, 10
MOMENTUM = 0.9
TRUST = 0.001  # LARS: a step is so much of the weights' norm, times the rate (You et al. 2017)
INIT_STD = 0.01
NORM_EPSILON = 1e-6
NORM_MOMENTUM = 0.1  # of the running mean and variance
# Published: 16,384 of ImageNet's 1,281,167 images, at 0.1 x 16384 / 256. With the batch the same
# share of other data, there are as many steps; since a step of LARS is relative to the weights'
# norm, the same rate then leads as far. The rate times the batch would not: 102 of 8,000 images at
# 0.1 x 102 / 256 move the weights by less than their first norm in all.
BATCH_SHARE = 16_384 / 1_281_167
PEAK_RATE = 0.1 * 16_384 / 256


class LinearState(NamedTuple):
    """A linear classifier on running statistics, and its momenta."""

    weight_FK: jax.Array
    bias_K: jax.Array
    weight_momentum_FK: jax.Array
    bias_momentum_K: jax.Array
    mean_F: jax.Array
    variance_F: jax.Array

    def scores(self, x_NF: jax.Array) -> jax.Array:
        """(N, K), with the running statistics."""
        return _normed(x_NF, self.mean_F, self.variance_F) @ self.weight_FK + self.bias_K[None]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How many steps, and how large."""

    batch: int
    steps_per_epoch: int
    epochs: int = EPOCHS
    warmup_epochs: int = WARMUP_EPOCHS
    peak_rate: float = PEAK_RATE

    @classmethod
    def of(cls, images: int) -> Recipe:
        """The published one at the size of the data; the images of a last short batch wait."""
        batch = max(2, round(BATCH_SHARE * images))
        return cls(batch=batch, steps_per_epoch=images // batch)

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.epochs * self.steps_per_epoch

    def rate(self, step: jax.Array) -> jax.Array:
        """Linear from 0 in the first epochs, then half a cosine to 0; by the step, as published."""
        epoch = step / self.steps_per_epoch
        share = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        cosine = (1 + jnp.cos(math.pi * share)) / 2
        return self.peak_rate * jnp.where(share < 0, epoch / max(1, self.warmup_epochs), cosine)


def initial(key: jax.Array, *, features: int, classes: int) -> LinearState:
    """A normal draw of weights, no bias; statistics as those of unit normals."""
    weight_FK = INIT_STD * jax.random.normal(key, (features, classes))
    zero_F, zero_K = jnp.zeros(features), jnp.zeros(classes)
    return LinearState(weight_FK, zero_K, jnp.zeros_like(weight_FK), zero_K, zero_F, zero_F + 1)


def update(state: LinearState, x_BF: jax.Array, label_B: jax.Array, rate: jax.Array) -> LinearState:
    """One step of LARS on the mean cross-entropy of a batch; the bias takes plain momentum."""
    mean_F, variance_F = jnp.mean(x_BF, axis=0), jnp.var(x_BF, axis=0)
    normed_BF = _normed(x_BF, mean_F, variance_F)

    def loss(weight_FK: jax.Array, bias_K: jax.Array) -> jax.Array:
        log_p_BK = jax.nn.log_softmax(normed_BF @ weight_FK + bias_K[None])
        return -jnp.mean(jnp.take_along_axis(log_p_BK, label_B[:, None], axis=1))

    d_weight_FK, d_bias_K = jax.grad(loss, (0, 1))(state.weight_FK, state.bias_K)
    norm, d_norm = jnp.linalg.norm(state.weight_FK), jnp.linalg.norm(d_weight_FK)
    trust = jnp.where((norm > 0) & (d_norm > 0), TRUST * norm / jnp.maximum(d_norm, 1e-30), 1.0)
    weight_momentum_FK = MOMENTUM * state.weight_momentum_FK + trust * d_weight_FK
    bias_momentum_K = MOMENTUM * state.bias_momentum_K + d_bias_K
    unbiased_F = variance_F * len(x_BF) / (len(x_BF) - 1)
    return LinearState(
        weight_FK=state.weight_FK - rate * weight_momentum_FK,
        bias_K=state.bias_K - rate * bias_momentum_K,
        weight_momentum_FK=weight_momentum_FK,
        bias_momentum_K=bias_momentum_K,
        mean_F=(1 - NORM_MOMENTUM) * state.mean_F + NORM_MOMENTUM * mean_F,
        variance_F=(1 - NORM_MOMENTUM) * state.variance_F + NORM_MOMENTUM * unbiased_F,
    )


@functools.partial(jax.jit, static_argnames=("classes", "recipe"))
def fit(
    x_NF: jax.Array, label_N: jax.Array, key: jax.Array, *, classes: int, recipe: Recipe
) -> LinearState:
    """All epochs, each over the images in an order of its own."""
    start_key, order_key = jax.random.split(key)
    state = initial(start_key, features=x_NF.shape[1], classes=classes)

    def epoch(state: LinearState, number: jax.Array) -> tuple[LinearState, None]:
        order_N = jax.random.permutation(jax.random.fold_in(order_key, number), len(x_NF))
        kept = recipe.steps_per_epoch * recipe.batch
        first = number * recipe.steps_per_epoch

        def step(state: LinearState, each) -> tuple[LinearState, None]:
            place_B, index = each
            rate = recipe.rate(first + index)
            return update(state, x_NF[place_B], label_N[place_B], rate), None

        places = order_N[:kept].reshape(recipe.steps_per_epoch, recipe.batch)
        return jax.lax.scan(step, state, (places, jnp.arange(recipe.steps_per_epoch)))

    return jax.lax.scan(epoch, state, jnp.arange(recipe.epochs))[0]


def _normed(x_NF: jax.Array, mean_F: jax.Array, variance_F: jax.Array) -> jax.Array:
    return (x_NF - mean_F[None]) * jax.lax.rsqrt(variance_F + NORM_EPSILON)[None]
