"""Masked orders: the any-order bound against enumeration, what is hidden, the schedules."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.models import families
from lab.models.masks import MaskSchedule
from lab.models.objective import Likelihood
from tests.models.worlds import config, every_image, image_keys, stirred

POSITIONS, VOCABULARY = 3, 4
CODES = families.Codes(vocabulary=VOCABULARY, grid=(1, POSITIONS, 1), classes=2)
TWO = families.Codes(vocabulary=2, grid=(1, 2, 1), classes=2)  # 2 positions of 2 bits
WORLDS = {
    "categorical": (config("s2", "mlm"), CODES, 1),
    "tied": (config("s2", "mlm", **{"model.head": "tied_categorical"}), CODES, 1),
    "subcodes": (config("s2", "mlm", **{"model.subcodes": 2}), TWO, 2),
    "modulated": (config("S1-s2", "bigr"), CODES, 1),
    "bits": (config("bce-s2", "bigr", **{"model.subcodes": 2}), TWO, 2),
}


def conditionals(model, images_ETS, label):
    """nats[mask][e, i]: of position i of image e where `mask` (bools) hides positions."""
    images, positions, _ = images_ETS.shape
    label_E = jnp.full(images, label)

    @jax.jit
    def of(hidden_ET):
        x_ETD = model.order.features(model, images_ETS, hidden_ET, label_E, None)
        return model.predictor.nats(x_ETD, images_ETS, None)

    masks = itertools.product((False, True), repeat=positions)
    return {
        mask: np.asarray(of(jnp.tile(jnp.array(mask)[None], (images, 1))), np.float64)
        for mask in masks
    }


def by_orders(nats, positions):
    """Negative log likelihood of every image under every order of prediction: (orders, E)."""
    found = []
    for order in itertools.permutations(range(positions)):
        hidden, total = [True] * positions, 0.0
        for position in order:
            total = total + nats[tuple(hidden)][:, position]
            hidden[position] = False
        found.append(total)
    return np.array(found)


FAST = ("categorical", "tied", "subcodes")


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in WORLDS]
)
def test_the_bound_is_the_mean_over_orders_and_not_below_the_likelihood(name):
    run, codes, subcodes = WORLDS[name]
    # A shared gate that starts at zero needs more for positions to matter to each other.
    model = stirred(run, codes, noise=1.0 if name == "modulated" else 0.3)
    positions = codes.positions
    images = every_image(positions=positions, subcodes=subcodes, vocabulary=codes.vocabulary)
    orders_OE = by_orders(conditionals(model, images, 1), positions)
    np.testing.assert_allclose(np.exp(-orders_OE).sum(axis=1), 1.0, atol=1e-5)
    truth_E = -np.log(np.exp(-orders_OE).mean(axis=0))
    bound_E = orders_OE.mean(axis=0)
    assert np.all(bound_E >= truth_E - 1e-6) and np.max(bound_E - truth_E) > 0.01
    assert model.likelihood is Likelihood.BOUND

    @jax.jit
    def estimates(seeds_R):
        label_E = jnp.ones(len(images), int)

        def of(seed):
            return model.nats_per_image(images, label_E, image_keys(seed, len(images)), draws=6)

        return jax.lax.map(of, seeds_R, batch_size=10)

    drawn_RE = np.asarray(estimates(jnp.arange(200)), np.float64)
    error_E = drawn_RE.mean(axis=0) - bound_E
    se_E = drawn_RE.std(axis=0, ddof=1) / math.sqrt(len(drawn_RE))
    assert np.abs(error_E / np.maximum(se_E, 1e-7)).max() < 4.5
    assert np.abs(error_E.mean()) < 4 * np.sqrt((se_E**2).sum()) / len(se_E)


def test_equal_parts_lower_the_variance():
    """Six counts from six parts of 1 to T against six counts drawn freely."""
    run, codes, _ = WORLDS["categorical"]
    model = stirred(run, codes, noise=0.1)
    images = every_image(positions=3, subcodes=1, vocabulary=4)[:8]
    label_B = jnp.zeros(8, int)

    @jax.jit
    def both(seed):
        keys = image_keys(0, 8)
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, seed)
        parts = model.nats_per_image(images, label_B, keys, draws=6)

        def one(n):
            of_n = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, n)
            return model.nats_per_image(images, label_B, of_n, draws=1)

        return parts, jnp.mean(jax.vmap(one)(jnp.arange(6)), axis=0)

    parts, free = (np.array(x) for x in zip(*(both(s) for s in range(200)), strict=True))
    np.testing.assert_allclose(parts.mean(), free.mean(), rtol=0.05)
    assert parts.var(axis=0).mean() < 0.8 * free.var(axis=0).mean()


def test_the_bound_is_tight_where_no_position_tells_of_another():
    """Without attention between positions every order gives the same conditionals."""
    run, codes, _ = WORLDS["categorical"]
    model = stirred(run, codes)
    model.backbone.layers.attention.value[...] = 0 * model.backbone.layers.attention.value[...]
    images = every_image(positions=3, subcodes=1, vocabulary=4)
    orders_OE = by_orders(conditionals(model, images, 0), 3)
    truth_E = -np.log(np.exp(-orders_OE).mean(axis=0))
    np.testing.assert_allclose(orders_OE.mean(axis=0), truth_E, atol=1e-5)


@pytest.mark.parametrize("name", WORLDS)
def test_nothing_depends_on_what_is_hidden(name):
    run, codes, subcodes = WORLDS[name]
    model = stirred(run, codes)
    shape = (1, codes.positions, subcodes)
    tokens = jax.random.randint(jax.random.key(1), shape, 0, codes.vocabulary)
    other = (tokens + 1) % codes.vocabulary
    hidden_BT = jnp.arange(codes.positions)[None] % 2 == 1
    mixed = jnp.where(hidden_BT[..., None], other, tokens)
    features = jax.jit(lambda t: model.order.features(model, t, hidden_BT, jnp.zeros(1, int), None))
    np.testing.assert_array_equal(features(tokens), features(mixed))
    assert not np.allclose(features(tokens), features(other))


def test_training_hides_as_many_as_the_schedule_says_and_takes_their_mean():
    """Against a float64 sum over the hidden positions of each drawn mask."""
    run, codes, _ = WORLDS["categorical"]
    model = stirred(run, codes)
    tokens = jax.random.randint(jax.random.key(1), (5, 3, 1), 0, 4)
    training = jax.jit(
        lambda m, t: m.training(t, jnp.zeros(5, int), jax.random.key(7), dropout=False)
    )
    found = training(model, tokens)
    nats = conditionals(model, tokens, 0)
    possible = [
        {
            round(float(sum(row[i] for i in np.flatnonzero(mask))), 4)
            for mask, row in ((m, n[e]) for m, n in nats.items() if sum(m) == int(found.positions))
        }
        for e in range(5)
    ]
    for image, sums in enumerate(possible):
        assert min(abs(float(found.loss_B[image]) - s) for s in sums) < 1e-3


def test_cosine_schedule_has_the_published_counts():
    schedule = MaskSchedule(name="cosine", rates=10)
    draw = jax.jit(jax.vmap(lambda key: schedule.count(key, 256)))
    counts = np.asarray(draw(jax.random.split(jax.random.key(0), 400)))
    expected = {max(1, math.floor(256 * math.cos(math.pi / 2 * step / 10))) for step in range(10)}
    assert set(counts.tolist()) == expected


def test_linear_schedule_with_as_many_rates_as_positions_is_uniform():
    schedule = MaskSchedule(name="linear", rates=8)
    draw = jax.jit(jax.vmap(lambda key: schedule.count(key, 8)))
    counts = np.bincount(draw(jax.random.split(jax.random.key(0), 8000)), minlength=9)
    assert counts[0] == 0 and np.all(np.abs(counts[1:] - 1000) < 5 * math.sqrt(1000))


def test_truncated_normal_schedule():
    """MAR: N(1, 0.25) on [0.7, 1]: mean 1 - 0.25 (phi(0) - phi(1.2)) / (Phi(0) - Phi(-1.2))."""
    schedule = MaskSchedule(name="truncated_normal", rates=0)
    draw = jax.jit(jax.vmap(lambda key: schedule.count(key, 100_000)))
    shares = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000))) / 100_000
    phi = [math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (0.0, 1.2)]
    mass = math.erf(1.2 / math.sqrt(2)) / 2
    assert shares.min() >= 0.7 and shares.max() <= 1.0
    assert shares.mean() == pytest.approx(1 - 0.25 * (phi[0] - phi[1]) / mass, abs=0.003)
    assert schedule.most_visible(256) == 256 - math.ceil(0.7 * 256)
    assert schedule.most_visible(10) == 3
