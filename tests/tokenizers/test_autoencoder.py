"""Autoencoders of every kind of code, tiny: the parts agree, and gradients reach what they must."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.codes import CodeKind
from lab.core.errors import LabError
from lab.tokenizers.autoencoder import builder
from tests.layers.image_reference import filled
from tests.tokenizers.published import PUBLISHED, TINY, images

KEY = jax.random.key(0)
RANDOM = ("binary", "kl")


@functools.cache
def model_of(name, *, compute_dtype="float32"):
    tiny = TINY[name]
    build = builder(tiny.network, tiny.make_bottleneck, compute_dtype=compute_dtype)
    return filled(lambda: build(KEY), std=0.2)


@jax.jit
def encode(model, x, key=None):
    return model.encode(x, key)


@jax.jit
def decode(model, codes):
    return model.decode(codes)


@jax.jit
def reconstruct(model, x, key=None):
    return model.reconstruct(x, key)


@pytest.mark.parametrize("name", TINY)
def test_shapes_and_dtypes(name):
    model, x = model_of(name), images()
    back, bottled, features = reconstruct(model, x)
    assert back.shape == x.shape and back.dtype == jnp.float32
    assert features.shape == (2, 8, 8, 8)
    assert bottled.latent.shape == (2, 4, 4, 12) and bottled.latent.dtype == jnp.float32
    alphabet = model.bottleneck.alphabet
    values = {CodeKind.IDS: (), CodeKind.BITS: (6,), CodeKind.GAUSSIAN: (6,)}[alphabet.kind]
    assert bottled.codes.shape == (2, 4, 4, *values)
    host = np.asarray(bottled.codes).astype(alphabet.dtype)
    np.testing.assert_array_equal(host, bottled.codes)
    assert all(loss.shape == () for loss in bottled.losses.values())
    assert all(measure.shape == (2,) for measure in bottled.measures.values())


@pytest.mark.parametrize("name", TINY)
def test_encoding_and_decoding_are_the_halves_of_reconstructing(name):
    model, x = model_of(name), images()
    back, bottled, features = reconstruct(model, x)
    codes = encode(model, x)
    np.testing.assert_allclose(codes, bottled.codes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(decode(model, codes), back, rtol=1e-4, atol=1e-5)
    last = jax.jit(lambda model, features: model.decoder.out(features))
    np.testing.assert_allclose(last(model, features), back, rtol=1e-4, atol=1e-5)


def but_slow(slow):
    """Every kind of code; two that quantise differ in little, and one of them is slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name == slow)) for name in TINY]


