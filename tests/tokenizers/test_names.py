"""Name maps against files laid out by hand from the constructors of the published code."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.core.weights import WeightFile, assign
from lab.tokenizers import names
from tests.tokenizers.published import PUBLISHED, TINY, TINY_NETWORK


class Module(dict):
    """Names and shapes of a torch state dict, layer by layer."""

    def conv(self, name, i, o, side=3):
        self[f"{name}.weight"], self[f"{name}.bias"] = (o, i, side, side), (o,)

    def linear(self, name, i, o):
        self[f"{name}.weight"], self[f"{name}.bias"] = (o, i), (o,)

    def norm(self, name, channels):
        self[f"{name}.weight"] = self[f"{name}.bias"] = (channels,)

    def residual(self, name, i, o, shortcut="nin_shortcut"):
        self.norm(f"{name}.norm1", i)
        self.conv(f"{name}.conv1", i, o)
        self.norm(f"{name}.norm2", o)
        self.conv(f"{name}.conv2", o, o)
        if i != o:
            self.conv(f"{name}.{shortcut}", i, o, 1)

    def attention(self, name, channels):
        self.norm(f"{name}.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            self.conv(f"{name}.{part}", channels, channels, 1)

    def linear_attention(self, name, channels, parts):
        self.norm(f"{name}.group_norm", channels)
        for part in parts:
            self.linear(f"{name}.{part}", channels, channels)


def taming(spec, outputs):
    """`encoder.down.LEVEL`, `decoder.up.LEVEL`: level 0 is the finest in both."""
    m, last = Module(), len(spec.widths) - 1
    m.conv("encoder.conv_in", spec.image_channels, spec.width)
    channels = spec.width
    for level, width in enumerate(spec.widths):
        for block in range(spec.residual_blocks):
            m.residual(f"encoder.down.{level}.block.{block}", channels, width)
            channels = width
            if level == last and spec.attention == "lowest":
                m.attention(f"encoder.down.{level}.attn.{block}", width)
        if level != last:
            m.conv(f"encoder.down.{level}.downsample.conv", width, width)
    for side in ("encoder", "decoder"):
        m.residual(f"{side}.mid.block_1", channels, channels)
        m.attention(f"{side}.mid.attn_1", channels)
        m.residual(f"{side}.mid.block_2", channels, channels)
    m.norm("encoder.norm_out", channels)
    m.conv("encoder.conv_out", channels, outputs)
    m.conv("decoder.conv_in", spec.latent_channels, channels)
    for level in range(last, -1, -1):
        width = spec.widths[level]
        for block in range(spec.decoder_blocks):
            m.residual(f"decoder.up.{level}.block.{block}", channels, width)
            channels = width
            if level == last and (spec.decoder_attention or spec.attention) == "lowest":
                m.attention(f"decoder.up.{level}.attn.{block}", width)
        if level:
            m.conv(f"decoder.up.{level}.upsample.conv", width, width)
    m.norm("decoder.norm_out", channels)
    m.conv("decoder.conv_out", channels, spec.image_channels)
    return m


def llamagen(spec):
    """`conv_blocks` in the order in which they run: the decoder's 0 is the lowest."""
    m, last = Module(), len(spec.widths) - 1
    renamed = {
        "mid.block_1": "mid.0",
        "mid.attn_1": "mid.1",
        "mid.block_2": "mid.2",
        **{f"encoder.down.{level}": f"encoder.conv_blocks.{level}" for level in range(last + 1)},
        **{
            f"decoder.up.{level}": f"decoder.conv_blocks.{last - level}"
            for level in range(last + 1)
        },
        ".block.": ".res.",
    }
    for name, shape in taming(spec, spec.latent_channels).items():
        for old, new in renamed.items():
            name = name.replace(old, new)
        m[name] = shape
    return m


