"""Features and attention of whole generators against their own outputs, and where tokens lie."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.models import families, inside
from lab.models.gaussian import split
from lab.models.joint import unpatchify
from tests.layers import transformer_reference as ref
from tests.models.worlds import config

PIXELS = families.Codes(vocabulary=5, grid=(2, 2, 3), classes=3)
BITS = families.Codes(vocabulary=2, grid=(2, 4, 1), classes=3)
LATENTS = families.Codes(vocabulary=0, grid=(2, 4, 1), classes=3, channels=3)
WORLDS = {
    "elm": (config("s4", **{"model.modulation": "blocks"}), PIXELS, 1),
    "mlm": (config("s4", "mlm"), PIXELS, 1),
    "bigr": (config("S3-s4", "bigr", **{"model.subcodes": 4}), BITS, 4),
    "mar": (config("s4", "mar", **{"model.buffer": 2}), LATENTS, 3),
    "dit": (config("s4", "dit", **{"model.patch": 2}), LATENTS, 3),
}
DEPTH = 2  # blocks of each, the two stacks of MAR together
LABEL_B, NULL_B = jnp.asarray([0, 2]), jnp.asarray([3, 3])  # three classes, then the null class
PREFIX = {"elm": 1, "mlm": 1, "bigr": 1, "mar": 2, "dit": 0}
TIME = {"dit": 7}


def maker(name):
    run, codes, _ = WORLDS[name]
    return families.builder(run.model, codes, families.Running(compute_dtype="float32"))


def tokens_of(name):
    _, codes, numbers = WORLDS[name]
    shape = (2, codes.positions, numbers)
    if codes.channels:
        return jax.random.normal(jax.random.key(3), shape)
    return jax.random.randint(jax.random.key(3), shape, 0, codes.vocabulary)


def own_output(model, tokens, time):
    """What the model itself makes of an image whose tokens are all visible."""
    order = model.order
    if hasattr(order, "schedule"):
        return order.features(model, tokens, jnp.zeros(tokens.shape[:2], bool), LABEL_B, None)
    if hasattr(order, "process"):
        times_B = jnp.full(2, time)
        return order.predicted(model, order.numbers(tokens), times_B, LABEL_B).noise
    return model.predictor.logits(order.features(model, tokens, LABEL_B, None))[:, 1:]


def through_head(model, last_BTD, time):
    """The same from the last states."""
    order = model.order
    if hasattr(order, "schedule"):
        return last_BTD
    if hasattr(order, "process"):
        condition_BD = order.condition(model, jnp.full(2, time), LABEL_B, None)
        out = model.head.noise(last_BTD, condition_BD)
        return split(unpatchify(out, grid=order.grid, patch=order.patch)).noise
    return model.predictor.logits(last_BTD[:, :-1])


compiled = functools.partial(jax.jit, static_argnames="time")
layer_states, layer_features = compiled(inside.layer_states), compiled(inside.layer_features)


@compiled
def attention(model, tokens, *, time):
    largest = functools.partial(jnp.max, axis=-1)
    return {
        "maps": inside.attention_maps(model, tokens, LABEL_B, time=time),
        "largest": inside.attention_reads(model, tokens, LABEL_B, largest, time=time),
    }


@compiled
def outputs(model, tokens, last_BTD, *, time):
    return {
        "head": through_head(model, last_BTD, time),
        "own": own_output(model, tokens, time),
    }


def looked(model, tokens, *, time):
    """All that is looked at; what is looked at twice is compiled once."""
    states = layer_states(model, tokens, LABEL_B, time=time)
    last_moved = tokens.at[:, -1].set(1 - tokens[:, -1])
    return {
        "states": states,
        "null_states": layer_states(model, tokens, NULL_B, time=time),
        "features": layer_features(model, tokens, time=time),
        "moved_features": layer_features(model, last_moved, time=time),
        "later_features": layer_features(model, tokens, time=50 * time),
        **outputs(model, tokens, states[-1], time=time),
        **attention(model, tokens, time=time),
    }


@pytest.fixture(scope="module", params=WORLDS)
def world(request):
    name, tokens = request.param, tokens_of(request.param)
    model = ref.random(maker(name), size=0.3)
    found = looked(model, tokens, time=TIME.get(name, 0))
    positions = 2 if name == "dit" else tokens.shape[1]
    return types.SimpleNamespace(name=name, positions=positions, **found)


def test_the_last_states_are_those_that_the_head_takes(world):
    """Logits of raster order (of the tokens after the first), predicted noise of a joint one."""
    assert world.states.shape == (DEPTH + 1, 2, world.positions, 48)
    assert world.states.dtype == jnp.float32
    np.testing.assert_allclose(world.head, world.own, rtol=1e-4, atol=1e-4)
    assert np.std(world.own) > 0.1


def test_features_are_means_of_the_states_under_the_null_class(world):
    want = np.asarray(world.null_states, np.float64).mean(axis=2)
    assert world.features.shape == (DEPTH + 1, 2, 48)
    np.testing.assert_allclose(world.features, want, rtol=1e-4, atol=1e-5)
    assert np.abs(world.states - world.null_states)[1:].max() > 1e-3


def test_every_token_is_seen(world):
    """The last one too, which raster order never feeds in training."""
    moved = np.abs(world.features - world.moved_features).max(axis=-1)
    assert np.all(moved > 1e-4)


def test_only_a_diffusing_model_depends_on_time(world):
    moved = np.abs(world.features - world.later_features).max(axis=(1, 2))
    assert moved[0] == 0 and np.all((moved[1:] > 1e-3) == (world.name == "dit"))


def test_maps(world):
    assert [each.layer for each in world.maps] == [0, 1]
    stacks = ["encoder", "decoder"] if world.name == "mar" else ["blocks", "blocks"]
    assert [each.stack for each in world.maps] == stacks
    size = PREFIX[world.name] + world.positions
    for each, largest in zip(world.maps, world.largest, strict=True):
        weights = np.asarray(each.weights_BHQK, np.float64)
        assert weights.shape == (2, 3, size, size) and each.causal == (world.name == "elm")
        np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(largest, weights.max(-1), rtol=1e-5)
        ahead = weights[:, :, np.triu(np.ones((size, size), bool), 1)]
        assert np.any(ahead) != each.causal
    assert np.abs(np.asarray(world.maps[0].weights_BHQK - world.maps[1].weights_BHQK)).max() > 1e-3


CELLS = {  # row, column
    "elm": [(-1, -1), *[(0, 0)] * 3, *[(0, 1)] * 3, *[(1, 0)] * 3, *[(1, 1)] * 3],
    "mar": [*[(-1, -1)] * 2, *((row, column) for row in range(2) for column in range(4))],
    "dit": [(0, 0), (0, 2)],  # patches of 2 x 2 cells
}


@pytest.mark.parametrize("name", CELLS)
def test_cells(name):
    for site in inside.attention_sites(jax.eval_shape(maker(name), jax.random.key(0))):
        assert [tuple(cell) for cell in site.cell_N.tolist()] == CELLS[name]


@pytest.mark.parametrize(("name", "time", "last"), [("dit", 1000, 999), ("elm", 1, 0)])
def test_a_time_that_a_model_does_not_have(name, time, last):
    model = jax.eval_shape(maker(name), jax.random.key(0))
    with pytest.raises(LabError, match=f"time {time}: this model has the times 0 to {last}"):
        inside.layer_features(model, tokens_of(name), time=time)
