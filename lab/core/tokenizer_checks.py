"""What the fields of a tokenizer's config need of each other."""

from __future__ import annotations

import dataclasses
import typing

from lab.core.errors import LabError

if typing.TYPE_CHECKING:
    from lab.core.config import AutoencoderConfig, TokenizerRunConfig

# The fields of config.code that each kind needs; the others must be 0 or False.
_OF_KIND = {
    "vq": ("vocabulary", "features", "normalised"),
    "binary": ("bits", "sampled"),
    "kl": ("channels",),
}
_OF_LOSS = {"vq": ("codebook", "commitment", "entropy", "restart_below"), "kl": ("kl",)}


def check_tokenizer(run: TokenizerRunConfig) -> None:
    """Refuse fields of an autoencoder, a code and losses that do not fit each other."""
    code, losses = run.code, run.losses
    for field in dataclasses.fields(code):
        value, needed = getattr(code, field.name), field.name in _OF_KIND[code.kind]
        if field.name == "kind" or isinstance(value, bool) and (needed or not value):
            continue
        if needed != bool(value):
            want = "at least 1 is needed" if needed else "must be 0 or False"
            raise LabError(f'config.code.{field.name} = {value}: {want} where kind = "{code.kind}"')
    for kind, names in _OF_LOSS.items():
        for name in names:
            if kind != code.kind and getattr(losses, name):
                raise LabError(
                    f"config.losses.{name} = {getattr(losses, name):g}: must be 0 where "
                    f'config.code.kind = "{code.kind}"'
                )
    _check_image_losses(run)
    for rule in ("width_rule", "depth_rule"):
        if (value := getattr(run.optimizer, rule)) != "none":
            raise LabError(
                f'config.optimizer.{rule} = "{value}": a tokenizer has no rule of that kind; '
                '"none" is expected'
            )
    if run.data.augmentation == "ten_crop":
        raise LabError('config.data.augmentation = "ten_crop": a tokenizer trains on none or flip')
    downscale = 2 ** (len(levels_of(run.autoencoder)) - 1)
    if run.images.resolution % downscale:
        raise LabError(
            f"config.images.resolution = {run.images.resolution}: a multiple of {downscale} is "
            f'needed for config.autoencoder.multipliers = "{run.autoencoder.multipliers}"'
        )


LEAST_PERCEPTUAL = 16  # pixels a side: a feature network halves them four times


def _check_image_losses(run: TokenizerRunConfig) -> None:
    """What the losses on images need of the images."""
    losses, images = run.losses, run.images
    if losses.perceptual and not losses.perceptual_file:
        raise LabError(
            f"config.losses.perceptual = {losses.perceptual:g}: config.losses.perceptual_file "
            "must name a safetensors file of the feature network's weights"
        )
    if losses.perceptual and (images.channels != "rgb" or images.resolution < LEAST_PERCEPTUAL):
        raise LabError(
            f"config.losses.perceptual = {losses.perceptual:g}: needs rgb images of "
            f"{LEAST_PERCEPTUAL} pixels a side or more, not {images.channels} of "
            f"{images.resolution}"
        )
    least = 3 * 2**losses.discriminator_layers  # a patch is left
    if losses.adversarial and images.resolution < least:
        raise LabError(
            f"config.losses.discriminator_layers = {losses.discriminator_layers}: needs images of "
            f"{least} pixels a side or more, not {images.resolution}"
        )
    if run.execution.remat != "none":
        raise LabError(
            f'config.execution.remat = "{run.execution.remat}": a tokenizer keeps all '
            'activations; "none" is expected'
        )


def levels_of(autoencoder: AutoencoderConfig) -> tuple[int, ...]:
    """The multipliers of the width from the finest level to the coarsest: "1-1-2-2-4"."""
    parts = autoencoder.multipliers.split("-")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise LabError(
            f'config.autoencoder.multipliers = "{autoencoder.multipliers}": whole numbers from 1 '
            'with dashes between them are expected, like "1-1-2-2-4"'
        )
    levels = tuple(int(part) for part in parts)
    for channels in (autoencoder.width * level for level in levels):
        if channels % min(autoencoder.groups, channels):
            raise LabError(
                f"config.autoencoder.groups = {autoencoder.groups}: must divide the {channels} "
                "channels of every level"
            )
    return levels