def diffusers(spec, outputs, parts):
    """Stable Diffusion's: attention in the middle only, as linear layers."""
    m, last = Module(), len(spec.widths) - 1
    m.conv("encoder.conv_in", 3, spec.width)
    channels = spec.width
    for level, width in enumerate(spec.widths):
        for block in range(spec.residual_blocks):
            name = f"encoder.down_blocks.{level}.resnets.{block}"
            m.residual(name, channels, width, "conv_shortcut")
            channels = width
        if level != last:
            m.conv(f"encoder.down_blocks.{level}.downsamplers.0.conv", width, width)
    for side in ("encoder", "decoder"):
        m.residual(f"{side}.mid_block.resnets.0", channels, channels)
        m.linear_attention(f"{side}.mid_block.attentions.0", channels, parts)
        m.residual(f"{side}.mid_block.resnets.1", channels, channels)
    m.norm("encoder.conv_norm_out", channels)
    m.conv("encoder.conv_out", channels, outputs)
    m.conv("decoder.conv_in", spec.latent_channels, channels)
    for number, width in enumerate(reversed(spec.widths)):
        for block in range(spec.decoder_blocks):
            name = f"decoder.up_blocks.{number}.resnets.{block}"
            m.residual(name, channels, width, "conv_shortcut")
            channels = width
        if number != last:
            m.conv(f"decoder.up_blocks.{number}.upsamplers.0.conv", width, width)
    m.norm("decoder.conv_norm_out", channels)
    m.conv("decoder.conv_out", channels, 3)
    return m


def numbered(spec, bits, prefix):
    """Binary autoencoder: one list of blocks, the shortcut called conv_out."""
    m, last = Module(), len(spec.widths) - 1

    def lists():
        number = iter(range(10**6))
        yield lambda: f"{prefix}encoder.blocks.{next(number)}"
        again = iter(range(10**6))
        yield lambda: f"{prefix}generator.blocks.{next(again)}"

    def middle(at, channels):
        m.residual(at(), channels, channels)
        m.attention(at(), channels)
        m.residual(at(), channels, channels)

    into, back = lists()
    m.conv(into(), 3, spec.width)
    channels = spec.width
    for level, width in enumerate(spec.widths):
        for _ in range(spec.residual_blocks):
            m.residual(into(), channels, width, "conv_out")
            channels = width
            if level == last:
                m.attention(into(), width)
        if level != last:
            m.conv(f"{into()}.conv", width, width)
    middle(into, channels)
    m.norm(into(), channels)
    m.conv(into(), channels, spec.latent_channels)
    m.norm(back(), spec.latent_channels)
    m.conv(back(), spec.latent_channels, channels)
    middle(back, channels)
    for level in range(last, -1, -1):
        width = spec.widths[level]
        for _ in range(spec.decoder_blocks):
            m.residual(back(), channels, width, "conv_out")
            channels = width
            if level == last:
                m.attention(back(), width)
        if level:
            m.conv(f"{back()}.conv", width, width)
    m.norm(back(), channels)
    m.conv(back(), channels, 3)
    m.conv(f"{prefix}quantize.proj.0", spec.latent_channels, bits, 1)
    m[f"{prefix}quantize.embed.weight"] = (bits, spec.latent_channels)
    m.conv(f"{prefix}generator.logsigma.0", channels, channels)
    m.conv(f"{prefix}generator.logsigma.2", channels, 3, 1)
    return m


def with_quantiser(m, latent, features, vocabulary):
    m.conv("quant_conv", latent, features, 1)
    m.conv("post_quant_conv", features, latent, 1)
    m["quantize.embedding.weight"] = (vocabulary, features)
    return m


def with_gaussian(m, latent, channels):
    m.conv("quant_conv", 2 * latent, 2 * channels, 1)
    m.conv("post_quant_conv", channels, latent, 1)
    return m


def llamagen_file(spec, features=8, vocabulary=16384):
    m = with_quantiser(llamagen(spec), spec.latent_channels, features, vocabulary)
    m["quantize.codebook_used"] = (65536,)
    return m


def taming_file(vocabulary):
    def of(spec):
        m = with_quantiser(taming(spec, 256), 256, 256, vocabulary)
        m.conv("loss.discriminator.main.0", 3, 64, 4)
        return m

    return of


def kl_file(spec):
    latent = spec.latent_channels
    return with_gaussian(taming(spec, 2 * latent), latent, latent)


def diffusers_file(*parts):
    return lambda spec: with_gaussian(diffusers(spec, 8, parts), 4, 4)


