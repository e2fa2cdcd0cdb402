"""What published files call the weights of our autoencoders: name maps for lab/core/weights.py.

Read off the public code of taming-transformers, LlamaGen (tokenizer/tokenizer_image/vq_model.py),
MAR (models/vae.py), BinaryLatentDiffusion (models/binaryae.py) and diffusers. Its 1 x 1
convolutions are OI11 and its linear layers OI; ours are 11IO.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from lab.core.errors import LabError
from lab.core.weights import NamedWeight, Turn
from lab.tokenizers.plan import Kind, NetworkSpec, Stage, decoder_plan, encoder_plan

RESIDUAL = {"first_norm": "norm1", "first": "conv1", "second_norm": "norm2", "second": "conv2"}
ATTENTION = {"norm": "norm", "query": "q", "key": "k", "value": "v", "out": "proj_out"}
DIFFUSERS_ATTENTION = {
    "norm": "group_norm",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "out": "to_out.0",
}
DIFFUSERS_OLD_ATTENTION = {
    "norm": "group_norm",
    "query": "query",
    "key": "key",
    "value": "value",
    "out": "proj_attn",
}


@dataclasses.dataclass(frozen=True)
class NameMap:
    """A line for each of our leaves, and starts of names that may stay unused."""

    names: list[NamedWeight]
    ignored: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Convention:
    """How a family names the parts of one network; `{level}` and `{block}` are filled in."""

    block: str
    attention: str
    resample: str
    middle: tuple[str, str, str]
    norm_out: str = "norm_out"
    shortcut: str = "nin_shortcut"
    lowest_first: bool = False  # the decoder's levels are numbered in the order that they run
    attention_parts: dict[str, str] = dataclasses.field(default_factory=ATTENTION.copy)
    linear_attention: bool = False


MIDDLE = ("mid.block_1", "mid.attn_1", "mid.block_2")


def _taming(levels: str, resample: str) -> _Convention:
    return _Convention(
        block=f"{levels}.{{level}}.block.{{block}}",
        attention=f"{levels}.{{level}}.attn.{{block}}",
        resample=f"{levels}.{{level}}.{resample}",
        middle=MIDDLE,
    )


def _llamagen(resample: str) -> _Convention:
    return _Convention(
        block="conv_blocks.{level}.res.{block}",
        attention="conv_blocks.{level}.attn.{block}",
        resample=f"conv_blocks.{{level}}.{resample}",
        middle=("mid.0", "mid.1", "mid.2"),
        lowest_first=True,
    )


def _diffusers(levels: str, resample: str, attention_parts: dict[str, str]) -> _Convention:
    return _Convention(
        block=f"{levels}.{{level}}.resnets.{{block}}",
        attention=f"{levels}.{{level}}.attentions.{{block}}",
        resample=f"{levels}.{{level}}.{resample}.0",
        middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
        norm_out="conv_norm_out",
        shortcut="conv_shortcut",
        lowest_first=True,
        attention_parts=attention_parts,
        linear_attention=True,
    )


def taming_vq_names(network: NetworkSpec) -> NameMap:
    """VQGAN of taming-transformers."""
    names = [*_networks(network, *_TAMING), *_convolutional_code(), _CODEBOOK]
    return NameMap(names, ("loss.",))


def taming_kl_names(network: NetworkSpec) -> NameMap:
    """AutoencoderKL as latent diffusion, Stable Diffusion's first release and MAR name it."""
    return NameMap([*_networks(network, *_TAMING), *_convolutional_code()], ("loss.",))


def llamagen_names(network: NetworkSpec) -> NameMap:
    """LlamaGen's VQ-16 and VQ-8."""
    sides = (_llamagen("downsample"), _llamagen("upsample"))
    names = [*_networks(network, *sides), *_convolutional_code(), _CODEBOOK]
    return NameMap(names, ("quantize.codebook_used",))


def diffusers_kl_names(network: NetworkSpec, *, old_attention: bool = False) -> NameMap:
    """AutoencoderKL of diffusers, the form in which Stable Diffusion's is given as safetensors.

    Files from before 2023 name attention's parts otherwise: `old_attention`.
    """
    parts = DIFFUSERS_OLD_ATTENTION if old_attention else DIFFUSERS_ATTENTION
    sides = (
        _diffusers("down_blocks", "downsamplers", parts),
        _diffusers("up_blocks", "upsamplers", parts),
    )
    return NameMap([*_networks(network, *sides), *_convolutional_code()], ())


def binary_names(network: NetworkSpec, *, prefix: str = "ae.") -> NameMap:
    """BinaryLatentDiffusion's binary autoencoder, whose stages are numbered as ours.

    `prefix` is "ae." in a file of its whole GAN, "" in one of the autoencoder alone.
    """
    encoder = encoder_plan(network, outputs=network.latent_channels)
    names = [
        *_numbered(encoder, "encoder", f"{prefix}encoder.blocks"),
        *_numbered(decoder_plan(network), "decoder", f"{prefix}generator.blocks"),
        *_conv("bottleneck/into", f"{prefix}quantize.proj.0"),
        NamedWeight("bottleneck/embeddings", f"{prefix}quantize.embed.weight"),
    ]
    return NameMap(names, (f"{prefix}generator.logsigma.", "disc.", "perceptual."))


