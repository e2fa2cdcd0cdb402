"""The binary autoencoder (Wang et al. 2023, "Binary Latent Diffusion"; ELM's and BiGR's tokenizer).

    python -m lab.launch.train --config configs/tokenizers/binary.py:small-16

After the colon: `16`, `20`, `24`, `32` (bits a position) as published for ImageNet, `small-16` and
`small-20` for images of 64 x 64 on a CPU. The published ones want ImageNet and a file of LPIPS
weights (config.losses.perceptual_file). A final `-rounded` trains with rounded bits where the
published recipe draws them.
"""

from ml_collections import ConfigDict

from configs.tokenizers import base

BITS = (16, 20, 24, 32)
_DRAWN = (*map(str, BITS), *(f"small-{bits}" for bits in BITS))
SIZES = (*_DRAWN, *(f"{size}-rounded" for size in _DRAWN))


def get_config(size: str = "small-16") -> ConfigDict:
    """The config of one size."""
    base.check_size(size, SIZES)
    c = base.get_config()
    c.name = f"binary-{size}"
    c.autoencoder.size = size
    c.code.kind = "binary"
    drawn = size.removesuffix("-rounded")
    c.code.sampled = drawn == size
    by_name = {str(bits): bits for bits in BITS}
    c.code.bits = by_name[drawn.removeprefix("small-")]
    if drawn.startswith("small-"):
        base.small(c, size=size)
    else:
        _published(c)
    c.autoencoder.decoder_norm_first = True
    c.autoencoder.decoder_blocks = c.autoencoder.residual_blocks
    return c


def _published(c: ConfigDict) -> None:
    """The recipe of the public code, which has no activation before its last convolutions.

    Its code starts the discriminator at step 30,001, its README at 400,001.
    """
    c.autoencoder.last_activation = "none"
    c.losses.perceptual = 1.0
    c.losses.adversarial = 1.0
    c.losses.adversarial_most = 1.0
    c.losses.adversarial_start = "30001 steps"
    c.optimizer.beta2 = 0.999
    c.optimizer.clip_norm = 0.0
    c.optimizer.schedule = "constant"
    c.optimizer.warmup = "0 steps"
    c.optimizer.ema_decay = 0.9995  # published: 0.995 every tenth step
    c.train.batch_size = 256
    c.optimizer.learning_rate = 4.5e-6 * c.train.batch_size
    c.train.duration = "1000000 steps"
    c.data.augmentation = "flip"