def old_diffusers_names(spec):
    return names.diffusers_kl_names(spec, old_attention=True)


def bare_binary_names(spec):
    return names.binary_names(spec, prefix="")


SD, VQ_16 = "Stable Diffusion f8", "LlamaGen VQ-16"
CASES = {
    "llamagen 16": (VQ_16, names.llamagen_names, llamagen_file),
    "llamagen 8": ("LlamaGen VQ-8", names.llamagen_names, llamagen_file),
    "taming 1024": ("taming f16 1024", names.taming_vq_names, taming_file(1024)),
    "taming 16384": ("taming f16 16384", names.taming_vq_names, taming_file(16384)),
    "mar": ("MAR KL-16", names.taming_kl_names, kl_file),
    "sd": (SD, names.taming_kl_names, kl_file),
    "sd diffusers": (
        SD,
        names.diffusers_kl_names,
        diffusers_file("to_q", "to_k", "to_v", "to_out.0"),
    ),
    "sd old diffusers": (
        SD,
        old_diffusers_names,
        diffusers_file("query", "key", "value", "proj_attn"),
    ),
    "bae 16": ("BAE 16", names.binary_names, lambda spec: numbered(spec, 16, "ae.")),
    "bae 24 alone": ("BAE 24", bare_binary_names, lambda spec: numbered(spec, 24, "")),
}


def file_of(shapes, *, value=None):
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    return WeightFile(pathlib.Path("weights.safetensors"), "", value or arrays)


@pytest.mark.parametrize("case", CASES)
def test_published_files_fill_every_leaf_once(case):
    """`assign` itself names what is missing, unused, mapped twice, or of a wrong shape."""
    size, map_of, shapes_of = CASES[case]
    published = PUBLISHED[size]
    named = map_of(published.network)
    shapes = shapes_of(published.network)
    theirs = [weight.theirs for weight in named.names]
    assert len(set(theirs)) == len(theirs)
    abstract = published.abstract
    tree = assign(abstract, file_of(shapes), named.names, ignored=named.ignored)
    assert jax.tree.structure(tree) == jax.tree.structure(abstract)


def test_ignored_names_are_needed_and_no_more():
    size, map_of, shapes_of = CASES["llamagen 16"]
    published = PUBLISHED[size]
    with pytest.raises(LabError, match="unused in the file: quantize.codebook_used"):
        assign(
            published.abstract,
            file_of(shapes_of(published.network)),
            map_of(published.network).names,
        )


def test_values_go_where_their_names_say():
    """Of a tiny LlamaGen: the second residual block to run in the decoder's lowest level."""
    spec = dataclasses.replace(TINY_NETWORK, decoder_blocks=2)
    tiny = dataclasses.replace(TINY["unit vq"], network=spec)
    shapes = llamagen_file(spec, features=5, vocabulary=13)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    named = names.llamagen_names(spec)
    model = assign(tiny.abstract, file_of(shapes, value=arrays), named.names, ignored=named.ignored)
    # Decoder: conv_in, three of the middle, then residual and attention by turns.
    block = model.decoder.layers[6]
    theirs = "decoder.conv_blocks.0.res.1"
    np.testing.assert_array_equal(
        block.first.weight[...], np.einsum("oihw->hwio", arrays[f"{theirs}.conv1.weight"])
    )
    np.testing.assert_array_equal(block.second_norm.scale[...], arrays[f"{theirs}.norm2.weight"])
    np.testing.assert_array_equal(block.second_norm.bias[...], arrays[f"{theirs}.norm2.bias"])
    key = arrays["encoder.mid.1.k.weight"]
    attention = model.encoder.layers[6]
    np.testing.assert_array_equal(attention.key.weight[...][0, 0], key[:, :, 0, 0].T)
    np.testing.assert_array_equal(
        model.bottleneck.codebook[...], arrays["quantize.embedding.weight"]
    )
    np.testing.assert_array_equal(model.decoder.out.bias[...], arrays["decoder.conv_out.bias"])


def test_networks_without_published_names_are_refused():
    for changes in ({"attention": "none"}, {"decoder_norm_first": True}):
        with pytest.raises(LabError, match="published names"):
            names.llamagen_names(dataclasses.replace(TINY_NETWORK, **changes))
