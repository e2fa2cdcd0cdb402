"""Vector quantisation: choice, losses and gradients against their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from lab.core.codes import Alphabet, CodeKind
from lab.tokenizers.vq import VectorQuantiser, entropy_loss, restart_dead, unit
from tests.layers.image_reference import conv, f64, filled
from tests.tokenizers.published import quantiser

KEY = jax.random.key(0)
LATENT, FEATURES, VOCABULARY = 4, 3, 11
BETA, BOOK = 0.25, 0.7


def made(*, seed=0, **changes):
    """A quantiser with random parameters."""
    sizes = {
        "features": FEATURES,
        "vocabulary": VOCABULARY,
        "normalised": False,
        "commitment": BETA,
        "codebook_weight": BOOK,
    }
    return filled(lambda: quantiser(LATENT, **{**sizes, **changes})(KEY), seed=seed, std=1.0)


def hidden(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(3, 2, 4, LATENT)).astype("float32")


@jax.jit
def bottle(model, h):
    return model(h, None)


@jax.jit
def encode(model, h):
    return model.encode(h)


@jax.jit
def embed(model, codes):
    return model.embed(codes)


def length_one(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def by_definition(model, h):
    """z, the codes, and the nearest id by brute force, in float64."""
    z, codes = conv(f64(h), model.into), f64(model.codebook[...])
    if model.normalised:
        z, codes = length_one(z), length_one(codes)
    square = ((z[..., None, :] - codes) ** 2).sum(-1)
    return z, codes, square


@pytest.mark.parametrize("normalised", [False, True])
def test_the_nearest_code_by_brute_force(normalised):
    model = made(normalised=normalised)
    z, codes, square = by_definition(model, hidden())
    ids = square.argmin(-1)
    assert len(np.unique(ids)) > 3
    bottled = bottle(model, hidden())
    np.testing.assert_array_equal(bottled.codes, ids)
    assert bottled.codes.dtype == jnp.int32
    np.testing.assert_array_equal(encode(model, hidden()), ids)
    np.testing.assert_allclose(bottled.projected, z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bottled.latent, conv(codes[ids], model.out), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        bottled.measures["quantisation_square"],
        square.min(-1).mean((1, 2)) / FEATURES,
        rtol=1e-4,
    )


@pytest.mark.parametrize("normalised", [False, True])
def test_codes_embed_to_the_latent_of_training(normalised):
    model = made(normalised=normalised)
    bottled = bottle(model, hidden())
    np.testing.assert_array_equal(embed(model, bottled.codes), bottled.latent)


def test_the_lowest_of_equal_codes():
    model = made()
    row = model.codebook[...][5]
    model.codebook[...] = jnp.tile(row, (VOCABULARY, 1))
    assert not np.asarray(encode(model, hidden())).any()
    model.codebook[...] = model.codebook[...].at[:4].set(row + 100)
    np.testing.assert_array_equal(encode(model, hidden()), np.full((3, 2, 4), 4))


@pytest.mark.parametrize("normalised", [False, True])
def test_losses(normalised):
    model = made(normalised=normalised)
    _, _, square = by_definition(model, hidden())
    losses = bottle(model, hidden()).losses
    assert set(losses) == {"codebook", "commitment"}
    mean = square.min(-1).mean() / FEATURES
    np.testing.assert_allclose(losses["codebook"], BOOK * mean, rtol=1e-5)
    np.testing.assert_allclose(losses["commitment"], BETA * mean, rtol=1e-5)


def test_gradients_of_each_term():
    """The definition (van den Oord et al. 2017, equation 3), by hand where nothing is normalised.

    With n elements of z: d commitment / dz = 2 beta (z - e) / n, d codebook / de = 2 (e - z) / n
    summed over the tokens of e; a gradient at the quantised vectors passes to z as it is.
    """
    model, h = made(), hidden()
    z, codes, square = by_definition(model, h)
    ids = square.argmin(-1)
    into, out = f64(model.into.weight[...])[0, 0], f64(model.out.weight[...])[0, 0]
    cotangent = np.random.default_rng(1).normal(size=(3, 2, 4, LATENT))

    def of(term):
        def scalar(model, h):
            bottled = model(h, None)
            if term == "latent":
                return jnp.vdot(bottled.latent, cotangent.astype("float32"))
            return bottled.losses[term]

        model_grad, h_grad = jax.jit(jax.grad(scalar, argnums=(0, 1)))(model, h)
        return f64(model_grad.codebook[...]), f64(h_grad)

    book, encoder = of("commitment")
    assert not book.any()
    np.testing.assert_allclose(
        encoder, 2 * BETA * (z - codes[ids]) / z.size @ into.T, rtol=1e-4, atol=1e-6
    )
    book, encoder = of("codebook")
    assert not encoder.any()
    want = np.zeros_like(codes)
    np.add.at(want, ids.reshape(-1), 2 * BOOK * (codes[ids] - z).reshape(-1, FEATURES) / z.size)
    np.testing.assert_allclose(book, want, rtol=1e-4, atol=1e-6)
    book, encoder = of("latent")
    assert not book.any()
    np.testing.assert_allclose(encoder, cotangent @ out.T @ into.T, rtol=1e-4, atol=1e-5)


def test_the_gradient_on_the_sphere_is_tangential():
    """Through z / |z| nothing moves along z, and the rest shrinks with |z|."""
    x = np.array([[3.0, 4.0]], "float32")
    grad = jax.grad(lambda x: jnp.sum(unit(x) * jnp.array([1.0, 0.0])))(x)
    np.testing.assert_allclose(grad, [[16 / 125, -12 / 125]], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(unit(x)))(jnp.zeros((1, 2)))).all()


@pytest.mark.parametrize("normalised", [False, True])
def test_the_entropy_term(normalised):
    model = made(normalised=normalised, entropy_weight=0.3, entropy_temperature=0.5)
    _, _, square = by_definition(model, hidden())
    p = scipy.special.softmax(-square.reshape(-1, VOCABULARY) / 0.5, axis=-1)
    of_each = scipy.stats.entropy(p, axis=-1).mean()
    of_mean = scipy.stats.entropy(p.mean(0))
    np.testing.assert_allclose(
        bottle(model, hidden()).losses["entropy"], 0.3 * (of_each - of_mean), rtol=1e-4
    )


def test_entropy_at_its_ends():
    """Sharp and even: -ln V. All tokens on one code: 0. Every choice even: 0."""
    sharp, even = np.float32(100 * (1 - np.eye(8))), np.zeros((8, 8), np.float32)
    one = even + np.float32(100) * (np.arange(8) > 0)
    np.testing.assert_allclose(entropy_loss(sharp, temperature=0.1), -np.log(8), rtol=1e-6)
    np.testing.assert_allclose(entropy_loss(one, temperature=0.1), 0, atol=1e-6)
    np.testing.assert_allclose(entropy_loss(even, temperature=0.1), 0, atol=1e-6)
    grads = jax.jit(jax.grad(lambda x: entropy_loss(x, temperature=0.01)))(sharp)
    assert np.isfinite(grads).all()


def test_distances_never_hold_tokens_by_codes_by_features():
    """The largest array of the compiled choice is tokens by codes."""
    model = jax.eval_shape(lambda: quantiser(LATENT, features=16, vocabulary=512)(KEY))
    h = jax.ShapeDtypeStruct((8, 8, 8, LATENT), jnp.float32)
    compiled = jax.jit(lambda m, h: m.encode(h)).lower(model, h).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 3 * 4 * 8**3 * 512


def test_the_codebook_starts_as_published():
    plain = jax.jit(quantiser(LATENT, features=6, vocabulary=50, normalised=False))
    book = plain(KEY).codebook[...]
    assert 0.9 / 50 < float(jnp.abs(book).max()) <= 1 / 50
    book = jax.jit(quantiser(LATENT, features=6, vocabulary=50))(KEY).codebook[...]
    np.testing.assert_allclose(np.linalg.norm(book, axis=-1), 1, rtol=1e-5)


def test_usage_is_a_running_share():
    model = made()
    even = model.even_usage()
    np.testing.assert_allclose(even, 1 / VOCABULARY)
    ids = jnp.array([[[0, 0, 3]], [[3, 3, 7]]])
    found = model.running_usage(even, ids)
    share = np.bincount([0, 0, 3, 3, 3, 7], minlength=VOCABULARY) / 6
    np.testing.assert_allclose(found, 0.99 / VOCABULARY + 0.01 * share, rtol=1e-6)


@pytest.mark.parametrize("tokens", [24, 4])
def test_dead_codes_start_from_tokens(tokens):
    """With enough tokens each dead code takes another one; live codes and shares stay."""
    rng = np.random.default_rng(0)
    book = rng.normal(size=(VOCABULARY, FEATURES)).astype("float32")
    z = rng.normal(size=(1, 1, tokens, FEATURES)).astype("float32")
    usage = np.full(VOCABULARY, 0.2 / VOCABULARY, "float32")
    usage[[2, 5]] = 0.4, 0.5 / VOCABULARY
    after = jax.jit(lambda *of: restart_dead(*of, below=0.5))(book, usage, z, KEY)
    dead = [v for v in range(VOCABULARY) if v not in (2, 5)]
    np.testing.assert_array_equal(after.codebook[np.array([2, 5])], book[[2, 5]])
    np.testing.assert_array_equal(after.usage[np.array([2, 5])], usage[[2, 5]])
    np.testing.assert_allclose(after.usage[np.array(dead)], 1 / VOCABULARY)
    assert int(after.count) == len(dead)
    rows = {tuple(row) for row in z.reshape(-1, FEATURES)}
    taken = [tuple(row) for row in np.asarray(after.codebook[np.array(dead)])]
    assert set(taken) <= rows
    assert tokens < VOCABULARY or len(set(taken)) == len(dead)


def test_nothing_starts_anew_below_nothing():
    model = made()
    after = model.restart_dead(jnp.zeros(VOCABULARY), hidden()[..., :FEATURES], KEY, below=0.0)
    np.testing.assert_array_equal(after.codebook, model.codebook[...])
    assert int(after.count) == 0


def test_sizes():
    model = made()
    assert isinstance(model, VectorQuantiser)
    assert model.alphabet == Alphabet(CodeKind.IDS, VOCABULARY)
    assert model.encoder_outputs == LATENT
    products = LATENT * FEATURES + FEATURES * VOCABULARY + FEATURES * LATENT
    assert model.forward_flops_per_position == 2 * products
