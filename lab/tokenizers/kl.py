"""Gaussian codes with a small pull to N(0, 1) (Rombach et al. 2022, "KL-reg").

B batch, H rows, W columns, E encoder's channels, C channels of a code.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.codes import Alphabet, CodeKind
from lab.tokenizers.bottleneck import Bottled, drawn, per_image_mean, pointwise

LOG_VARIANCE = (-30.0, 20.0)  # what it is clipped to


class GaussianCode(nnx.Module):
    """1 x 1 to mean and log variance of C channels; a draw, or the mean; 1 x 1 back.

    Codes are means before log variances, float32 (B, H, W, 2 C), whatever the key. The loss "kl"
    is the KL divergence from N(0, 1) in nats per dimension of an image, times `weight`: published
    weights are beside a reconstruction loss summed over the dimensions, and ours is their mean.
    `dims_per_position` dimensions belong to a position of the grid.
    """

    def __init__(
        self,
        key: jax.Array,
        *,
        latent_channels: int,
        channels: int,
        weight: float,
        dims_per_position: int,
    ):
        into_key, out_key = jax.random.split(key)
        self.into = pointwise(into_key, inputs=2 * latent_channels, outputs=2 * channels)
        self.out = pointwise(out_key, inputs=channels, outputs=latent_channels)
        self.weight = weight
        self.dims_per_position = dims_per_position

    @property
    def alphabet(self) -> Alphabet:
        """C channels."""
        return Alphabet(CodeKind.GAUSSIAN, self.channels)

    @property
    def channels(self) -> int:
        """Channels of a draw."""
        return self.out.weight.shape[2]

    @property
    def encoder_outputs(self) -> int:
        """Channels that it wants of the encoder."""
        return self.into.weight.shape[2]

    @property
    def forward_flops_per_position(self) -> int:
        """Both projections."""
        latent = self.out.weight.shape[3]
        return 2 * self.channels * (2 * self.encoder_outputs + latent)

    def __call__(self, h_BHWE: jax.Array, key: jax.Array | None) -> Bottled:
        """`measures`: the divergence, and the moments of a draw, whose std scales a latent."""
        moments = self.encode(h_BHWE)
        nats_B = kl_nats_per_image(moments)
        mean_BHWC, log_variance_BHWC = jnp.split(moments, 2, axis=-1)
        dims = self.dims_per_position * mean_BHWC.shape[1] * mean_BHWC.shape[2]
        measures = {
            "kl_nats_per_image": nats_B,
            "latent_mean": per_image_mean(mean_BHWC),
            "latent_square": per_image_mean(mean_BHWC**2 + jnp.exp(log_variance_BHWC)),
        }
        losses = {"kl": self.weight / dims * jnp.mean(nats_B)}
        latent = self.out(draw(moments, key))
        return Bottled(latent, moments, losses, measures, mean_BHWC)

    def encode(self, h_BHWE: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Means and clipped log variances (B, H, W, 2 C); no draw is made."""
        moments = self.into(h_BHWE.astype(jnp.float32))
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return jnp.concatenate([mean, jnp.clip(log_variance, *LOG_VARIANCE)], axis=-1)

    def embed(self, codes: jax.Array) -> jax.Array:
        """The decoder's input of a draw (B, H, W, C), or of the means of codes (B, H, W, 2 C)."""
        return self.out(codes[..., : self.channels].astype(jnp.float32))


def draw(moments: jax.Array, key: jax.Array | None) -> jax.Array:
    """A latent (B, H, W, C) from means and log variances (B, H, W, 2 C); the mean without a key."""
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    if key is None:
        return mean
    return mean + jnp.exp(log_variance / 2) * drawn(jax.random.normal, key, mean.shape)


def kl_nats_per_image(moments: jax.Array) -> jax.Array:
    """(B,): of N(mean, variance) from N(0, 1), summed over the latent (Kingma & Welling 2014)."""
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    nats = (mean**2 + jnp.exp(log_variance) - 1 - log_variance) / 2
    return jnp.sum(nats, axis=tuple(range(1, nats.ndim)))
