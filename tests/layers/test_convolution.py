"""Convolutional layers against float64 NumPy loops, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.layers.convolution import (
    Conv,
    Downsample,
    GroupNorm,
    ResidualBlock,
    SpatialAttention,
    Upsample,
    nearest_double,
)
from lab.layers.parameters import Role, axes_of, is_parameter
from tests.layers import image_reference as reference

KEY = jax.random.key(0)
GROUPS = 4


def image(channels, *, side=6, seed=1):
    return np.random.default_rng(seed).normal(size=(2, side, side - 2, channels)).astype("float32")


def applied(layer, x):
    return jax.jit(lambda layer, x: layer(x))(layer, x)


LAYERS = {
    "conv": (
        lambda: Conv(KEY, inputs=8, outputs=5),
        reference.conv,
    ),
    "pointwise": (
        lambda: Conv(KEY, inputs=8, outputs=5, side=1),
        reference.conv,
    ),
    "strided": (
        lambda: Conv(KEY, inputs=8, outputs=5, side=4, stride=2, padding=((1, 2), (0, 1))),
        lambda x, layer: reference.conv(x, layer, stride=2, padding=((1, 2), (0, 1))),
    ),
    "norm": (
        lambda: GroupNorm(8, groups=GROUPS),
        lambda x, layer: reference.group_norm(x, layer, groups=GROUPS),
    ),
    "norm of each channel": (
        lambda: GroupNorm(8, groups=32),
        lambda x, layer: reference.group_norm(x, layer, groups=8),
    ),
    "residual": (
        lambda: ResidualBlock(KEY, inputs=8, outputs=8, groups=GROUPS),
        lambda x, layer: reference.residual(x, layer, groups=GROUPS),
    ),
    "residual with shortcut": (
        lambda: ResidualBlock(KEY, inputs=8, outputs=12, groups=GROUPS),
        lambda x, layer: reference.residual(x, layer, groups=GROUPS),
    ),
    "attention": (
        lambda: SpatialAttention(KEY, channels=8, groups=GROUPS),
        lambda x, layer: reference.attention(x, layer, groups=GROUPS),
    ),
    "down": (lambda: Downsample(KEY, channels=8), reference.down),
    "up": (lambda: Upsample(KEY, channels=8), reference.up),
}


@pytest.mark.parametrize("name", LAYERS)
def test_against_loops(name):
    make, of = LAYERS[name]
    layer, x = reference.filled(make), image(8)
    np.testing.assert_allclose(applied(layer, x), of(reference.f64(x), layer), atol=5e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_gradient_against_differences_of_the_loops(name):
    """Along a direction of the input, and along one of the parameters."""
    make, of = LAYERS[name]
    layer, x = reference.filled(make), image(8, side=6)
    cotangent = image(of(reference.f64(x), layer).size, side=3, seed=2)[0, 0, 0]
    assert cotangent.size
    step = reference.filled(make, seed=3)
    step_x = reference.f64(image(8, side=6, seed=4))

    def scalar(layer, x):
        return jnp.vdot(layer(x).reshape(-1), cotangent)

    grads = jax.jit(jax.grad(scalar, argnums=(0, 1)))(layer, jnp.asarray(x))

    class Moved:
        """The parameters as float64, moved by h along the step: what the loops read."""

        def __init__(self, layer, step, h):
            self.parts = (layer, step, h)

        def __getattr__(self, name):
            layer, step, h = self.parts
            mine, other = getattr(layer, name), getattr(step, name)
            if mine is None:
                return None
            if is_parameter(mine):
                return reference.f64(mine[...]) + h * reference.f64(other[...])
            return Moved(mine, other, h)

    def loops(h, h_x):
        y = of(reference.f64(x) + h_x * step_x, Moved(layer, step, h))
        return y.reshape(-1) @ reference.f64(cotangent)

    h = 1e-5
    by_parameters = (loops(h, 0) - loops(-h, 0)) / (2 * h)
    by_input = (loops(0, h) - loops(0, -h)) / (2 * h)
    pairs = zip(jax.tree.leaves(grads[0]), jax.tree.leaves(step), strict=True)
    along = sum(np.vdot(reference.f64(g), reference.f64(s)) for g, s in pairs)
    size = sum(np.sum(reference.f64(g) ** 2) for g in jax.tree.leaves(grads[0])) ** 0.5
    np.testing.assert_allclose(along, by_parameters, rtol=2e-4, atol=1e-4 * size)
    np.testing.assert_allclose(
        np.vdot(reference.f64(grads[1]), step_x), by_input, rtol=2e-4, atol=1e-3
    )


def test_the_shapes_of_resampling():
    x = jnp.zeros((1, 6, 10, 8))
    assert jax.eval_shape(lambda x: Downsample(KEY, channels=8)(x), x).shape == (1, 3, 5, 8)
    assert jax.eval_shape(lambda x: Upsample(KEY, channels=8)(x), x).shape == (1, 12, 20, 8)


def test_downsampling_pads_at_the_far_ends_only():
    """The first output sees the first pixel by the first tap, the last sees zeros by its last."""
    layer = Downsample(KEY, channels=1)
    layer.conv.weight[...] = jnp.arange(9.0).reshape(3, 3, 1, 1)
    layer.conv.bias[...] = jnp.zeros(1)
    seen = layer(jnp.ones((1, 4, 4, 1)))[0, :, :, 0]
    np.testing.assert_array_equal(seen, [[36, 36 - (2 + 5 + 8)], [36 - 21, 0 + 1 + 3 + 4]])


def test_nearest_double():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    want = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    np.testing.assert_array_equal(nearest_double(x)[0, :, :, 0], want)


def test_a_convolution_starts_uniform_within_the_root_of_its_fan_in():
    layer = Conv(KEY, inputs=32, outputs=64)
    bound = (9 * 32) ** -0.5
    for value in (layer.weight[...], layer.bias[...]):
        assert float(jnp.max(jnp.abs(value))) <= bound
        assert float(jnp.max(jnp.abs(value))) > 0.9 * bound
    # The variance of a uniform variable, within 5 standard errors (kurtosis 9/5: 0.8 / n).
    weight = layer.weight[...]
    error = 5 * np.sqrt(0.8 / weight.size)
    assert abs(float(jnp.var(weight)) / (bound**2 / 3) - 1) < error


def test_a_norm_starts_as_the_identity_after_normalising():
    norm = GroupNorm(8, groups=GROUPS)
    assert bool((norm.scale[...] == 1).all()) and bool((norm.bias[...] == 0).all())


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(LabError, match="12 channels do not divide into 8 groups"):
        GroupNorm(12, groups=8)


def test_statistics_are_float32_of_bfloat16_images():
    """Around 1000 bfloat16 steps by 4 to 8: only float32 arithmetic finds the mean and variance."""
    x = (1000 + 30 * jax.random.normal(KEY, (1, 64, 64, 8))).astype(jnp.bfloat16)
    norm = GroupNorm(8, groups=2)
    found = norm(x)
    assert found.dtype == jnp.bfloat16
    want = reference.group_norm(reference.f64(x.astype(jnp.float32)), norm, groups=2)
    np.testing.assert_allclose(found.astype(jnp.float32), want, atol=2e-2)


@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_stays_bfloat16(name):
    x = image(8)
    layer = reference.filled(LAYERS[name][0], std=0.1)
    found = applied(layer, x.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), applied(layer, x), atol=0.1)


def test_every_parameter_has_axes_and_a_role():
    make = LAYERS["residual with shortcut"][0]
    block = jax.eval_shape(make)
    leaves = jax.tree.leaves(block, is_leaf=is_parameter)
    assert len(leaves) == 10
    for leaf in leaves:
        axes = axes_of(leaf)
        assert axes is not None and len(axes) == leaf.ndim
        kernel = axes == ("kernel_rows", "kernel_columns", "channels_in", "channels_out")
        assert kernel or axes == ("channels_out",)
        assert leaf.get_metadata("role") is (Role.HIDDEN if kernel else Role.SCALE)
