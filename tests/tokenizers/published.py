"""Published autoencoders: their shapes and codes, and tiny ones of the same kinds."""

import dataclasses
import functools

import jax
import numpy as np

from lab.tokenizers.autoencoder import builder
from lab.tokenizers.binary import BinaryCode
from lab.tokenizers.kl import GaussianCode
from lab.tokenizers.plan import NetworkSpec
from lab.tokenizers.vq import VectorQuantiser


@dataclasses.dataclass(frozen=True)
class Published:
    """A network and what makes its code."""

    network: NetworkSpec
    make_bottleneck: functools.partial

    @property
    def build(self):
        return builder(self.network, self.make_bottleneck, compute_dtype="float32")

    @property
    def abstract(self):
        return jax.eval_shape(self.build, jax.random.key(0))


def quantiser(latent, **changes):
    sizes = {
        "latent_channels": latent,
        "features": 8,
        "vocabulary": 16384,
        "normalised": True,
        "commitment": 0.25,
        "codebook_weight": 1.0,
        "entropy_weight": 0.0,
        "entropy_temperature": 0.01,
    }
    return functools.partial(VectorQuantiser, **{**sizes, **changes})


def gaussian(latent, channels):
    return functools.partial(
        GaussianCode,
        latent_channels=latent,
        channels=channels,
        weight=1e-6,
        dims_per_position=192,
    )


def binary(latent, bits, *, sampled=True):
    return functools.partial(BinaryCode, latent_channels=latent, bits=bits, sampled=sampled)


F16 = {"width": 128, "multipliers": (1, 1, 2, 2, 4)}
VQGAN_F16 = NetworkSpec(**F16, latent_channels=256, attention="lowest")
BAE_F16 = dataclasses.replace(
    VQGAN_F16, decoder_blocks=2, decoder_norm_first=True, last_activation="none"
)
PUBLISHED = {
    "LlamaGen VQ-16": Published(VQGAN_F16, quantiser(256)),
    "LlamaGen VQ-8": Published(
        dataclasses.replace(VQGAN_F16, multipliers=(1, 2, 2, 4)), quantiser(256)
    ),
    "taming f16 1024": Published(
        VQGAN_F16, quantiser(256, features=256, vocabulary=1024, normalised=False)
    ),
    "taming f16 16384": Published(
        VQGAN_F16, quantiser(256, features=256, vocabulary=16384, normalised=False)
    ),
    "Stable Diffusion f8": Published(
        NetworkSpec(width=128, multipliers=(1, 2, 4, 4), latent_channels=4, attention="middle"),
        gaussian(4, 4),
    ),
    "MAR KL-16": Published(
        NetworkSpec(**F16, latent_channels=16, attention="lowest", decoder_attention="middle"),
        gaussian(16, 16),
    ),
    "BAE 16": Published(BAE_F16, binary(256, 16)),
    "BAE 24": Published(BAE_F16, binary(256, 24)),
}

TINY_NETWORK = NetworkSpec(
    width=8,
    multipliers=(1, 2),
    latent_channels=12,
    attention="lowest",
    residual_blocks=1,
    decoder_blocks=1,
    groups=4,
)
TINY = {
    "vq": Published(TINY_NETWORK, quantiser(12, features=5, vocabulary=13, normalised=False)),
    "unit vq": Published(TINY_NETWORK, quantiser(12, features=5, vocabulary=13)),
    "binary": Published(TINY_NETWORK, binary(12, 6)),
    "kl": Published(TINY_NETWORK, gaussian(12, 3)),
}


def images(count=2, *, side=8, seed=0):
    """Float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, side, side, 3)).astype("float32")
