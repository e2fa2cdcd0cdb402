"""Two small classifiers of images: what comes before their last matrix is a vector of features.

B batch, H rows, W columns, C channels, T positions, D width, F features, K classes.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.counts import attention_flops
from lab.core.layout import constrain_batch
from lab.layers.convolution import Conv, Downsample, GroupNorm, ResidualBlock
from lab.layers.linear import Affine
from lab.layers.norm import LayerNorm
from lab.layers.parameters import Init, channel_vector, head_matrix, input_matrix
from lab.layers.positions import sinusoids
from lab.layers.stack import run_stack, stacked
from lab.layers.vit import BiasedAttention, GeluMLP

EPSILON = 1e-6  # of the layer normalisation
INIT = Init(rule="mup", std=0.02)
LEAST_STEM = 3  # pixels a side
PEAK = 255.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierSpec:
    """The shape of a classifier; what a kind does not use is 0 or empty."""

    kind: str  # "conv" or "patch"
    width: int  # channels of the finest level; of "patch" features of a position
    depth: int  # residual blocks a level; of "patch" blocks
    patch: int  # pixels a side that become one position
    multipliers: tuple[int, ...]  # of the width, level by level, the finest first
    groups: int
    heads: int
    mlp_hidden: int
    resolution: int
    channels: int
    classes: int

    @property
    def features(self) -> int:
        """Length of the vector before the last matrix."""
        return self.width * self.multipliers[-1] if self.kind == "conv" else self.width

    @property
    def side(self) -> int:
        """Positions along a side after the first layer."""
        return self.resolution // self.patch


@dataclasses.dataclass(frozen=True)
class Levels:
    """Mean and standard deviation of the levels (0 to 255) of each channel of some images."""

    mean: Sequence[float]
    std: Sequence[float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """How it runs; no part of what it computes."""

    compute_dtype: str = "float32"
    platform: str = "cpu"
    remat: str = "none"
    unroll: bool = False


class ConvTrunk(nnx.Module):
    """Levels of residual blocks (He et al. 2016; norms of groups, Wu & He 2018), then the mean.

    The first layer takes windows of 2 p - 1 pixels a side at stride p; each further level halves
    the side.
    """

    def __init__(self, key: jax.Array, spec: ClassifierSpec):
        stem_key, *level_keys = jax.random.split(key, 1 + len(spec.multipliers))
        window = max(LEAST_STEM, 2 * spec.patch - 1)
        before = (window - spec.patch) // 2
        around = (before, window - spec.patch - before)
        self.stem = Conv(
            stem_key,
            inputs=spec.channels,
            outputs=spec.width,
            side=window,
            stride=spec.patch,
            padding=(around, around),
        )
        layers, inputs, side = [], spec.width, spec.side
        flops = self.stem.weight.size * side**2
        for number, (level_key, times) in enumerate(zip(level_keys, spec.multipliers, strict=True)):
            down_key, *keys = jax.random.split(level_key, 1 + spec.depth)
            if number:
                layers.append(Downsample(down_key, channels=inputs))
                side //= 2
                flops += layers[-1].conv.weight.size * side**2
            for block_key in keys:
                outputs = spec.width * times
                block = ResidualBlock(block_key, inputs=inputs, outputs=outputs, groups=spec.groups)
                layers.append(block)
                flops += _weights(block) * side**2
                inputs = outputs
        self.layers = nnx.List(layers)
        self.norm = GroupNorm(inputs, groups=spec.groups)
        self.forward_flops = 2 * flops  # of one image

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """Features (B, F) of images."""
        x_BHWC = self.stem(x_BHWC)
        for layer in self.layers:
            x_BHWC = constrain_batch(layer(x_BHWC))
        swished = jax.nn.swish(self.norm(x_BHWC))
        return jnp.mean(swished.astype(jnp.float32), axis=(1, 2))


def _weights(block: ResidualBlock) -> int:
    """Weights of its convolutions: products a position."""
    shortcut = block.shortcut.weight.size if block.shortcut is not None else 0
    return block.first.weight.size + block.second.weight.size + shortcut


class PatchBlock(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (Dosovitskiy et al. 2021, eqs. 2 and 3)."""

    def __init__(self, key: jax.Array, spec: ClassifierSpec, running: Running):
        attention_key, mlp_key = jax.random.split(key)
        self.first_norm = LayerNorm(spec.width, epsilon=EPSILON)
        self.attention = BiasedAttention(
            attention_key,
            width=spec.width,
            heads=spec.heads,
            init=INIT,
            depth=spec.depth,
            platform=running.platform,
        )
        self.second_norm = LayerNorm(spec.width, epsilon=EPSILON)
        self.mlp = GeluMLP(
            mlp_key,
            width=spec.width,
            hidden=spec.mlp_hidden,
            init=INIT,
            depth=spec.depth,
            tanh=True,
        )

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        x_BTD = x_BTD + self.attention(self.first_norm(x_BTD))
        return constrain_batch(x_BTD + self.mlp(self.second_norm(x_BTD)))


