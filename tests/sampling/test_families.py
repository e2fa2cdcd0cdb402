"""Every family through one door: shapes, keys, what is kept."""

import jax.numpy as jnp
import numpy as np
import pytest

from lab.models import families
from lab.models.drawing import Drawing
from lab.sampling.conditions import Known, image_keys
from lab.sampling.guidance import Guidance, Schedule
from lab.sampling.sampler import sample
from lab.sampling.settings import Pace, Ranking, Settings, Unmasking
from tests.models.worlds import config, stirred

GRID, BITS, CHANNELS = (4, 2, 1), 6, 3
OF_BITS = families.Codes(vocabulary=2, grid=GRID, classes=3)
OF_LATENTS = families.Codes(vocabulary=0, grid=GRID, classes=3, channels=CHANNELS)
OF_PIXELS = families.Codes(vocabulary=8, grid=(4, 2, 3), classes=3)
FEW = {"model.diffusion_steps": 16}
RANDOM = {"ranking": Ranking.RANDOM, "pace": Pace.UNMASKED}
WORLDS = {
    "llamagen": ("llamagen", "s1", OF_PIXELS, {}, {}),
    "bigr": ("bigr", "s1", OF_BITS, {"model.subcodes": BITS, **FEW}, {"gumbel": 0.2}),
    "S2": ("bigr", "S2-s1", OF_BITS, {"model.subcodes": BITS, **FEW}, {}),
    "bce": ("bigr", "bce-s1", OF_BITS, {"model.subcodes": BITS}, {"ranking": Ranking.CERTAINTY}),
    "mar": ("mar", "s1", OF_LATENTS, FEW, RANDOM),
    "ar_diffusion": ("ar_diffusion", "s1", OF_LATENTS, FEW, {}),
    "dit": ("dit", "s1", OF_PIXELS, FEW, {}),
    "dit_latents": ("dit", "s1", OF_LATENTS, {**FEW, "model.patch": 2}, {}),
}


GUIDANCE = Guidance(1.5, Schedule.LINEAR)


def draw(name, number_B, label_B, known=None, *, guidance=GUIDANCE):
    """Flat tokens (B, T * S) of a family's model."""
    family, size, codes, overrides, unmasking = WORLDS[name]
    model = stirred(config(size, family, **overrides), codes, noise=0.1)
    settings = Settings(
        guidance=guidance,
        drawing=Drawing(steps=5),
        unmasking=Unmasking(rounds=3, **unmasking),
    )
    keys = image_keys(0, jnp.asarray(number_B))
    tokens = np.asarray(sample(model, jnp.asarray(label_B), keys, settings, known))
    return tokens.reshape(len(tokens), -1)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_every_family_draws_images_that_only_their_keys_decide(name):
    codes = WORLDS[name][2]
    drawn = draw(name, [0, 1, 2], [0, 1, 2])
    numbers = codes.positions * (codes.channels or (BITS if codes.vocabulary == 2 else 1))
    assert drawn.shape == (3, numbers)
    if codes.vocabulary:
        assert drawn.dtype == np.int32 and drawn.min() >= 0 and drawn.max() < codes.vocabulary
    assert np.isfinite(drawn).all() and len(np.unique(drawn, axis=0)) == 3
    others = draw(name, [2, 7, 0], [2, 0, 0])
    np.testing.assert_allclose(others[[0, 2]], drawn[[2, 0]], atol=2e-4)

    tokens = np.roll(drawn, 1, axis=0).reshape(3, codes.positions, -1)
    hidden = np.arange(codes.positions) >= codes.positions // 2
    kept = draw(name, [0, 1, 2], [0, 1, 2], Known(tokens, np.tile(hidden, (3, 1))))
    kept = kept.reshape(tokens.shape)
    np.testing.assert_allclose(kept[:, ~hidden], tokens[:, ~hidden], atol=1e-6)
    assert not np.allclose(kept[:, hidden], tokens[:, hidden], atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bigr", "mar", "dit"])
def test_guidance_moves_a_family_and_zero_is_the_null_class(name):
    plain, much, none, null = (
        draw(name, [0, 1], [label, label], guidance=Guidance(scale))
        for label, scale in ((1, 1.0), (1, 6.0), (1, 0.0), (3, 1.0))
    )
    assert np.mean(np.abs(plain - much) > 1e-3) > 0.05
    apart = np.mean(np.abs(plain - null))
    assert apart > 0.01
    if name == "bigr":
        np.testing.assert_array_equal(none, null)
    else:  # the variance stays that of the class
        assert np.mean(np.abs(none - null)) < 0.1 * apart
