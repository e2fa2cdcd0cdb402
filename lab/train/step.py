"""A generator's compiled steps: one update, one evaluation batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lab.core.config import OptimizerConfig
from lab.core.keys import Stream
from lab.core.keys import key as stream_key
from lab.core.layout import Layout, constrain_batch
from lab.core.scopes import LOSS, OPTIMIZER
from lab.layers.draws import WHOLE, Part, in_parts
from lab.models.objective import NATS
from lab.train.guard import Guard
from lab.train.optimizer import Numbers, apply_update, ema_update
from lab.train.programs import Steps, compiled_steps
from lab.train.state import State

# codes (B, T, S), label (B,), weight (B,); in evaluations number (B,): which image of the split it
# is; of latents posterior_nats (B,): minus the log density of the draw that `codes` is.
Batch = dict[str, jax.Array]


def training_loss(model: Any, batch: Batch, key: jax.Array | None) -> jax.Array:
    """The weighted mean over images, per predicted position; what training minimises."""
    return _share(model, batch, key, whole_weight=jnp.sum(batch["weight"]), part=WHOLE)


def _share(
    model: Any, batch: Batch, key: jax.Array | None, *, whole_weight: jax.Array, part: Part
) -> jax.Array:
    """What the images of a part add to the loss of their whole batch."""
    found = model.training(batch["codes"], batch["label"], key, part=part)
    with jax.named_scope(LOSS):
        return jnp.sum(batch["weight"] * found.loss_B) / (whole_weight * found.positions)


def loss_and_gradients(
    model: Any,
    batch: Batch,
    key: jax.Array | None,
    *,
    parts: int,
    placed: Callable[[Any], Any] = lambda gradients: gradients,
) -> tuple[jax.Array, Any]:
    """`training_loss` and its gradients, of a batch that runs in parts one after the other.

    The activations of one part are held at a time. Every part is weighted by its images in the
    whole batch, so that the sums differ from those of one part by rounding only. `placed` says
    where gradients lie: the sum of them is kept there between parts.
    """
    if parts == 1:
        return jax.value_and_grad(training_loss)(model, batch, key)
    whole_weight = jnp.sum(batch["weight"])

    def add(sums: Any, at: tuple[jax.Array, Batch]) -> tuple[Any, None]:
        number, here = at
        found = jax.value_and_grad(_share)(
            model, here, key, whole_weight=whole_weight, part=Part(number, parts)
        )
        with jax.named_scope(OPTIMIZER):
            loss, gradients = jax.tree.map(jnp.add, sums, found)
        return (loss, placed(gradients)), None

    cut = {name: constrain_batch(in_parts(x, parts), axis=1) for name, x in batch.items()}
    nothing = (jnp.float32(0), placed(jax.tree.map(jnp.zeros_like, model)))
    return jax.lax.scan(add, nothing, (jnp.arange(parts), cut))[0]


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
    parts: int = 1,
    guard: Guard | None = None,
    most: int = 1,
) -> Steps:
    """Compile-on-first-use steps under a layout; the rate is an argument, not a constant.

    A training batch runs in so many `parts`, `most` updates in a dispatch. With a guard the state
    has its part.
    """
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings["params"])

    def placed(gradients: Any) -> Any:
        if not layout.traced:
            return gradients
        return jax.lax.with_sharding_constraint(gradients, specs)

    def train(state: State, batch: Batch, key: jax.Array, numbers: Numbers):
        with layout.tracing():
            loss, grads = loss_and_gradients(
                state["params"], batch, key, parts=parts, placed=placed
            )
        updates, opt = transform.update(grads, state["opt"], state["params"])
        params = apply_update(state["params"], updates, numbers, optimizer=optimizer, width=width)
        ema = state["ema"]
        if ema is not None:
            ema = ema_update(ema, params, decay=optimizer.ema_decay, step=state["step"])
        with jax.named_scope(OPTIMIZER):
            metrics = {loss_key: loss, "grad_norm": optax.tree.norm(grads)}
        return {"params": params, "opt": opt, "ema": ema, "step": state["step"] + 1}, metrics

    def evaluate(params: Any, batch: Batch) -> dict[str, jax.Array]:
        with layout.tracing(update=False):
            return evaluation(params, batch, draws=bound_draws)

    return compiled_steps(layout, shardings, train=train, evaluate=evaluate, guard=guard, most=most)
