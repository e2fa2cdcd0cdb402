"""The KL autoencoder (Rombach et al. 2022): a Gaussian latent, for MAR and DiT.

    python -m lab.launch.train --config configs/tokenizers/kl.py:small

After the colon: `sd-f8` (Stable Diffusion's, DiT's: 4 channels at an eighth of the side), `mar-f16`
(MAR's: 16 channels at a sixteenth), `small` for images of 64 x 64 on a CPU. The published ones want
ImageNet and a file of LPIPS weights (config.losses.perceptual_file).
"""

from ml_collections import ConfigDict

from configs.tokenizers import base


def get_config(size: str = "small") -> ConfigDict:
    """The config of one size."""
    makers = {"sd-f8": _stable_diffusion, "mar-f16": _mar, "small": _small}
    base.check_size(size, makers)
    c = base.get_config()
    c.name = f"kl-{size}"
    c.autoencoder.size = size
    c.code.kind = "kl"
    c.losses.kl = 1e-6
    makers[size](c)
    return c


def _published(c: ConfigDict, *, channels: int) -> None:
    """The recipe of latent-diffusion, at 8 devices x 12 images; the duration is our choice.

    Its reconstruction loss is a sum over the 256 x 256 x 3 dimensions and ours their mean, so the
    clamp of the adaptive weight, 1e4 there, is divided by them.
    """
    c.code.channels = channels
    c.autoencoder.latent_channels = channels
    base.eight_by_twelve(c)
    c.losses.adversarial = 0.5
    c.losses.adversarial_start = "50001 steps"
    c.losses.adversarial_most = 1e4 / (256 * 256 * 3)


def _stable_diffusion(c: ConfigDict) -> None:
    _published(c, channels=4)
    c.autoencoder.multipliers = "1-2-4-4"
    c.autoencoder.attention = "middle"
    c.autoencoder.decoder_attention = "middle"


def _mar(c: ConfigDict) -> None:
    _published(c, channels=16)
    c.autoencoder.decoder_attention = "middle"


def _small(c: ConfigDict) -> None:
    base.small(c, size="small")
    c.code.channels = 4
    c.autoencoder.latent_channels = 4
