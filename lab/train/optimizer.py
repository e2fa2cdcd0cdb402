"""AdamW (Loshchilov & Hutter 2019) with a width rule, and the schedules of its rate."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lab.core.config import OptimizerConfig, cooldown_steps
from lab.core.scopes import EMA, OPTIMIZER
from lab.layers.parameters import is_matrix, is_parameter, rate_multiplier


class Numbers(NamedTuple):
    """What of an optimiser is an argument of the step, so that runs share a program: float32 ().

    Of several updates float32 (n,).
    """

    rate: Any
    weight_decay: Any


def numbers_at(optimizer: OptimizerConfig, rates: float | Sequence[float]) -> Numbers:
    """The numbers of an update at this rate, or of several."""
    rate = np.asarray(rates, np.float32)
    return Numbers(rate, np.full_like(rate, optimizer.weight_decay))


def learning_rate(
    optimizer: OptimizerConfig, step: int, *, total_steps: int, warmup_steps: int
) -> float:
    """The rate of update `step` (0-based), a function of the step alone.

    Linear warm-up, then constant; "wsd" falls linearly over the last `cooldown_fraction` of all
    steps (Hägele et al. 2024), "cosine" over all that follow the warm-up.
    """
    peak, floor = optimizer.learning_rate, optimizer.final_fraction
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if optimizer.schedule == "constant":
        return peak
    if optimizer.schedule == "cosine":
        done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))
    left = (total_steps - step) / max(1, cooldown_steps(optimizer, total_steps))
    return peak * (floor + (1 - floor) * min(1.0, left))


def direction(optimizer: OptimizerConfig) -> optax.GradientTransformation:
    """Clipped gradients to Adam's direction; the rate, the width rule and the decay come after."""
    clip = optax.clip_by_global_norm(optimizer.clip_norm) if optimizer.clip_norm else None
    adam = optax.scale_by_adam(b1=optimizer.beta1, b2=optimizer.beta2, eps=optimizer.epsilon)
    both = optax.chain(clip, adam) if clip else optax.chain(adam)
    return optax.GradientTransformation(both.init, jax.named_scope(OPTIMIZER)(both.update))


@jax.named_scope(OPTIMIZER)
def apply_update(
    params: Any, updates: Any, numbers: Numbers, *, optimizer: OptimizerConfig, width: int
) -> Any:
    """params - rate (multiplier direction + decay params), decay on matrices only.

    The decay is not scaled by the width rule, so that a matrix of any width forgets at one pace.
    """

    def of(param: Any, update: Any) -> Any:
        multiplier = rate_multiplier(param, optimizer, width=width)
        decay = numbers.weight_decay if is_matrix(param) else 0.0
        rate = numbers.rate
        return jax.tree.map(lambda p, u: p - rate * (multiplier * u + decay * p), param, update)

    return jax.tree.map(of, params, updates, is_leaf=is_parameter)


@jax.named_scope(EMA)
def ema_update(average: Any, params: Any, *, decay: float, step: jax.Array) -> Any:
    """The exponential moving average after one more step; early on a plain mean, not the start."""
    decay_now = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: a + (1 - decay_now) * (p - a), average, params)
