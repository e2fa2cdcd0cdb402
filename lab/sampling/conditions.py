"""What a draw is given besides the model: classes with the null class, keys, and known tokens.

B images, R rows (B, or 2 B with the null class after the class), T positions, S numbers at a
position, D width.
"""

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.errors import LabError
from lab.core.keys import Stream, key
from lab.models.drawing import Drawing
from lab.models.masked import MaskedOrder
from lab.models.orders import ANY, RasterOrder
from lab.models.scans import known_begins
from lab.sampling.guidance import Guidance

if TYPE_CHECKING:
    from lab.models.generator import Generator


class Known(NamedTuple):
    """An image of which a part is kept: its tokens, and where they are to be drawn anew."""

    tokens_BTS: jax.Array | np.ndarray
    hidden_BT: np.ndarray  # bool: on the host, where the rounds are planned


@functools.partial(jax.jit, static_argnames="seed")
def image_keys(seed: int, number_B: jax.Array) -> jax.Array:
    """A key for each image by its number: (B,). Nothing else of the batch matters."""
    base = key(seed, Stream.SAMPLE, 0)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(base, number_B)


def with_null(model: "Generator", label_B: jax.Array, guidance: Guidance) -> jax.Array:
    """Labels (R,): the null class is added where guidance needs it."""
    if not guidance.needed:
        return label_B
    return jnp.concatenate([label_B, jnp.full_like(label_B, model.classes.null)])


def as_rows(x: jax.Array, rows: int) -> jax.Array:
    """Values (B, ...) of the images for R rows: the same for the class and the null class."""
    return x if len(x) == rows else jnp.concatenate([x, x])


def split_rows(x: jax.Array, images: int) -> tuple[jax.Array, jax.Array | None]:
    """Values (R, ...) of the class (B, ...) and, where there are any, of the null class."""
    return x[:images], x[images:] if len(x) > images else None


def blank(model: "Generator", images: int) -> jax.Array:
    """Tokens (B, T, S) of zeros as the head draws them."""
    order = model.order
    assert isinstance(order, RasterOrder | MaskedOrder)  # a joint order has no blank tokens
    positions, width = order.grid.positions, model.backbone.spec.width

    def one(model: "Generator", key: jax.Array) -> jax.Array:
        x_TD = jnp.zeros((positions, width), model.compute_dtype)
        return model.predictor.propose(x_TD, None, jnp.ones(()), key, Drawing()).tokens_TS

    like = jax.eval_shape(one, model, jax.random.key(0))  # the model may be abstract
    return jnp.zeros((images, *like.shape), like.dtype)


def check_known(known: Known, *, images: int, positions: int, numbers: int) -> None:
    """Raise LabError where mask or tokens do not fit; `numbers` are those of a position."""
    hidden_BT = np.asarray(known.hidden_BT)
    if hidden_BT.shape != (images, positions) or hidden_BT.dtype != np.bool_:
        raise LabError(
            f"known tokens: a mask {hidden_BT.dtype} {hidden_BT.shape}; expected is bool "
            f"({images}, {positions})"
        )
    if np.shape(known.tokens_BTS) != (images, positions, numbers):
        raise LabError(
            f"known tokens: {np.shape(known.tokens_BTS)}; expected is "
            f"({images}, {positions}, {numbers})"
        )


def check_beginning(hidden_BT: np.ndarray, order: RasterOrder) -> None:
    """Raise LabError where what is drawn does not come last in the scan of an order.

    In any order it can, unless a part of a cell is known.
    """
    if order.scan == ANY:
        hidden_BNS = hidden_BT.reshape(len(hidden_BT), -1, order.grid.slots)
        if np.any(hidden_BNS != hidden_BNS[..., :1]):
            raise LabError("known tokens: a cell is known or drawn as a whole")
        return
    if not known_begins(order.path().along(hidden_BT)):
        raise LabError(
            f'known tokens: this model draws along the scan "{order.scan}", so that a known '
            "position may not come after one that is drawn; keep a beginning of the scan"
        )
