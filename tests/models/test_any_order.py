"""Autoregression in any order against all orders, listed: likelihoods, bounds, training, draws."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.models import compatible, families, inside
from lab.models.objective import Likelihood
from lab.models.paths import Path
from lab.sampling import autoregressive
from lab.sampling.conditions import Known, blank
from lab.sampling.guidance import Guidance
from lab.sampling.sampler import sample
from lab.sampling.settings import Settings
from tests.models.worlds import config, image_keys, stirred
from tests.sampling.worlds import CODES, IMAGES, POSITIONS, p_value

ORDERS = list(itertools.permutations(range(POSITIONS)))
LABEL = 1
MANY = 6000


@functools.cache
def model():
    """Three cells of four codes, predicted in any order."""
    return stirred(config("s2", **{"model.scan": "any"}), CODES, noise=0.5)


def labels():
    return jnp.full(len(IMAGES), LABEL)


@functools.partial(jax.jit, static_argnames="shared")
def position_nats(made, position_ET=None, *, shared=None):
    """Nats (E, T) of the positions of every image along its path, or along one of all."""
    path = Path(position_ET if shared is None else np.array(shared))
    along = path.along(IMAGES)
    x = made.order.features(made, along, labels(), None, path=path)
    return made.predictor.nats(x, along, None)


@functools.cache
def nats_OE():
    """Nats (orders, images) of every image in every order, in float64."""
    position_OET = np.tile(np.array(ORDERS)[:, None], (1, len(IMAGES), 1))
    nats_OET = [position_nats(model(), position_ET) for position_ET in position_OET]
    return np.array(nats_OET, np.float64).sum(axis=2)


def test_each_order_is_a_distribution_of_its_own():
    probability_OE = np.exp(-nats_OE())
    np.testing.assert_allclose(probability_OE.sum(axis=1), 1, rtol=1e-5)
    assert np.std(nats_OE(), axis=0).max() > 0.1, "orders that agree show nothing"


TURNS = ((1, 2, 0), (2, 0, 1))  # the orders that are not their own inverse


@pytest.mark.parametrize(
    "order", [o if o in TURNS else pytest.param(o, marks=pytest.mark.slow) for o in ORDERS]
)
def test_a_path_of_all_images_is_that_of_each(order):
    shared = Path(np.array(order))
    nats_E = np.asarray(position_nats(model(), shared=order), np.float64).sum(axis=1)
    np.testing.assert_allclose(nats_E, nats_OE()[ORDERS.index(order)], rtol=1e-5)
    np.testing.assert_array_equal(shared.back(shared.along(IMAGES)), IMAGES)
    each = Path(jnp.tile(jnp.array(order), (len(IMAGES), 1)))
    np.testing.assert_array_equal(each.back(each.along(IMAGES)), IMAGES)


def test_the_bound_is_the_mean_over_orders_and_its_estimate_is_unbiased():
    assert model().likelihood is Likelihood.BOUND
    expected = nats_OE().mean(axis=0)
    assert np.all(expected >= -np.log(np.exp(-nats_OE()).mean(axis=0)) - 1e-9)  # Jensen
    draws = 400
    made = model()
    estimate = jax.jit(lambda keys: made.nats_per_image(IMAGES, labels(), keys, draws=draws))
    found = np.asarray(estimate(image_keys(0, len(IMAGES))), np.float64)
    z = (found - expected) / (nats_OE().std(axis=0) / draws**0.5)
    assert np.abs(z).max() < 4.5 and 0.7 < np.std(z) < 1.3


def test_the_training_loss_is_an_unbiased_estimate_of_the_bound():
    made = model()
    loss = jax.jit(lambda key: made.training(IMAGES, labels(), key).loss_B)
    losses = np.array([loss(jax.random.key(seed)) for seed in range(300)], np.float64)
    expected = nats_OE().mean(axis=0)
    error = losses.mean() - expected.mean()
    spread = losses.mean(axis=1).std() / len(losses) ** 0.5
    assert abs(error) < 4 * spread
    farthest = np.abs(nats_OE().mean(axis=1) - losses.mean()).max()
    assert farthest > 10 * spread, "one order for all would be seen"
    assert model().objective.key == "loss_any_order_nats_per_token"


def test_draws_are_of_the_mixture_of_all_orders():
    mixture = np.exp(-nats_OE()).mean(axis=0)
    tokens = sample(model(), jnp.full(MANY, LABEL), image_keys(3, MANY), Settings())
    assert p_value(tokens, mixture) > 1e-3
    assert p_value(tokens, np.exp(-nats_OE())[0]) < 1e-6, "of one order they are not"


@pytest.mark.parametrize("known", [(1,), (0, 2)])
def test_what_is_known_anywhere_comes_first(known):
    given = np.array([2, 0, 3])
    hidden = np.array([place not in known for place in range(POSITIONS)])
    stands = np.all(np.asarray(IMAGES)[:, ~hidden, 0] == given[~hidden], axis=1)
    conditional = np.zeros(len(IMAGES))
    first = [o for o, order in enumerate(ORDERS) if set(order[: len(known)]) == set(known)]
    for order in first:
        joint = np.where(stands, np.exp(-nats_OE()[order]), 0.0)
        conditional += joint / joint.sum() / len(first)
    tokens = jnp.tile(jnp.asarray(given)[None, :, None], (MANY, 1, 1))
    drawn = sample(
        model(),
        jnp.full(MANY, LABEL),
        image_keys(4, MANY),
        Settings(),
        Known(tokens, np.tile(hidden, (MANY, 1))),
    )
    assert p_value(drawn, conditional) > 1e-3


SLOTTED = families.Codes(vocabulary=5, grid=(3, 2, 2), classes=3)


@functools.cache
def deeper():
    run = config("s4", **{"model.subcodes": 2, "model.scan": "any"})
    return stirred(run, SLOTTED, noise=0.2)


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 2.0])
def test_the_cached_pass_draws_what_the_full_one_does(guidance):
    draw = jax.jit(autoregressive.draw, static_argnames=("settings", "features"))
    given = blank(deeper(), 3), jnp.ones((3, 12), bool)
    settings = Settings(guidance=Guidance(guidance))
    cached, full = (
        draw(deeper(), jnp.arange(3), image_keys(0, 3), *given, settings=settings, features=each)
        for each in autoregressive.Pass
    )
    np.testing.assert_array_equal(cached, full)
    assert len(np.unique(cached)) == 5


def test_a_cell_is_known_as_a_whole():
    tokens = np.zeros((1, 12, 2), np.int32)
    hidden = np.ones((1, 12), bool)
    hidden[0, [2, 3]] = False
    drawn = sample(deeper(), jnp.array([0]), image_keys(0, 1), Settings(), Known(tokens, hidden))
    assert not np.asarray(drawn)[0, 2:4].any()
    hidden[0, 3] = True
    with pytest.raises(LabError, match="a cell is known or drawn as a whole"):
        sample(deeper(), jnp.array([0]), image_keys(0, 1), Settings(), Known(tokens, hidden))


def test_an_order_keeps_the_parts_of_a_cell_together_and_is_of_the_image_alone():
    order = deeper().order
    position_BT = np.asarray(order.path(image_keys(1, 200)).position)
    assert np.all(np.sort(position_BT, axis=1) == np.arange(12))
    pairs = position_BT.reshape(200, 6, 2)
    assert np.all(pairs % 2 == [0, 1]) and np.all(pairs[..., 0] // 2 == pairs[..., 1] // 2)
    firsts = np.bincount(pairs[:, 0, 0] // 2, minlength=6)
    assert np.all(np.abs(firsts - 200 / 6) < 5 * (200 / 6) ** 0.5)
    one = np.asarray(order.path(image_keys(1, 200)[7:8]).position)
    np.testing.assert_array_equal(one[0], position_BT[7])


def test_parameters_counted_and_looked_into_in_rows():
    plain = stirred(config("s4", **{"model.subcodes": 2}), SLOTTED)
    width = deeper().backbone.spec.width
    more = deeper().parameters().embedding - plain.parameters().embedding
    assert more == SLOTTED.positions * width
    tokens = np.tile(np.arange(24).reshape(12, 2) % 5, (2, 1, 1))
    tokens[1, 8] = 0
    states = jax.jit(inside.layer_states)(deeper(), jnp.asarray(tokens), jnp.zeros(2, int))
    moved_T = np.abs(np.asarray(states[-1, 0] - states[-1, 1])).max(axis=1) > 1e-6
    np.testing.assert_array_equal(moved_T, np.arange(12) >= 8)
    cells = inside.attention_sites(deeper())[0].cell_N
    np.testing.assert_array_equal(cells[:5], [[-1, -1], [0, 0], [0, 0], [0, 1], [0, 1]])


def test_heads_that_are_no_likelihood_of_their_own_are_refused():
    run = config("S2-s1", "bigr", **{"model.scan": "any"})
    with pytest.raises(LabError, match='scan = "any": of heads with an exact likelihood only'):
        compatible.check_each_other(run.model)
