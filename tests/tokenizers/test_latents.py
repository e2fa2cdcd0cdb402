"""Latents as a generator sees them: scale, draws and what their density takes back."""

import types

import jax
import numpy as np
import pytest
import scipy.stats

from configs.layouts import LAYOUTS
from lab.core.codes import Alphabet, CodeKind
from lab.core.errors import LabError
from lab.core.layout import make_layout
from lab.tokenizers.latents import LatentTokenizer

GRID, CHANNELS = (2, 3), 2
SHAPE = (*GRID, CHANNELS)


def tokenizer(scale=3.0, kind=CodeKind.GAUSSIAN, decode=None):
    trained = types.SimpleNamespace(
        alphabet=Alphabet(kind, CHANNELS),
        latent_std=scale,
        grid=GRID,
        dims_per_image=96,
        name="made up",
        identity="made up",
        decode_codes=decode,
    )
    return LatentTokenizer(trained)


def moments(images, *, seed=0):
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(images, *SHAPE))
    log_variance = rng.normal(size=(images, *SHAPE)) - 2
    return mean, log_variance


def codes(images):
    return np.concatenate(moments(images), axis=-1).astype(np.float32)


def drawer(made, devices=1):
    return made.drawer_on(make_layout("ddp", LAYOUTS, jax.devices()[:devices]))


def test_draws_are_of_the_scaled_posterior_and_their_nats_are_its_density():
    """Against scipy's normal density in float64, and by moments over many draws of one image."""
    made, images = tokenizer(), 8
    rows = made.tokens(codes(images))
    draw = drawer(made)
    latents, nats = draw(rows, jax.random.key(1), np.arange(images))
    mean, log_variance = moments(images)
    normal = scipy.stats.norm(mean / 3.0, np.exp(log_variance / 2) / 3.0)
    grid = np.asarray(latents, np.float64).reshape(mean.shape)
    np.testing.assert_allclose(nats, -normal.logpdf(grid).sum(axis=(1, 2, 3)), rtol=1e-4)

    many = 4000
    drawn, _ = draw(np.repeat(rows[:1], many, axis=0), jax.random.key(2), np.arange(many))
    values = np.asarray(drawn).reshape(many, *SHAPE)
    z = (values - normal.mean()[0]) / normal.std()[0]
    assert np.abs(z.mean(axis=0)).max() < 4.5 / np.sqrt(many)
    assert np.abs(z.std(axis=0) - 1).max() < 4.5 / np.sqrt(2 * many)


def test_the_rate_does_not_depend_on_the_scale():
    """-log p(z) under a standard normal of the unscaled latent, less the posterior's nats."""
    rates = []
    for scale in (1.0, 3.0):
        made = tokenizer(scale)
        latents, nats = drawer(made)(made.tokens(codes(4)), jax.random.key(1), np.arange(4))
        prior = scipy.stats.norm(0, 1 / scale).logpdf(np.asarray(latents, np.float64))
        rates.append(-prior.sum(axis=(1, 2)) - np.asarray(nats, np.float64))
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-4)


def test_a_draw_belongs_to_the_number_of_the_image():
    made, draw = tokenizer(), drawer(tokenizer())
    rows, key = made.tokens(codes(8)), jax.random.key(3)
    whole, nats = draw(rows, key, np.arange(8))
    order = np.array([5, 2])
    some, some_nats = draw(rows[order], key, order)
    np.testing.assert_allclose(some, np.asarray(whole)[order], rtol=1e-6)
    np.testing.assert_allclose(some_nats, np.asarray(nats)[order], rtol=1e-5)
    spread, _ = drawer(made, devices=8)(rows, key, np.arange(8))
    np.testing.assert_allclose(spread, whole, rtol=1e-6)


def test_decoding_takes_the_scale_back():
    seen = {}

    def decode(latents):
        seen["latents"] = latents
        return np.zeros((len(latents), 16, 16, 3), np.uint8)

    made = tokenizer(decode=decode)
    mean, _ = moments(5)
    images = made.decode((mean / 3.0).reshape(5, -1))
    np.testing.assert_allclose(seen["latents"], mean, rtol=1e-6)
    assert images.shape == (5, 16, 16, 3) and seen["latents"].dtype == np.float32


def test_what_is_no_latent_is_refused():
    with pytest.raises(LabError, match="are no latents"):
        tokenizer(kind=CodeKind.BITS)
    with pytest.raises(LabError, match="has not measured latent_std"):
        tokenizer(scale=None)
