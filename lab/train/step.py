"""A generator's compiled steps: one update, one evaluation batch."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lab.core.config import OptimizerConfig
from lab.core.layout import Layout
from lab.train.job import Steps
from lab.train.optimizer import apply_update, ema_update
from lab.train.state import State

Batch = dict[str, jax.Array]  # codes (B, T, S), label (B,), weight (B,)


def mean_nats_per_token(model: Any, batch: Batch, key: jax.Array | None) -> jax.Array:
    """The weighted mean over images, per position; what training minimises."""
    nats_B = model.nats_per_image(batch["codes"], batch["label"], key)
    positions = batch["codes"].shape[1]
    return jnp.sum(batch["weight"] * nats_B) / (jnp.sum(batch["weight"]) * positions)


def make_steps(
    layout: Layout,
    shardings: Any,
    *,
    optimizer: OptimizerConfig,
    transform: optax.GradientTransformation,
    width: int,
) -> Steps:
    """Compile-on-first-use steps under a layout; the rate is an argument, not a constant."""
    mesh = layout.abstract_mesh

    def train(state: State, batch: Batch, key: jax.Array, rate: jax.Array):
        with jax.sharding.use_abstract_mesh(mesh):
            loss, grads = jax.value_and_grad(mean_nats_per_token)(state["params"], batch, key)
        updates, opt = transform.update(grads, state["opt"], state["params"])
        params = apply_update(state["params"], updates, rate, optimizer=optimizer, width=width)
        ema = state["ema"]
        if ema is not None:
            ema = ema_update(ema, params, decay=optimizer.ema_decay, step=state["step"])
        metrics = {"loss_nats_per_token": loss, "grad_norm": optax.tree.norm(grads)}
        return {"params": params, "opt": opt, "ema": ema, "step": state["step"] + 1}, metrics

    def evaluate(params: Any, batch: Batch) -> dict[str, jax.Array]:
        with jax.sharding.use_abstract_mesh(mesh):
            return {"nats": params.nats_per_image(batch["codes"], batch["label"], None)}

    whole, rows = layout.replicated(), layout.batch_sharding()
    return Steps(
        train=jax.jit(
            train,
            in_shardings=(shardings, rows, whole, whole),
            out_shardings=(shardings, whole),
            donate_argnums=0,
        ),
        evaluate=jax.jit(evaluate, in_shardings=(shardings["params"], rows), out_shardings=whole),
    )
