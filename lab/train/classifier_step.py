"""A classifier's compiled steps: one update, one evaluation batch.

B batch, K classes.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lab.core import scopes
from lab.core.config import OptimizerConfig
from lab.core.layout import Layout
from lab.train.guard import Guard
from lab.train.optimizer import Numbers, apply_update, ema_update
from lab.train.programs import Steps, compiled_steps
from lab.train.state import State

Batch = dict[str, jax.Array]  # images (B, R, R, C) uint8, label (B,) int32
LOSS = "loss_nats_per_image"
SMOOTHED = "loss_smoothed_nats_per_image"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """What a classifier minimises, and how."""

    optimizer: OptimizerConfig
    transform: optax.GradientTransformation
    loss_key: str
    label_smoothing: float


@jax.named_scope(scopes.LOSS)
def cross_entropies(logits_BK: jax.Array, label_B: jax.Array, *, label_smoothing: float):
    """Nats (B,) of the label, and of the label mixed with a uniform draw (Szegedy et al. 2016,
    section 7)."""
    nats_BK = -jax.nn.log_softmax(logits_BK.astype(jnp.float32))
    nats_B = jnp.take_along_axis(nats_BK, label_B[:, None], axis=1)[:, 0]
    smoothed_B = (1 - label_smoothing) * nats_B + label_smoothing * jnp.mean(nats_BK, axis=1)
    return nats_B, smoothed_B


def train_step(
    state: State, batch: Batch, key: jax.Array, numbers: Numbers, *, learner: Learner
) -> tuple[State, dict[str, jax.Array]]:
    """One update; nothing is random, so the key is not used."""

    def loss_of(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits = params.logits(params.features(batch["images"]))
        both = cross_entropies(logits, batch["label"], label_smoothing=learner.label_smoothing)
        nats, smoothed = (jnp.mean(values) for values in both)
        terms = {LOSS: nats, learner.loss_key: smoothed}
        correct = jnp.argmax(logits, axis=1) == batch["label"]
        return smoothed, {**terms, "accuracy": jnp.mean(correct.astype(jnp.float32))}

    (_, terms), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
    optimizer = learner.optimizer
    updates, opt = learner.transform.update(grads, state["opt"], state["params"])
    params = apply_update(state["params"], updates, numbers, optimizer=optimizer, width=1)
    ema = state["ema"]
    if ema is not None:
        ema = ema_update(ema, params, decay=optimizer.ema_decay, step=state["step"])
    with jax.named_scope(scopes.OPTIMIZER):
        metrics = {**terms, "grad_norm": optax.tree.norm(grads)}
    return {"params": params, "opt": opt, "ema": ema, "step": state["step"] + 1}, metrics


def evaluation_step(params: Any, batch: Batch, *, learner: Learner) -> dict[str, jax.Array]:
    """Of each image: its losses, the class of the largest logit, and that of its label."""
    logits, label = params.logits(params.features(batch["images"])), batch["label"]
    nats, smoothed = cross_entropies(logits, label, label_smoothing=learner.label_smoothing)
    return {
        learner.loss_key: smoothed,
        LOSS: nats,
        "predicted": jnp.argmax(logits, axis=1).astype(jnp.int32),
        "label": label,
    }


def make_classifier_steps(
    layout: Layout, shardings: Any, learner: Learner, *, guard: Guard | None, most: int
) -> Steps:
    """Compile-on-first-use steps under a layout; the rate is an argument."""

    def train(*given: Any) -> tuple[State, dict[str, jax.Array]]:
        with layout.tracing():
            return train_step(*given, learner=learner)

    def evaluate(params: Any, batch: Batch) -> dict[str, jax.Array]:
        with layout.tracing(update=False):
            return evaluation_step(params, batch, learner=learner)

    return compiled_steps(layout, shardings, train=train, evaluate=evaluate, guard=guard, most=most)
