"""A generator's compiled steps: one update, one evaluation batch."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lab.core.config import OptimizerConfig
from lab.core.keys import Stream
from lab.core.keys import key as stream_key
from lab.core.layout import Layout
from lab.models.objective import NATS
from lab.train.job import Steps, compiled_steps
from lab.train.optimizer import apply_update, ema_update
from lab.train.state import State

# codes (B, T, S), label (B,), weight (B,); in evaluations number (B,): which image of the split it
# is; of latents posterior_nats (B,): minus the log density of the draw that `codes` is.
Batch = dict[str, jax.Array]


def training_loss(model: Any, batch: Batch, key: jax.Array | None) -> jax.Array:
    """The weighted mean over images, per predicted position; what training minimises."""
    found = model.training(batch["codes"], batch["label"], key)
    weighted = jnp.sum(batch["weight"] * found.loss_B)
    return weighted / (jnp.sum(batch["weight"]) * found.positions)


def evaluation(model: Any, batch: Batch, *, draws: int) -> dict[str, jax.Array]:
    """Of each image: nats, and the training loss where that is another number.

    What is random in a bound depends on the number of the image alone, so that the draws are the
    same in every run and with every batch size. Latents are drawn from the tokenizer's posterior:
    the nats of the draw, less those that its own density takes back (bits back; Hinton & van Camp
    1993), are a rate in nats of the image, comparable with the nats of discrete codes.
    """
    codes, label = batch["codes"], batch["label"]
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    key_B = fold(stream_key(0, Stream.BOUND, 0), batch["number"])
    nats_B = model.nats_per_image(codes, label, key_B, draws=draws)
    if "posterior_nats" in batch:
        nats_B = nats_B - batch["posterior_nats"]
    found = {"nats": nats_B}
    if model.objective.key != NATS:
        key = fold(stream_key(0, Stream.BOUND, 1), batch["number"])[0]
        training = model.training(codes, label, key, dropout=False)
        found[model.objective.key] = training.loss_B / training.positions
    return found


def make_steps(
    layout: Layout,
    shardings: Any,
    *,
    optimizer: OptimizerConfig,
    transform: optax.GradientTransformation,
    width: int,
    loss_key: str,
    bound_draws: int,
) -> Steps:
    """Compile-on-first-use steps under a layout; the rate is an argument, not a constant."""
    mesh = layout.abstract_mesh

    def train(state: State, batch: Batch, key: jax.Array, rate: jax.Array):
        with jax.sharding.use_abstract_mesh(mesh):
            loss, grads = jax.value_and_grad(training_loss)(state["params"], batch, key)
        updates, opt = transform.update(grads, state["opt"], state["params"])
        params = apply_update(state["params"], updates, rate, optimizer=optimizer, width=width)
        ema = state["ema"]
        if ema is not None:
            ema = ema_update(ema, params, decay=optimizer.ema_decay, step=state["step"])
        metrics = {loss_key: loss, "grad_norm": optax.tree.norm(grads)}
        return {"params": params, "opt": opt, "ema": ema, "step": state["step"] + 1}, metrics

    def evaluate(params: Any, batch: Batch) -> dict[str, jax.Array]:
        with jax.sharding.use_abstract_mesh(mesh):
            return evaluation(params, batch, draws=bound_draws)

    return compiled_steps(layout, shardings, train=train, evaluate=evaluate)
