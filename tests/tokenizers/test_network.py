"""Encoder and decoder: against float64 loops in the published order, and their counts."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.layers.parameters import axes_of, is_parameter
from lab.tokenizers.network import Decoder, Encoder, NetworkSpec
from lab.tokenizers.plan import (
    Kind,
    decoder_plan,
    encoder_plan,
    forward_flops_per_image,
    parameters_of,
)
from tests.layers import image_reference as reference
from tests.tokenizers.published import BAE_F16, PUBLISHED, TINY_NETWORK, VQGAN_F16, images

KEY = jax.random.key(0)
GROUPS = TINY_NETWORK.groups
PLAIN = dataclasses.replace(
    TINY_NETWORK,
    residual_blocks=2,
    decoder_blocks=3,
    decoder_norm_first=True,
    last_activation="none",
    decoder_attention="middle",
)


def leaves_of(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


class Published:
    """Walks a network's layers in an order that the test writes out."""

    def __init__(self, x, layers):
        self.x, self.layers = reference.f64(x), iter(layers)

    def then(self, of, **options):
        self.x = of(self.x, next(self.layers), **options)

    def residual(self):
        self.then(reference.residual, groups=GROUPS)

    def attention(self):
        self.then(reference.attention, groups=GROUPS)

    def ends(self):
        return next(self.layers, None) is None


def encoded(spec, x, encoder):
    """Esser et al. 2021, table 7, top: two levels, by hand."""
    walk = Published(x, encoder.layers)
    walk.then(reference.conv)
    for _ in range(spec.residual_blocks):
        walk.residual()
    walk.then(reference.down)
    for _ in range(spec.residual_blocks):
        walk.residual()
        walk.attention()
    walk.residual()
    walk.attention()
    walk.residual()
    ending(spec, walk)
    walk.then(reference.conv)
    assert walk.ends()
    return walk.x


def ending(spec, walk):
    if spec.last_activation == "none":
        walk.then(reference.group_norm, groups=GROUPS)
        return
    swished = next(walk.layers)
    walk.x = reference.swish(reference.group_norm(walk.x, swished.norm, groups=GROUPS))


def decoded(spec, z, decoder):
    """The same table, bottom: (features, image)."""
    walk = Published(z, decoder.layers)
    if spec.decoder_norm_first:
        walk.then(reference.group_norm, groups=GROUPS)
    walk.then(reference.conv)
    walk.residual()
    walk.attention()
    walk.residual()
    for _ in range(spec.decoder_blocks):
        walk.residual()
        if spec.decoder_attention != "middle":
            walk.attention()
    walk.then(reference.up)
    for _ in range(spec.decoder_blocks):
        walk.residual()
    ending(spec, walk)
    assert walk.ends()
    return walk.x, reference.conv(walk.x, decoder.out)


@pytest.mark.parametrize("spec", [TINY_NETWORK, PLAIN], ids=["vqgan", "bae"])
def test_the_encoder_against_loops(spec):
    encoder = reference.filled(lambda: Encoder(KEY, spec, outputs=5), std=0.2)
    found = jax.jit(lambda model, x: model(x))(encoder, images())
    assert found.shape == (2, 4, 4, 5)
    np.testing.assert_allclose(found, encoded(spec, images(), encoder), atol=1e-4)


