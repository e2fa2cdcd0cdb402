"""Encoder, bottleneck and decoder in one: images to codes to images.

B batch, H rows, W columns, C channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.errors import LabError
from lab.core.layout import constrain_batch
from lab.core.scopes import BOTTLENECK, DECODER, ENCODER
from lab.tokenizers.bottleneck import Bottled, Bottleneck
from lab.tokenizers.network import Decoder, Encoder
from lab.tokenizers.plan import NetworkSpec

MakeBottleneck = Callable[[jax.Array], Bottleneck]  # of a key


class Reconstruction(NamedTuple):
    """Images that came back, what the bottleneck gave, and what entered the last convolution."""

    images: jax.Array  # (B, H, W, C) float32
    bottled: Bottled
    features: jax.Array  # (B, H, W, width)


class Autoencoder(nnx.Module):
    """Images are float in [-1, 1]. Without a key nothing is random.

    Encoder and decoder compute in `compute_dtype`, their norms and the bottleneck in float32.
    """

    def __init__(
        self,
        key: jax.Array,
        network: NetworkSpec,
        make_bottleneck: MakeBottleneck,
        *,
        compute_dtype: str,
    ):
        encoder_key, bottleneck_key, decoder_key = jax.random.split(key, 3)
        self.bottleneck = make_bottleneck(bottleneck_key)
        self.encoder = Encoder(encoder_key, network, outputs=self.bottleneck.encoder_outputs)
        self.decoder = Decoder(decoder_key, network)
        self.downscale = network.downscale
        self.compute_dtype = compute_dtype

    def encode(self, images_BHWC: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Codes; the bottleneck says which."""
        return self.bottleneck.encode(self._hidden(images_BHWC), key)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Images (B, H, W, C) float32, not clipped."""
        return self.decoder(self._cast(self.bottleneck.embed(codes))).astype(jnp.float32)

    def reconstruct(self, images_BHWC: jax.Array, key: jax.Array | None = None) -> Reconstruction:
        """Through all of it, with losses and measures."""
        hidden_BHWE = self._hidden(images_BHWC)
        with jax.named_scope(BOTTLENECK):
            bottled = self.bottleneck(hidden_BHWE, key)
        with jax.named_scope(DECODER):
            features = self.decoder.features(self._cast(bottled.latent))
            images = self.decoder.out(features).astype(jnp.float32)
        return Reconstruction(images, bottled, features)

    @jax.named_scope(ENCODER)
    def _hidden(self, images_BHWC: jax.Array) -> jax.Array:
        rows, columns = images_BHWC.shape[1:3]
        if rows % self.downscale or columns % self.downscale:
            raise LabError(
                f"images of {rows} x {columns}: both sides must be multiples of {self.downscale}"
            )
        return self.encoder(self._cast(constrain_batch(images_BHWC))).astype(jnp.float32)

    def _cast(self, x: jax.Array) -> jax.Array:
        return x.astype(self.compute_dtype)


def builder(
    network: NetworkSpec, make_bottleneck: MakeBottleneck, *, compute_dtype: str
) -> Callable[[jax.Array], Autoencoder]:
    """A function from a key to an autoencoder with its initial parameters."""
    return lambda key: Autoencoder(key, network, make_bottleneck, compute_dtype=compute_dtype)
