"""The raster generator against enumeration, causality by gradient, graph variants."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.models import families
from lab.train.step import training_loss
from tests.models.worlds import config, nats_per_image, position_nats, stirred

SMALL = families.Codes(vocabulary=4, grid=(1, 3, 1), classes=2)


@pytest.mark.parametrize("subcodes", [1, 2])
def test_likelihoods_of_all_images_sum_to_one(subcodes):
    """3 positions x 4 codes (or 2 x 4 with 2 sub-codes): the model is a distribution."""
    grid = (1, 3, 1) if subcodes == 1 else (1, 2, 1)
    codes = families.Codes(vocabulary=4, grid=grid, classes=2)
    model = stirred(config(**{"model.subcodes": subcodes}), codes)
    places = grid[1] * subcodes
    every = np.array(list(itertools.product(range(4), repeat=places)))
    codes_BTS = jnp.asarray(every.reshape(len(every), grid[1], subcodes))
    for label in (0, 1, 2):  # 2 is the null class
        nats_B = nats_per_image(model, codes_BTS, jnp.full(len(every), label))
        total = float(jnp.sum(jnp.exp(-nats_B)))
        assert total == pytest.approx(1.0, abs=1e-5)
        assert float(jnp.std(nats_B)) > 0.1  # far from uniform, where the sum is one by itself


def test_first_loss_is_that_of_a_uniform_distribution():
    codes = families.Codes(vocabulary=16, grid=(4, 4, 3), classes=10)
    make = families.builder(config().model, codes, families.Running(compute_dtype="float32"))
    tokens = jax.random.randint(jax.random.key(1), (2, 48, 1), 0, 16)
    batch = {"codes": tokens, "label": jnp.zeros(2, int), "weight": jnp.ones(2)}

    @jax.jit
    def first(key):
        return training_loss(make(key), batch, None)

    assert float(first(jax.random.key(0))) == pytest.approx(math.log(16), rel=1e-6)


def test_class_changes_every_position():
    model = stirred(config("s4"), SMALL)
    tokens_BTS = jnp.zeros((1, 3, 1), int)
    a_T = position_nats(model, tokens_BTS, jnp.array([0]))[0]
    b_T = position_nats(model, tokens_BTS, jnp.array([1]))[0]
    assert np.all(np.abs(a_T - b_T) > 1e-4)


def grads(model, batch):
    return jax.value_and_grad(training_loss)(model, batch, jax.random.key(5))


@pytest.mark.parametrize(
    ("running", "differs_in"),
    [({"unroll": True}, "scan"), ({"remat": "full"}, "remat"), ({"remat": "dots"}, "remat")],
)
def test_scan_equals_loop_and_remat_equals_none(running, differs_in):
    run = config("s4", **{"model.residual_dropout": 0.1, "model.mlp_dropout": 0.1})
    plain, variant = stirred(run, SMALL), stirred(run, SMALL, **running)
    tokens = jax.random.randint(jax.random.key(3), (4, 3, 1), 0, 4)
    batch = {"codes": tokens, "label": jnp.arange(4) % 2, "weight": jnp.ones(4)}
    graphs = [str(jax.make_jaxpr(grads)(m, batch)) for m in (plain, variant)]
    assert graphs[0] != graphs[1], f"the two graphs must differ in {differs_in}"
    (loss_a, grad_a), (loss_b, grad_b) = (jax.jit(grads)(m, batch) for m in (plain, variant))
    assert float(loss_a) == pytest.approx(float(loss_b), rel=1e-6)
    for a, b in zip(jax.tree.leaves(grad_a), jax.tree.leaves(grad_b), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_dropout_needs_a_key_and_class_dropout_has_its_rate():
    run = config("s1", **{"model.class_dropout": 0.25})
    model = stirred(run, SMALL)
    label_B = jnp.zeros(4000, int)
    rows_BD = jax.jit(model.classes)(label_B, jax.random.key(0))
    null_D = model.classes.table[...][model.classes.null]
    share = float(jnp.mean(jnp.all(rows_BD == null_D[None], axis=1)))
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)
    assert bool(jnp.all(model.classes(label_B, None) == model.classes.table[...][0][None]))


def test_bfloat16_compute_keeps_float32_parameters_and_loss():
    model = stirred(config(), SMALL, noise=0.1)
    low = stirred(config(), SMALL, noise=0.1, compute_dtype="bfloat16")
    tokens = jax.random.randint(jax.random.key(3), (8, 3, 1), 0, 4)
    nats = [nats_per_image(m, tokens, jnp.zeros(8, int)) for m in (model, low)]
    assert nats[1].dtype == jnp.float32
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(low))
    np.testing.assert_allclose(nats[0], nats[1], rtol=0.02)
    assert not np.array_equal(nats[0], nats[1])
