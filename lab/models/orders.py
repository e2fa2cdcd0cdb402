"""In which order a generator predicts, and what likelihood that gives.

B batch, T positions, S sub-codes at a position, D width.
"""

import dataclasses
import math
import typing

import jax
import jax.numpy as jnp
import numpy as np

from lab.layers.attention import Mask
from lab.layers.dropout import dropout
from lab.layers.positions import grid_angles, with_prefix

if typing.TYPE_CHECKING:
    from lab.models.generator import Generator


@dataclasses.dataclass(frozen=True)
class Grid:
    """The shape in which positions lie: rows x columns cells of `slots` positions."""

    rows: int
    columns: int
    slots: int

    @property
    def positions(self) -> int:
        """Positions of an image."""
        return math.prod((self.rows, self.columns, self.slots))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RasterOrder:
    """Autoregression in raster order with the class as a prefix: an exact likelihood.

    The inputs are the class and all codes but the last; position i is predicted from the class
    and the codes before i (van den Oord et al. 2016, equation 1).
    """

    grid: Grid
    rotary_base: float
    embedding_dropout: float

    mask = Mask.CAUSAL
    likelihood = "exact"

    def angles(self, head_features: int) -> np.ndarray:
        """Rotary angles of the inputs; the positions inside a cell share its angle."""
        cells = grid_angles(
            self.grid.rows, self.grid.columns, head_features=head_features, base=self.rotary_base
        )
        return with_prefix(np.repeat(cells, self.grid.slots, axis=0)[:-1])

    def nats(
        self, model: "Generator", codes_BTS: jax.Array, label_B: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        """Nats (B, T) of each position given those before it; dropout where a key is given."""
        x_BTD = self.features(model, codes_BTS, label_B, key)
        return model.head.nats(x_BTD, codes_BTS)

    def features(
        self, model: "Generator", codes_BTS: jax.Array, label_B: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        """The backbone's output (B, T, D) from which each position is predicted."""
        keys = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
        class_BD = model.classes(label_B, keys[0])
        x_BTD = jnp.concatenate([class_BD[:, None], model.embedding(codes_BTS[:, :-1])], axis=1)
        x_BTD = dropout(x_BTD.astype(model.compute_dtype), keys[1], rate=self.embedding_dropout)
        head_features = model.backbone.spec.width // model.backbone.spec.heads
        return model.backbone(x_BTD, self.angles(head_features), keys[2])
