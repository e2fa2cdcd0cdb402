"""Whole images denoised together: DiT, respaced, with noise or without.

B images, R rows (B, or 2 B with the null class), P cells of the grid, C numbers of a cell.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from lab.models.gaussian import GaussianProcess, Predicted
from lab.models.image_keys import each_folded
from lab.models.joint import JointOrder
from lab.models.logits import guided
from lab.sampling.conditions import as_rows, split_rows, with_null
from lab.sampling.settings import Method, Settings

if TYPE_CHECKING:
    from lab.models.generator import Generator

START, STEP, KEPT = 0, 1, 2  # folded into a key: x_T, the noise of a step, that of what is kept


def draw(
    model: "Generator",
    label_B: jax.Array,
    key_B: jax.Array,
    tokens_BTS: jax.Array | None = None,
    hidden_BT: jax.Array | None = None,
    *,
    settings: Settings,
) -> jax.Array:
    """Tokens (B, P, C): those of a cell together, which flattened are in the order of (B, T, S).

    `drawing.steps` of the process that it was trained with, evenly respaced; guidance is of the
    predicted noise of all channels (DiT's released sampler: of the first three), the variance that
    of the class. Where `hidden_BT` is given and false, the tokens stay: after each step they are
    put back with noise of that time. This replacement (Song et al. 2021, appendix I.2) is
    approximate: what is drawn is not quite the model's conditional. Runs under jit.
    """
    order = model.order
    assert isinstance(order, JointOrder)  # no other diffuses whole images
    process = order.process.respaced(settings.drawing.steps)
    label_R = with_null(model, label_B, settings.guidance)
    shape = (order.cells, order.channels)
    keep = _keeper(order, process, key_B, tokens_BTS, hidden_BT)

    def predict(x_BPC: jax.Array, t: jax.Array, done: jax.Array) -> Predicted:
        time_R = jnp.full(len(label_R), process.network_time(t))
        found = order.predicted(model, as_rows(x_BPC, len(label_R)), time_R, label_R)
        noise_BPC, null_BPC = split_rows(found.noise, len(label_B))
        scale = settings.guidance.at(done, process.length)
        return Predicted(guided(noise_BPC, null_BPC, scale), found.blend[: len(label_B)])

    def step(x_BPC: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        done = process.length - t
        predicted = predict(x_BPC, t, done)
        if settings.method is Method.DDPM:
            noise_BPC = _normal(each_folded(each_folded(key_B, STEP), t), shape)
            noise_BPC = settings.drawing.temperature * noise_BPC
            return keep(process.ancestral(x_BPC, predicted, t, noise_BPC), t - 1), None
        ahead_BPC = process.ddim(x_BPC, predicted.noise, t)
        if settings.method is Method.HEUN:
            there = predict(ahead_BPC, jnp.maximum(t - 1, 1), done)
            ahead_BPC = process.heun(x_BPC, predicted.noise, ahead_BPC, there.noise, t)
        return keep(ahead_BPC, t - 1), None

    first_BPC = keep(_normal(each_folded(key_B, START), shape), process.length)
    x_BPC, _ = jax.lax.scan(step, first_BPC, jnp.arange(process.length, 0, -1))
    return order.tokens(x_BPC, numbers=order.channels)


def _keeper(
    order: JointOrder,
    process: GaussianProcess,
    key_B: jax.Array,
    tokens_BTS: jax.Array | None,
    hidden_BT: jax.Array | None,
) -> Callable[[jax.Array, jax.Array | int], jax.Array]:
    """A function that puts back what is kept, as it is at time t."""
    if tokens_BTS is None or hidden_BT is None:
        return lambda x_BPC, t: x_BPC
    known_BPC = order.numbers(tokens_BTS)
    hidden_BTS = jnp.broadcast_to(hidden_BT[..., None], tokens_BTS.shape)
    hidden_BPC = hidden_BTS.reshape(known_BPC.shape)

    def keep(x_BPC: jax.Array, t: jax.Array | int) -> jax.Array:
        noise_BPC = _normal(each_folded(each_folded(key_B, KEPT), t), known_BPC.shape[1:])
        return jnp.where(hidden_BPC, x_BPC, process.noised(known_BPC, jnp.asarray(t), noise_BPC))

    return keep


def _normal(key_B: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.vmap(lambda key: jax.random.normal(key, shape))(key_B)
