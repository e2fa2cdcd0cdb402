"""The adversarial losses of an autoencoder and their weight (Esser et al. 2021, "VQGAN", eq. 7).

B batch, H rows, W columns, C channels of the features, O of the image.
"""

import jax
import jax.numpy as jnp

from lab.core.scopes import CONVOLUTION, LOSS
from lab.layers.branched_convolution import kernel_gradient

EPSILON = 1e-4  # added to the adversarial norm, as published


@jax.named_scope(LOSS)
def hinge_discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """Half the sum of the mean hinges: real logits above 1, those of reconstructions below -1."""
    real = jnp.mean(jax.nn.relu(1 - real_logits.astype(jnp.float32)))
    fake = jnp.mean(jax.nn.relu(1 + fake_logits.astype(jnp.float32)))
    return 0.5 * (real + fake)


@jax.named_scope(LOSS)
def hinge_generator(fake_logits: jax.Array) -> jax.Array:
    """Minus the mean logit of reconstructions."""
    return -jnp.mean(fake_logits.astype(jnp.float32))


@jax.named_scope(LOSS)
def adaptive_weight(
    grad_reconstruction: jax.Array, grad_adversarial: jax.Array, *, most: float
) -> jax.Array:
    """The adversarial loss's weight: |g_rec| / (|g_adv| + 1e-4), at most `most` (published: 1e4).

    The gradients are those with respect to the weight of the decoder's last convolution. A
    constant to differentiation.
    """
    ratio = _norm(grad_reconstruction) / (_norm(grad_adversarial) + EPSILON)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0, most))


@jax.named_scope(CONVOLUTION)
def last_layer_gradients(
    features_BHWC: jax.Array,
    cotangents_BHWO: tuple[jax.Array, jax.Array],
    *,
    kernel: tuple[int, int],
) -> tuple[jax.Array, jax.Array]:
    """The gradients (kernel rows, kernel columns, C, O) of two losses for the last convolution.

    `features_BHWC` enter a convolution of stride 1 whose output has the size of its input;
    `cotangents_BHWO` are the losses' gradients with respect to its output. A convolution is
    linear in its weight, so neither the weight nor the network before it is needed, and both
    gradients come from one pass over the features.
    """
    stacked = jnp.concatenate(cotangents_BHWO, axis=-1).astype(features_BHWC.dtype)
    rows, columns = (((side - 1) // 2, side // 2) for side in kernel)
    gradient = kernel_gradient(
        features_BHWC, stacked, sides=kernel, stride=1, padding=(rows, columns)
    )
    first, second = jnp.split(gradient, 2, axis=-1)
    return first, second


def _norm(gradient: jax.Array) -> jax.Array:
    return jnp.linalg.norm(gradient.astype(jnp.float32).ravel())
