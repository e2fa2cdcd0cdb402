"""A patch discriminator (Isola et al. 2017, "pix2pix", 6.1.2; as used by Esser et al. 2021).

B batch, H rows, W columns, C channels.
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.errors import LabError
from lab.core.scopes import CONVOLUTION, DISCRIMINATOR, NORM
from lab.layers.branched_convolution import convolve
from lab.layers.parameters import KERNEL_AXES, Role, channel_vector

SIDE = 4  # of every kernel
STD = 0.02  # of every initial weight
LEAK = 0.2
EPSILON = 1e-5  # of the batch normalisation


class PatchConv(nnx.Module):
    """A convolution 4 x 4 with one row and column of zeros on every side."""

    def __init__(self, key: jax.Array, *, inputs: int, outputs: int, stride: int, biased: bool):
        weight = STD * jax.random.normal(key, (SIDE, SIDE, inputs, outputs))
        self.weight = nnx.Param(weight, axes=KERNEL_AXES, role=Role.HIDDEN)
        self.bias = channel_vector(jnp.zeros((outputs,))) if biased else None
        self.stride = stride

    @jax.named_scope(CONVOLUTION)
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        kernel = self.weight[...].astype(x_BHWC.dtype)
        y_BHWC = convolve(x_BHWC, kernel, self.stride, ((1, 1), (1, 1)))
        if self.bias is None:
            return y_BHWC
        return y_BHWC + self.bias[...].astype(x_BHWC.dtype).reshape(1, 1, 1, -1)


class BatchNorm(nnx.Module):
    """Normalisation of each channel by the mean and biased variance of the batch at hand.

    A discriminator is never used outside training, so there are no running statistics. Under jit
    with a sharded batch the statistics are those of the global batch, on any layout.
    """

    def __init__(self, key: jax.Array, *, channels: int):
        self.scale = channel_vector(1 + STD * jax.random.normal(key, (channels,)))
        self.bias = channel_vector(jnp.zeros((channels,)))

    @jax.named_scope(NORM)
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        x_f32 = x_BHWC.astype(jnp.float32)
        centred = x_f32 - jnp.mean(x_f32, axis=(0, 1, 2), keepdims=True)
        variance = jnp.mean(centred * centred, axis=(0, 1, 2), keepdims=True)
        scale, bias = (v[...].reshape(1, 1, 1, -1) for v in (self.scale, self.bias))
        return (centred * jax.lax.rsqrt(variance + EPSILON) * scale + bias).astype(x_BHWC.dtype)


class Stage(nnx.Module):
    """Convolution without bias, batch normalisation, leaky ReLU."""

    def __init__(self, key: jax.Array, *, inputs: int, outputs: int, stride: int):
        conv_key, norm_key = jax.random.split(key)
        self.conv = PatchConv(conv_key, inputs=inputs, outputs=outputs, stride=stride, biased=False)
        self.norm = BatchNorm(norm_key, channels=outputs)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        return jax.nn.leaky_relu(self.norm(self.conv(x_BHWC)), LEAK)


class Discriminator(nnx.Module):
    """Logits of patches of images: high where they look real.

    `layers` convolutions of stride 2, then two of stride 1; 3 layers see patches of 70 x 70.
    Weights start at N(0, 0.02), normalisation scales at N(1, 0.02), biases at 0. Real and
    reconstructed images go through it in calls of their own, as published: one call normalises
    all that it is given together.
    """

    def __init__(
        self, key: jax.Array, *, width: int = 64, layers: int = 3, image_channels: int = 3
    ):
        if layers < 1:
            raise LabError(f"a discriminator of {layers} layers: at least 1")
        widths = stage_widths(width=width, layers=layers)
        first_key, last_key, *keys = jax.random.split(key, 2 + layers)
        self.first = PatchConv(
            first_key, inputs=image_channels, outputs=width, stride=2, biased=True
        )
        strides = [2] * (layers - 1) + [1]
        pairs = itertools.pairwise(widths)
        self.stages = nnx.List(
            Stage(k, inputs=inputs, outputs=outputs, stride=stride)
            for k, (inputs, outputs), stride in zip(keys, pairs, strides, strict=True)
        )
        self.last = PatchConv(last_key, inputs=widths[-1], outputs=1, stride=1, biased=True)

    @jax.named_scope(DISCRIMINATOR)
    def __call__(self, images_BHWC: jax.Array) -> jax.Array:
        """Logits (B, h, w) of images in [-1, 1]; raises LabError where no patch is left."""
        _check_size(images_BHWC.shape[1:3], layers=len(self.stages))
        x_BHWC = jax.nn.leaky_relu(self.first(images_BHWC), LEAK)
        for stage in self.stages:
            x_BHWC = stage(x_BHWC)
        return self.last(x_BHWC)[..., 0]


def stage_widths(*, width: int, layers: int) -> list[int]:
    """Channels after the first convolution and after each stage: doubled up to 8 times."""
    return [width * min(2**n, 8) for n in range(layers + 1)]


def patches(side: int, *, layers: int) -> int:
    """Logits along a side of an image."""
    for _ in range(layers):
        side //= 2
    return side - 2


def discriminator_parameters(*, width: int, layers: int, image_channels: int) -> int:
    """Parameters, by arithmetic."""
    widths, area = stage_widths(width=width, layers=layers), SIDE**2
    stages = sum(area * i * o + 2 * o for i, o in itertools.pairwise(widths))
    return area * image_channels * width + width + stages + area * widths[-1] + 1


def _check_size(size: tuple[int, ...], *, layers: int) -> None:
    if min(patches(side, layers=layers) for side in size) < 1:
        least = 3 * 2**layers
        raise LabError(
            f"images of {size[0]} x {size[1]} leave no patch to a discriminator "
            f"of {layers} layers: both sides must be {least} or more"
        )
