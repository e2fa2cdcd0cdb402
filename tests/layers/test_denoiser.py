"""The denoiser and the embedding of times against float64 NumPy, and the published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.layers.denoiser import Denoiser
from lab.layers.modulation import TimeEmbedding
from lab.layers.parameters import Init
from tests.layers import transformer_reference as ref

INIT = Init(rule="mup", std=1.0)
SMALL = {"inputs": 3, "outputs": 5, "condition": 6, "width": 8, "depth": 2, "init": INIT}


def inputs():
    keys = jax.random.split(jax.random.key(1), 2)
    time_N = jnp.asarray([0, 7, 255, 999])
    return jax.random.normal(keys[0], (4, 3)), time_N, jax.random.normal(keys[1], (4, 6))


def denoise(x, time, z, network):
    """One row."""
    c = ref.affine(z, network.condition) + ref.time_embedding(time, network.time)
    h = ref.affine(x, network.inward)
    for index in range(network.depth):
        block = ref.layer(network.blocks, index)
        shift, scale, gate = np.split(ref.affine(ref.silu(c), block.modulation.project), 3)
        plain = block.norm is None
        normed = ref.standard(h, 1e-6) if plain else ref.layer_norm(h, block.norm, 1e-6)
        inner = ref.silu(ref.affine(normed * (1 + scale) + shift, block.inward))
        h = h + gate * ref.affine(inner, block.out)
    shift, scale = np.split(ref.affine(ref.silu(c), network.modulation.project), 2)
    return ref.affine(ref.standard(h, 1e-6) * (1 + scale) + shift, network.out)


@pytest.mark.parametrize("affine", [True, False])
def test_against_a_reference(affine):
    network = ref.random(lambda key: Denoiser(key, affine=affine, **SMALL))
    x_NI, time_N, z_NC = inputs()
    got = jax.jit(network)(x_NI, time_N, z_NC)
    rows = zip(ref.f64(x_NI), np.asarray(time_N), ref.f64(z_NC), strict=True)
    want = np.stack([denoise(x, time, z, network) for x, time, z in rows])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_dtypes_and_the_start():
    """Products in the dtype of the condition, the output in float32 and zero at the start."""
    x_NI, time_N, z_NC = inputs()

    def make(key):
        return Denoiser(key, affine=True, **SMALL)

    call = jax.jit(lambda network, z: network(x_NI, time_N, z))
    start = jax.jit(lambda key, z: make(key)(x_NI, time_N, z))
    assert not np.any(start(jax.random.key(0), z_NC))
    network = ref.random(make)
    half, full = call(network, z_NC.astype(jnp.bfloat16)), call(network, z_NC)
    assert half.dtype == full.dtype == jnp.float32
    gap = np.abs(np.asarray(half - full)).max() / np.abs(np.asarray(full)).max()
    assert 1e-4 < gap < 0.1


def test_times_are_told_apart_at_the_start():
    """Of times 0 to 999 no two embeddings are equal, and they are about of size one."""
    start = jax.jit(lambda key: TimeEmbedding(key, width=64)(jnp.arange(1000)))
    y_ND = np.asarray(start(jax.random.key(0)))
    assert 0.3 < y_ND.std() < 1.0
    assert np.abs(np.diff(y_ND, axis=0)).max(axis=1).min() > 1e-3


# BiGR-L, XL, XXL, L-512, then MAR-B, L, H, in millions.
PUBLISHED = [
    (24, 24, 1024, 1024, 3, False, 20.3),
    (24, 24, 1280, 1280, 6, False, 56.1),
    (24, 24, 1536, 1536, 8, False, 104.3),
    (32, 32, 1024, 1280, 6, False, 55.8),
    (16, 32, 768, 1024, 6, True, 35.7),
    (16, 32, 1024, 1280, 8, True, 72.2),
    (16, 32, 1280, 1536, 12, True, 151.2),
]


@pytest.mark.parametrize("row", PUBLISHED)
def test_published_sizes(row):
    names = ("inputs", "outputs", "condition", "width", "depth", "affine")
    sizes = dict(zip(names, row[:-1], strict=True))
    network = jax.eval_shape(lambda key: Denoiser(key, init=INIT, **sizes), jax.random.key(0))
    assert round(ref.size_of(network) / 1e6, 1) == row[-1]


def test_flops_against_xla():
    network = jax.eval_shape(
        lambda key: Denoiser(
            key, inputs=16, outputs=32, condition=96, width=128, depth=3, affine=True, init=INIT
        ),
        jax.random.key(0),
    )
    rows = 32
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((rows, 16), (rows,), (rows, 96))
    ]
    call = jax.jit(lambda network, *given: network(*given))
    found = call.lower(network, *shapes).compile().cost_analysis()["flops"]
    assert 1.0 <= found / (rows * network.forward_flops) < 1.05
