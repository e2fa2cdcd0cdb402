"""Vector quantisation (van den Oord et al. 2017; Yu et al. 2022, "ViT-VQGAN", for the unit sphere).

B batch, H rows, W columns, T tokens (B x H x W), E encoder's channels, F features, V codes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.codes import Alphabet, CodeKind
from lab.layers.parameters import codebook
from lab.tokenizers.bottleneck import Bottled, per_image_mean, pointwise, straight_through

NORM_EPSILON = 1e-12  # of a vector's length
USAGE_DECAY = 0.99  # of the running share of each code, a step
EXACT = jax.lax.Precision.HIGHEST


class VectorQuantiser(nnx.Module):
    """1 x 1 to F features, the nearest of V codes, 1 x 1 back; ids are int32 (B, H, W).

    With z the features and e the code chosen, both of unit length where `normalised`, the losses
    are means over all elements: "codebook" |sg(z) - e|^2 moves codes, "commitment" |z - sg(e)|^2
    moves the encoder (van den Oord et al. 2017, equation 3, with beta on the second; VQGAN's
    published quantiser has it on the first unless its `legacy` is off), and "entropy" is
    `entropy_loss`. The codebook starts uniform within 1 / V, as published.
    """

    def __init__(
        self,
        key: jax.Array,
        *,
        latent_channels: int,
        features: int,
        vocabulary: int,
        normalised: bool,
        commitment: float,
        codebook_weight: float,
        entropy_weight: float,
        entropy_temperature: float,
    ):
        into_key, codes_key, out_key = jax.random.split(key, 3)
        self.into = pointwise(into_key, inputs=latent_channels, outputs=features)
        shape, bound = (vocabulary, features), 1 / vocabulary
        start_VF = jax.random.uniform(codes_key, shape, minval=-bound, maxval=bound)
        self.codebook = codebook(unit(start_VF) if normalised else start_VF)
        self.out = pointwise(out_key, inputs=features, outputs=latent_channels)
        self.normalised = normalised
        self.commitment = commitment
        self.codebook_weight = codebook_weight
        self.entropy_weight = entropy_weight
        self.entropy_temperature = entropy_temperature

    @property
    def alphabet(self) -> Alphabet:
        """V ids."""
        return Alphabet(CodeKind.IDS, self.codebook.shape[0])

    @property
    def encoder_outputs(self) -> int:
        """Channels that it wants of the encoder."""
        return self.into.weight.shape[2]

    @property
    def forward_flops_per_position(self) -> int:
        """Both projections and the product with every code."""
        vocabulary, features = self.codebook.shape
        return 2 * features * (2 * self.encoder_outputs + vocabulary)

    def __call__(self, h_BHWE: jax.Array, key: jax.Array | None) -> Bottled:
        """No draw is made."""
        z_BHWF, codes_VF = self.project(h_BHWE), self.codes()
        far_TV = distances(z_BHWF, codes_VF)
        ids_BHW = _nearest(far_TV).reshape(z_BHWF.shape[:3])
        e_BHWF = codes_VF[ids_BHW]
        losses = self._losses(z_BHWF, e_BHWF, far_TV)
        measures = {"quantisation_square": per_image_mean((z_BHWF - e_BHWF) ** 2)}
        latent = self.out(straight_through(e_BHWF, z_BHWF))
        return Bottled(latent, ids_BHW, losses, measures, z_BHWF)

    def project(self, h_BHWE: jax.Array) -> jax.Array:
        """Features (B, H, W, F) that are quantised."""
        z_BHWF = self.into(h_BHWE.astype(jnp.float32))
        return unit(z_BHWF) if self.normalised else z_BHWF

    def codes(self) -> jax.Array:
        """The codes (V, F) as they are compared."""
        codes_VF = self.codebook[...]
        return unit(codes_VF) if self.normalised else codes_VF

    def encode(self, h_BHWE: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Ids int32 (B, H, W) of the nearest codes, the lowest of equals; no draw is made."""
        z_BHWF = self.project(h_BHWE)
        return _nearest(distances(z_BHWF, self.codes())).reshape(z_BHWF.shape[:3])

    def embed(self, codes: jax.Array) -> jax.Array:
        """The decoder's input of ids (B, H, W)."""
        return self.out(self.codes()[codes])

    def even_usage(self) -> jax.Array:
        """(V,): the share of each code where all are used alike."""
        vocabulary = self.codebook.shape[0]
        return jnp.full((vocabulary,), 1 / vocabulary)

    def running_usage(self, usage_V: jax.Array, ids_BHW: jax.Array) -> jax.Array:
        """Shares after one more batch: an exponential average over steps."""
        counts_V = jnp.bincount(ids_BHW.reshape(-1), length=usage_V.shape[0])
        return USAGE_DECAY * usage_V + (1 - USAGE_DECAY) * counts_V / ids_BHW.size

    def restart_dead(
        self, usage_V: jax.Array, z_BHWF: jax.Array, key: jax.Array, *, below: float
    ) -> "Restarted":
        """`restart_dead` of this codebook."""
        return restart_dead(self.codebook[...], usage_V, z_BHWF, key, below=below)

    def _losses(
        self, z_BHWF: jax.Array, e_BHWF: jax.Array, far_TV: jax.Array
    ) -> dict[str, jax.Array]:
        fixed = jax.lax.stop_gradient
        losses = {
            "codebook": self.codebook_weight * jnp.mean((fixed(z_BHWF) - e_BHWF) ** 2),
            "commitment": self.commitment * jnp.mean((z_BHWF - fixed(e_BHWF)) ** 2),
        }
        if self.entropy_weight > 0:  # a softmax does not depend on the |z|^2 that is left out
            entropy = entropy_loss(far_TV, temperature=self.entropy_temperature)
            losses["entropy"] = self.entropy_weight * entropy
        return losses


