"""Convolutional layers of image networks (Esser et al. 2021, "VQGAN", appendix A).

B batch, H rows, W columns, C channels, G groups, P positions (H x W). All keep the dtype of x.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.errors import LabError
from lab.core.scopes import ATTENTION, CONVOLUTION, LAYERS, NORM
from lab.layers.branched_convolution import Padding, convolve
from lab.layers.parameters import channel_vector, kernel_and_bias

EPSILON = 1e-6  # of the group normalisation


class Conv(nnx.Module):
    """A square convolution with a bias; an odd side keeps the size unless `padding` says else."""

    def __init__(
        self,
        key: jax.Array,
        *,
        inputs: int,
        outputs: int,
        side: int = 3,
        stride: int = 1,
        padding: Padding | None = None,
        precision: jax.lax.Precision | None = None,
    ):
        self.weight, self.bias = kernel_and_bias(key, side, inputs=inputs, outputs=outputs)
        self.stride = stride
        around = (side // 2, side // 2)
        self.padding = (around, around) if padding is None else padding
        self.precision = precision

    @jax.named_scope(CONVOLUTION)
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        kernel = self.weight[...].astype(x_BHWC.dtype)
        y_BHWC = convolve(x_BHWC, kernel, self.stride, self.padding, self.precision)
        return y_BHWC + _channels(self.bias).astype(x_BHWC.dtype)


class GroupNorm(nnx.Module):
    """(x - mean) / std of each image and group of channels, times a scale, plus a shift.

    Statistics are float32 (Wu & He 2018). There are `groups` groups, or one a channel where there
    are fewer channels; raises LabError where they do not divide the channels.
    """

    def __init__(self, channels: int, *, groups: int):
        self.groups = groups_of(channels, groups=groups)
        self.scale = channel_vector(jnp.ones((channels,)))
        self.bias = channel_vector(jnp.zeros((channels,)))

    @jax.named_scope(NORM)
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        x_f32 = x_BHWC.astype(jnp.float32)
        centred = x_f32 - self._mean(x_f32)
        variance = self._mean(centred * centred)
        gain = jax.lax.rsqrt(variance + EPSILON) * _channels(self.scale)
        return (centred * gain + _channels(self.bias)).astype(x_BHWC.dtype)

    def _mean(self, x_BHWC: jax.Array) -> jax.Array:
        """(B, 1, 1, C): over positions first, which keeps the channels together in memory."""
        by_channel_BC = jnp.mean(x_BHWC, axis=(1, 2))
        batch, channels = by_channel_BC.shape
        by_group_BG = by_channel_BC.reshape(batch, self.groups, -1).mean(axis=-1)
        each_BC = jnp.repeat(by_group_BG, channels // self.groups, axis=1)
        return each_BC[:, None, None, :]


def groups_of(channels: int, *, groups: int) -> int:
    """How many groups a normalisation of these channels has."""
    found = min(groups, channels)
    if channels % found:
        raise LabError(f"{channels} channels do not divide into {found} groups of normalisation")
    return found


class ResidualBlock(nnx.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))); x goes through 1 x 1 where channels change."""

    def __init__(self, key: jax.Array, *, inputs: int, outputs: int, groups: int):
        first_key, second_key, shortcut_key = jax.random.split(key, 3)
        self.first_norm = GroupNorm(inputs, groups=groups)
        self.first = Conv(first_key, inputs=inputs, outputs=outputs)
        self.second_norm = GroupNorm(outputs, groups=groups)
        self.second = Conv(second_key, inputs=outputs, outputs=outputs)
        same = inputs == outputs
        self.shortcut = None if same else Conv(shortcut_key, inputs=inputs, outputs=outputs, side=1)

    @jax.named_scope(LAYERS)
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        h_BHWC = self.first(jax.nn.swish(self.first_norm(x_BHWC)))
        h_BHWC = self.second(jax.nn.swish(self.second_norm(h_BHWC)))
        return h_BHWC + (x_BHWC if self.shortcut is None else self.shortcut(x_BHWC))


class SpatialAttention(nnx.Module):
    """x + out(attention(norm(x))): one head over all positions, scale C^-1/2, float32 softmax."""

    def __init__(self, key: jax.Array, *, channels: int, groups: int):
        self.norm = GroupNorm(channels, groups=groups)
        self.query, self.key, self.value, self.out = (
            Conv(k, inputs=channels, outputs=channels, side=1) for k in jax.random.split(key, 4)
        )

    @jax.named_scope(ATTENTION)
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        batch, rows, columns, channels = x_BHWC.shape
        normed_BHWC = self.norm(x_BHWC)
        q_BPC, k_BPC, v_BPC = (
            project(normed_BHWC).reshape(batch, rows * columns, channels)
            for project in (self.query, self.key, self.value)
        )
        logits_BPQ = jnp.einsum("bpc,bqc->bpq", q_BPC, k_BPC, preferred_element_type=jnp.float32)
        weights_BPQ = jax.nn.softmax(logits_BPQ * channels**-0.5, axis=-1).astype(x_BHWC.dtype)
        mixed_BPC = jnp.einsum("bpq,bqc->bpc", weights_BPQ, v_BPC)
        return x_BHWC + self.out(mixed_BPC.reshape(x_BHWC.shape))


class Downsample(nnx.Module):
    """Half the side: 3 x 3 at stride 2, with a row and a column of zeros at the far ends only."""

    def __init__(self, key: jax.Array, *, channels: int):
        far = ((0, 1), (0, 1))
        self.conv = Conv(key, inputs=channels, outputs=channels, stride=2, padding=far)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        return self.conv(x_BHWC)


class Upsample(nnx.Module):
    """Twice the side: every position four times, then 3 x 3."""

    def __init__(self, key: jax.Array, *, channels: int):
        self.conv = Conv(key, inputs=channels, outputs=channels)

    @jax.named_scope(LAYERS)
    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        return self.conv(nearest_double(x_BHWC))


def nearest_double(x_BHWC: jax.Array) -> jax.Array:
    """(B, 2 H, 2 W, C): every position four times."""
    batch, rows, columns, channels = x_BHWC.shape
    parts = x_BHWC[:, :, None, :, None, :]
    repeated = jnp.broadcast_to(parts, (batch, rows, 2, columns, 2, channels))
    return repeated.reshape(batch, 2 * rows, 2 * columns, channels)


def _channels(vector: nnx.Param) -> jax.Array:
    return vector[...].reshape(1, 1, 1, -1)
