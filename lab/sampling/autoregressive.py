"""Position after position: one loop with a cache of keys and values, and one without.

B images, R rows (B, or 2 B with the null class), T positions, S numbers at a position, D width.
"""

import enum
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from lab.models.image_keys import each_folded
from lab.models.orders import ANY, RasterOrder
from lab.models.paths import Path
from lab.sampling.conditions import as_rows, split_rows, with_null
from lab.sampling.settings import Settings

if TYPE_CHECKING:
    from lab.models.generator import Generator


class Pass(enum.StrEnum):
    """How the features of the next position come about."""

    CACHED = "cached"  # one position runs through the layers; keys and values are kept
    FULL = "full"  # all positions run anew each time, as in ELM's public code


def draw(
    model: "Generator",
    label_B: jax.Array,
    key_B: jax.Array,
    tokens_BTS: jax.Array,
    hidden_BT: jax.Array,
    *,
    settings: Settings,
    features: Pass = Pass.CACHED,
) -> jax.Array:
    """Tokens (B, T, S) from p(x_i | class, x_before i), the class and the null class at once.

    Where `hidden_BT` is false, the token of `tokens_BTS` stands: what follows a known prefix of the
    scan is drawn from the model's conditional. The draw at position i of the scan is by number i of
    the image's key, and the order, where that is any, by number T. Runs under jit with static
    shapes.
    """
    loop = {Pass.CACHED: _cached, Pass.FULL: _full}[features]
    label_R = with_null(model, label_B, settings.guidance)
    order = model.order
    assert isinstance(order, RasterOrder)
    path = order.path(each_folded(key_B, tokens_BTS.shape[1]), hidden_BT)
    tokens_BTS, hidden_BT = path.along(tokens_BTS), path.along(hidden_BT)
    return path.back(loop(model, label_R, key_B, tokens_BTS, hidden_BT, settings, path))


def _cached(model, label_R, key_B, tokens_BTS, hidden_BT, settings, path) -> jax.Array:
    rows, positions = len(label_R), tokens_BTS.shape[1]
    class_RD = model.classes(label_R, None)
    spec = model.backbone.spec
    path = _of_rows(path, rows)
    angles_TK = model.order.angles(spec.width // spec.heads, path)
    told_RTD = model.order.next_positions(model, path) if model.order.scan == ANY else None

    def entering(x_RD: jax.Array, index: jax.Array | int) -> jax.Array:
        """What enters to predict position `index` of the path: no index is past the last."""
        x_RD = x_RD if told_RTD is None else x_RD + told_RTD[:, index]
        return x_RD.astype(model.compute_dtype)

    def step(carry: Any, index: jax.Array) -> tuple[Any, jax.Array]:
        x_RD, cache = carry
        out_RD, cache = model.backbone.step(x_RD, cache, index, angles_TK, class_RD)
        token_BS = _next(model, out_RD, key_B, index, settings, positions)
        token_BS = jnp.where(hidden_BT[:, index, None], token_BS, tokens_BTS[:, index])
        x_B1D = model.embedding(token_BS[:, None], first=index)
        following = jnp.minimum(index + 1, positions - 1)
        return (entering(as_rows(x_B1D[:, 0], rows), following), cache), token_BS

    cache = model.backbone.empty_cache(rows, positions, model.compute_dtype)
    first = (entering(class_RD, 0), cache)
    _, tokens_TBS = jax.lax.scan(step, first, jnp.arange(positions))
    return jnp.swapaxes(tokens_TBS, 0, 1)


def _full(model, label_R, key_B, tokens_BTS, hidden_BT, settings, path) -> jax.Array:
    positions, path = tokens_BTS.shape[1], _of_rows(path, len(label_R))

    def step(index: jax.Array, tokens_BTS: jax.Array) -> jax.Array:
        tokens_RTS = as_rows(tokens_BTS, len(label_R))
        x_RTD = model.order.features(model, tokens_RTS, label_R, None, path=path)
        token_BS = _next(model, x_RTD[:, index], key_B, index, settings, positions)
        token_BS = jnp.where(hidden_BT[:, index, None], token_BS, tokens_BTS[:, index])
        return tokens_BTS.at[:, index].set(token_BS)

    return jax.lax.fori_loop(0, positions, step, tokens_BTS)


def _next(model, x_RD, key_B, index, settings, positions) -> jax.Array:
    """Tokens (B, S) of position `index` from its features."""
    scale = settings.guidance.at(index, positions)
    x_BD, null_BD = split_rows(x_RD, len(key_B))

    def one(x_D: jax.Array, null_D: jax.Array | None, key: jax.Array) -> jax.Array:
        null_1D = None if null_D is None else null_D[None]
        proposal = model.predictor.propose(
            x_D[None], null_1D, scale, key, settings.drawing, first=index
        )
        return proposal.tokens_TS[0]

    return jax.vmap(one)(x_BD, null_BD, each_folded(key_B, index))


def _of_rows(path: Path, rows: int) -> Path:
    """The path of an image is that of its rows."""
    return path if path.shared else Path(as_rows(path.position, rows))
