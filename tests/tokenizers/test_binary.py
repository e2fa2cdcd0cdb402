"""Binary codes: bits, their straight-through gradient, and the entropy of a draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from lab.core.codes import Alphabet, CodeKind
from lab.tokenizers.binary import bernoulli_entropy_nats
from tests.layers.image_reference import conv, f64, filled
from tests.tokenizers.published import binary

KEY = jax.random.key(0)
LATENT, BITS = 4, 6


def made(*, sampled=True):
    return filled(lambda: binary(LATENT, BITS, sampled=sampled)(KEY), std=1.0)


def hidden(count=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 2, 4, LATENT)).astype("float32")


def probabilities(model, h):
    return scipy.special.expit(conv(f64(h), model.into))


def test_probabilities_are_one_sigmoid():
    """A second one, as in the published regulariser, would stay within 0.5 and 0.73."""
    model = made()
    p = probabilities(model, hidden())
    assert p.min() < 0.2 and p.max() > 0.8
    np.testing.assert_allclose(model.probabilities(hidden()), p, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sampled", [True, False])
def test_without_a_key_bits_are_rounded(sampled):
    model = made(sampled=sampled)
    bits = probabilities(model, hidden()) > 0.5
    bottled = model(hidden(), None)
    assert bottled.codes.dtype == jnp.uint8
    np.testing.assert_array_equal(bottled.codes, bits)
    np.testing.assert_array_equal(model.encode(hidden()), bits)
    want = bits @ f64(model.embeddings[...])
    np.testing.assert_allclose(bottled.latent, want, rtol=1e-5, atol=1e-5)
    assert bottled.losses == {}


def test_a_half_is_no_one():
    model = made()
    model.into.weight[...] = jnp.zeros_like(model.into.weight[...])
    model.into.bias[...] = jnp.zeros_like(model.into.bias[...])
    assert not np.asarray(model.encode(hidden())).any()


def test_where_nothing_is_sampled_a_key_changes_nothing():
    model = made(sampled=False)
    np.testing.assert_array_equal(model(hidden(), KEY).codes, model(hidden(), None).codes)


def test_encoding_with_a_key_draws_whatever_training_did():
    drawn = made(sampled=False).encode(hidden(), KEY)
    np.testing.assert_array_equal(drawn, made(sampled=True)(hidden(), KEY).codes)
    assert not np.array_equal(drawn, made().encode(hidden()))


@pytest.mark.parametrize("key", [None, KEY], ids=["rounded", "drawn"])
def test_codes_embed_to_the_latent_of_training(key):
    model = made()
    bottled = model(hidden(), key)
    np.testing.assert_array_equal(model.embed(bottled.codes), bottled.latent)


@pytest.mark.parametrize("key", [None, KEY], ids=["rounded", "drawn"])
def test_the_gradient_of_a_bit_is_that_of_its_probability(key):
    """d latent / d p is the bit's embedding; d p / d logit = p (1 - p); by hand to h."""
    model, h = made(), hidden()
    p, table = probabilities(model, h), f64(model.embeddings[...])
    cotangent = np.random.default_rng(1).normal(size=(3, 2, 4, LATENT))

    def scalar(model, h):
        return jnp.vdot(model(h, key).latent, cotangent.astype("float32"))

    by_model, by_h = jax.grad(scalar, argnums=(0, 1))(model, h)
    by_p = cotangent @ table.T
    into = f64(model.into.weight[...])[0, 0]
    np.testing.assert_allclose(by_h, by_p * p * (1 - p) @ into.T, rtol=1e-3, atol=1e-5)
    bits = f64(model(h, key).codes)
    want = np.einsum("bhwk,bhwz->kz", bits, cotangent)
    np.testing.assert_allclose(by_model.embeddings[...], want, rtol=1e-4, atol=1e-5)


def test_drawn_bits_have_their_frequency():
    """Of 4000 draws the count of ones is binomial: each of 6 bits in its 1e-6 interval."""
    model = made()
    h = np.broadcast_to(hidden()[:1, :1, :1], (4000, 1, 1, LATENT))
    p = probabilities(model, h[:1])[0, 0, 0]
    ones = np.asarray(model.encode(h, KEY), np.int64).sum(axis=(0, 1, 2))
    low, high = scipy.stats.binom.interval(1 - 1e-6, 4000, p)
    assert (low <= ones).all() and (ones <= high).all()
    assert (high - low < 600).all()


def test_bits_are_drawn_apart():
    """Images, positions and bits have draws of their own; another key gives others."""
    model = made()
    model.into.weight[...] = jnp.zeros_like(model.into.weight[...])
    model.into.bias[...] = jnp.zeros_like(model.into.bias[...])
    bits = np.asarray(model.encode(np.zeros((16, 4, 4, LATENT), "float32"), KEY))
    for axis in range(4):
        moved = np.roll(bits, 1, axis)
        agree, cells = int((bits == moved).sum()), bits.size
        low, high = scipy.stats.binom.interval(1 - 1e-6, cells, 0.5)
        assert low <= agree <= high
    other = model.encode(np.zeros((16, 4, 4, LATENT), "float32"), jax.random.key(1))
    assert not np.array_equal(bits, other)


def test_a_key_an_image_makes_its_draw_its_own():
    model, keys = made(), jax.random.split(KEY, 3)
    together = np.asarray(model.encode(hidden(), keys))
    for i in range(3):
        alone = model.encode(hidden()[i : i + 1], keys[i : i + 1])
        np.testing.assert_array_equal(alone[0], together[i])


def test_entropy_of_a_draw():
    model = made()
    p = probabilities(model, hidden())
    bits = scipy.special.entr(p) + scipy.special.entr(1 - p)
    found = model(hidden(), KEY).measures["bit_entropy_nats_per_position"]
    np.testing.assert_allclose(found, bits.sum(-1).mean((1, 2)), rtol=1e-4)


def test_entropy_of_a_bit_at_its_ends():
    logits = jnp.array([0.0, 200.0, -200.0, 5.0])
    p = scipy.special.expit(5.0)
    want = [np.log(2), 0, 0, scipy.special.entr(p) + scipy.special.entr(1 - p)]
    np.testing.assert_allclose(bernoulli_entropy_nats(logits), want, rtol=1e-4, atol=1e-7)
    assert np.isfinite(jax.grad(lambda x: bernoulli_entropy_nats(x).sum())(logits)).all()


def test_embeddings_start_normal():
    table = binary(256, 32)(KEY).embeddings[...]
    assert scipy.stats.kstest(np.asarray(table).reshape(-1), "norm").pvalue > 1e-3


def test_sizes():
    model = made()
    assert model.alphabet == Alphabet(CodeKind.BITS, BITS)
    assert model.encoder_outputs == LATENT
    assert model.forward_flops_per_position == 2 * 2 * BITS * LATENT
