"""Convolutions of branches and loops against JAX's own gradients, and the form they compile to."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.layers.branched_convolution import CANONICAL, convolve, kernel_gradient
from lab.layers.convolution import Conv, Downsample, ResidualBlock, Upsample
from lab.tokenizers.adversarial import hinge_discriminator, last_layer_gradients
from lab.tokenizers.discriminator import Discriminator

SHAPES = {  # images, kernel, stride, padding
    "halving": ((2, 12, 16, 3), (4, 4, 3, 5), 2, ((1, 1), (1, 1))),
    "halving an odd side": ((2, 13, 9, 3), (4, 4, 3, 5), 2, ((1, 1), (1, 1))),
    "same size but for one": ((2, 7, 8, 4), (4, 4, 4, 2), 1, ((1, 1), (1, 1))),
    "uneven padding": ((1, 6, 11, 2), (3, 2, 2, 3), 3, ((0, 2), (1, 0))),
    "no padding": ((3, 5, 5, 1), (3, 3, 1, 2), 1, ((0, 0), (0, 0))),
}


def plain(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=CANONICAL
    )


def inputs(shape):
    images, kernel, stride, padding = shape
    keys = jax.random.split(jax.random.key(0), 2)
    x, k = jax.random.normal(keys[0], images), jax.random.normal(keys[1], kernel)
    return x, k, stride, padding


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_those_of_jax(name):
    x, k, stride, padding = inputs(SHAPES[name])

    def loss(of):
        return lambda x, k: jnp.sum(jnp.sin(of(x, k, stride, padding)))

    got = jax.grad(loss(convolve), (0, 1))(x, k)
    want = jax.grad(loss(plain), (0, 1))(x, k)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_other_platforms_get_the_gradients_of_jax(name):
    """The lowered program of another platform has no transposed arrays, as JAX's has none."""
    x, k, stride, padding = inputs(SHAPES[name])

    def program(of):
        loss = jax.grad(lambda x, k: jnp.sum(of(x, k, stride, padding) ** 2), (0, 1))
        lowered = jax.jit(loss).trace(x, k).lower(lowering_platforms=("tpu",)).as_text()
        return sorted(re.findall(r"dim_numbers = .*?, window|stablehlo\.transpose", lowered))

    assert program(convolve) == program(plain)


def forms(function, *inputs):
    """The forms of all convolutions that the compiled program of a branch holds."""
    yes = jnp.array(True)
    branch = jax.jit(
        lambda yes, *inputs: jax.lax.cond(
            yes,
            function,
            lambda *given: jax.tree.map(
                lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, *given)
            ),
            *inputs,
        )
    )
    text = branch.lower(yes, *inputs).compile().as_text()
    assert text.count("conditional(") == 1
    return re.findall(r" convolution\(.*dim_labels=(\S+?),? ", text)


def test_a_discriminators_update_compiles_to_fast_convolutions_in_a_branch():
    """The labels that XLA's kernels for CPUs take; JAX's gradients have others (f01b, 01bf)."""
    critic = Discriminator(jax.random.key(0), width=4, layers=2)
    images = jnp.zeros((2, 32, 32, 3))

    def update(critic, images):
        return jax.grad(lambda c, x: hinge_discriminator(c(x), c(-x)), (0, 1))(critic, images)

    found = forms(update, critic, images)
    assert len(found) >= 12 and set(found) == {"b01f_01io->b01f"}


def test_several_updates_in_one_loop_compile_to_fast_convolutions():
    keys = jax.random.split(jax.random.key(0), 4)
    sizes = {"inputs": 4, "outputs": 8}
    network = [
        Conv(keys[0], inputs=3, outputs=4, precision=jax.lax.Precision.HIGHEST),
        Downsample(keys[1], channels=4),
        ResidualBlock(keys[2], **sizes, groups=2),
        Upsample(keys[3], channels=8),
    ]

    def loss(network, images):
        for layer in network:
            images = layer(images)
        return jnp.sum(images**2)

    def update(network):
        gradients = jax.grad(loss)(network, jnp.ones((2, 8, 8, 3)))
        return jax.tree.map(lambda p, g: p - g, network, gradients)

    loop = jax.jit(lambda n, network: jax.lax.fori_loop(0, n, lambda _, x: update(x), network))
    text = loop.lower(3, network).compile().as_text()
    assert text.count(" while(") == 1
    found = re.findall(r" convolution\(.*dim_labels=(\S+?),? ", text)
    assert len(found) >= 12 and set(found) == {"b01f_01io->b01f"}


def test_gradients_of_the_last_layer_compile_to_a_fast_convolution_in_a_branch():
    features, cotangent = jnp.zeros((2, 8, 8, 4)), jnp.zeros((2, 8, 8, 3))

    def both(features, cotangent):
        return last_layer_gradients(features, (cotangent, cotangent), kernel=(3, 3))

    assert set(forms(both, features, cotangent)) == {"b01f_01io->b01f"}


def test_the_gradient_of_a_kernel_alone():
    x, k, stride, padding = inputs(SHAPES["halving an odd side"])
    y, back = jax.vjp(lambda k: plain(x, k, stride, padding), k)
    g = jax.random.normal(jax.random.key(3), y.shape)
    got = kernel_gradient(x, g, sides=k.shape[:2], stride=stride, padding=padding)
    np.testing.assert_allclose(got, back(g)[0], rtol=2e-4, atol=2e-5)
