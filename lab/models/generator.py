"""A generator: embedding x backbone x order x head.

B batch, T positions, S numbers at a position (sub-codes, bits or channels).
"""

from typing import Any

import jax
from flax import nnx

from lab.core.counts import ByRole
from lab.layers.draws import WHOLE, Part
from lab.models.embeddings import ClassEmbedding
from lab.models.heads import TiedHead
from lab.models.objective import Likelihood, Objective, Training
from lab.models.orders import Order


class Generator(nnx.Module):
    """All that the trainer and the samplers know of a family."""

    def __init__(
        self,
        *,
        classes: ClassEmbedding,
        embedding: Any,
        backbone: Any,
        head: Any,
        order: Order,
        compute_dtype: str,
        time: Any = None,
        targets: Any = None,
    ):
        self.classes = classes
        self.embedding = embedding
        self.backbone = backbone
        self.head = head
        self.order = order
        self.compute_dtype = compute_dtype
        if time is not None:
            self.time = time  # of an order that diffuses whole images
        if targets is not None:
            self.targets = targets  # of autoregression in any order: which position comes next

    @property
    def predictor(self) -> Any:
        """The head; a tied one on the token embedding."""
        if isinstance(self.head, TiedHead):
            return self.head.tied_to(self.embedding.tables[...])
        return self.head

    @property
    def objective(self) -> Objective:
        """What training minimises, by its own name."""
        return self.order.objective(self)

    @property
    def likelihood(self) -> Likelihood:
        """Whether `nats_per_image` is exact or a bound."""
        return self.order.likelihood(self)

    def training(
        self,
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key: jax.Array | None,
        *,
        dropout: bool = True,
        part: Part = WHOLE,
    ) -> Training:
        """The training loss, summed over predicted positions; its randomness is from the key.

        `dropout` says whether features and classes are dropped as in training. The images are
        `part` of a batch, and each is given the randomness that it has in the whole.
        """
        return self.order.training(self, tokens_BTS, label_B, key, dropout=dropout, part=part)

    def nats_per_image(
        self,
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key_B: jax.Array | None = None,
        *,
        draws: int = 1,
    ) -> jax.Array:
        """Nats (B,) of each image: negative log likelihood, or an estimate of a bound of it.

        A bound needs a key for each image; its estimate is unbiased with any number of draws.
        """
        return self.order.nats(self, tokens_BTS, label_B, key_B, draws)

    def parameters(self) -> ByRole:
        """Parameters by role: class, time, tokens and next positions are embeddings; a final norm
        belongs to the head.
        """

        def leaves(*parts: Any) -> int:
            return sum(leaf.size for part in parts for leaf in jax.tree.leaves(part))

        others = [getattr(self, name) for name in ("time", "targets") if hasattr(self, name)]
        return ByRole(
            embedding=leaves(self.embedding, self.classes, *others),
            blocks=leaves(self.backbone),
            head=leaves(self.head),
        )

    def forward_flops_per_image(self) -> ByRole:
        """Forward FLOPs of the training loss of one image, by role."""
        return self.order.forward_flops(self)
