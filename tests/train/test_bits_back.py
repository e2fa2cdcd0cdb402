"""The rate of latents: nats of a draw less those that its density takes back, in closed form."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.layouts import LAYOUTS
from lab.core.codes import Alphabet, CodeKind
from lab.core.layout import make_layout
from lab.models.objective import NATS
from lab.tokenizers.latents import LatentTokenizer
from lab.train.step import evaluation

GRID, CHANNELS, IMAGES = (2, 3), 2, 4000


class Standard:
    """A model of scaled latents: each number of a draw, times the scale, is N(0, 1)."""

    objective = types.SimpleNamespace(key=NATS)

    def __init__(self, scale):
        self.scale = scale

    def nats_per_image(self, z_BTC, label_B, key_B, *, draws):
        log_p = jax.scipy.stats.norm.logpdf(z_BTC, scale=1 / self.scale)
        return -jnp.sum(log_p, axis=(1, 2))


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_mean_rate_is_the_divergence_of_the_posterior_from_the_model(scale):
    """E_q[log q - log p] = KL(q, N(0, 1)), whatever the scale (Kingma & Welling 2014)."""
    trained = types.SimpleNamespace(
        alphabet=Alphabet(CodeKind.GAUSSIAN, CHANNELS),
        latent_std=scale,
        grid=GRID,
        dims_per_image=96,
        name="made up",
        identity="made up",
    )
    made = LatentTokenizer(trained)
    rng = np.random.default_rng(0)
    mean, log_variance = rng.normal(size=(2, 1, *GRID, CHANNELS))
    rows = made.tokens(np.concatenate([mean, log_variance - 2], axis=-1).astype(np.float32))
    number = np.arange(IMAGES)
    draw = made.drawer_on(make_layout("ddp", LAYOUTS, jax.devices()[:1]))
    codes, posterior_nats = draw(np.repeat(rows, IMAGES, axis=0), jax.random.key(1), number)
    batch = {
        "codes": codes,
        "label": np.zeros(IMAGES, int),
        "weight": np.ones(IMAGES, np.float32),
        "number": number,
        "posterior_nats": posterior_nats,
    }
    rate = np.float64(evaluation(Standard(scale), batch, draws=1)["nats"])
    expected = (mean**2 + np.exp(log_variance - 2) - 1 - (log_variance - 2)).sum() / 2
    error = rate.std() / np.sqrt(IMAGES)
    assert abs(rate.mean() - expected) < 4 * error < 0.05 * expected
