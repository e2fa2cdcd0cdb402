"""The patch discriminator against its published size and a float64 implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from lab.core.errors import LabError
from lab.layers.parameters import axes_of, is_parameter
from lab.tokenizers.discriminator import Discriminator, discriminator_parameters, patches


def f64(x):
    return np.asarray(x, np.float64)


@functools.partial(jax.jit, static_argnames=("width", "layers"))
def discriminator(seed, *, width, layers=3):
    return Discriminator(jax.random.key(seed), width=width, layers=layers)


@jax.jit
def judge(module, images):
    return module(images)


def parameters(module):
    return jax.tree.leaves(module, is_leaf=is_parameter)


def shapes(**sizes):
    return jax.eval_shape(lambda: Discriminator(jax.random.key(0), **sizes))


def test_published_size():
    """By hand, 3 layers of width 64: first, stages (64 -> 128 -> 256 -> 512) with norms, last."""
    first = 4 * 4 * 3 * 64 + 64
    stages = 4 * 4 * (64 * 128 + 128 * 256 + 256 * 512) + 2 * (128 + 256 + 512)
    last = 4 * 4 * 512 + 1
    assert first + stages + last == 2_765_633
    assert sum(p.size for p in parameters(shapes())) == 2_765_633
    # pix2pix shows it image and condition at once: 6 channels, "2.769 M" in its published logs
    assert sum(p.size for p in parameters(shapes(image_channels=6))) == 2_768_705


@pytest.mark.parametrize("width, layers, channels", [(8, 1, 1), (8, 2, 3), (4, 5, 3)])
def test_parameters_by_arithmetic(width, layers, channels):
    sizes = dict(width=width, layers=layers, image_channels=channels)
    assert sum(p.size for p in parameters(shapes(**sizes))) == discriminator_parameters(**sizes)


def test_every_parameter_has_its_axes():
    for parameter in parameters(shapes()):
        axes = axes_of(parameter)
        assert axes is not None and len(axes) == parameter.ndim
        assert axes[-1] == "channels_out"


def reference(module, images):
    """The whole network in float64 with scipy's correlation."""

    def conv(layer, x, stride):
        weight = f64(layer.weight[...])
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        out = np.stack(
            [
                [correlate(image, weight[..., o], mode="valid")[..., 0] for image in x]
                for o in range(weight.shape[-1])
            ],
            axis=-1,
        )[:, ::stride, ::stride]
        return out if layer.bias is None else out + f64(layer.bias[...])

    def leaky(x):
        return np.where(x > 0, x, 0.2 * x)

    x = leaky(conv(module.first, images, 2))
    for number, stage in enumerate(module.stages, start=1):
        x = conv(stage.conv, x, 2 if number < len(module.stages) else 1)
        x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
        x = leaky(x * f64(stage.norm.scale[...]) + f64(stage.norm.bias[...]))
    return conv(module.last, x, 1)[..., 0]


@pytest.mark.parametrize("layers, size", [(1, (9, 12)), (2, (20, 16)), (3, (32, 32))])
def test_against_float64(layers, size):
    module = discriminator(0, width=4, layers=layers)
    rng = np.random.default_rng(0)
    for leaf in parameters(module):  # biases that show
        leaf[...] = leaf[...] + np.float32(0.1 * rng.normal(size=leaf.shape))
    images = rng.uniform(-1, 1, (2, *size, 3))
    got = judge(module, jnp.asarray(images, jnp.float32))
    want = reference(module, images)
    assert got.shape == (2, *(patches(side, layers=layers) for side in size))
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


def test_initial_values():
    module = discriminator(3, width=32)
    deep = module.stages[-1]
    assert abs(float(deep.conv.weight[...].std()) - 0.02) < 0.0002
    assert abs(float(deep.norm.scale[...].mean()) - 1) < 0.005
    assert 0.015 < float(deep.norm.scale[...].std()) < 0.025
    biases = (module.first.bias, module.last.bias, deep.norm.bias)
    assert all(np.all(b[...] == 0) for b in biases)
    weights = [module.first.weight, *(s.conv.weight for s in module.stages), module.last.weight]
    corners = {float(w[...].ravel()[0]) for w in weights}
    assert len(corners) == len(weights), "two convolutions share a key"


def test_published_grid_of_patches():
    out = jax.eval_shape(lambda m, x: m(x), shapes(), jax.ShapeDtypeStruct((2, 256, 256, 3), "f4"))
    assert out.shape == (2, 30, 30)


def test_too_small_an_image():
    images = jnp.zeros((1, 16, 24, 3))
    with pytest.raises(LabError, match=r"16 x 24 .* 3 layers: both sides must be 24 or more"):
        judge(discriminator(0, width=2), images)
    edge = jnp.zeros((1, 24, 24, 3))
    assert judge(discriminator(0, width=2), edge).shape == (1, 1, 1)


def test_half_precision_stays_close():
    module = discriminator(0, width=8, layers=2)
    images = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3), minval=-1)
    half = judge(module, images.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(f64(half), f64(judge(module, images)), atol=0.05)


def test_statistics_are_those_of_the_global_batch():
    """On 8 devices with an image each, as on one."""
    module = discriminator(0, width=4, layers=2)
    images = jax.random.uniform(jax.random.key(1), (8, 16, 16, 3), minval=-1)
    images = images * jnp.arange(1, 9).reshape(8, 1, 1, 1) / 8  # no two batches alike
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    spread = judge(module, jax.device_put(images, rows))
    assert len(spread.devices()) == 8
    np.testing.assert_allclose(spread, judge(module, images), rtol=1e-4, atol=1e-5)
    alone = jnp.concatenate([judge(module, image[None]) for image in images])
    assert not np.allclose(alone, spread, atol=1e-3)
