"""Adversarial losses: closed forms, and last-layer gradients against those through everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.tokenizers.adversarial import (
    adaptive_weight,
    hinge_discriminator,
    hinge_generator,
    last_layer_gradients,
)
from lab.tokenizers.discriminator import Discriminator
from lab.tokenizers.reconstruction_loss import l1_per_image, l2_per_image


def test_hinge_by_hand():
    real = jnp.array([[[2.0, 0.5], [-1.0, 1.0]]])  # hinges 0, 0.5, 2, 0
    fake = jnp.array([[[-2.0, 0.5], [-1.0, 3.0]]])  # hinges 0, 1.5, 0, 4
    np.testing.assert_allclose(hinge_discriminator(real, fake), 0.5 * (2.5 / 4 + 5.5 / 4))
    np.testing.assert_allclose(hinge_generator(fake), -0.5 / 4)


def test_hinge_gradients_pull_apart():
    zeros = jnp.zeros((1, 2, 2))
    real, fake = jax.grad(hinge_discriminator, argnums=(0, 1))(zeros, zeros)
    np.testing.assert_allclose(real, np.full((1, 2, 2), -0.5 / 4))
    np.testing.assert_allclose(fake, np.full((1, 2, 2), 0.5 / 4))
    np.testing.assert_allclose(jax.grad(hinge_generator)(zeros), np.full((1, 2, 2), -1 / 4))


def test_adaptive_weight_by_hand():
    g_rec, g_adv = jnp.full((1, 1, 4, 1), 3.0), jnp.full((1, 1, 4, 1), 0.5)  # norms 6 and 1
    np.testing.assert_allclose(adaptive_weight(g_rec, g_adv, most=1e4), 6 / 1.0001, rtol=1e-6)
    assert adaptive_weight(g_rec, g_adv, most=2.5) == 2.5
    nothing = jnp.zeros_like(g_adv)
    np.testing.assert_allclose(adaptive_weight(g_rec, nothing, most=1e9), 6e4, rtol=1e-6)
    assert adaptive_weight(g_rec, nothing, most=1e4) == 1e4
    assert adaptive_weight(nothing, g_adv, most=1e4) == 0


def test_adaptive_weight_is_a_constant():
    g = jnp.ones((1, 1, 2, 1))
    assert np.all(jax.grad(lambda x: adaptive_weight(x, 2 * g, most=10.0))(g) == 0)


@pytest.mark.parametrize("side", [1, 3])
def test_last_layer_gradients_are_those_through_everything(side):
    """A layer before, the last convolution with bias, then L1 and a discriminator."""
    keys = iter(jax.random.split(jax.random.key(0), 6))
    images = jax.random.uniform(next(keys), (2, 16, 16, 3), minval=-1)
    inner = jax.random.normal(next(keys), (3, 5))
    weight = 0.3 * jax.random.normal(next(keys), (side, side, 5, 3))
    bias = 0.1 * jax.random.normal(next(keys), (3,))
    judge = jax.jit(lambda key: Discriminator(key, width=4, layers=2))(next(keys))

    def out(features, weight):
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(
            features, weight, (1, 1), "SAME", dimension_numbers=dimensions
        )
        return y + bias

    def reconstruction(made):
        return l1_per_image(images, made).mean()

    def adversarial(made):
        return hinge_generator(judge(made))

    @jax.jit
    def found_and_wanted():
        features = jax.nn.silu(images @ inner)
        made = out(features, weight)
        cotangents = (jax.grad(reconstruction)(made), jax.grad(adversarial)(made))
        got = last_layer_gradients(features, cotangents, kernel=(side, side))
        through = [lambda w, loss=loss: loss(out(features, w)) for loss in losses]
        return got, [jax.grad(loss)(weight) for loss in through]

    losses = (reconstruction, adversarial)
    got, wanted = found_and_wanted()
    for gradient, want in zip(got, wanted, strict=True):
        assert gradient.shape == weight.shape
        np.testing.assert_allclose(gradient, want, rtol=1e-4, atol=1e-6 * np.abs(want).max())
    norms = [np.linalg.norm(g) for g in got]
    assert min(norms) > 1e-6 and abs(norms[0] - norms[1]) > 1e-6


def test_reconstruction_losses_by_hand():
    images = jnp.zeros((2, 1, 2, 2))
    made = jnp.array([[[[1.0, -1.0], [2.0, 0.0]]], [[[0.0, 0.0], [0.0, 4.0]]]])
    np.testing.assert_allclose(l1_per_image(images, made), [1.0, 1.0])
    np.testing.assert_allclose(l2_per_image(images, made), [1.5, 4.0])
    with pytest.raises(ValueError, match="reconstructions"):
        l1_per_image(images, made[:1])
