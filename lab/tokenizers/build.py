"""From a tokenizer's config to its autoencoder: network, code, and their counts."""

import dataclasses
from collections.abc import Callable

import jax

from lab.core.config import TokenizerRunConfig
from lab.core.tokenizer_checks import levels_of
from lab.tokenizers.autoencoder import Autoencoder, builder
from lab.tokenizers.binary import BinaryCode
from lab.tokenizers.kl import GaussianCode
from lab.tokenizers.pixels import CHANNELS
from lab.tokenizers.plan import NetworkSpec, forward_flops_per_image, parameters_of
from lab.tokenizers.vq import VectorQuantiser

Bottleneck = VectorQuantiser | BinaryCode | GaussianCode


def network_spec(run: TokenizerRunConfig) -> NetworkSpec:
    """The shape of encoder and decoder."""
    a = run.autoencoder
    return NetworkSpec(
        width=a.width,
        multipliers=levels_of(a),
        residual_blocks=a.residual_blocks,
        decoder_blocks=a.decoder_blocks,
        decoder_norm_first=a.decoder_norm_first,
        latent_channels=a.latent_channels,
        attention=a.attention,
        decoder_attention=a.decoder_attention,
        last_activation=a.last_activation,
        groups=a.groups,
        image_channels=CHANNELS[run.images.channels],
    )


def bottleneck_maker(run: TokenizerRunConfig) -> Callable[[jax.Array], Bottleneck]:
    """A function from a key to what lies between encoder and decoder."""
    code, losses, spec = run.code, run.losses, network_spec(run)
    latent = spec.latent_channels
    if code.kind == "binary":
        return lambda key: BinaryCode(
            key, latent_channels=latent, bits=code.bits, sampled=code.sampled
        )
    if code.kind == "kl":
        return lambda key: GaussianCode(
            key,
            latent_channels=latent,
            channels=code.channels,
            weight=losses.kl,
            dims_per_position=spec.downscale**2 * spec.image_channels,
        )
    return lambda key: VectorQuantiser(
        key,
        latent_channels=latent,
        features=code.features,
        vocabulary=code.vocabulary,
        normalised=code.normalised,
        commitment=losses.commitment,
        codebook_weight=losses.codebook,
        entropy_weight=losses.entropy,
        entropy_temperature=losses.entropy_temperature,
    )


def autoencoder_builder(
    run: TokenizerRunConfig, *, compute_dtype: str
) -> Callable[[jax.Array], Autoencoder]:
    """A function from a key to the initialised autoencoder."""
    return builder(network_spec(run), bottleneck_maker(run), compute_dtype=compute_dtype)


@dataclasses.dataclass(frozen=True)
class AutoencoderCounts:
    """Parameters, and forward FLOPs of one image, by role: encoder, code, decoder."""

    parameters: dict[str, int]
    forward_flops: dict[str, int]


def autoencoder_counts(run: TokenizerRunConfig, bottleneck: Bottleneck) -> AutoencoderCounts:
    """The counts; element-wise work and lookups are no FLOPs. The bottleneck may be abstract."""
    spec, resolution = network_spec(run), run.images.resolution
    outputs = bottleneck.encoder_outputs
    parameters = parameters_of(spec, encoder_outputs=outputs)
    flops = forward_flops_per_image(spec, encoder_outputs=outputs, resolution=resolution)
    positions = (resolution // spec.downscale) ** 2
    return AutoencoderCounts(
        parameters={
            "encoder": parameters.encoder,
            "code": sum(leaf.size for leaf in jax.tree.leaves(bottleneck)),
            "decoder": parameters.decoder,
        },
        forward_flops={
            "encoder": flops.encoder,
            "code": bottleneck.forward_flops_per_position * positions,
            "decoder": flops.decoder,
        },
    )
