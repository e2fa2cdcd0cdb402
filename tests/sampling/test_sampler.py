"""The one door to all samplers: what it refuses, and that a head is told where it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lab.core.errors import LabError
from lab.models import families
from lab.models.drawing import Drawing, Proposal
from lab.sampling import sampler
from lab.sampling.conditions import Known, image_keys
from lab.sampling.guidance import Guidance
from lab.sampling.sampler import sample
from lab.sampling.settings import Ranking, Settings, Unmasking
from tests.models.worlds import config, stirred

IMAGES, POSITIONS, CHANNELS = 2, 8, 3
CODES = families.Codes(vocabulary=POSITIONS, grid=(4, 2, 1), classes=3)
LATENTS = families.Codes(vocabulary=0, grid=(4, 2, 1), classes=3, channels=CHANNELS)
FEW = {"model.diffusion_steps": 4}
LABEL, KEYS = jnp.zeros(IMAGES, int), image_keys(0, jnp.arange(IMAGES))


def zeros(family, codes):
    """A model of which only the shapes matter; nothing is compiled."""
    model = jax.eval_shape(lambda: stirred(config("s1", family, **FEW), codes))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), model)


class Placed(nnx.Module):
    """A head whose draw at a position is the number of the position."""

    def propose(self, x_TD, null_TD, guidance, key, drawing, *, first=0):
        place_T = first + jnp.arange(len(x_TD))
        alike_T = jnp.zeros(len(x_TD)) + 0 * guidance
        return Proposal(place_T[:, None].astype(jnp.int32), alike_T, alike_T)


@pytest.mark.parametrize(
    ("family", "ranking", "rounds"),
    [
        ("elm", Ranking.RASTER, 0),  # its ranking is of no account
        ("mlm", Ranking.RASTER, 3),
        ("mlm", Ranking.RANDOM, 3),
        ("mlm", Ranking.CONFIDENCE, 3),
    ],
)
def test_a_head_is_told_the_position_that_it_draws(family, ranking, rounds):
    model = zeros(family, CODES)
    model.head = Placed()
    settings = Settings(guidance=Guidance(2.0), unmasking=Unmasking(ranking=ranking, rounds=rounds))
    found = np.asarray(sample(model, LABEL, KEYS, settings))[..., 0]
    np.testing.assert_array_equal(found, np.tile(np.arange(POSITIONS), (IMAGES, 1)))


def test_latents_are_not_ranked_by_a_confidence_that_they_do_not_have():
    model = zeros("mar", LATENTS)
    for ranking in (Ranking.CONFIDENCE, Ranking.CERTAINTY):
        settings = Settings(unmasking=Unmasking(ranking=ranking), drawing=Drawing(steps=2))
        with pytest.raises(LabError, match=f"order {ranking}: .*allowed are random, raster"):
            sample(model, LABEL, KEYS, settings)


@pytest.mark.parametrize(
    ("family", "codes", "wrong"),
    [
        ("elm", CODES, (1, POSITIONS, 1)),  # the tokens of one image would be those of all
        ("elm", CODES, (IMAGES, POSITIONS, 2)),
        ("mlm", CODES, (IMAGES, POSITIONS - 1, 1)),
        ("dit", LATENTS, (IMAGES, POSITIONS // 2, CHANNELS)),  # in all those of one image
        ("dit", LATENTS, (1, POSITIONS, CHANNELS)),
    ],
)
def test_known_tokens_of_another_shape_are_refused(family, codes, wrong):
    model = zeros(family, codes)
    hidden = np.tile(np.arange(wrong[1]) > 1, (IMAGES, 1))
    with pytest.raises(LabError, match="known tokens: "):
        sample(model, LABEL, KEYS, Settings(), Known(np.zeros(wrong), hidden))


@pytest.mark.parametrize("slots", [1, 3])
def test_known_tokens_of_a_joint_order_are_of_cells_or_of_their_slots(slots, monkeypatch):
    codes = families.Codes(vocabulary=5, grid=(2, 2, slots), classes=3)
    model, seen = zeros("dit", codes), []
    monkeypatch.setattr(sampler, "_joint", lambda *given, settings: seen.append(given[3:]))
    for positions in (4, 4 * slots):
        tokens = np.arange(IMAGES * 4 * slots).reshape(IMAGES, positions, -1) % 5
        hidden = np.zeros((IMAGES, positions), bool)
        sample(model, LABEL, KEYS, Settings(), Known(tokens, hidden))
        np.testing.assert_array_equal(seen[-1][0], tokens)
        np.testing.assert_array_equal(seen[-1][1], hidden)
