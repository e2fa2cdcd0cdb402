"""The head that draws the bits of a position at once, against enumeration and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from lab.models.drawing import Drawing
from lab.models.objective import Likelihood
from tests.models.bit_chains import chi_square, strings
from tests.models.test_binary_heads import BITS, POSITIONS, WIDTH, direct, features, shaken


def test_direct_probabilities_sum_to_one_and_are_drawn_from():
    head, x_TD = shaken(direct), features()
    tokens = np.broadcast_to(strings(BITS)[:, None], (8, POSITIONS, BITS))
    x_BTD = jnp.broadcast_to(x_TD, (8, POSITIONS, WIDTH))
    nats = np.float64(jax.jit(lambda *a: head.nats(*a))(x_BTD, jnp.array(tokens)))
    np.testing.assert_allclose(np.exp(-nats).sum(axis=0), 1, atol=1e-6)
    loss = jax.jit(lambda *a: head.loss(*a))(x_BTD, jnp.array(tokens))
    np.testing.assert_allclose(loss, nats, rtol=1e-6)
    keys = jax.random.split(jax.random.key(2), 4_000)
    draw = jax.vmap(lambda k: head.propose(x_TD, None, jnp.float32(0), k, Drawing()))
    tokens = np.asarray(jax.jit(draw)(keys).tokens_TS)
    for place in range(POSITIONS):
        observed = np.bincount(tokens[:, place] @ [4, 2, 1], minlength=8)
        assert chi_square(observed, np.exp(-nats[:, place])) > 1e-3
        assert chi_square(observed, np.exp(-nats[:, 1 - place])) < 1e-6
    assert head.likelihood is Likelihood.EXACT


def test_how_sure_a_draw_is():
    """Against NumPy, temperature included; probabilities of 0 and 1 are no trouble."""
    head, x_TD = shaken(direct), features()
    logit = np.float64(jax.jit(head.logits)(x_TD[None])[0]) / 0.5
    p = 1 / (1 + np.exp(-logit))

    @jax.jit
    def draw(temperature):
        drawing = Drawing(temperature=temperature)
        return head.propose(x_TD, None, jnp.float32(0), jax.random.key(0), drawing)

    warm = draw(0.5)
    np.testing.assert_allclose(warm.confidence_T, np.abs(2 * p - 1).mean(axis=1), rtol=1e-5)
    entropy = scipy.stats.bernoulli(p).entropy().mean(axis=1)
    np.testing.assert_allclose(warm.certainty_T, -entropy, rtol=1e-4)
    cold = draw(1e-4)
    np.testing.assert_array_equal(cold.confidence_T, 1)
    np.testing.assert_array_equal(cold.certainty_T, 0)
    np.testing.assert_array_equal(cold.tokens_TS, logit > 0)
