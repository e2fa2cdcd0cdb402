"""The autoregressive sampler: its distribution, its cache, its keys, known beginnings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.models import families
from lab.models.drawing import Drawing
from lab.sampling import autoregressive
from lab.sampling.conditions import Known, blank, image_keys
from lab.sampling.guidance import Guidance, Schedule
from lab.sampling.sampler import sample
from lab.sampling.settings import Settings
from tests.models.worlds import config, nats_per_image, stirred
from tests.sampling.worlds import (
    CODES,
    IMAGES,
    NULL,
    POSITIONS,
    chosen,
    logits_of,
    p_value,
    softmax,
    world,
)

MANY = 6000
KEYS = image_keys(3, jnp.arange(MANY))
PLAIN = Settings()
CUT = Settings(guidance=Guidance(2.5, Schedule.LINEAR), drawing=Drawing(temperature=1.5, top_k=3))


def drawn(label, settings=PLAIN, known=None):
    return sample(world("elm"), jnp.full(MANY, label), KEYS, settings, known)


def of_guided(label, scales, *, temperature=1.0, top_k=0):
    """Probabilities of all images when position i is guided by scales[i]."""
    with_class, null = (logits_of(world("elm"), each) for each in (label, NULL))
    scales = np.array(scales)[None, :, None]
    logits = (null + scales * (with_class - null)) / temperature
    if top_k:
        least = np.sort(logits, axis=-1)[..., -top_k, None]
        logits = np.where(logits >= least, logits, -np.inf)
    return chosen(softmax(logits)).prod(axis=1)


def test_draws_are_of_the_enumerated_distribution_of_their_class():
    for label in (0, 1):
        assert p_value(drawn(label), of_guided(label, [1, 1, 1])) > 1e-3
    assert p_value(drawn(0), of_guided(1, [1, 1, 1])) < 1e-9


def test_guided_restricted_draws_are_of_the_enumerated_distribution():
    tokens = drawn(1, CUT)
    scales = [1.5, 2.0, 2.5]  # linear to 2.5 in three steps
    assert p_value(tokens, of_guided(1, scales, temperature=1.5, top_k=3)) > 1e-3
    assert p_value(tokens, of_guided(1, [2.5, 2.5, 2.5], temperature=1.5, top_k=3)) < 1e-6
    assert p_value(tokens, of_guided(1, scales, temperature=1.5)) < 1e-6


def test_guidance_one_is_the_class_and_zero_the_null_class():
    same = drawn(1, Settings(guidance=Guidance(1.0, Schedule.SQUARE)))
    np.testing.assert_array_equal(same, drawn(1))
    nothing = drawn(1, Settings(guidance=Guidance(0.0)))
    np.testing.assert_array_equal(nothing, drawn(NULL))
    assert np.mean(np.asarray(nothing) != np.asarray(same)) > 0.1


@pytest.mark.parametrize("temperature", [0.02, 50.0])
def test_temperature_goes_from_the_likeliest_code_to_all_alike(temperature):
    tokens = np.asarray(drawn(0, Settings(drawing=Drawing(temperature=temperature))))[:, 0, 0]
    likeliest = int(np.argmax(logits_of(world("elm"), 0)[0, 0]))
    share = np.mean(tokens == likeliest)
    assert share > 0.99 if temperature < 1 else abs(share - 0.25) < 0.03


@functools.cache
def deeper(**running):
    """Two layers and a grid in which positions have rows, columns and slots."""
    codes = families.Codes(vocabulary=5, grid=(3, 2, 2), classes=3)
    run = config("s4", "elm", **{"model.subcodes": 2})
    return stirred(run, codes, noise=0.2, **running)


@pytest.mark.parametrize("unroll", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_cached_pass_has_the_features_and_draws_of_the_full_one(unroll):
    model = deeper(unroll=unroll)
    label, keys = jnp.array([0, 2, 1, 1]), image_keys(0, jnp.arange(4))
    settings = Settings(guidance=Guidance(2.0, Schedule.COS), drawing=Drawing(top_p=0.9))
    draw = jax.jit(autoregressive.draw, static_argnames=("settings", "features"))
    start = blank(model, 4), jnp.ones((4, 12), bool)
    cached, full = (
        np.asarray(draw(model, label, keys, *start, settings=settings, features=each))
        for each in autoregressive.Pass
    )
    np.testing.assert_array_equal(cached, full)
    assert cached.shape == (4, 12, 2) and len(np.unique(cached)) == 5

    @jax.jit
    def features(tokens_BTS):
        """Of the cached pass fed with these tokens, and of the full one."""
        spec = model.backbone.spec
        angles = model.order.angles(spec.width // spec.heads, model.order.path())
        class_BD = model.classes(label, None)
        x_BTD = jnp.concatenate([class_BD[:, None], model.embedding(tokens_BTS[:, :-1])], axis=1)

        def step(cache, index):
            out, cache = model.backbone.step(x_BTD[:, index], cache, index, angles, class_BD)
            return cache, out

        cache = model.backbone.empty_cache(4, 12, jnp.float32)
        _, by_step = jax.lax.scan(step, cache, jnp.arange(12))
        by_step = jnp.swapaxes(by_step, 0, 1)
        at_once = model.order.features(model, tokens_BTS, label, None)
        return [(x, model.predictor.logits(x)) for x in (by_step, at_once)]

    for by_step, at_once in zip(*features(jnp.asarray(full)), strict=True):
        np.testing.assert_allclose(by_step, at_once, atol=5e-6 * np.abs(at_once).max())


def test_an_image_is_the_same_alone_and_among_others():
    model, numbers, label = deeper(), jnp.arange(8), jnp.array([0, 1, 2, 0, 1, 2, 0, 1])
    together = np.asarray(sample(model, label, image_keys(7, numbers), CUT))
    for at in (0, 5):
        alone = sample(model, label[at : at + 1], image_keys(7, numbers[at : at + 1]), CUT)
        np.testing.assert_array_equal(alone[0], together[at])
    other_seed = sample(model, label, image_keys(8, numbers), CUT)
    assert np.mean(np.asarray(other_seed) != together) > 0.2
    assert len(np.unique(together.reshape(8, -1), axis=0)) == 8


def test_a_known_beginning_stays_and_the_rest_is_conditional_on_it():
    start = 2
    known = Known(jnp.full((MANY, POSITIONS, 1), start), np.tile([False, True, True], (MANY, 1)))
    tokens = np.asarray(drawn(1, known=known))
    assert (tokens[:, 0] == start).all()
    whole = of_guided(1, [1, 1, 1])
    given = np.where(np.asarray(IMAGES)[:, 0, 0] == start, whole, 0.0)
    assert p_value(tokens, given / given.sum()) > 1e-3
    marginal = whole.reshape(4, 16).sum(axis=0)  # of the rest, whatever stands first
    wrong = np.zeros((4, 16))
    wrong[start] = marginal
    assert p_value(tokens, wrong.ravel()) < 1e-9


def test_a_known_position_after_a_drawn_one_is_refused():
    known = Known(jnp.zeros((MANY, POSITIONS, 1)), np.tile([True, False, True], (MANY, 1)))
    with pytest.raises(LabError, match="along the scan"):
        drawn(0, known=known)
    with pytest.raises(LabError, match="mask bool"):
        drawn(0, known=Known(known.tokens_BTS, known.hidden_BT[:5]))


def test_draws_along_a_scan_are_of_its_distribution_and_end_what_begins_it():
    """ "subsample" visits the cells 0, 2, 1 of a row of three."""
    model = stirred(config("s2", **{"model.scan": "subsample"}), CODES, noise=0.5)
    label = jnp.full(MANY, 1)
    nats = nats_per_image(model, IMAGES, jnp.full(len(IMAGES), 1))
    whole = np.exp(-np.asarray(nats, np.float64))
    tokens = sample(model, label, KEYS, PLAIN)
    assert p_value(tokens, whole) > 1e-3
    assert p_value(tokens, of_guided(1, [1, 1, 1])) < 1e-9

    tokens = jnp.tile(jnp.array([[[2], [0], [3]]]), (MANY, 1, 1))
    between, last = (np.tile(hidden, (MANY, 1)) for hidden in ([0, 1, 0], [0, 0, 1]))
    ends = sample(model, label, KEYS, PLAIN, Known(tokens, between.astype(bool)))
    stands = (np.asarray(IMAGES)[:, 0, 0] == 2) & (np.asarray(IMAGES)[:, 2, 0] == 3)
    given = np.where(stands, whole, 0.0)
    assert p_value(ends, given / given.sum()) > 1e-3
    with pytest.raises(LabError, match='along the scan "subsample"'):
        sample(model, label, KEYS, PLAIN, Known(tokens, last.astype(bool)))


def test_the_cached_pass_goes_along_a_scan_as_the_full_one_does():
    codes = families.Codes(vocabulary=5, grid=(3, 2, 2), classes=3)
    run = config("s4", "elm", **{"model.subcodes": 2, "model.scan": "spiral"})
    model, label = stirred(run, codes, noise=0.2), jnp.array([0, 2])
    draw = jax.jit(autoregressive.draw, static_argnames=("settings", "features"))
    hidden = jnp.asarray(model.order.path().back(np.tile(np.arange(12) >= 4, (2, 1))))
    given = jax.random.randint(jax.random.key(1), (2, 12, 2), 0, 5)
    cached, full = (
        draw(model, label, image_keys(0, jnp.arange(2)), given, hidden, settings=CUT, features=each)
        for each in autoregressive.Pass
    )
    np.testing.assert_array_equal(cached, full)
    kept = ~np.asarray(hidden)
    np.testing.assert_array_equal(np.asarray(cached)[kept], np.asarray(given)[kept])
