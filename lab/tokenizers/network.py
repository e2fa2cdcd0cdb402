"""The convolutional encoder and decoder of image autoencoders.

The shape is that of VQGAN (Esser et al. 2021, table 7), which LlamaGen, binary autoencoders and
the KL autoencoders of latent diffusion share. plan.py lists the stages and counts them.

B batch, H rows, W columns, C channels.
"""

import jax
from flax import nnx

from lab.core.layout import constrain_batch
from lab.layers.convolution import (
    Conv,
    Downsample,
    GroupNorm,
    ResidualBlock,
    SpatialAttention,
    Upsample,
)
from lab.tokenizers.plan import Kind, NetworkSpec, Stage, decoder_plan, encoder_plan

Layer = Conv | ResidualBlock | SpatialAttention | Downsample | Upsample | GroupNorm


class SwishedNorm(nnx.Module):
    """swish(norm(x))."""

    def __init__(self, channels: int, *, groups: int):
        self.norm = GroupNorm(channels, groups=groups)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        return jax.nn.swish(self.norm(x_BHWC))


def _layer(key: jax.Array, stage: Stage, *, groups: int) -> Layer | SwishedNorm:
    inputs, outputs = stage.inputs, stage.outputs
    match stage.kind:
        case Kind.CONV:
            return Conv(key, inputs=inputs, outputs=outputs)
        case Kind.RESIDUAL:
            return ResidualBlock(key, inputs=inputs, outputs=outputs, groups=groups)
        case Kind.ATTENTION:
            return SpatialAttention(key, channels=inputs, groups=groups)
        case Kind.DOWN:
            return Downsample(key, channels=inputs)
        case Kind.UP:
            return Upsample(key, channels=inputs)
        case Kind.NORM:
            return GroupNorm(inputs, groups=groups)
        case Kind.NORM_SWISH:
            return SwishedNorm(inputs, groups=groups)


def _layers(key: jax.Array, stages: list[Stage], *, groups: int) -> nnx.List:
    keys = jax.random.split(key, len(stages))
    return nnx.List(_layer(k, s, groups=groups) for k, s in zip(keys, stages, strict=True))


class Encoder(nnx.Module):
    """Images (B, H, W, C) in [-1, 1] to (B, H / f, W / f, outputs)."""

    def __init__(self, key: jax.Array, spec: NetworkSpec, *, outputs: int):
        self.layers = _layers(key, encoder_plan(spec, outputs=outputs), groups=spec.groups)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        for layer in self.layers:
            x_BHWC = constrain_batch(layer(x_BHWC))
        return x_BHWC


class Decoder(nnx.Module):
    """Latents (B, H / f, W / f, Z) to images (B, H, W, C)."""

    def __init__(self, key: jax.Array, spec: NetworkSpec):
        *stages, last = decoder_plan(spec)
        layers_key, out_key = jax.random.split(key)
        self.layers = _layers(layers_key, stages, groups=spec.groups)
        self.out = Conv(out_key, inputs=last.inputs, outputs=last.outputs)

    def features(self, z_BHWC: jax.Array) -> jax.Array:
        """What enters the last convolution, `out`: (B, H, W, width of the finest level)."""
        for layer in self.layers:
            z_BHWC = constrain_batch(layer(z_BHWC))
        return z_BHWC

    def __call__(self, z_BHWC: jax.Array) -> jax.Array:
        return self.out(self.features(z_BHWC))
