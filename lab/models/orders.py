"""Autoregressive order, and what every order is to a generator.

B batch, T positions, S numbers at a position, D width.
"""

import dataclasses
import functools
import math
import typing
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.counts import ByRole
from lab.core.scopes import DRAWS, EMBEDDING
from lab.layers.attention import Mask
from lab.layers.draws import WHOLE, Part
from lab.layers.dropout import dropout
from lab.layers.positions import grid_angles, with_prefix
from lab.models.image_keys import each_folded, keys_of
from lab.models.objective import Likelihood, Objective, Training
from lab.models.scans import scan

if typing.TYPE_CHECKING:
    from lab.models.generator import Generator

HEAD = 3  # folded into the key of a step: what a head draws; 0 to 2 are split from it


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

    def scan(self, name: str) -> np.ndarray:
        """Positions (T,) in the order of a scan of the cells; those of a cell stay together."""
        cells_N1 = scan(name, self.rows, self.columns)[:, None]
        return (self.slots * cells_N1 + np.arange(self.slots)).reshape(-1)

    def angles(self, *, head_features: int, base: float) -> np.ndarray:
        """Rotary angles of a prefix and all positions; those inside a cell share its angle."""
        cells = grid_angles(self.rows, self.columns, head_features=head_features, base=base)
        return with_prefix(np.repeat(cells, self.slots, axis=0))


class Order(Protocol):
    """In which order a generator predicts, what it learns from that and what likelihood it has."""

    def training(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key: jax.Array | None,
        *,
        dropout: bool = True,
        part: Part = WHOLE,
    ) -> Training:
        """The training loss; what is random in it, and where asked for dropout, is from the key.

        An image of a `part` of a batch is given the randomness that it has in the whole.
        """
        ...

    def nats(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key_B: jax.Array | None,
        draws: int,
    ) -> jax.Array:
        """Nats (B,) of each image, exact or a bound estimated with so many draws; no dropout."""
        ...

    def likelihood(self, model: "Generator") -> Likelihood:
        """What `nats` are."""
        ...

    def objective(self, model: "Generator") -> Objective:
        """What `training` gives a position."""
        ...

    def forward_flops(self, model: "Generator") -> ByRole:
        """Forward FLOPs of the training loss of one image."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RasterOrder:
    """Autoregression along a scan of the grid, in rows unless said, with the class as a prefix.

    The inputs are the class and all codes but the last; a position is predicted from the class
    and the codes that the scan has before it (van den Oord et al. 2016, equation 1). The likelihood
    is exact where that of the head is. What a head or an embedding knows of the number of a
    position is its number in the scan.
    """

    grid: Grid
    rotary_base: float
    embedding_dropout: float
    scan: str = "rows"  # a name of lab/models/scans.py

    mask = Mask.CAUSAL

    @functools.cached_property
    def _scan_T(self) -> np.ndarray:
        return self.grid.scan(self.scan)

    def scanned(self, x_BT: Any) -> Any:
        """Values (B, T, ...) of the positions in raster order, in the order of the scan."""
        return x_BT if self.scan == "rows" else x_BT[:, self._scan_T]

    def placed(self, x_BT: Any) -> Any:
        """Values (B, T, ...) in the order of the scan, back in raster order."""
        return x_BT if self.scan == "rows" else x_BT[:, np.argsort(self._scan_T)]

    def likelihood(self, model: "Generator") -> Likelihood:
        """That of the head."""
        return model.head.likelihood

    def objective(self, model: "Generator") -> Objective:
        """That of the head."""
        return model.head.objective

    def angles(self, head_features: int) -> np.ndarray:
        """Rotary angles of the inputs: the class, and all positions but the last."""
        return self.all_angles(head_features)[:-1]

    def all_angles(self, head_features: int) -> np.ndarray:
        """Rotary angles of the class and of all positions along the scan."""
        angles_NK = self.grid.angles(head_features=head_features, base=self.rotary_base)
        return angles_NK[np.concatenate([[0], 1 + self._scan_T])]

    def training(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key: jax.Array | None,
        *,
        dropout: bool = True,
        part: Part = WHOLE,
    ) -> Training:
        """The head's loss at every position given those before it."""
        tokens_BTS = self.scanned(tokens_BTS)
        x_BTD = self.features(model, tokens_BTS, label_B, key if dropout else None, part)
        images, positions = tokens_BTS.shape[:2]
        key_B = None if key is None else keys_of(jax.random.fold_in(key, HEAD), images, part)
        loss_BT = model.predictor.loss(x_BTD, tokens_BTS, key_B)
        return Training(jnp.sum(loss_BT, axis=1), positions)

    def nats(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key_B: jax.Array | None,
        draws: int,
    ) -> jax.Array:
        """The sum over positions; the draws are the head's, the features are computed once."""
        tokens_BTS = self.scanned(tokens_BTS)
        x_BTD = self.features(model, tokens_BTS, label_B, None)
        head = model.predictor
        if head.likelihood is Likelihood.EXACT:
            return jnp.sum(head.nats(x_BTD, tokens_BTS, None), axis=1)

        def drawn(number: jax.Array) -> jax.Array:
            return jnp.sum(head.nats(x_BTD, tokens_BTS, each_folded(key_B, number)), axis=1)

        return jnp.mean(jax.lax.map(drawn, jnp.arange(draws)), axis=0)

    def position_nats(
        self, model: "Generator", tokens_BTS: jax.Array, label_B: jax.Array
    ) -> jax.Array:
        """Nats (B, T) of each position given those before it, of an exact head."""
        tokens_BTS = self.scanned(tokens_BTS)
        x_BTD = self.features(model, tokens_BTS, label_B, None)
        return self.placed(model.predictor.nats(x_BTD, tokens_BTS, None))

    def features(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key: jax.Array | None,
        part: Part = WHOLE,
    ) -> jax.Array:
        """The backbone's output (B, T, D) from which each position is predicted.

        Tokens and features are in the order of the scan.
        """
        with jax.named_scope(DRAWS):
            keys = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
        with jax.named_scope(EMBEDDING):
            class_BD = model.classes(label_B, keys[0], part)
            inputs = [class_BD[:, None], model.embedding(tokens_BTS[:, :-1])]
            x_BTD = jnp.concatenate(inputs, axis=1)
            x_BTD = x_BTD.astype(model.compute_dtype)
            x_BTD = dropout(x_BTD, keys[1], rate=self.embedding_dropout, part=part)
        head_features = model.backbone.spec.width // model.backbone.spec.heads
        angles_TK = self.angles(head_features)
        return model.backbone(x_BTD, angles_TK, keys[2], condition_BD=class_BD, part=part)

    def forward_flops(self, model: "Generator") -> ByRole:
        """All positions, each query with the pairs that a causal mask leaves."""
        positions = self.grid.positions
        blocks, attention = model.backbone.forward_flops(positions, causal=True)
        return ByRole(
            embedding=positions * model.embedding.forward_flops_per_position,
            blocks=blocks,
            head=positions * model.head.forward_flops_per_position,
            attention=attention,
        )