class Restarted(NamedTuple):
    """A codebook (V, F) after a restart, its usage (V,), and how many codes started anew."""

    codebook: jax.Array
    usage: jax.Array
    count: jax.Array


def restart_dead(
    codebook_VF: jax.Array,
    usage_V: jax.Array,
    z_BHWF: jax.Array,
    key: jax.Array,
    *,
    below: float,
) -> Restarted:
    """Put codes whose share of the usage is under `below` of an even share where tokens are.

    Each takes a random token of the batch, no token twice where there are enough, and an even
    share of the usage (Dhariwal et al. 2020, "Jukebox", section 3.1).
    """
    vocabulary, features = codebook_VF.shape
    z_TF = z_BHWF.reshape(-1, features)
    tokens = z_TF.shape[0]
    chosen_V = jax.random.choice(key, tokens, (vocabulary,), replace=tokens < vocabulary)
    dead_V = usage_V * vocabulary < below
    return Restarted(
        jnp.where(dead_V[:, None], jax.lax.stop_gradient(z_TF[chosen_V]), codebook_VF),
        jnp.where(dead_V, 1 / vocabulary, usage_V),
        jnp.sum(dead_V),
    )


def unit(x: jax.Array) -> jax.Array:
    """x over its length; 0 stays 0."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, NORM_EPSILON**2))


def distances(z_BHWF: jax.Array, codes_VF: jax.Array) -> jax.Array:
    """|e|^2 - 2 z.e (T, V): the squared distances without |z|^2, which no choice depends on."""
    z_TF = z_BHWF.reshape(-1, z_BHWF.shape[-1])
    products_TV = jnp.matmul(z_TF, codes_VF.T, precision=EXACT)
    return jnp.sum(codes_VF**2, axis=-1)[None] - 2 * products_TV


def _nearest(far_TV: jax.Array) -> jax.Array:
    return jnp.argmin(far_TV, axis=-1).astype(jnp.int32)


def entropy_loss(far_TV: jax.Array, *, temperature: float) -> jax.Array:
    """In nats: mean entropy of a token's soft choice, less the entropy of the mean choice.

    The choice is softmax(-distance / temperature) (the published code of Chang et al. 2022,
    "MaskGIT"). At least -ln V: every token chooses sharply and all codes are chosen alike.
    """
    log_p_TV = jax.nn.log_softmax(-far_TV / temperature, axis=-1)
    of_each = -jnp.mean(jnp.sum(jnp.exp(log_p_TV) * log_p_TV, axis=-1))
    mean_log_V = jax.nn.logsumexp(log_p_TV, axis=0) - jnp.log(far_TV.shape[0])
    return of_each + jnp.sum(jnp.exp(mean_log_V) * mean_log_V)
