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
from lab.sampling.guidance import Guidance, Schedule
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


def drawn(
    label, *, method, steps, guidance=1.0, schedule=Schedule.CONSTANT, temperature=1.0, **known
):
    settings = Settings(
        guidance=Guidance(guidance, schedule),
        drawing=Drawing(steps=steps, temperature=temperature),
        method=Method(method),
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


@pytest.mark.parametrize("method", list(Method))
def test_only_the_ancestral_chain_draws_noise(method):
    """What the temperature multiplies: noise beside x_T, which it leaves."""
    cold, warm = (drawn(0, method=method, steps=5, temperature=t) for t in (1e-6, 1.0))
    if method is Method.DDPM:
        assert cold.std() < 0.8 * warm.std()
    else:
        np.testing.assert_array_equal(cold, warm)
        assert warm.std() > 0.1


def test_guidance_grows_from_the_first_step_to_the_last():
    """The mean of the draws follows the mean of the flow, in float64, step by step."""
    steps, scale = 40, 4.0
    tables = PROCESS.respaced(steps).tables
    means = {}
    for growing in (True, False):
        mean = 0.0  # of x_T
        for done in range(steps):
            t = steps - done
            share = (done + 1 if growing else t) / steps
            centre = (1 + (scale - 1) * share) * MEANS[1]
            signal, noise = tables.signal[t], tables.noise[t]
            e = noise * (mean - signal * centre) / (signal**2 * STD**2 + noise**2)
            mean = tables.growth[t] * mean - tables.turn[t] * e
        means[growing] = mean
    x = drawn(1, method="ddim", steps=steps, guidance=scale, schedule=Schedule.LINEAR)
    assert abs(x.mean() - means[True]) < 0.03 < 0.2 < abs(means[True] - means[False])


def test_what_is_kept_is_exact_and_the_rest_is_of_the_data():
    tokens = jnp.full((MANY, CELLS, 1), 0.123)
    hidden = jnp.tile(jnp.array([False, True]), (MANY, 1))
    x = drawn(0, method="ddpm", steps=100, tokens_BTS=tokens, hidden_BT=hidden)
    np.testing.assert_allclose(x[:, 0], 0.123, rtol=1e-6)
    assert abs(x[:, 1].mean() - MEANS[0]) < 0.05 and abs(x[:, 1].std() / STD - 1) < 0.06
