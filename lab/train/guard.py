"""Suspicious updates, seen and not applied inside the compiled step.

An update is suspicious where one of its numbers is not finite, its loss is above the run's limit,
or its loss or the logarithm of its gradient norm lies more than a threshold above the median of the
last W updates that were not suspicious, in robust standard errors: 1.4826 times their median
absolute deviation (Hampel 1974), which is the standard deviation where they are normal. Before
there are W of them only the first two count.

All numbers are sums over the whole batch and the whole model, the same on every device, so that
all processes decide alike without a word. What is not applied leaves parameters, moments and
average as they were, bit for bit; the step is counted, for it counts batches.

W numbers in a window.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.guard_config import ROLLBACK, STOP, GuardConfig
from lab.core.scopes import GUARD
from lab.train.state import State

TO_STANDARD_DEVIATION = 1.4826
# Numbers that hardly differ have no spread to be measured by: a loss counts as uncertain by a
# thousandth of itself, a gradient norm by a hundredth.
LEAST_LOSS_SPREAD = 1e-3
LEAST_LOG_SPREAD = 1e-2
TINY = 1e-30
COUNTERS = ("shift", "rollbacks", "target", "repeats")

Train = Callable[..., tuple[State, dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Guard:
    """What makes an update of a run suspicious."""

    settings: GuardConfig
    loss_key: str
    loss_limit: float


def initial_guard(settings: GuardConfig) -> dict[str, jax.Array]:
    """The guard's part of the state before the first update; empty where the policy is to stop.

    `rollback` has four counters more, which the loop sets: batches left out so far, rollbacks so
    far, the step of the last one, and how many in a row went there or further back.
    """
    if settings.policy == STOP:
        return {}
    window = settings.window
    state = {
        "loss": jnp.zeros(window, jnp.float32),
        "log_grad_norm": jnp.zeros(window, jnp.float32),
        "accepted": jnp.zeros((), jnp.int32),
        "suspicious": jnp.zeros(window, jnp.int32),  # of the last W updates, by step modulo W
    }
    counters = COUNTERS if settings.policy == ROLLBACK else ()
    return {**state, **{name: jnp.zeros((), jnp.int32) for name in counters}}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the step says of an update; `z` are None before there is a window to compare with."""

    suspicious: bool
    z_loss: float | None
    z_grad_norm: float | None
    skips: int  # of the last W updates, this one included

    @classmethod
    def of(cls, packed: Any) -> "Verdict":
        """From the numbers (4,) that the step gives; waits for it."""
        suspicious, z_loss, z_grad_norm, skips = np.asarray(packed).tolist()
        return cls(bool(suspicious), _known(z_loss), _known(z_grad_norm), int(skips))


def _known(z: float) -> float | None:
    return None if np.isnan(z) else z


def guarded(train: Train, guard: Guard | None) -> Train:
    """The train step with its suspicious updates not applied; its metrics get `guard` (4,).

    Without a guard the very same step.
    """
    if guard is None:
        return train

    def step(state: State, *given: Any) -> tuple[State, dict[str, Any]]:
        bare = {name: part for name, part in state.items() if name != "guard"}
        after, metrics = train(bare, *given)
        kept, verdict = judged(guard, state["guard"], metrics, step=state["step"])
        suspicious = verdict[0] > 0
        with jax.named_scope(GUARD):
            chosen = jax.tree.map(lambda old, new: jnp.where(suspicious, old, new), bare, after)
        return {**chosen, "step": after["step"], "guard": kept}, {**metrics, "guard": verdict}

    return step


@jax.named_scope(GUARD)
def judged(
    guard: Guard, state: dict[str, jax.Array], metrics: dict[str, jax.Array], *, step: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
    """The guard's state after an update, and its verdict (4,): see `Verdict`."""
    settings = guard.settings
    loss = metrics[guard.loss_key].astype(jnp.float32)
    log_grad_norm = jnp.log(jnp.maximum(metrics["grad_norm"].astype(jnp.float32), TINY))
    full = state["accepted"] >= settings.window
    least = LEAST_LOSS_SPREAD * jnp.abs(jnp.median(state["loss"]))
    z_loss = robust_z(loss, state["loss"], least=least)
    z_grad = robust_z(log_grad_norm, state["log_grad_norm"], least=LEAST_LOG_SPREAD)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(each)) for each in metrics.values()]))
    far = full & ((z_loss > settings.threshold) | (z_grad > settings.threshold))
    suspicious = ~finite | (loss > guard.loss_limit) | far
    place, now = state["accepted"] % settings.window, step % settings.window

    def pushed(window: jax.Array, value: jax.Array) -> jax.Array:
        return window.at[place].set(jnp.where(suspicious, window[place], value))

    kept = {
        **state,
        "loss": pushed(state["loss"], loss),
        "log_grad_norm": pushed(state["log_grad_norm"], log_grad_norm),
        "accepted": state["accepted"] + jnp.where(suspicious, 0, 1),
        "suspicious": state["suspicious"].at[now].set(suspicious.astype(jnp.int32)),
    }
    known = [jnp.where(full, z, jnp.nan) for z in (z_loss, z_grad)]
    numbers = (suspicious, *known, jnp.sum(kept["suspicious"]))
    return kept, jnp.stack([each.astype(jnp.float32) for each in numbers])


def robust_z(value: jax.Array, window_W: jax.Array, *, least: jax.Array | float) -> jax.Array:
    """How far a number lies above the median of others, in robust standard errors.

    `least` is the smallest standard error that is believed.
    """
    median = jnp.median(window_W)
    spread = TO_STANDARD_DEVIATION * jnp.median(jnp.abs(window_W - median))
    return (value - median) / jnp.maximum(jnp.maximum(spread, least), TINY)