@pytest.mark.parametrize("name", but_slow("unit vq"))
def test_only_a_key_draws(name):
    model, x = model_of(name), images()
    again = [reconstruct(model, x).images for _ in range(2)]
    np.testing.assert_array_equal(*again)
    drawn = [reconstruct(model, x, jax.random.key(i)).images for i in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    changes = not np.array_equal(drawn[0], drawn[2]) and not np.array_equal(drawn[0], again[0])
    assert changes == (name in RANDOM)


@pytest.mark.parametrize("name", TINY)
def test_an_image_does_not_depend_on_its_batch(name):
    """Neither on the images beside it nor on its place."""
    model, x = model_of(name), images()
    beside = np.stack([x[1], images(1, seed=1)[0]])
    np.testing.assert_allclose(
        reconstruct(model, beside).images[0],
        reconstruct(model, x).images[1],
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", ["vq", "binary", "kl"])
def test_every_parameter_learns(name):
    """But for the bias of attention's keys: it moves all logits of a query alike."""
    model, x = model_of(name), images()

    def loss(model, x, key):
        back, bottled, _ = model.reconstruct(x, key)
        return jnp.mean((back - x) ** 2) + sum(bottled.losses.values())

    grads = jax.jit(jax.grad(loss))(model, x, KEY)
    sizes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(jnp.abs(leaf).max())
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
    }
    assert np.isfinite(list(sizes.values())).all()
    noise = 1e-6 * max(sizes.values())
    still = {name for name, size in sizes.items() if size < noise}
    assert still == {name for name in sizes if "/key/bias/" in name}


def test_the_encoder_learns_from_the_decoders_input_and_from_commitment():
    """Its gradient is that of the pieces: decoder, 1 x 1, identity, commitment, 1 x 1, encoder."""

    def loss(model, x):
        back, bottled, _ = model.reconstruct(x, None)
        return jnp.mean((back - x) ** 2) + sum(bottled.losses.values())

    def by_pieces(model, x):
        code = model.bottleneck
        z, back = jax.vjp(lambda encoder: code.project(encoder(x)), model.encoder)
        e = code.codes()[code.encode(model.encoder(x))]
        from_quantised = lambda e: jnp.mean((model.decoder(code.out(e)) - x) ** 2)  # noqa: E731
        return back(jax.grad(from_quantised)(e) + 2 * code.commitment * (z - e) / z.size)[0]

    @jax.jit
    def both(model, x):
        return jax.grad(loss)(model, x).encoder, by_pieces(model, x)

    whole, pieces = both(model_of("unit vq"), images())
    pieces = jax.tree.leaves(pieces)
    noise = 1e-5 * max(float(jnp.abs(leaf).max()) for leaf in pieces)
    for found, want in zip(jax.tree.leaves(whole), pieces, strict=True):
        np.testing.assert_allclose(found, want, rtol=2e-3, atol=noise)


@pytest.mark.parametrize("name", but_slow("vq"))
def test_bfloat16_computes_the_network_and_not_the_code(name):
    whole, half = model_of(name), model_of(name, compute_dtype="bfloat16")
    x = images()
    back, bottled, features = reconstruct(half, x)
    assert features.dtype == jnp.bfloat16
    assert back.dtype == bottled.latent.dtype == bottled.projected.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half))
    # Not rounded to bfloat16 again behind the encoder's last convolution:
    assert not np.array_equal(bottled.latent, bottled.latent.astype(jnp.bfloat16))
    exact = reconstruct(whole, x).bottled.projected
    error = np.abs(bottled.projected - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.1


def test_images_need_not_be_square():
    model = model_of("vq")
    x = np.zeros((1, 8, 4, 3), "float32")
    assert jax.eval_shape(lambda m: m.encode(x), model).shape == (1, 4, 2)
    assert jax.eval_shape(lambda m: m.reconstruct(x).images, model).shape == x.shape


def test_images_whose_side_does_not_halve_are_refused():
    with pytest.raises(LabError, match="7 x 8: both sides must be multiples of 2"):
        model_of("vq").encode(np.zeros((1, 7, 8, 3), "float32"))


def test_parameters_come_from_the_key():
    tiny = TINY["vq"]
    small = dataclasses.replace(tiny.network, multipliers=(1,), attention="middle")
    build = jax.jit(builder(small, tiny.make_bottleneck, compute_dtype="float32"))
    first, again, other = (jax.tree.leaves(build(jax.random.key(i))) for i in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        constant = np.ptp(a) == 0  # scales and shifts of norms
        assert constant == np.array_equal(a, c)
    kernels = [a.tobytes() for a in map(np.asarray, first) if a.ndim == 4]
    assert len(set(kernels)) == len(kernels)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_build_and_run_abstractly(name):
    published = PUBLISHED[name]
    model, x = published.abstract, jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    found = jax.eval_shape(lambda m, x: m.reconstruct(x, KEY), model, x)
    side = 256 // published.network.downscale
    assert found.images.shape == x.shape
    assert found.bottled.codes.shape[1:3] == (side, side)
    assert found.features.shape == (1, 256, 256, 128)


def test_without_the_last_activation_the_network_differs():
    """The switch reaches the network: the same parameters, another function."""
    tiny = TINY["vq"]
    plain = dataclasses.replace(tiny.network, last_activation="none")
    build = builder(plain, tiny.make_bottleneck, compute_dtype="float32")
    model, other = model_of("vq"), filled(lambda: build(KEY), std=0.2)
    same = zip(jax.tree.leaves(model), jax.tree.leaves(other), strict=True)
    assert all(np.array_equal(a, b) for a, b in same)
    codes = encode(model, images())
    assert np.abs(decode(model, codes) - decode(other, codes)).max() > 1e-2