class PatchTrunk(nnx.Module):
    """A vision transformer (Dosovitskiy et al. 2021) with fixed positions and the mean of all
    (Beyer et al. 2022), no class token."""

    def __init__(self, key: jax.Array, spec: ClassifierSpec, running: Running):
        first_key, layers_key = jax.random.split(key)
        inputs = spec.patch**2 * spec.channels
        matrix = input_matrix(first_key, (inputs, spec.width), ("features", "embed"), INIT)
        # Images are numbers of size one, not rows of a table: a position starts at size one too.
        matrix[...] = matrix[...] / INIT.std
        self.embed = Affine(matrix)
        self.layers = stacked(lambda k: PatchBlock(k, spec, running), layers_key, depth=spec.depth)
        self.norm = LayerNorm(spec.width, epsilon=EPSILON)
        self.spec = spec
        self.running = running

    @property
    def forward_flops(self) -> int:
        """Of one image."""
        spec, block, positions = self.spec, self.layers, self.spec.side**2
        each = block.attention.forward_flops + block.mlp.forward_flops
        pairs = attention_flops(width=spec.width, queries=positions, keys=positions)
        return positions * (self.embed.forward_flops + spec.depth * each) + spec.depth * int(pairs)

    def __call__(self, x_BHWC: jax.Array) -> jax.Array:
        """Features (B, F) of images."""
        positions_TD = sinusoids(self.spec.side, self.spec.side, width=self.spec.width)
        x_BTD = self.embed(patches(x_BHWC, side=self.spec.patch))
        x_BTD = run_stack(
            self.layers,
            constrain_batch(x_BTD + jnp.asarray(positions_TD, x_BTD.dtype)[None]),
            lambda block, x, _: block(x),
            keys=None,
            remat=self.running.remat,
            unroll=self.running.unroll,
        )
        return jnp.mean(self.norm(x_BTD).astype(jnp.float32), axis=1)


def patches(x_BHWC: jax.Array, *, side: int) -> jax.Array:
    """The squares of an image (B, T, side * side * C) in raster order."""
    batch, rows, columns, channels = x_BHWC.shape
    cut = x_BHWC.reshape(batch, rows // side, side, columns // side, side, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side * channels)


class InputScale(nnx.Module):
    """Levels times a gain plus a shift, a channel each, learned from a start at (x - mean) / std.

    EuroSAT's levels vary by 17 of 255 in an image around means of 89 to 104: unscaled, what a
    first convolution makes of the mean outweighs all that it makes of the image. After 600 steps
    of 32 images the scaled network of conv.py was at 0.93 nats, the unscaled one at 1.22.
    """

    def __init__(self, levels: Levels):
        mean, std = jnp.asarray(levels.mean), jnp.asarray(levels.std)
        self.gain = channel_vector(PEAK / std)
        self.shift = channel_vector(-mean / std)

    def __call__(self, levels_BHWC: jax.Array) -> jax.Array:
        gain, shift = (v[...].reshape(1, 1, 1, -1) for v in (self.gain, self.shift))
        return levels_BHWC.astype(jnp.float32) / PEAK * gain + shift


class Classifier(nnx.Module):
    """A trunk that gives features, and a matrix, zero at the start, that gives logits of them."""

    def __init__(self, key: jax.Array, spec: ClassifierSpec, running: Running, levels: Levels):
        self.scale = InputScale(levels)
        trunk = ConvTrunk(key, spec) if spec.kind == "conv" else PatchTrunk(key, spec, running)
        self.trunk: ConvTrunk | PatchTrunk = trunk
        self.head = Affine(head_matrix((spec.features, spec.classes), ("embed", "classes")))
        self.compute_dtype = running.compute_dtype

    def features(self, images_BHWC: jax.Array) -> jax.Array:
        """Features (B, F) float32 of images, levels 0 to 255, of the resolution it was made for."""
        return self.trunk(self.scale(constrain_batch(images_BHWC)).astype(self.compute_dtype))

    def logits(self, features_BF: jax.Array) -> jax.Array:
        """Logits (B, K) float32 of features."""
        return self.head(features_BF)

    def forward_flops(self) -> dict[str, int]:
        """Of one image, by role."""
        return {"trunk": self.trunk.forward_flops, "head": self.head.forward_flops}

    def parameters(self) -> dict[str, int]:
        """How many there are, by role."""
        parts = {"trunk": (self.scale, self.trunk), "head": self.head}
        return {role: sum(leaf.size for leaf in jax.tree.leaves(p)) for role, p in parts.items()}


def builder(
    spec: ClassifierSpec, running: Running, levels: Levels
) -> Callable[[jax.Array], Classifier]:
    """A function from a key to a classifier with its initial parameters; `levels` are those of
    images like the ones that it will see."""
    return lambda key: Classifier(key, spec, running, levels)
