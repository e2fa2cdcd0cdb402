"""A tokenizer's compiled steps: autoencoder and discriminator, one update each; one evaluation.

The reconstruction enters the autoencoder's gradient through its cotangent: the losses on images
are differentiated with respect to the reconstruction first, which gives the adaptive weight of
the adversarial one (Esser et al. 2021, equation 7) without a second pass through the decoder.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lab.core.config import OptimizerConfig
from lab.core.layout import Layout
from lab.core.scopes import BOTTLENECK, LOSS, OPTIMIZER
from lab.metrics.reconstruction import psnr_db, squared_error, ssim
from lab.tokenizers.adversarial import (
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
    last_layer_gradients,
)
from lab.tokenizers.bottleneck import Bottled
from lab.tokenizers.levels import in_unit_range, to_levels
from lab.tokenizers.reconstruction_loss import l1_per_image, l2_per_image
from lab.train.guard import Guard
from lab.train.optimizer import Numbers, apply_update, ema_update
from lab.train.programs import Steps, compiled_steps
from lab.train.state import State

Distance = Callable[[jax.Array, jax.Array], jax.Array]  # images, reconstructions -> (B,)
MOST_PSNR_DB = 100.0  # a perfect reconstruction counts so much in a mean, not infinity
Batch = dict[str, jax.Array]  # images (B, R, R, C) uint8
PIXEL_LOSSES: dict[str, Distance] = {"l1": l1_per_image, "l2": l2_per_image}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """What an autoencoder minimises on images; the terms of its code come from the code."""

    loss_key: str
    pixel: str  # "l1" or "l2"
    perceptual_weight: float
    adversarial_weight: float
    adversarial_start: int  # steps
    adaptive: bool
    adaptive_most: float
    restart_below: float  # of the share of a code that all use alike; 0: no code starts anew


@jax.named_scope(LOSS)
def _on_images(
    objective: Objective,
    images: jax.Array,
    reconstructions: jax.Array,
    perceptual: Distance | None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Pixel and perceptual loss, and their parts by name."""
    pixel = jnp.mean(PIXEL_LOSSES[objective.pixel](images, reconstructions))
    terms = {objective.loss_key: pixel}
    if perceptual is None:
        return pixel, terms
    terms["perceptual"] = jnp.mean(perceptual(images, reconstructions))
    return pixel + objective.perceptual_weight * terms["perceptual"], terms


