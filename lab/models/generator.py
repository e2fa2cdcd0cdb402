"""A generator: embedding x backbone x order x head.

B batch, T positions, S sub-codes at a position.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lab.models.backbone import Backbone
from lab.models.embeddings import ClassEmbedding, SubcodeEmbedding
from lab.models.heads import CategoricalHead
from lab.models.orders import RasterOrder


class Generator(nnx.Module):
    """embedding x backbone x order x head: all that the trainer knows of a family."""

    def __init__(
        self,
        *,
        classes: ClassEmbedding,
        embedding: SubcodeEmbedding,
        backbone: Backbone,
        head: CategoricalHead,
        order: RasterOrder,
        compute_dtype: str,
    ):
        self.classes = classes
        self.embedding = embedding
        self.backbone = backbone
        self.head = head
        self.order = order
        self.compute_dtype = compute_dtype

    def nats_per_image(
        self, codes_BTS: jax.Array, label_B: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        """Nats (B,) of each image: negative log likelihood, or its bound, as the order says."""
        return jnp.sum(self.order.nats(self, codes_BTS, label_B, key), axis=1)
