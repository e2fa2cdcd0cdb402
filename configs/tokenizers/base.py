"""Every field of a tokenizer's run. A kind's config starts from here and changes what it must."""

from collections.abc import Iterable

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The resolved defaults; `lab.core.config` states the type and the range of each field."""
    c = ConfigDict()
    c.name = ""  # a label for tables; not part of the identity
    c.study = "tokenizers"  # the folder that runs compared with each other share
    c.seed = 0  # initial parameters, data order, sampled bits
    c.data = base.data()
    c.images = _images()
    c.autoencoder = _autoencoder()
    c.code = _code()
    c.losses = _losses()
    c.weights = ""  # SHA-256 of a file of weights, set by lab.launch.adopt; "": trained
    c.optimizer = base.optimizer()
    c.train = base.train()
    c.execution = base.execution()
    c.optimizer.width_rule = "none"
    return c


def _images() -> ConfigDict:
    """The images that encoder and decoder see."""
    c = ConfigDict()
    c.resolution = 256  # pixels along a side of the largest centred square, area-averaged
    c.channels = "rgb"  # grey | rgb
    return c


def _autoencoder() -> ConfigDict:
    """Encoder and decoder (Esser et al. 2021, table 7), at the published f16 size."""
    c = ConfigDict()
    c.size = ""  # a name for the record
    c.width = 128  # channels of the finest level
    c.multipliers = "1-1-2-2-4"  # of the width, level by level; each but the last halves the side
    c.residual_blocks = 2  # a level of the encoder
    c.decoder_blocks = 3  # a level of the decoder
    c.decoder_norm_first = False  # normalise what enters the decoder
    c.latent_channels = 256  # between network and code
    c.attention = "lowest"  # none | middle | lowest: the middle and every block of the last level
    c.decoder_attention = "lowest"  # of the decoder alike
    c.last_activation = "swish"  # swish | none: before the last convolution of both
    c.groups = 32  # of the group normalisation
    return c


def _code() -> ConfigDict:
    """What lies between encoder and decoder; what a kind does not use stays 0 or False."""
    c = ConfigDict()
    c.kind = "vq"  # vq | binary | kl
    c.vocabulary = 0  # vq: codes
    c.features = 0  # vq: dimensions of a code
    c.normalised = False  # vq: codes and latents on the unit sphere
    c.bits = 0  # binary: bits a position
    c.sampled = False  # binary: bits are drawn in training, not rounded
    c.channels = 0  # kl: channels of the latent
    return c


def _losses() -> ConfigDict:
    """The terms of the objective and their weights."""
    c = ConfigDict()
    c.reconstruction = "l1"  # l1 | l2, mean over the dimensions of an image in [-1, 1]
    c.codebook = 0.0  # vq: moves codes to latents
    c.commitment = 0.0  # vq: moves latents to codes
    c.entropy = 0.0  # vq: sharp assignments, all codes used (MaskGIT)
    c.entropy_temperature = 0.01  # of the assignments in that term
    c.kl = 0.0  # kl: nats per image, divided by the dimensions of an image
    c.restart_below = 0.0  # vq: of an even share; a code used less starts anew; 0: none does
    c.perceptual = 0.0  # LPIPS; needs the file
    c.perceptual_file = ""  # safetensors: lab/tokenizers/perceptual.py says how it is made
    c.adversarial = 0.0  # patch discriminator with hinge loss; 0: there is none
    c.adversarial_start = "0 steps"  # a duration: from when the discriminator trains and counts
    c.adversarial_adaptive = True  # scaled by the ratio of gradients at the last layer
    c.adversarial_most = 1e4  # the largest such ratio
    c.discriminator_width = 64  # channels after its first convolution
    c.discriminator_layers = 3  # of stride 2
    return c


def eight_by_twelve(c: ConfigDict) -> None:
    """The recipe of taming-transformers and latent-diffusion, at 8 devices x 12 images."""
    c.losses.perceptual = 1.0
    c.optimizer.beta1 = 0.5
    c.optimizer.beta2 = 0.9
    c.optimizer.clip_norm = 0.0
    c.optimizer.schedule = "constant"
    c.optimizer.warmup = "0 steps"
    c.train.batch_size = 96
    c.optimizer.learning_rate = 4.5e-6 * c.train.batch_size
    c.train.duration = "40 epochs"
    c.data.augmentation = "flip"


def check_size(size: str, allowed: Iterable[str]) -> None:
    """Refuse a size that a config does not have."""
    if size not in allowed:
        raise ValueError(f'size "{size}": allowed are {", ".join(allowed)}')


def small(c: ConfigDict, *, size: str) -> None:
    """The recipe for images of 64 x 64 on a CPU: 8 x 8 codes, minutes of training."""
    c.autoencoder.size = size
    c.images.resolution = 64
    c.autoencoder.width = 16
    c.autoencoder.multipliers = "1-2-4-4"
    c.autoencoder.residual_blocks = 1
    c.autoencoder.decoder_blocks = 1
    c.autoencoder.latent_channels = 64
    c.autoencoder.attention = "middle"
    c.autoencoder.decoder_attention = "middle"
    c.autoencoder.groups = 8
    c.data.name = "eurosat"
    c.losses.discriminator_width = 16
    c.losses.discriminator_layers = 2
    c.optimizer.learning_rate = 2e-3
    c.optimizer.beta2 = 0.99
    c.optimizer.warmup = "100 steps"
    c.train.batch_size = 16
    c.train.duration = "20480 examples"
    c.train.log_every_steps = 50
