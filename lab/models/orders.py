"""Autoregressive order, and what every order is to a generator.

B batch, T positions, S numbers at a position, D width.
"""

import dataclasses
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
from lab.models.paths import Path
from lab.models.scans import scan

if typing.TYPE_CHECKING:
    from lab.models.generator import Generator

HEAD = 3  # folded into the key of a step: what a head draws; 0 to 2 are split from it
ORDER = 5  # the same of what comes after what
ANY = "any"  # the scan that is none


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
        return self.positions_of(scan(name, self.rows, self.columns))

    def positions_of(self, cell_N: Any) -> Any:
        """Positions (..., T) of cells (..., N)."""
        position_NS = self.slots * cell_N[..., None] + np.arange(self.slots)
        return position_NS.reshape(*cell_N.shape[:-1], -1)

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

    Under the scan "any" each image is given an order of cells at random, and each input is told by
    an embedding which position comes next (Pannatier et al. 2024, "sigma-GPTs", arXiv 2404.09562;
    Pang et al. 2024, "RandAR", arXiv 2412.01827). The likelihood of an image is then a mean over
    orders, and the mean of its negative logarithm over orders is a bound (Uria et al. 2014).
    """

    grid: Grid
    rotary_base: float
    embedding_dropout: float
    scan: str = "rows"  # a name of lab/models/scans.py, or "any"

    mask = Mask.CAUSAL

    def likelihood(self, model: "Generator") -> Likelihood:
        """That of the head; a bound in any order."""
        return Likelihood.BOUND if self.scan == ANY else model.head.likelihood

    def objective(self, model: "Generator") -> Objective:
        """That of the head; in any order it is no likelihood of an image, and has a name."""
        of = model.head.objective
        if self.scan != ANY:
            return of
        key = of.key.replace("loss_", "loss_any_order_")
        return dataclasses.replace(of, key=key, unit=f"{of.unit} in any order")

    def path(self, key_B: jax.Array | None = None, hidden_BT: Any = None) -> Path:
        """The scan; in any order a random one of the cells for each key, of known cells first."""
        if self.scan != ANY:
            return Path(self.grid.scan(self.scan))
        assert key_B is not None
        cells = self.grid.rows * self.grid.columns
        place_BN = jax.vmap(lambda key: jax.random.uniform(key, (cells,)))(key_B)
        if hidden_BT is not None:
            place_BN = place_BN + hidden_BT[:, :: self.grid.slots]
        return Path(self.grid.positions_of(jnp.argsort(place_BN, axis=1)))

    def angles(self, head_features: int, path: Path) -> Any:
        """Rotary angles of the inputs: the class, and all positions of the path but the last."""
        return self.all_angles(head_features, path)[..., :-1, :]

    def all_angles(self, head_features: int, path: Path) -> Any:
        """Rotary angles of the class and of all positions along the path."""
        return path.angles(self.grid.angles(head_features=head_features, base=self.rotary_base))

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
        images, positions = tokens_BTS.shape[:2]
        with jax.named_scope(DRAWS):
            path = self.path(self._keys(key, ORDER, images, part))
        tokens_BTS = path.along(tokens_BTS)
        dropped = key if dropout else None
        x_BTD = self.features(model, tokens_BTS, label_B, dropped, part, path=path)
        loss_BT = model.predictor.loss(x_BTD, tokens_BTS, self._keys(key, HEAD, images, part))
        return Training(jnp.sum(loss_BT, axis=1), positions)

    def nats(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key_B: jax.Array | None,
        draws: int,
    ) -> jax.Array:
        """The sum over positions; the draws are the head's, or of orders."""
        if self.scan == ANY:
            return self._any_order_nats(model, tokens_BTS, label_B, key_B, draws)
        path, head = self.path(), model.predictor
        tokens_BTS = path.along(tokens_BTS)
        x_BTD = self.features(model, tokens_BTS, label_B, None, path=path)  # once for all draws
        if head.likelihood is Likelihood.EXACT:
            return jnp.sum(head.nats(x_BTD, tokens_BTS, None), axis=1)

        def drawn(number: jax.Array) -> jax.Array:
            return jnp.sum(head.nats(x_BTD, tokens_BTS, each_folded(key_B, number)), axis=1)

        return jnp.mean(jax.lax.map(drawn, jnp.arange(draws)), axis=0)

    def _any_order_nats(self, model, tokens_BTS, label_B, key_B, draws) -> jax.Array:
        """The mean over so many random orders of an image: an unbiased estimate of the bound."""

        def drawn(number: jax.Array) -> jax.Array:
            path = self.path(each_folded(each_folded(key_B, ORDER), number))
            along_BTS = path.along(tokens_BTS)
            x_BTD = self.features(model, along_BTS, label_B, None, path=path)
            return jnp.sum(model.predictor.nats(x_BTD, along_BTS, None), axis=1)

        return jnp.mean(jax.lax.map(drawn, jnp.arange(draws)), axis=0)

    def features(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key: jax.Array | None,
        part: Part = WHOLE,
        *,
        path: Path | None = None,
    ) -> jax.Array:
        """The backbone's output (B, T, D) from which each position is predicted.

        Tokens and features are in the order of the path, by itself that of the scan.
        """
        path = path or self.path()
        with jax.named_scope(DRAWS):
            keys = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
        with jax.named_scope(EMBEDDING):
            class_BD = model.classes(label_B, keys[0], part)
            x_BTD = self.inputs(model, class_BD, model.embedding(tokens_BTS[:, :-1]), path)
            x_BTD = x_BTD.astype(model.compute_dtype)
            x_BTD = dropout(x_BTD, keys[1], rate=self.embedding_dropout, part=part)
        head_features = model.backbone.spec.width // model.backbone.spec.heads
        angles_TK = self.angles(head_features, path)
        return model.backbone(x_BTD, angles_TK, keys[2], condition_BD=class_BD, part=part)

    def inputs(
        self, model: "Generator", class_BD: jax.Array, x_BTD: jax.Array, path: Path
    ) -> jax.Array:
        """The class and the embedded tokens along the path, of which the last may be missing.

        In any order each is told what comes next; nothing comes after the last.
        """
        x_BND = jnp.concatenate([class_BD[:, None], x_BTD], axis=1)
        if self.scan != ANY:
            return x_BND
        next_BTD = self.next_positions(model, path)
        missing = x_BND.shape[1] - next_BTD.shape[1]
        return x_BND + jnp.pad(next_BTD, ((0, 0), (0, missing), (0, 0)))

    def next_positions(self, model: "Generator", path: Path) -> jax.Array:
        """What tells an input which position is predicted from it: (B, T, D), or (1, T, D)."""
        next_TD = model.targets[...][path.position]
        return next_TD[None] if path.shared else next_TD

    def _keys(self, key: jax.Array | None, number: int, images: int, part: Part):
        return None if key is None else keys_of(jax.random.fold_in(key, number), images, part)

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
