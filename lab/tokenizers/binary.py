"""Binary codes (Wang et al. 2023, "Binary Latent Diffusion", section 3.1).

B batch, H rows, W columns, E encoder's channels, K bits, Z latent channels.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.codes import Alphabet, CodeKind
from lab.layers.parameters import codebook
from lab.tokenizers.bottleneck import Bottled, drawn, pointwise, straight_through


class BinaryCode(nnx.Module):
    """1 x 1 to K logits; bits; the decoder's input is the sum of the embeddings of the ones.

    p = sigmoid(logits). With a key, where `sampled`, bits are drawn from Bernoulli(p); else a bit
    is p > 1/2. Gradients pass straight through: d bit / d p = 1. There is no loss: the published
    code's regulariser applies the sigmoid twice and has a weight of 0.
    """

    def __init__(self, key: jax.Array, *, latent_channels: int, bits: int, sampled: bool):
        into_key, bits_key = jax.random.split(key)
        self.into = pointwise(into_key, inputs=latent_channels, outputs=bits)
        self.embeddings = codebook(jax.random.normal(bits_key, (bits, latent_channels)))
        self.sampled = sampled

    @property
    def alphabet(self) -> Alphabet:
        """K bits."""
        return Alphabet(CodeKind.BITS, self.embeddings.shape[0])

    @property
    def encoder_outputs(self) -> int:
        """Channels that it wants of the encoder."""
        return self.into.weight.shape[2]

    @property
    def forward_flops_per_position(self) -> int:
        """The projection and the sum of embeddings."""
        bits, channels = self.embeddings.shape
        return 2 * bits * (self.encoder_outputs + channels)

    def __call__(self, h_BHWE: jax.Array, key: jax.Array | None) -> Bottled:
        """`measures` hold the entropy of the bits of a position in nats: what a draw adds."""
        logits_BHWK = self.logits(h_BHWE)
        p_BHWK = jax.nn.sigmoid(logits_BHWK)
        bits_BHWK = self._bits(p_BHWK, key if self.sampled else None)
        latent = self._sum(straight_through(bits_BHWK.astype(jnp.float32), p_BHWK))
        entropy_BHW = jnp.sum(bernoulli_entropy_nats(logits_BHWK), axis=-1)
        measures = {"bit_entropy_nats_per_position": jnp.mean(entropy_BHW, axis=(1, 2))}
        return Bottled(latent, bits_BHWK, {}, measures, p_BHWK)

    def logits(self, h_BHWE: jax.Array) -> jax.Array:
        """Log odds (B, H, W, K) of a one."""
        return self.into(h_BHWE.astype(jnp.float32))

    def probabilities(self, h_BHWE: jax.Array) -> jax.Array:
        """p (B, H, W, K) of a one."""
        return jax.nn.sigmoid(self.logits(h_BHWE))

    def encode(self, h_BHWE: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Bits uint8 (B, H, W, K): drawn with a key, whatever training did; p > 1/2 without."""
        return self._bits(self.probabilities(h_BHWE), key)

    def embed(self, codes: jax.Array) -> jax.Array:
        """The decoder's input of bits (B, H, W, K)."""
        return self._sum(codes.astype(jnp.float32))

    def _bits(self, p_BHWK: jax.Array, key: jax.Array | None) -> jax.Array:
        if key is None:
            return (p_BHWK > 0.5).astype(jnp.uint8)
        return (drawn(jax.random.uniform, key, p_BHWK.shape) < p_BHWK).astype(jnp.uint8)

    def _sum(self, bits_BHWK: jax.Array) -> jax.Array:
        exact = jax.lax.Precision.HIGHEST
        return jnp.einsum("bhwk,kz->bhwz", bits_BHWK, self.embeddings[...], precision=exact)


def bernoulli_entropy_nats(logits: jax.Array) -> jax.Array:
    """Entropy of a bit with these log odds."""
    return jax.nn.softplus(logits) - logits * jax.nn.sigmoid(logits)