def _adversarial(
    objective: Objective, critic: Any, reconstructions: jax.Array, features: jax.Array, kernel
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """The loss against the critic, its weight and its weighted cotangent."""

    def of(cotangent: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        loss, against = jax.value_and_grad(lambda x: hinge_generator(critic(x)))(reconstructions)
        weight = jnp.float32(objective.adversarial_weight)
        if objective.adaptive:
            pair = last_layer_gradients(features, (cotangent, against), kernel=kernel)
            weight = weight * adaptive_weight(*pair, most=objective.adaptive_most)
        return loss, weight, weight * against

    return of


def autoencoder_gradients(
    objective: Objective,
    params: Any,
    critic: Any,
    images: jax.Array,
    *,
    key: jax.Array,
    adversarial: jax.Array,
    perceptual: Distance | None,
) -> tuple[Any, dict[str, jax.Array], jax.Array, Bottled]:
    """Gradients of the whole objective, its terms by name, the reconstructions and the codes.

    `adversarial` says whether the critic has its say yet.
    """

    def surrogate(params: Any):
        reconstructions, bottled, features = params.reconstruct(images, key)
        fixed = jax.lax.stop_gradient(reconstructions)
        (_, terms), cotangent = jax.value_and_grad(
            lambda x: _on_images(objective, images, x, perceptual), has_aux=True
        )(fixed)
        if critic is not None:
            kernel = params.decoder.out.weight.shape[:2]
            fixed_features = jax.lax.stop_gradient(features)
            of = _adversarial(objective, critic, fixed, fixed_features, kernel)
            nothing = (jnp.float32(0), jnp.float32(0), jnp.zeros_like(cotangent))
            loss, weight, against = jax.lax.cond(adversarial, of, lambda _: nothing, cotangent)
            terms = {**terms, "adversarial": loss, "adversarial_weight": weight}
            cotangent = cotangent + against
        terms = {**terms, **bottled.losses}
        with jax.named_scope(LOSS):
            through_images = jnp.vdot(jax.lax.stop_gradient(cotangent), reconstructions)
            whole = through_images + sum(bottled.losses.values())
        return whole, (terms, fixed, bottled)

    grads, (terms, reconstructions, bottled) = jax.grad(surrogate, has_aux=True)(params)
    return grads, terms, reconstructions, bottled


def _updated(
    params: Any, opt: Any, grads: Any, numbers: Numbers, learner: "Learner"
) -> tuple[Any, Any]:
    updates, opt = learner.transform.update(grads, opt, params)
    return apply_update(params, updates, numbers, optimizer=learner.optimizer, width=1), opt


@dataclasses.dataclass(frozen=True)
class Learner:
    """How both networks learn: at the same rate, by states of their own."""

    optimizer: OptimizerConfig
    transform: optax.GradientTransformation


def critic_update(
    critic: dict[str, Any], images: jax.Array, others: jax.Array, numbers: Numbers, learner: Learner
) -> tuple[dict[str, Any], jax.Array]:
    """One update of the discriminator on images and their reconstructions, and its hinge loss."""

    def loss_of(params: Any) -> jax.Array:
        return hinge_discriminator(params(images), params(others))

    loss, grads = jax.value_and_grad(loss_of)(critic["params"])
    params, opt = _updated(critic["params"], critic["opt"], grads, numbers, learner)
    return {"params": params, "opt": opt}, loss


@jax.named_scope(BOTTLENECK)
def restarted_codes(
    code: Any, usage: jax.Array, bottled: Bottled, key: jax.Array, *, below: float
) -> tuple[jax.Array, jax.Array]:
    """The codes' shares after this batch, and how many dead codes began anew (in place)."""
    usage = code.running_usage(usage, bottled.codes)
    restarted = code.restart_dead(usage, bottled.projected, key, below=below)
    code.codebook[...] = restarted.codebook
    return restarted.usage, restarted.count


def train_step(
    state: State,
    batch: Batch,
    key: jax.Array,
    numbers: Numbers,
    perceptual: Distance | None,
    *,
    objective: Objective,
    learner: Learner,
) -> tuple[State, dict[str, jax.Array]]:
    """One update of all that learns, and the terms of its losses."""
    code_key, restart_key = jax.random.split(key)
    images, critic, usage = in_unit_range(batch["images"]), state["critic"], state["usage"]
    adversarial = state["step"] >= objective.adversarial_start
    grads, terms, reconstructions, bottled = autoencoder_gradients(
        objective,
        state["params"],
        critic and critic["params"],
        images,
        key=code_key,
        adversarial=adversarial,
        perceptual=perceptual,
    )
    if critic is not None:
        critic, terms["discriminator"] = jax.lax.cond(
            adversarial,
            lambda c: critic_update(c, images, reconstructions, numbers, learner),
            lambda c: (c, jnp.float32(0)),
            critic,
        )
    params, opt = _updated(state["params"], state["opt"], grads, numbers, learner)
    if usage is not None:
        usage, terms["restarted"] = restarted_codes(
            params.bottleneck, usage, bottled, restart_key, below=objective.restart_below
        )
    ema = state["ema"]
    if ema is not None:
        ema = ema_update(ema, params, decay=learner.optimizer.ema_decay, step=state["step"])
    after = {"params": params, "opt": opt, "ema": ema, "step": state["step"] + 1}
    with jax.named_scope(OPTIMIZER):
        metrics = {**terms, "grad_norm": optax.tree.norm(grads)}
    return {**after, "critic": critic, "usage": usage}, metrics


def evaluation_step(params: Any, batch: Batch, *, objective: Objective) -> dict[str, jax.Array]:
    """Numbers of each image, its codes and its reconstruction, without noise in the code."""
    images = in_unit_range(batch["images"])
    reconstructions, bottled, _ = params.reconstruct(images, None)
    levels, seen = batch["images"].astype(jnp.float32), to_levels(reconstructions)
    return {
        objective.loss_key: PIXEL_LOSSES[objective.pixel](images, reconstructions),
        "squared_error_levels": squared_error(levels, seen),
        "psnr_db": jnp.minimum(psnr_db(levels, seen), MOST_PSNR_DB),
        "ssim": ssim(levels, seen),
        "codes": bottled.codes,
        "reconstructions": seen.astype(jnp.uint8),
        **bottled.measures,
    }


def make_tokenizer_steps(
    layout: Layout,
    shardings: Any,
    *,
    objective: Objective,
    learner: Learner,
    perceptual: Distance | None,
    guard: Guard | None,
    most: int,
) -> Steps:
    """Compile-on-first-use steps under a layout; `most` updates in a dispatch."""

    def train(*given: Any) -> tuple[State, dict[str, jax.Array]]:
        with layout.tracing():
            return train_step(*given, objective=objective, learner=learner)

    def evaluate(params: Any, batch: Batch) -> dict[str, jax.Array]:
        with layout.tracing(update=False):
            return evaluation_step(params, batch, objective=objective)

    return compiled_steps(
        layout,
        shardings,
        train=train,
        evaluate=evaluate,
        guard=guard,
        most=most,
        frozen=(perceptual,),
    )
