"""Singular values of W_q W_k^T against those of the whole matrix, and what rows say of them."""

import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.models import spectra
from lab.models.families import Codes
from tests.models.worlds import config, stirred

PIXELS = Codes(vocabulary=8, grid=(2, 2, 3), classes=10, channels=0)


def model_of():
    return stirred(config("s5"), PIXELS)


def product(attention, layer, head):
    """W_q W_k^T (D, D) of a head in float64."""
    of = [np.float64(each[...])[layer] for each in (attention.query, attention.key)]
    features = of[0].shape[1] // attention.heads
    query, key = (each[:, head * features : (head + 1) * features] for each in of)
    return query @ key.T


def test_energies_are_the_squared_singular_values_of_the_product():
    model = model_of()
    attention = model.backbone.layers.attention
    found = spectra.energies(spectra.grams(model))
    layers, heads, features = found.shape
    for layer in range(layers):
        for head in range(heads):
            whole = np.linalg.svd(product(attention, layer, head), compute_uv=False)
            scale = whole[0] ** 2
            np.testing.assert_allclose(
                found[layer, head], whole[:features] ** 2, rtol=1e-4, atol=1e-6 * scale
            )


def test_the_row_is_of_the_head_that_is_furthest_gone():
    energy_NHK = np.array([[[4.0, 4.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]], [[1.0] * 4, [1.0] * 4]])
    row = spectra.row(energy_NHK)
    assert row == pytest.approx(
        {
            "qk_top_share_0": 1.0,
            "qk_top_share_1": 0.25,
            "qk_effective_rank_0": 1.0,
            "qk_effective_rank_1": 4.0,
            "qk_spectral_norm_0": 1.5,
            "qk_spectral_norm_1": 0.5,
        }
    )


def test_heads_of_one_direction_and_of_none():
    model = model_of()
    attention = model.backbone.layers.attention
    ones = np.zeros(attention.query[...].shape, np.float32)
    attention.key[...] = jnp.asarray(ones)
    none = spectra.row(spectra.energies(spectra.grams(model)))
    assert none["qk_top_share_1"] == none["qk_spectral_norm_1"] == 0.0
    ones[:, 0, :] = 1.0  # one feature of the stream feeds all
    attention.key[...] = jnp.asarray(ones)
    row = spectra.row(spectra.energies(spectra.grams(model)))
    assert row["qk_top_share_0"] == pytest.approx(1.0, rel=1e-5)
    assert row["qk_effective_rank_0"] == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("family", ["mar", "dit"])
def test_other_backbones_are_refused(family):
    with pytest.raises(LabError, match="attention_spectra = True: of the backbone llama only"):
        config("s3", family, **{"execution.attention_spectra": True})
