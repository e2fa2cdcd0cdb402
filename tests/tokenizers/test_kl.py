"""Gaussian codes: moments, divergence, draws and their gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from lab.core.codes import Alphabet, CodeKind
from lab.tokenizers.kl import draw, kl_nats_per_image
from tests.layers.image_reference import conv, f64, filled
from tests.tokenizers.published import gaussian

KEY = jax.random.key(0)
LATENT, CHANNELS = 4, 3


def made():
    return filled(lambda: gaussian(LATENT, CHANNELS)(KEY))


def hidden(count=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 2, 4, 2 * LATENT)).astype("float32")


def moments_of(model, h):
    return np.split(conv(f64(h), model.into), 2, axis=-1)


def test_without_a_key_the_mean_is_decoded():
    model = made()
    mean, log_variance = moments_of(model, hidden())
    bottled = model(hidden(), None)
    want = np.concatenate([mean, log_variance], -1)
    np.testing.assert_allclose(bottled.codes, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.encode(hidden(), KEY), bottled.codes)
    np.testing.assert_allclose(bottled.latent, conv(mean, model.out), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.embed(bottled.codes), bottled.latent)
    np.testing.assert_array_equal(model.embed(bottled.codes[..., :CHANNELS]), bottled.latent)


def test_with_a_key_a_draw_is_decoded():
    model = made()
    bottled = model(hidden(), KEY)
    np.testing.assert_array_equal(bottled.latent, model.embed(draw(bottled.codes, KEY)))
    assert not np.array_equal(bottled.latent, model(hidden(), None).latent)


def test_draws_are_normal_with_these_moments():
    mean, log_variance = np.array([0.5, -2.0, 3.0]), np.array([0.0, -3.0, 1.5])
    moments = np.broadcast_to(np.concatenate([mean, log_variance]), (2000, 1, 1, 6))
    drawn = np.asarray(draw(moments.astype("float32"), KEY))[:, 0, 0]
    for channel in range(3):
        normal = scipy.stats.norm(mean[channel], np.exp(log_variance[channel] / 2))
        assert scipy.stats.kstest(drawn[:, channel], normal.cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 5 / np.sqrt(2000)


def test_the_divergence_against_integration():
    mean, log_variance = np.array([0.5, -1.0]), np.array([-1.0, 0.7])

    def integrand(x, m, s):
        p = scipy.stats.norm(m, s)
        return p.pdf(x) * (p.logpdf(x) - scipy.stats.norm.logpdf(x))

    want = sum(
        scipy.integrate.quad(integrand, m - 12 * s, m + 12 * s, args=(m, s))[0]
        for m, s in zip(mean, np.exp(log_variance / 2), strict=True)
    )
    moments = np.broadcast_to(np.concatenate([mean, log_variance]), (2, 3, 5, 4))
    np.testing.assert_allclose(kl_nats_per_image(moments), [15 * want] * 2, rtol=1e-5)


def test_the_loss_is_a_weight_times_nats_per_dimension_of_an_image():
    """192 dimensions belong to a position (f8, three channels): 2 x 4 positions have 1536."""
    model = made()
    mean, log_variance = moments_of(model, hidden())
    nats = ((mean**2 + np.exp(log_variance) - 1 - log_variance) / 2).sum((1, 2, 3))
    bottled = model(hidden(), KEY)
    np.testing.assert_allclose(bottled.measures["kl_nats_per_image"], nats, rtol=1e-4)
    np.testing.assert_allclose(bottled.losses["kl"], 1e-6 * nats.mean() / 1536, rtol=1e-4)


def test_moments_of_a_draw_give_the_std_of_the_latent():
    """The std over many draws of all images, from means over images of two measures."""
    model, h = made(), hidden(40)
    bottled = model(h, None)
    mean = float(np.mean(bottled.measures["latent_mean"]))
    square = float(np.mean(bottled.measures["latent_square"]))
    keys = jax.random.split(KEY, 50)
    drawn = np.asarray(jax.vmap(lambda k: draw(bottled.codes, k))(keys))
    np.testing.assert_allclose(np.sqrt(square - mean**2), drawn.std(), rtol=0.02)
    np.testing.assert_allclose(mean, drawn.mean(), atol=0.02)


def test_the_log_variance_is_clipped():
    model = made()
    model.into.bias[...] = jnp.array([0.0, 0, 0, 500, -500, 0])
    codes = model.encode(hidden())
    assert (np.asarray(codes[..., 3]) == 20).all()
    assert (np.asarray(codes[..., 4]) == -30).all()


def test_the_gradient_of_a_draw_by_hand():
    """d z / d mean = 1 and d z / d log variance = (z - mean) / 2."""
    model, h = made(), hidden()
    cotangent = np.random.default_rng(1).normal(size=(3, 2, 4, LATENT))
    by_h = jax.grad(lambda h: jnp.vdot(model(h, KEY).latent, cotangent.astype("float32")))(h)
    codes = model.encode(h)
    noise_part = f64(draw(codes, KEY)) - f64(codes[..., :CHANNELS])
    by_z = cotangent @ f64(model.out.weight[...])[0, 0].T
    by_moments = np.concatenate([by_z, by_z * noise_part / 2], -1)
    want = by_moments @ f64(model.into.weight[...])[0, 0].T
    np.testing.assert_allclose(by_h, want, rtol=1e-3, atol=1e-4)


def test_a_key_an_image_makes_its_draw_its_own():
    codes, keys = made().encode(hidden()), jax.random.split(KEY, 3)
    together = draw(codes, keys)
    for i in range(3):
        alone = draw(codes[i : i + 1], keys[i : i + 1])
        np.testing.assert_array_equal(alone[0], together[i])


@pytest.mark.parametrize("name", ["alphabet", "encoder_outputs", "forward_flops_per_position"])
def test_sizes(name):
    want = {
        "alphabet": Alphabet(CodeKind.GAUSSIAN, CHANNELS),
        "encoder_outputs": 2 * LATENT,
        "forward_flops_per_position": 2 * (2 * LATENT * 2 * CHANNELS + CHANNELS * LATENT),
    }
    assert getattr(made(), name) == want[name]
