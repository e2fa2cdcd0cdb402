"""Rounds that fix some of the hidden positions each, predicted from those that are known.

B images, R rows (B, or 2 B with the null class), T positions, S numbers at a position, D width,
N rounds, P places fixed in one round.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lab.models.drawing import Proposal
from lab.models.image_keys import each_folded
from lab.sampling.conditions import as_rows, split_rows, with_null
from lab.sampling.settings import Change, Pace, Ranking, Settings

if TYPE_CHECKING:
    from lab.models.generator import Generator

PROPOSE, NOISE, PLACES = 0, 1, 2  # folded into a key: codes, Gumbel noise, the random order


class Canvas(NamedTuple):
    """An image on its way."""

    tokens_BTS: jax.Array
    hidden_BT: jax.Array


class Drawn(NamedTuple):
    """Images, and which positions were hidden after each round."""

    tokens_BTS: jax.Array
    hidden_NBT: jax.Array


class Round(NamedTuple):
    """A round: its number, the share of rounds done after it, and how many positions are hidden
    before and after it."""

    number: jax.Array
    done: jax.Array
    before_B: jax.Array
    after_B: jax.Array


def remaining(hidden: int, rounds: int) -> np.ndarray:
    """How many positions are hidden after each of N rounds, of so many at first: (N,).

    floor(hidden cos(pi/2 (s + 1) / N)) after round s (MaskGIT, BiGR, MAR), but each round fixes a
    position and leaves one for each round that follows, as far as there are any: N = hidden is one
    a round.
    """
    left, found = hidden, []
    for done in range(1, rounds + 1):
        wanted = 0 if done == rounds else math.floor(hidden * math.cos(math.pi / 2 * done / rounds))
        left = max(0, min(left - 1, max(wanted, rounds - done)))
        found.append(left)
    return np.array(found, np.int32)


def plan(hidden_BT: np.ndarray, rounds: int) -> np.ndarray:
    """Hidden positions (N + 1, B) of each image before the first round and after each."""
    counts, which_B = np.unique(np.sum(hidden_BT, axis=1), return_inverse=True)
    columns = [np.append(count, remaining(int(count), rounds)) for count in counts]
    return np.stack(columns, axis=1).astype(np.int32)[:, which_B]


def most_fixed(plan_NB: np.ndarray) -> int:
    """The most positions that a round of this plan fixes."""
    return max(1, int(np.max(plan_NB[:-1] - plan_NB[1:])))


def most_fixed_of(hidden: int, rounds: int) -> int:
    """The same where so many positions are hidden at first."""
    return most_fixed(plan(np.ones((1, hidden), bool), rounds))


def draw(
    model: "Generator",
    label_B: jax.Array,
    key_B: jax.Array,
    tokens_BTS: jax.Array,
    hidden_BT: jax.Array,
    plan_NB: jax.Array,
    *,
    most: int,
    settings: Settings,
) -> Drawn:
    """Tokens: those given where `hidden_BT` is false, else drawn round by round.

    `plan_NB` is that of `plan`, `most` its `most_fixed` or more. In a random order with one
    position a round the images are draws from the model of `MaskedOrder`: a mean over orders. Runs
    under jit.
    """
    rounds = len(plan_NB) - 1
    fix = _ranked if settings.unmasking.ranked else _in_order
    label_R = with_null(model, label_B, settings.guidance)
    step = fix(model, label_R, key_B, hidden_BT, settings, most)

    def body(canvas: Canvas, turn: Round) -> tuple[Canvas, jax.Array]:
        canvas = step(canvas, turn, _strength(settings, turn, hidden_BT.shape[1]))
        return canvas, canvas.hidden_BT

    done_N = (jnp.arange(rounds) + 1) / rounds
    turns = Round(jnp.arange(rounds), done_N, plan_NB[:-1], plan_NB[1:])
    last, hidden_NBT = jax.lax.scan(body, Canvas(tokens_BTS, hidden_BT), turns)
    return Drawn(last.tokens_BTS, hidden_NBT)


def _strength(settings: Settings, turn: Round, positions: int) -> jax.Array:
    """Guidance (B,) of a round."""
    if settings.unmasking.pace is Pace.UNMASKED:
        before_B, after_B = (1 - count / positions for count in (turn.before_B, turn.after_B))
        return settings.guidance.between(before_B, after_B)
    done_before = turn.done * turn.number / (turn.number + 1)
    scale = settings.guidance.between(done_before, turn.done)
    return jnp.broadcast_to(scale, turn.before_B.shape)


def _features(model, canvas: Canvas, label_R) -> jax.Array:
    tokens_RTS, hidden_RT = (as_rows(each, len(label_R)) for each in canvas)
    return model.order.features(model, tokens_RTS, hidden_RT, label_R, None)


def _in_order(model, label_R, key_B, hidden_BT, settings, most) -> Any:
    """A round of an order that does not depend on what is drawn: only its places are proposed."""
    positions = hidden_BT.shape[1]
    raster_BT = jnp.broadcast_to(jnp.arange(positions) / positions, hidden_BT.shape)
    by_BT = raster_BT
    if settings.unmasking.ranking is Ranking.RANDOM:
        by_BT = jax.vmap(lambda k: jax.random.uniform(k, (positions,)))(each_folded(key_B, PLACES))
    order_BT = jnp.argsort(jnp.where(hidden_BT, by_BT, jnp.inf), axis=1)  # hidden ones first
    at_first_B = jnp.sum(hidden_BT, axis=1)

    def step(canvas: Canvas, turn: Round, scale_B: jax.Array) -> Canvas:
        slot_BP = (at_first_B - turn.before_B)[:, None] + jnp.arange(most)[None]
        used_BP = jnp.arange(most)[None] < (turn.before_B - turn.after_B)[:, None]
        place_BP = jnp.take_along_axis(order_BT, jnp.minimum(slot_BP, positions - 1), axis=1)
        x_BTD, null_BTD = split_rows(_features(model, canvas, label_R), len(key_B))
        keys_B = each_folded(each_folded(key_B, PROPOSE), turn.number)
        tokens_BPS = _at_places(model, settings, x_BTD, null_BTD, scale_B, keys_B, place_BP)
        target_BP = jnp.where(used_BP, place_BP, positions)  # beyond the end: dropped
        return jax.vmap(_fixed)(canvas, target_BP, tokens_BPS)

    return step


def _fixed(canvas: Canvas, place_P: jax.Array, tokens_PS: jax.Array) -> Canvas:
    return Canvas(
        canvas.tokens_BTS.at[place_P].set(tokens_PS, mode="drop"),
        canvas.hidden_BT.at[place_P].set(False, mode="drop"),
    )


def _at_places(model, settings, x_BTD, null_BTD, scale_B, key_B, place_BP) -> jax.Array:
    """Tokens (B, P, S) of some places, each drawn by its own key."""

    def at_place(x_TD, null_TD, scale, key, place):
        x_1D, null_1D = (
            None if each is None else jax.lax.dynamic_slice_in_dim(each, place, 1)
            for each in (x_TD, null_TD)
        )
        key = jax.random.fold_in(key, place)
        found = model.predictor.propose(x_1D, null_1D, scale, key, settings.drawing, first=place)
        return found.tokens_TS[0]

    of_image = jax.vmap(at_place, in_axes=(None, None, None, None, 0))
    return jax.vmap(of_image)(x_BTD, null_BTD, scale_B, key_B, place_BP)


def _ranked(model, label_R, key_B, open_BT, settings, most) -> Any:
    """A round that proposes everywhere and keeps what is surest (MaskGIT, BiGR)."""
    unmasking = settings.unmasking

    def step(canvas: Canvas, turn: Round, scale_B: jax.Array) -> Canvas:
        x_BTD, null_BTD = split_rows(_features(model, canvas, label_R), len(key_B))
        keys_B = each_folded(each_folded(key_B, PROPOSE), turn.number)

        def propose(x_TD, null_TD, scale, key) -> Proposal:
            return model.predictor.propose(x_TD, null_TD, scale, key, settings.drawing)

        found = jax.vmap(propose)(x_BTD, null_BTD, scale_B, keys_B)
        hidden_BT = canvas.hidden_BT
        if unmasking.remask:
            differs_BT = jnp.any(found.tokens_TS != canvas.tokens_BTS, axis=-1)
            early = turn.done <= 0.5
            hidden_BT = hidden_BT | (open_BT & differs_BT & early)
        score_BT = _scores(found, unmasking, key_B, turn)
        score_BT = jnp.where(hidden_BT, score_BT, -jnp.inf)
        rank_BT = jnp.argsort(jnp.argsort(-score_BT, axis=1), axis=1)
        count_B = jnp.sum(hidden_BT, axis=1) - turn.after_B
        chosen_BT = hidden_BT & (rank_BT < count_B[:, None])
        tokens_BTS = jnp.where(chosen_BT[..., None], found.tokens_TS, canvas.tokens_BTS)
        return Canvas(tokens_BTS, hidden_BT & ~chosen_BT)

    return step


def _scores(found: Proposal, unmasking, key_B, turn: Round) -> jax.Array:
    """What hidden positions are ranked by (B, T): larger is fixed earlier."""
    certain = unmasking.ranking is Ranking.CERTAINTY
    score_BT = found.certainty_T if certain else found.confidence_T
    if not unmasking.gumbel:
        return score_BT
    positions = score_BT.shape[1]
    scale = {Change.CONSTANT: 1.0, Change.DOWN: 1 - turn.done, Change.UP: turn.done}
    keys_B = each_folded(each_folded(key_B, NOISE), turn.number)
    noise_BT = jax.vmap(lambda k: jax.random.gumbel(k, (positions,)))(keys_B)
    return score_BT + unmasking.gumbel * scale[unmasking.gumbel_change] * noise_BT