_TAMING = (_taming("down", "downsample"), _taming("up", "upsample"))
_CODEBOOK = NamedWeight("bottleneck/codebook", "quantize.embedding.weight")


def _convolutional_code() -> Iterator[NamedWeight]:
    yield from _conv("bottleneck/into", "quant_conv")
    yield from _conv("bottleneck/out", "post_quant_conv")


def _networks(network: NetworkSpec, down: _Convention, up: _Convention) -> Iterator[NamedWeight]:
    if "none" in (network.attention, network.decoder_attention) or network.decoder_norm_first:
        raise LabError(
            "published names are of networks with attention in the middle that do not start the "
            "decoder with a norm"
        )
    encoder = encoder_plan(network, outputs=network.latent_channels)
    levels = range(len(network.multipliers))
    first, *inner, norm, last = encoder
    theirs = ["conv_in", *_levels(inner[:-3], levels, down), *down.middle]
    theirs += [down.norm_out, "conv_out"]
    yield from _stages([first, *inner, norm, last], theirs, "encoder", "encoder", down)
    first, *inner, norm, last = decoder_plan(network)
    order = levels if up.lowest_first else reversed(levels)
    theirs = ["conv_in", *up.middle, *_levels(inner[3:], order, up), up.norm_out, "conv_out"]
    yield from _stages([first, *inner, norm, last], theirs, "decoder", "decoder", up)


def _levels(
    stages: Sequence[Stage], levels: Sequence[int] | Iterator[int], convention: _Convention
) -> Iterator[str]:
    """Their name of each stage; one of resampling ends a level."""
    numbers = iter(levels)
    level, block = next(numbers), 0
    for stage in stages:
        if stage.kind is Kind.RESIDUAL:
            yield convention.block.format(level=level, block=block)
            block += 1
        elif stage.kind is Kind.ATTENTION:
            yield convention.attention.format(level=level, block=block - 1)
        else:
            yield convention.resample.format(level=level)
            level, block = next(numbers), 0


def _numbered(stages: Sequence[Stage], ours: str, theirs: str) -> Iterator[NamedWeight]:
    convention = _Convention(
        block="", attention="", resample="", middle=MIDDLE, shortcut="conv_out"
    )
    names = [str(number) for number in range(len(stages))]
    yield from _stages(stages, names, ours, theirs, convention)


def _stages(
    stages: Sequence[Stage],
    names: Sequence[str],
    ours: str,
    theirs: str,
    convention: _Convention,
) -> Iterator[NamedWeight]:
    for number, (stage, name) in enumerate(zip(stages, names, strict=True)):
        at = f"{ours}/layers/{number}"
        if ours == "decoder" and number == len(stages) - 1:
            at = "decoder/out"
        yield from _stage(stage, at, f"{theirs}.{name}", convention)


def _stage(stage: Stage, ours: str, theirs: str, convention: _Convention) -> Iterator[NamedWeight]:
    match stage.kind:
        case Kind.CONV:
            yield from _conv(ours, theirs)
        case Kind.DOWN | Kind.UP:
            yield from _conv(f"{ours}/conv", f"{theirs}.conv")
        case Kind.NORM:
            yield from _norm(ours, theirs)
        case Kind.NORM_SWISH:
            yield from _norm(f"{ours}/norm", theirs)
        case Kind.ATTENTION:
            yield from _attention(ours, theirs, convention)
        case Kind.RESIDUAL:
            parts = dict(RESIDUAL)
            if stage.inputs != stage.outputs:
                parts["shortcut"] = convention.shortcut
            for part, their_part in parts.items():
                of = _norm if part.endswith("norm") else _conv
                yield from of(f"{ours}/{part}", f"{theirs}.{their_part}")


def _attention(ours: str, theirs: str, convention: _Convention) -> Iterator[NamedWeight]:
    norm, *products = convention.attention_parts.items()
    yield from _norm(f"{ours}/{norm[0]}", f"{theirs}.{norm[1]}")
    turn = Turn.LINEAR_TO_POINTWISE if convention.linear_attention else Turn.CONVOLUTION
    pairs = (_conv(f"{ours}/{part}", f"{theirs}.{name}", turn) for part, name in products)
    yield from itertools.chain.from_iterable(pairs)


def _conv(ours: str, theirs: str, turn: Turn = Turn.CONVOLUTION) -> Iterator[NamedWeight]:
    yield NamedWeight(f"{ours}/weight", f"{theirs}.weight", turn)
    yield NamedWeight(f"{ours}/bias", f"{theirs}.bias")


def _norm(ours: str, theirs: str) -> Iterator[NamedWeight]:
    yield NamedWeight(f"{ours}/scale", f"{theirs}.weight")
    yield NamedWeight(f"{ours}/bias", f"{theirs}.bias")
