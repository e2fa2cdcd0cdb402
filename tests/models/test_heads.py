"""Categorical heads against float64 NumPy: the tied one, its gradients, smoothed targets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from lab.layers.parameters import Init
from lab.models import families
from lab.models.heads import CategoricalHead, TiedHead
from lab.models.objective import NATS
from tests.models.worlds import config, drawn, stirred

VOCABULARY, SUBCODES, WIDTH, EPSILON = 5, 2, 8, 1e-5
SIZES = {
    "vocabulary": VOCABULARY,
    "subcodes": SUBCODES,
    "width": WIDTH,
    "norm_epsilon": EPSILON,
}


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


X_BTD, TABLE = draw(0, 2, 3, WIDTH), draw(1, SUBCODES * VOCABULARY, WIDTH)
CODES_BTS = jax.random.randint(jax.random.key(2), (2, 3, SUBCODES), 0, VOCABULARY)


def untied(**settings):
    return drawn(lambda key: CategoricalHead(**{**SIZES, **settings}), noise=1.0)


def tied(**settings):
    init = Init(rule="normal", std=0.1)
    return drawn(lambda key: TiedHead(key, **{**SIZES, **settings}, init=init), noise=1.0)


@functools.partial(jax.jit, static_argnames="measure")
def of(head, measure):
    """Logits, or the loss or the nats of the codes."""
    predictor = head.tied_to(TABLE) if isinstance(head, TiedHead) else head
    return getattr(predictor, measure)(X_BTD, *(() if measure == "logits" else (CODES_BTS,)))


def f64(x):
    return np.asarray(x[...], np.float64)


def rms_normed(x, norm):
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + EPSILON) * f64(norm.scale)


def test_a_tied_head_is_maskgits():
    """affine, GELU, LayerNorm, products with the embedding, a bias of each code."""
    head = tied()
    h = rms_normed(np.float64(X_BTD), head.norm) @ f64(head.dense) + f64(head.dense_bias)
    h = h * scipy.special.ndtr(h)
    h = (h - h.mean(axis=-1, keepdims=True)) / np.sqrt(h.var(axis=-1, keepdims=True) + EPSILON)
    h = h * f64(head.layer_norm.scale) + f64(head.layer_norm.bias)
    expected = (h @ np.float64(TABLE).T + f64(head.bias)).reshape(2, 3, SUBCODES, VOCABULARY)
    np.testing.assert_allclose(of(head, "logits"), expected, rtol=1e-4, atol=1e-4)


def test_the_embedding_learns_nothing_from_a_tied_head():
    head = tied()

    def loss(head, table):
        return jnp.sum(head.tied_to(table).loss(X_BTD, CODES_BTS))

    of_head, of_table = jax.jit(jax.grad(loss, argnums=(0, 1)))(head, TABLE)
    assert not np.any(of_table)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(of_head))


@pytest.mark.slow
def test_the_embedding_learns_as_an_input_where_the_head_is_tied_to_it():
    """Rows of codes that no visible position has get no gradient at all."""
    codes = families.Codes(vocabulary=6, grid=(1, 3, 1), classes=2)
    model = stirred(config("s2", "mlm", **{"model.head": "tied_categorical"}), codes)
    tokens = jnp.array([[[0], [1], [2]]])
    hidden = jnp.array([[False, True, True]])

    def loss(model):
        x_BTD = model.order.features(model, tokens, hidden, jnp.zeros(1, int), None)
        return jnp.sum(jnp.where(hidden, model.predictor.loss(x_BTD, tokens), 0.0))

    rows = np.abs(jax.jit(jax.grad(loss))(model).embedding.tables[...]).max(axis=1)
    assert rows[0] > 0 and not np.any(rows[1:])


@pytest.mark.parametrize("make", [untied, tied])
def test_smoothing_mixes_the_targets_with_a_uniform_distribution(make):
    smoothing = 0.1
    smoothed, plain = make(smoothing=smoothing), make()
    logits = np.float64(of(plain, "logits"))
    log_p = logits - scipy.special.logsumexp(logits, axis=-1, keepdims=True)
    target = (1 - smoothing) * np.eye(VOCABULARY)[np.asarray(CODES_BTS)] + smoothing / VOCABULARY
    expected = -(target * log_p).sum(axis=(-1, -2))
    np.testing.assert_allclose(of(smoothed, "loss"), expected, rtol=1e-5)
    nats = -np.take_along_axis(log_p, np.asarray(CODES_BTS)[..., None], axis=-1).sum(axis=(-1, -2))
    np.testing.assert_allclose(of(plain, "loss"), nats, rtol=1e-5)
    # A likelihood is not smoothed, and the loss that is has a name of its own.
    np.testing.assert_allclose(of(smoothed, "nats"), nats, rtol=1e-5)
    assert plain.objective.key == NATS != smoothed.objective.key
    assert np.abs(expected - nats).min() > 1e-3


@pytest.mark.parametrize("make", [untied, tied])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_z_loss_is_the_squared_log_normaliser_of_each_subcode(make, smoothing):
    weight = 0.25
    penalised, plain = make(smoothing=smoothing, z_loss=weight), make(smoothing=smoothing)
    log_z = scipy.special.logsumexp(np.float64(of(plain, "logits")), axis=-1)
    expected = np.float64(of(plain, "loss")) + weight * (log_z**2).sum(axis=-1)
    np.testing.assert_allclose(of(penalised, "loss"), expected, rtol=1e-5)
    # A likelihood has no penalty, and the loss that has is not called nats.
    np.testing.assert_allclose(of(penalised, "nats"), of(plain, "nats"), rtol=1e-5)
    words = "smoothed_penalised" if smoothing else "penalised"
    assert penalised.objective.key == f"loss_{words}_nats_per_token"
    assert (log_z**2).min() > 1e-3
