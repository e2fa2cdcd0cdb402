"""Denoising of whole images against data whose noise is known in closed form.

Cells are independent, N(mean of the class, STD): a network at its best then says
e = sqrt(1 - abar) (x - sqrt(abar) mean) / (abar STD^2 + 1 - abar).
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.models.gaussian import GaussianProcess, Predicted
from lab.models.joint import JointOrder
from lab.sampling import diffusion
from lab.sampling.conditions import image_keys
from lab.sampling.guidance import Guidance
from lab.sampling.settings import Drawing, Method, Settings

STD, MEANS = 0.4, (1.0, -0.5, 0.0)  # of the classes 0 and 1, and of the null class
PROCESS = GaussianProcess(steps=400, schedule="linear")
NULL, MANY, CELLS = 2, 4000, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best(JointOrder):
    """The best network for these data."""

    def predicted(self, model, x_BPC, time_B, label_B, key=None):
        signal, noise = (
            jnp.asarray(table, jnp.float32)[time_B + 1][:, None, None]
            for table in (self.process.tables.signal, self.process.tables.noise)
        )
        mean = jnp.array(MEANS)[label_B][:, None, None]
        e = noise * (x_BPC - signal * mean) / (signal**2 * STD**2 + noise**2)
        return Predicted(e, jnp.ones_like(e))


MODEL = types.SimpleNamespace(
    order=Best(process=PROCESS, grid=(1, CELLS), patch=1, levels=0, channels=1),
    classes=types.SimpleNamespace(null=NULL),
)


def drawn(label, *, method, steps, guidance=1.0, **known):
    settings = Settings(
        guidance=Guidance(guidance), drawing=Drawing(steps=steps), method=Method(method)
    )

    @jax.jit
    def draw(key_B):
        return diffusion.draw(MODEL, jnp.full(MANY, label), key_B, **known, settings=settings)

    return np.asarray(draw(image_keys(0, jnp.arange(MANY))))


@pytest.mark.parametrize(("method", "steps"), [("ddpm", 200), ("ddim", 60), ("heun", 20)])
def test_draws_have_the_mean_and_spread_of_the_data(method, steps):
    x = drawn(0, method=method, steps=steps)
    assert x.shape == (MANY, CELLS, 1)
    error = STD / np.sqrt(MANY * CELLS)
    assert abs(x.mean() - MEANS[0]) < 5 * error + 0.02
    assert abs(x.std() / STD - 1) < 0.05
    assert abs(np.corrcoef(x[:, 0, 0], x[:, 1, 0])[0, 1]) < 0.07


def test_guidance_of_two_gaussians_moves_the_mean():
    """null + s (class - null) is the noise of a mean s times that of the class: the null's is 0."""
    for scale in (0.0, 2.5):
        x = drawn(1, method="ddim", steps=60, guidance=scale)
        assert abs(x.mean() - scale * MEANS[1]) < 0.03
        assert abs(x.std() / STD - 1) < 0.05


def test_the_second_order_is_nearer_than_the_first():
    exact = drawn(0, method="ddim", steps=0)  # as the flow has it
    euler = np.abs(drawn(0, method="ddim", steps=16) - exact).mean()
    heun = {n: np.abs(drawn(0, method="heun", steps=n) - exact).mean() for n in (8, 16)}
    assert heun[8] < 0.8 * euler and heun[16] < euler / 2 and euler > 0.005


def test_only_the_ancestral_chain_draws_noise():
    twice = [drawn(0, method="ddim", steps=5) for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    settings = Settings(drawing=Drawing(steps=5, temperature=1e-6))
    draw = jax.jit(
        lambda key_B: diffusion.draw(MODEL, jnp.zeros(MANY, int), key_B, settings=settings)
    )
    cold = np.asarray(draw(image_keys(0, jnp.arange(MANY))))
    assert cold.std() < 0.8 * drawn(0, method="ddpm", steps=5).std()


def test_what_is_kept_is_exact_and_the_rest_is_of_the_data():
    tokens = jnp.full((MANY, CELLS, 1), 0.123)
    hidden = jnp.tile(jnp.array([False, True]), (MANY, 1))
    x = drawn(0, method="ddpm", steps=100, tokens_BTS=tokens, hidden_BT=hidden)
    np.testing.assert_allclose(x[:, 0], 0.123, rtol=1e-6)
    assert abs(x[:, 1].mean() - MEANS[0]) < 0.05 and abs(x[:, 1].std() / STD - 1) < 0.06
