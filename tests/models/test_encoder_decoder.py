"""MAR's trunk against float64 NumPy; nothing of what is hidden; published sizes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.errors import LabError
from lab.layers.denoiser import Denoiser
from lab.layers.parameters import Init
from lab.models.encoder_decoder import EncoderDecoder, visible_first
from tests.layers import transformer_reference as ref

INIT = Init(rule="mup", std=1.0)
POSITIONS, BUFFER, WIDTH = 6, 2, 8
VISIBLE = [[1, 4], [0], []]  # of three images
HIDDEN_BT = ~jnp.asarray([[t in seen for t in range(POSITIONS)] for seen in VISIBLE])
LIMITS = (None, 2, pytest.param(4, marks=pytest.mark.slow))


def make(**changes):
    base = {
        "depth": 2,
        "decoder_depth": 1,
        "width": WIDTH,
        "heads": 2,
        "mlp_hidden": 12,
        "buffer": BUFFER,
        "positions": POSITIONS,
        "dropout": 0.0,
        "norm_epsilon": 1e-6,
        "init": INIT,
        "platform": "cpu",
        "remat": "none",
        "unroll": False,
    }
    return functools.partial(EncoderDecoder, **{**base, **changes})


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


X_BTD, CLASS_BD = draw(0, 3, POSITIONS, WIDTH), draw(1, 3, WIDTH)


@functools.partial(jax.jit, static_argnames="limit")
def infill(trunk, x_BTD, hidden_BT, key=None, *, limit=None):
    return trunk.infill(
        x_BTD, hidden_BT, CLASS_BD, None, key, condition_BD=CLASS_BD, visible_limit=limit
    )


def run(x, stack, depth, seen_by=None):
    for index in range(depth):
        block = ref.layer(stack, index)
        if seen_by is not None:
            h = ref.layer_norm(x, block.attention_norm, 1e-6)
            seen_by.append((x, ref.vit_weights(h, block.attention)))
        x = x + ref.vit_attention(ref.layer_norm(x, block.attention_norm, 1e-6), block.attention)
        inner = ref.affine(ref.layer_norm(x, block.mlp_norm, 1e-6), block.mlp.up)
        x = x + ref.affine(ref.gelu(inner), block.mlp.down)
    return x


def features(x, visible, c, trunk, seen_by=None):
    """One image: the encoder runs on what is visible and nothing else."""
    places = [*range(BUFFER), *(BUFFER + t for t in visible)]
    tokens = np.stack([c] * BUFFER + [x[t] for t in visible]) + ref.f64(trunk.place[...])[places]
    encoded = run(ref.layer_norm(tokens, trunk.entry_norm, 1e-6), trunk.encoder, 2, seen_by)
    encoded = ref.affine(ref.layer_norm(encoded, trunk.encoder_norm, 1e-6), trunk.bridge)
    all_tokens = np.repeat(ref.f64(trunk.mask[...]), BUFFER + POSITIONS, axis=0)
    all_tokens[places] = encoded
    return run(all_tokens + ref.f64(trunk.decoder_place[...]), trunk.decoder, 1, seen_by)[BUFFER:]


@pytest.mark.parametrize("limit", LIMITS)
def test_against_a_reference(limit):
    trunk = ref.random(make())
    got = infill(trunk, X_BTD, HIDDEN_BT, limit=limit)
    for image, visible in enumerate(VISIBLE):
        x, c = ref.f64(X_BTD[image]), ref.f64(CLASS_BD[image])
        want = features(x, visible, c, trunk)
        np.testing.assert_allclose(got[image], want, rtol=1e-4, atol=2e-4)


def test_observed_inputs_and_weights_against_a_reference():
    trunk = ref.random(make())

    def observe(m, x, c):
        return m.observe(x, c, lambda x, weights: (x, weights()))

    (encoded, of_encoder), (decoded, of_decoder) = jax.jit(observe)(trunk, X_BTD, CLASS_BD)
    inputs, weights = (jnp.concatenate(pair) for pair in zip(of_encoder, of_decoder, strict=True))
    for image in range(3):
        want = []
        x, c = ref.f64(X_BTD[image]), ref.f64(CLASS_BD[image])
        last = features(x, range(POSITIONS), c, trunk, want)
        np.testing.assert_allclose(decoded[image, BUFFER:], last, rtol=1e-4, atol=2e-4)
        for layer, (x, each) in enumerate(want):
            np.testing.assert_allclose(inputs[layer, image], x, rtol=1e-4, atol=2e-4)
            np.testing.assert_allclose(weights[layer, image], each, rtol=1e-3, atol=1e-5)
    assert len(want) == len(inputs) == 3 and encoded.shape == decoded.shape


@pytest.mark.parametrize("limit", [None, 3])
def test_no_gradient_reaches_what_is_hidden(limit):
    trunk = ref.random(make())
    weights = draw(2, 3, POSITIONS, WIDTH)

    def weighted(x):
        return jnp.sum(weights * infill(trunk, x, HIDDEN_BT, limit=limit))

    d_x = np.asarray(jax.jit(jax.grad(weighted))(X_BTD))
    assert not np.any(d_x[HIDDEN_BT])
    assert np.all(np.abs(d_x[~HIDDEN_BT]).max(axis=-1) > 1e-3)


def test_places_hold_the_visible_positions_in_order():
    """Beyond the limit a visible position counts as hidden."""
    hidden = jnp.asarray([[True, False, True, False, False]])
    places = visible_first(hidden, 2)
    assert places.position_BV.tolist() == [[1, 3]] and places.filled_BV.tolist() == [[True, True]]
    assert places.kept_BT.tolist() == [[False, True, False, True, False]]
    assert places.place_BT[0, [1, 3]].tolist() == [0, 1]
    assert visible_first(hidden, 4).filled_BV.tolist() == [[True, True, True, False]]


def test_dropout_needs_a_key_and_changes_the_output():
    trunk = ref.random(make(dropout=0.5))
    outs = [infill(trunk, X_BTD, HIDDEN_BT, jax.random.key(i)) for i in (0, 0, 1)]
    np.testing.assert_array_equal(outs[0], outs[1])
    assert np.abs(np.asarray(outs[0] - outs[2])).max() > 0.01
    plain = infill(trunk, X_BTD, HIDDEN_BT)
    np.testing.assert_array_equal(plain, infill(ref.random(make()), X_BTD, HIDDEN_BT))


def test_a_buffer_is_needed():
    with pytest.raises(LabError, match="buffer = 0"):
        jax.eval_shape(make(buffer=0), jax.random.key(0))


PUBLISHED = {  # blocks of each stack, width, heads, of the denoiser; millions in all
    "B": (12, 768, 12, (6, 1024), 208),
    "L": (16, 1024, 16, (8, 1280), 479),
    "H": (20, 1280, 16, (12, 1536), 943),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    """The trunk, the denoiser, and the rest by arithmetic: latents of 16 in, 1001 classes, the
    final norm and the places of the 256 positions in the head.

    The authors round up: their code has 207.9, 478.3 and 942.4 million.
    """
    depth, width, heads, (denoiser_depth, denoiser_width), millions = PUBLISHED[name]
    sizes = {"depth": depth, "decoder_depth": depth, "width": width, "heads": heads}
    wide = {"mlp_hidden": 4 * width, "buffer": 64, "positions": 256}
    trunk = jax.eval_shape(make(**sizes, **wide), jax.random.key(0))
    network = jax.eval_shape(
        lambda key: Denoiser(
            key,
            inputs=16,
            outputs=32,
            condition=width,
            width=denoiser_width,
            depth=denoiser_depth,
            affine=True,
            init=INIT,
        ),
        jax.random.key(0),
    )
    rest = (16 + 1) * width + 1001 * width + 2 * width + 256 * width
    assert math.ceil((ref.size_of(trunk) + ref.size_of(network) + rest) / 1e6) == millions


@pytest.mark.parametrize("limit", [None, 5])
def test_flops_against_xla(limit):
    wide = {"width": 256, "heads": 1, "mlp_hidden": 1024, "positions": 16, "unroll": True}
    trunk = jax.eval_shape(make(**wide), jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, 16, 256), jnp.float32)
    hidden = jax.ShapeDtypeStruct((1, 16), bool)
    c = jax.ShapeDtypeStruct((1, 256), jnp.float32)

    def call(trunk, x, hidden, c):
        return trunk.infill(x, hidden, c, None, None, visible_limit=limit)

    found = jax.jit(call).lower(trunk, x, hidden, c).compile().cost_analysis()["flops"]
    flops = trunk.infill_flops(16, visible_limit=limit)
    assert 1.0 <= found / sum(flops) < 1.06
    assert flops == trunk.forward_flops(16, 16 if limit is None else 5)
