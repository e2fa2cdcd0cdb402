"""What a prediction may see: nothing ahead in raster order, nothing hidden in any other."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.models import families
from tests.models.worlds import config, stirred

PIXELS = families.Codes(vocabulary=5, grid=(2, 2, 3), classes=3)
BITS = families.Codes(vocabulary=2, grid=(2, 4, 1), classes=3)
LATENTS = families.Codes(vocabulary=0, grid=(2, 4, 1), classes=3, channels=3)
FOUR = {"model.subcodes": 4}
RASTER = {
    "elm": (config("s4"), PIXELS, 1),
    "llamagen": (config("s4", "llamagen"), PIXELS, 1),
    "elm-2": (config("s4", **{"model.subcodes": 2}), BITS, 2),
    "S0": (config("S0-s4", "bigr", **{"model.subcodes": 2}), BITS, 2),
    "S2": (config("S2-s4", "bigr", **FOUR), BITS, 4),
    "ar_diffusion": (config("s4", "ar_diffusion"), LATENTS, 3),
}
MASKED = {
    "mlm": (config("s4", "mlm"), PIXELS, 1),
    "S3": (config("S3-s4", "bigr", **FOUR), BITS, 4),
    "mar": (config("s4", "mar"), LATENTS, 3),
}


def tokens_of(codes, numbers):
    shape = (1, codes.positions, numbers)
    if codes.channels:
        return jax.random.normal(jax.random.key(3), shape)
    return jax.random.randint(jax.random.key(3), shape, 0, codes.vocabulary)


class Shifted:
    """An embedding with an offset on what it gives."""

    def __init__(self, embedding, offset_TD):
        self.embedding, self.offset_TD = embedding, offset_TD

    def __call__(self, tokens_BTS, hidden_BT=None):
        return self.embedding(tokens_BTS, hidden_BT) + self.offset_TD[None, : tokens_BTS.shape[1]]


def reach(model, tokens, features):
    """|d features of position i / d embedding of token j|, summed: (T, T)."""
    width = model.backbone.spec.width
    direction_D = jax.random.normal(jax.random.key(4), (width,))

    def seen_T(offset_TD):
        shifted = types.SimpleNamespace(
            classes=model.classes,
            embedding=Shifted(model.embedding, offset_TD),
            backbone=model.backbone,
            order=model.order,
            compute_dtype=model.compute_dtype,
        )
        return features(shifted, tokens)[0] @ direction_D

    zeros = jnp.zeros((tokens.shape[1], width))
    return np.asarray(jnp.abs(jax.jit(jax.jacrev(seen_T))(zeros)).sum(-1))


# What these add to the others is little.
SLOW = ("llamagen", "elm-2", "S0", "S2", "ar_diffusion", "S3")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in RASTER]
)
def test_raster_orders_see_nothing_from_their_own_position_on(name):
    run, codes, numbers = RASTER[name]
    model, tokens = stirred(run, codes), tokens_of(codes, numbers)
    label = jnp.zeros(1, int)
    found_TT = reach(model, tokens, lambda m, t: m.order.features(m, t, label, None))
    for position in range(codes.positions):
        assert np.all(found_TT[position, position:] == 0.0)
        assert np.all(found_TT[position, :position] > 0.0)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MASKED]
)
def test_masked_orders_see_all_that_is_visible_and_nothing_hidden(name):
    run, codes, numbers = MASKED[name]
    model, tokens = stirred(run, codes), tokens_of(codes, numbers)
    hidden_BT = jnp.arange(codes.positions)[None] % 3 != 0
    label = jnp.zeros(1, int)

    def features(m, t):
        return m.order.features(m, t, hidden_BT, label, None)

    compiled = jax.jit(features)

    other = jnp.where(hidden_BT[..., None], tokens[:, ::-1], tokens)
    assert not np.array_equal(tokens, other)
    np.testing.assert_array_equal(compiled(model, tokens), compiled(model, other))
    found_TT = reach(model, tokens, features)
    hidden = np.asarray(hidden_BT[0])
    if name == "mar":  # the decoder's own mask token stands where the offset would
        assert np.all(found_TT[:, hidden] == 0.0)
    assert np.all(found_TT[:, ~hidden] > 0.0)


RGB_BITS = families.Codes(vocabulary=2, grid=(1, 2, 3), classes=3)
ENCODER_DECODER = {
    "model.backbone": "encoder_decoder",
    "model.decoder_depth": 1,
    "model.buffer": 2,
}
EMBEDDINGS = {  # numbers at a position with slots, and sub-codes where the decoder has the mask
    "bits": (config("bce-s2", "bigr", **{"model.subcodes": 1}), RGB_BITS, 1),
    "subcodes": (config("s2", "mlm", **ENCODER_DECODER), PIXELS, 1),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_hidden_slots_of_a_cell_are_told_apart_and_no_parameter_is_idle(name):
    """Colours of a pixel have the same rotation: without a slot they would be one another."""
    run, codes, numbers = EMBEDDINGS[name]
    model, tokens = stirred(run, codes, noise=1.0), tokens_of(codes, numbers)
    hidden_BT = jnp.arange(codes.positions)[None] > 2

    @jax.jit
    def features(embedding):
        parts = {n: getattr(model, n) for n in ("classes", "backbone", "order", "compute_dtype")}
        stood_in = types.SimpleNamespace(embedding=embedding, **parts)
        return model.order.features(stood_in, tokens, hidden_BT, jnp.zeros(1, int), None)[0]

    cell_TD = features(model.embedding)[3:6]
    assert all(np.abs(cell_TD[i] - cell_TD[j]).max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))
    of_embedding = jax.grad(lambda embedding: jnp.sum(jnp.sin(features(embedding))))
    grads = jax.jit(of_embedding)(model.embedding)
    named = jax.tree_util.tree_leaves_with_path(grads)
    assert not [jax.tree_util.keystr(path) for path, leaf in named if not np.any(leaf)]
