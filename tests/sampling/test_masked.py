"""The masked sampler: its distribution under every ranking, its counts, what is kept, its keys."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.models import families
from lab.models.drawing import Drawing
from lab.sampling import masked
from lab.sampling.conditions import Known, blank, image_keys
from lab.sampling.guidance import Guidance, Schedule
from lab.sampling.sampler import sample
from lab.sampling.settings import Change, Pace, Ranking, Settings, Unmasking
from tests.models.worlds import config, stirred
from tests.sampling.worlds import (
    IMAGES,
    NULL,
    POSITIONS,
    VOCABULARY,
    chosen,
    logits_of,
    p_value,
    softmax,
    world,
)

MANY, LABEL = 6000, 1
KEYS = image_keys(5, jnp.arange(MANY))
ALL = (True,) * POSITIONS


def drawn(settings, known=None, label=LABEL):
    return sample(world("mlm"), jnp.full(MANY, label), KEYS, settings, known)


def by(ranking, **more):
    return Settings(unmasking=Unmasking(ranking=ranking, **more))


@functools.cache
def conditional(hidden, label=LABEL):
    """Probabilities (64, T, V) at every position when `hidden` ones are hidden."""
    return softmax(logits_of(world("mlm"), label, hidden))


def in_order(order, groups=None):
    """Probabilities of all images when positions are fixed in this order, some together."""
    hidden, p = list(ALL), 1.0
    for group in groups or [[position] for position in order]:
        p = p * chosen(conditional(tuple(hidden)))[:, group].prod(axis=1)
        for position in group:
            hidden[position] = False
    return p


def mean_over_orders():
    return np.mean([in_order(order) for order in itertools.permutations(range(POSITIONS))], axis=0)


def surest_first(counts, certainty):
    """Probabilities of all images when the surest draws of each round are fixed, by enumeration."""
    found = np.zeros((VOCABULARY,) * POSITIONS)

    def go(codes, hidden, p, rounds):
        if not rounds:
            found[codes] += p
            return
        places = [i for i in range(POSITIONS) if hidden[i]]
        image = int(np.ravel_multi_index(codes, found.shape))
        given = conditional(hidden)[image]
        for draw in itertools.product(range(VOCABULARY), repeat=len(places)):
            chance = math.prod(given[i, c] for i, c in zip(places, draw, strict=True))
            entropy = -(given * np.log(given)).sum(axis=-1)
            score = [
                -entropy[i] if certainty else given[i, c] for i, c in zip(places, draw, strict=True)
            ]
            after, still = list(codes), list(hidden)
            for at in np.argsort(-np.array(score))[: rounds[0]]:
                after[places[at]], still[places[at]] = draw[at], False
            go(tuple(after), tuple(still), p * chance, rounds[1:])

    go((0,) * POSITIONS, ALL, 1.0, counts)
    return found.ravel()


def test_random_order_one_at_a_time_draws_from_the_mean_over_orders():
    tokens = drawn(by(Ranking.RANDOM))
    assert p_value(tokens, mean_over_orders()) > 1e-3
    assert p_value(tokens, in_order((0, 1, 2))) < 1e-6


def test_raster_order_goes_from_left_to_right():
    tokens = drawn(by(Ranking.RASTER))
    assert p_value(tokens, in_order((0, 1, 2))) > 1e-3
    assert p_value(tokens, in_order((2, 1, 0))) < 1e-6
    two = drawn(by(Ranking.RASTER, rounds=2))
    assert p_value(two, in_order(None, [[0], [1, 2]])) > 1e-3


@pytest.mark.parametrize("ranking", [Ranking.CONFIDENCE, Ranking.CERTAINTY])
def test_the_surest_draws_are_fixed_first(ranking):
    certain = ranking is Ranking.CERTAINTY
    expected = surest_first((1, 1, 1), certain)
    tokens = drawn(by(ranking))
    assert p_value(tokens, expected) > 1e-3
    assert p_value(tokens, mean_over_orders()) < 1e-6
    assert p_value(drawn(by(ranking, rounds=2)), surest_first((1, 2), certain)) > 1e-3


def test_much_gumbel_noise_is_a_random_order():
    noise = by(Ranking.CONFIDENCE, gumbel=1e4, gumbel_change=Change.CONSTANT)
    assert p_value(drawn(noise), mean_over_orders()) > 1e-3
    falling = by(Ranking.CERTAINTY, gumbel=1e-6, gumbel_change=Change.DOWN)
    np.testing.assert_array_equal(drawn(falling), drawn(by(Ranking.CERTAINTY)))


def test_guidance_grows_with_the_rounds_or_with_what_is_known():
    """Two rounds of 1 and 2 positions: s is 1 + (s - 1) / 2 after half of the rounds, or / 3."""
    for pace, first in ((Pace.ROUNDS, 2.0), (Pace.UNMASKED, 1 + 2 / 3)):
        settings = Settings(
            guidance=Guidance(3.0, Schedule.LINEAR),
            drawing=Drawing(temperature=1.2),
            unmasking=Unmasking(rounds=2, ranking=Ranking.RASTER, pace=pace),
        )
        p, hidden = 1.0, ALL
        for group, scale in (([0], first), ([1, 2], 3.0)):
            with_class, null = (logits_of(world("mlm"), each, hidden) for each in (LABEL, NULL))
            guided = softmax((null + scale * (with_class - null)) / 1.2)
            p = p * chosen(guided)[:, group].prod(axis=1)
            hidden = (False, True, True)
        assert p_value(drawn(settings), p) > 1e-3
        assert p_value(drawn(settings), in_order(None, [[0], [1, 2]])) < 1e-6


def test_guidance_one_is_the_class_and_zero_the_null_class():
    def of(scale, label):
        guidance = Guidance(scale, Schedule.CONSTANT)
        unmasking = Unmasking(ranking=Ranking.CONFIDENCE)
        return drawn(Settings(guidance=guidance, unmasking=unmasking), label=label)

    np.testing.assert_array_equal(of(0.0, LABEL), of(1.0, NULL))
    assert np.mean(np.asarray(of(1.0, LABEL)) != np.asarray(of(0.0, LABEL))) > 0.1


def test_counts_of_rounds_sum_to_all_positions_and_none_is_empty():
    for positions in (1, 2, 3, 7, 16, 64, 100, 256):
        for rounds in {1, 2, 3, 5, 8, 20, 64, 256, positions} & set(range(1, positions + 1)):
            left = masked.remaining(positions, rounds)
            fixed = -np.diff(np.append(positions, left))
            assert fixed.sum() == positions and fixed.min() >= 1 and left[-1] == 0
            cosine = [math.floor(positions * math.cos(math.pi / 2 * s / rounds)) for s in (1, 2)]
            if rounds <= positions // 8 and rounds > 2:
                assert list(left[:2]) == cosine
    assert list(masked.remaining(5, 5)) == [4, 3, 2, 1, 0]
    assert list(masked.remaining(2, 4)) == [1, 0, 0, 0]
    assert list(masked.remaining(0, 3)) == [0, 0, 0]
    assert list(masked.remaining(256, 4)) == [236, 181, 97, 0]
    assert masked.most_fixed_of(256, 4) == 97 and masked.most_fixed_of(5, 5) == 1


@functools.cache
def larger():
    """A grid of 4 x 3 positions."""
    codes = families.Codes(vocabulary=5, grid=(4, 3, 1), classes=3)
    return stirred(config("s2", "mlm"), codes, noise=0.3)


DRAW = jax.jit(masked.draw, static_argnames=("settings", "most"))


def trail(model, settings, known=None):
    """Tokens and the hidden positions before and after each round: (N + 1, B, T)."""
    images = 6
    label, keys = jnp.arange(images) % 3, image_keys(1, jnp.arange(images))
    positions = model.order.grid.positions
    tokens, hidden = known or (blank(model, images), np.ones((images, positions), bool))
    plan = masked.plan(hidden, settings.unmasking.rounds)
    made = DRAW(
        model,
        label,
        keys,
        tokens,
        jnp.asarray(hidden),
        jnp.asarray(plan),
        most=5,
        settings=settings,
    )
    return made.tokens_BTS, np.concatenate([hidden[None], made.hidden_NBT]), plan


SETTINGS = {
    "confidence": by(Ranking.CONFIDENCE, rounds=5, gumbel=0.7),
    "certainty": by(Ranking.CERTAINTY, rounds=5, gumbel=0.2, gumbel_change=Change.UP),
    "random": by(Ranking.RANDOM, rounds=5),
    "raster": by(Ranking.RASTER, rounds=5),
}


FAST = ("confidence", "random")  # with a score and without
SOME = [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in SETTINGS]


@pytest.mark.parametrize("name", SOME)
def test_every_position_is_fixed_once_in_the_planned_rounds(name):
    _, hidden, plan = trail(larger(), SETTINGS[name])
    np.testing.assert_array_equal(hidden.sum(axis=2), plan)
    fixed = hidden[:-1] & ~hidden[1:]
    assert (fixed.sum(axis=0) == 1).all() and not (hidden[1:] & ~hidden[:-1]).any()
    order = np.argmax(fixed, axis=0)  # the round of each position
    if name == "raster":
        assert (np.diff(order, axis=1) >= 0).all()
    else:
        assert len(np.unique(order, axis=0)) > 1 and (np.diff(order, axis=1) < 0).any()


def test_remasking_reopens_in_the_first_half_and_keeps_the_counts():
    settings = by(Ranking.CONFIDENCE, rounds=6, gumbel=3.0, remask=True)
    _, hidden, plan = trail(larger(), settings)
    np.testing.assert_array_equal(hidden.sum(axis=2), plan)
    reopened = (hidden[1:] & ~hidden[:-1]).any(axis=(1, 2))
    assert reopened[1:3].all() and not reopened[3:].any()


@pytest.mark.parametrize("name", [*SOME, "remask"])
def test_known_positions_stay_whatever_the_mask(name):
    remask = by(Ranking.CONFIDENCE, rounds=6, gumbel=3.0, remask=True)
    settings = {**SETTINGS, "remask": remask}[name]
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 5, (6, 12, 1))
    mask = rng.random((6, 12)) < 0.6
    mask[0], mask[1] = False, True  # nothing to draw, and all
    found, hidden, plan = trail(larger(), settings, Known(jnp.asarray(tokens, jnp.int32), mask))
    np.testing.assert_array_equal(np.asarray(found)[~mask], tokens[~mask])
    np.testing.assert_array_equal(hidden.sum(axis=2), plan)
    assert np.mean(np.asarray(found)[mask] == tokens[mask]) < 0.6 and not hidden[-1].any()


def test_what_is_painted_in_is_conditional_on_what_is_known():
    """The middle is known; the outer two are drawn one after the other, in either order."""
    middle = 3
    known = Known(jnp.full((MANY, POSITIONS, 1), middle), np.tile([True, False, True], (MANY, 1)))
    tokens = np.asarray(drawn(by(Ranking.RANDOM), known))
    assert (tokens[:, 1] == middle).all()
    orders = []
    for first, second in ((0, 2), (2, 0)):
        alone = tuple(i == second for i in range(POSITIONS))
        p = (
            chosen(conditional((True, False, True)))[:, first]
            * chosen(conditional(alone))[:, second]
        )
        orders.append(np.where(np.asarray(IMAGES)[:, 1, 0] == middle, p, 0.0))
    assert p_value(tokens, np.mean(orders, axis=0)) > 1e-3
    assert p_value(tokens, orders[0]) < 1e-4


@pytest.mark.parametrize("name", ["confidence", pytest.param("random", marks=pytest.mark.slow)])
def test_an_image_is_the_same_alone_and_among_others(name):
    model, numbers, label = larger(), jnp.arange(8), jnp.arange(8) % 3
    settings = Settings(guidance=Guidance(2.0, Schedule.LINEAR), unmasking=SETTINGS[name].unmasking)
    together = np.asarray(sample(model, label, image_keys(7, numbers), settings))
    alone = sample(model, label[5:6], image_keys(7, numbers[5:6]), settings)
    np.testing.assert_array_equal(alone[0], together[5])
    assert len(np.unique(together.reshape(8, -1), axis=0)) >= 4


def test_more_rounds_than_positions_are_refused():
    with pytest.raises(LabError, match="rounds 4: allowed are at most the 3 positions"):
        drawn(by(Ranking.RANDOM, rounds=4))