@pytest.mark.parametrize("spec", [TINY_NETWORK, PLAIN], ids=["vqgan", "bae"])
def test_the_decoder_against_loops(spec):
    decoder = reference.filled(lambda: Decoder(KEY, spec), std=0.2)
    z = np.random.default_rng(0).normal(size=(2, 3, 4, 12)).astype("float32")
    found = jax.jit(lambda model, z: (model.features(z), model(z)))(decoder, z)
    assert [a.shape for a in found] == [(2, 6, 8, 8), (2, 6, 8, 3)]
    for ours, theirs in zip(found, decoded(spec, z, decoder), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


SHAPES = {
    "tiny": TINY_NETWORK,
    "plain": PLAIN,
    "one level": dataclasses.replace(TINY_NETWORK, multipliers=(3,)),
    "no attention": dataclasses.replace(TINY_NETWORK, attention="none"),
    "middle, grey": dataclasses.replace(TINY_NETWORK, attention="middle", image_channels=1),
    "wider, narrower": dataclasses.replace(TINY_NETWORK, multipliers=(2, 1, 1, 4)),
    "vqgan": VQGAN_F16,
    "bae": BAE_F16,
}


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_leaves(name):
    spec = SHAPES[name]
    counted = parameters_of(spec, encoder_outputs=7)
    encoder = jax.eval_shape(lambda: Encoder(KEY, spec, outputs=7))
    decoder = jax.eval_shape(lambda: Decoder(KEY, spec))
    assert counted.encoder == leaves_of(encoder)
    assert counted.decoder == leaves_of(decoder)
    assert counted.total == counted.encoder + counted.decoder


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_shrink_and_grow_back(name):
    spec = SHAPES[name]
    side, colours = 2 * spec.downscale, spec.image_channels
    x = jax.ShapeDtypeStruct((2, side, side, colours), jnp.float32)
    z = jax.eval_shape(lambda x: Encoder(KEY, spec, outputs=spec.latent_channels)(x), x)
    assert z.shape == (2, 2, 2, spec.latent_channels)
    assert jax.eval_shape(lambda z: Decoder(KEY, spec)(z), z).shape == x.shape


def residual(i, o):
    return 9 * i * o + o + 9 * o * o + o + 2 * (i + o) + (i * o + o if i != o else 0)


def conv(i, o):
    return 9 * i * o + o


# By hand from Esser et al. 2021, table 7: 128, 128, 256, 256, 512 channels, 2 blocks a level of the
# encoder and `blocks` of the decoder, attention at the lowest.
ATTENTION = 4 * (512 * 512 + 512) + 2 * 512
MIDDLE = 2 * residual(512, 512) + ATTENTION
ENCODER_F16 = (
    conv(3, 128)
    + 4 * residual(128, 128)
    + residual(128, 256)
    + 3 * residual(256, 256)
    + residual(256, 512)
    + residual(512, 512)
    + 2 * ATTENTION
    + 2 * conv(128, 128)
    + 2 * conv(256, 256)
    + MIDDLE
    + 2 * 512
    + conv(512, 256)
)


def decoder_f16(blocks):
    more = blocks - 1
    return (
        conv(256, 512)
        + MIDDLE
        + blocks * (residual(512, 512) + ATTENTION)
        + conv(512, 512)
        + residual(512, 256)
        + (more + blocks) * residual(256, 256)
        + 2 * conv(256, 256)
        + residual(256, 128)
        + (more + blocks) * residual(128, 128)
        + conv(128, 128)
        + 2 * 128
        + conv(128, 3)
    )


TOTALS = {
    "Stable Diffusion f8": 83_653_863,  # published to the unit
    "LlamaGen VQ-16": ENCODER_F16 + decoder_f16(3) + (256 * 8 + 8) + (8 * 256 + 256) + 16384 * 8,
    "taming f16 1024": ENCODER_F16 + decoder_f16(3) + 2 * (256 * 256 + 256) + 1024 * 256,
    "taming f16 16384": ENCODER_F16 + decoder_f16(3) + 2 * (256 * 256 + 256) + 16384 * 256,
    "BAE 16": ENCODER_F16 + decoder_f16(2) + 2 * 256 + (256 * 16 + 16) + 16 * 256,
    "BAE 24": ENCODER_F16 + decoder_f16(2) + 2 * 256 + (256 * 24 + 24) + 24 * 256,
}


@pytest.mark.parametrize("name", TOTALS)
def test_published_totals(name):
    assert leaves_of(PUBLISHED[name].abstract) == TOTALS[name]


@pytest.mark.parametrize(("name", "millions"), [("LlamaGen VQ-16", 72), ("LlamaGen VQ-8", 70)])
def test_published_millions(name, millions):
    assert round(leaves_of(PUBLISHED[name].abstract) / 1e6) == millions


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_leaf_names_its_axes(name):
    for leaf in jax.tree.leaves(PUBLISHED[name].abstract, is_leaf=is_parameter):
        axes = axes_of(leaf)
        assert axes is not None and len(axes) == leaf.ndim


def xla_flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


WIDE = dataclasses.replace(TINY_NETWORK, width=32, residual_blocks=2, decoder_blocks=3)


def zeros_flops(stages, resolution):
    """What is counted for taps that fall on the zeros around an image: XLA leaves them out."""
    total = 0
    for stage in stages:
        side = resolution // stage.shrink
        inside = 3 * side - (1 if stage.kind is Kind.DOWN else 2)  # of 3 side taps along a side
        for kernel, inputs, outputs in stage.convolutions:
            if kernel == 3:
                total += 2 * (9 * side**2 - inside**2) * inputs * outputs
    return total


@pytest.mark.parametrize("attention", ["none", "middle", "lowest"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_flops_against_xla(part, attention):
    """At most 3 % above, by element-wise work, which is not counted; never below."""
    spec = dataclasses.replace(WIDE, attention=attention)
    if part == "encoder":
        model = jax.eval_shape(lambda: Encoder(KEY, spec, outputs=12))
        x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
        stages = encoder_plan(spec, outputs=12)
    else:
        model = jax.eval_shape(lambda: Decoder(KEY, spec))
        x = jax.ShapeDtypeStruct((2, 16, 16, 12), jnp.float32)
        stages = decoder_plan(spec)
    counted = forward_flops_per_image(spec, encoder_outputs=12, resolution=32)
    inside = getattr(counted, part) - zeros_flops(stages, 32)
    ratio = xla_flops(lambda model, x: model(x), model, x) / (2 * inside)
    assert 1.0 <= ratio < 1.03


def test_flops_by_hand():
    """One level of one channel: an image of 2 x 2, each position by its products."""
    spec = NetworkSpec(
        width=1,
        multipliers=(1,),
        latent_channels=1,
        attention="middle",
        residual_blocks=1,
        decoder_blocks=1,
        image_channels=1,
    )
    found = forward_flops_per_image(spec, encoder_outputs=2, resolution=2)
    # 3 residual blocks of two 3 x 3 each, first and last convolution, attention: 4 projections,
    # and against 4 positions 2 products.
    assert found.encoder == 2 * 4 * (3 * 18 + 9 + 18 + 4 + 2 * 4)
    assert found.decoder == 2 * 4 * (3 * 18 + 9 + 9 + 4 + 2 * 4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 0}, "width = 0"),
        ({"multipliers": ()}, "multipliers"),
        ({"multipliers": (1, 0)}, "multipliers"),
        ({"attention": "all"}, '"none", "middle", "lowest"'),
        ({"decoder_attention": "all"}, "decoder_attention"),
        ({"last_activation": "relu"}, '"swish", "none"'),
        ({"groups": 3}, "groups = 3"),
        ({"decoder_norm_first": True, "latent_channels": 10}, "10 among them"),
        ({"residual_blocks": 0}, "residual_blocks = 0"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(change, said):
    with pytest.raises(LabError, match=said):
        dataclasses.replace(TINY_NETWORK, **change)


def test_flops_of_a_side_that_does_not_halve_are_refused():
    with pytest.raises(LabError, match="multiple of 2"):
        forward_flops_per_image(TINY_NETWORK, encoder_outputs=1, resolution=7)
