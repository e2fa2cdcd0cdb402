"""Any order: some positions are seen, the others predicted from them.

B batch, T positions, S numbers at a position, D width.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.counts import ByRole
from lab.core.scopes import DRAWS, EMBEDDING
from lab.layers.attention import Mask
from lab.layers.draws import WHOLE, Part
from lab.layers.dropout import dropout
from lab.models.image_keys import each_folded, keys_of
from lab.models.masks import MaskSchedule
from lab.models.objective import NATS, Likelihood, Objective, Training
from lab.models.orders import HEAD, Grid

if typing.TYPE_CHECKING:
    from lab.models.generator import Generator

COUNT, PLACES = 4, 5  # folded into a key: how many positions are hidden, and which


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedOrder:
    """Hidden positions predicted from the visible ones; the order of prediction is any.

    As a model of images it draws an order uniformly and predicts position after position
    (Uria et al. 2014; Hoogeboom et al. 2022): the likelihood of an image is a mean over orders,
    and the mean of its negative logarithm over orders is not below it (Jensen).
    """

    grid: Grid
    rotary_base: float
    embedding_dropout: float
    schedule: MaskSchedule

    mask = Mask.FULL

    def likelihood(self, model: "Generator") -> Likelihood:
        """A bound, whatever the head."""
        return Likelihood.BOUND

    def objective(self, model: "Generator") -> Objective:
        """That of the head, at hidden positions: no likelihood, whatever the head's is."""
        of = model.head.objective
        if of.key != NATS:
            return of
        unit = of.unit.replace("/token", "/hidden token")
        return dataclasses.replace(of, key="loss_hidden_nats_per_token", unit=unit)

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
        """The head's loss at hidden positions, as many in every image of the batch."""
        assert key is not None  # the masks are drawn
        images, positions = tokens_BTS.shape[:2]
        with jax.named_scope(DRAWS):
            count = self.schedule.count(jax.random.fold_in(key, COUNT), positions)
            rank_BT = ranks(keys_of(jax.random.fold_in(key, PLACES), images, part), positions)
        hidden_BT = rank_BT < count
        limit = self.schedule.most_visible(positions)
        dropped = key if dropout else None
        x_BTD = self.features(
            model, tokens_BTS, hidden_BT, label_B, dropped, visible_limit=limit, part=part
        )
        key_B = keys_of(jax.random.fold_in(key, HEAD), images, part)
        loss_BT = model.predictor.loss(x_BTD, tokens_BTS, key_B)
        return Training(jnp.sum(jnp.where(hidden_BT, loss_BT, 0.0), axis=1), count)

    def nats(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        label_B: jax.Array,
        key_B: jax.Array | None,
        draws: int,
    ) -> jax.Array:
        """The any-order bound (Hoogeboom et al. 2022, equation 5), an unbiased estimate.

        sum_n E[sum over n hidden positions of nats] / n, n = 1 to T: `draws` counts n, one from
        each part of a division of 1 to T in equal parts, each with a mask of its own; a draw is
        weighted with T / n.
        """
        images, positions = tokens_BTS.shape[:2]
        jitter_B = jax.vmap(jax.random.uniform)(each_folded(key_B, COUNT))

        def drawn(number: jax.Array) -> jax.Array:
            keys_B = each_folded(each_folded(key_B, PLACES), number)
            share_B = (number + jitter_B) / draws
            count_B = 1 + jnp.minimum(jnp.floor(share_B * positions), positions - 1)
            hidden_BT = ranks(keys_B, positions) < count_B[:, None]
            x_BTD = self.features(model, tokens_BTS, hidden_BT, label_B, None)
            nats_BT = model.predictor.nats(x_BTD, tokens_BTS, each_folded(keys_B, HEAD))
            return positions / count_B * jnp.sum(jnp.where(hidden_BT, nats_BT, 0.0), axis=1)

        return jnp.mean(jax.lax.map(drawn, jnp.arange(draws)), axis=0)

    def features(
        self,
        model: "Generator",
        tokens_BTS: jax.Array,
        hidden_BT: jax.Array,
        label_B: jax.Array,
        key: jax.Array | None,
        *,
        visible_limit: int | None = None,
        part: Part = WHOLE,
    ) -> jax.Array:
        """The backbone's output (B, T, D); at most `visible_limit` positions are not hidden."""
        with jax.named_scope(DRAWS):
            keys = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
        with jax.named_scope(EMBEDDING):
            class_BD = model.classes(label_B, keys[0], part)
            x_BTD = model.embedding(tokens_BTS, hidden_BT).astype(model.compute_dtype)
            x_BTD = dropout(x_BTD, keys[1], rate=self.embedding_dropout, part=part)
        return model.backbone.infill(
            x_BTD,
            hidden_BT,
            class_BD.astype(model.compute_dtype),
            self.all_angles(model.backbone.spec.width // model.backbone.spec.heads),
            keys[2],
            condition_BD=class_BD,
            visible_limit=visible_limit,
            part=part,
        )

    def all_angles(self, head_features: int) -> np.ndarray:
        """Rotary angles of the class and all positions."""
        return self.grid.angles(head_features=head_features, base=self.rotary_base)

    def forward_flops(self, model: "Generator") -> ByRole:
        """All positions, hidden or not: a compiled step has one shape."""
        positions = self.grid.positions
        limit = self.schedule.most_visible(positions)
        blocks, attention = model.backbone.infill_flops(positions, visible_limit=limit)
        return ByRole(
            embedding=positions * model.embedding.forward_flops_per_position,
            blocks=blocks,
            head=positions * model.head.forward_flops_per_position,
            attention=attention,
        )


def ranks(key_B: jax.Array, positions: int) -> jax.Array:
    """The place (B, T) of each position in a random order of its image."""
    draws_BT = jax.vmap(lambda key: jax.random.uniform(key, (positions,)))(key_B)
    return jnp.argsort(jnp.argsort(draws_BT, axis=1), axis=1)
