"""Images of any family, as tokens: the sampler that its order calls for.

B images, T positions, S numbers at a position.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.errors import LabError
from lab.models.gaussian_head import GaussianDiffusionHead
from lab.models.masked import MaskedOrder
from lab.models.orders import RasterOrder
from lab.sampling import autoregressive, diffusion, masked
from lab.sampling.conditions import Known, blank, check_beginning, check_known
from lab.sampling.settings import Settings

if TYPE_CHECKING:
    from lab.models.generator import Generator

_raster = jax.jit(autoregressive.draw, static_argnames=("settings", "features"))
_masked = jax.jit(masked.draw, static_argnames=("settings", "most"))
_joint = jax.jit(diffusion.draw, static_argnames=("settings",))


class Program(NamedTuple):
    """A jitted sampler with what it is called with; a part of the arguments may be abstract."""

    function: Any
    arguments: tuple[Any, ...]
    static: dict[str, Any]

    def tokens(self) -> jax.Array:
        """Run it."""
        drawn = self.function(*self.arguments, **self.static)
        return drawn.tokens_BTS if isinstance(drawn, masked.Drawn) else drawn


def sample(
    model: "Generator",
    label_B: jax.Array,
    key_B: jax.Array,
    settings: Settings,
    known: Known | None = None,
) -> jax.Array:
    """Tokens (B, T, S) of images of these classes, or latents; one compiled program.

    Of a joint order they are (B, P, C), which flattened is the same. Everything random of image b
    comes from key_B[b] (`image_keys`), so that it is the same whatever else is in the batch, up to
    the rounding of products of other shapes. `known` keeps a part of each image: the first
    positions of the scan under raster order, any under a masked one, and any under a joint one,
    where the rest is not quite conditional on it (`diffusion.draw`). Raises LabError for a mask or
    tokens that do not fit, for more rounds than positions, and for a ranking of latents by
    confidence.
    """
    return program(model, label_B, key_B, settings, known).tokens()


def program(
    model: "Generator", label_B: Any, key_B: Any, settings: Settings, known: Known | None = None
) -> Program:
    """What `sample` runs; model, labels and keys may be abstract, to be compiled only."""
    order, images = model.order, label_B.shape[0]
    if not isinstance(order, RasterOrder | MaskedOrder):
        return _jointly(model, label_B, key_B, settings, known)
    positions, empty = order.grid.positions, blank(model, images)
    known = known or Known(empty, np.ones((images, positions), bool))
    check_known(known, images=images, positions=positions, numbers=empty.shape[2])
    tokens_BTS = jnp.asarray(known.tokens_BTS, empty.dtype)
    hidden_BT = jnp.asarray(known.hidden_BT)
    given = (model, label_B, key_B, tokens_BTS, hidden_BT)
    if isinstance(order, RasterOrder):
        check_beginning(known.hidden_BT, order)
        return Program(_raster, given, {"settings": settings})
    if settings.unmasking.ranked and isinstance(model.head, GaussianDiffusionHead):
        ranking = settings.unmasking.ranking
        raise LabError(f"order {ranking}: latents have no {ranking}; allowed are random, raster")
    rounds = settings.unmasking.rounds or positions
    if rounds > positions:
        raise LabError(f"rounds {rounds}: allowed are at most the {positions} positions")
    plan_NB = masked.plan(known.hidden_BT, rounds)
    most = max(masked.most_fixed(plan_NB), masked.most_fixed_of(positions, rounds))
    return Program(_masked, (*given, jnp.asarray(plan_NB)), {"most": most, "settings": settings})


def _jointly(model, label_B, key_B, settings: Settings, known: Known | None) -> Program:
    given, static = (model, label_B, key_B), {"settings": settings}
    if known is None:
        return Program(_joint, given, static)
    images, whole = label_B.shape[0], model.order.cells * model.order.channels
    positions = max(1, np.shape(known.hidden_BT)[-1])  # cells, or the slots of cells
    check_known(known, images=images, positions=positions, numbers=whole // positions)
    kept = (jnp.asarray(known.tokens_BTS), jnp.asarray(known.hidden_BT))
    return Program(_joint, (*given, *kept), static)
