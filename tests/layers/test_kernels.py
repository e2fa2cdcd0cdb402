"""Every implementation of attention against float64 NumPy, and its gradients against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.layouts import LAYOUTS
from lab.core.layout import make_layout
from lab.layers.blockwise import QUERY_BLOCK, blockwise
from lab.layers.flash import fits
from lab.layers.kernels import attend, attention_weights, product, wide


def reference(q, k, v, causal):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    logits = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
    if causal:
        logits[:, :, ~np.tril(np.ones(logits.shape[2:], bool))] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhts,bshk->bthk", weights, v)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_the_choice_of_every_platform(platform):
    q, k, v, _ = inputs(20)
    got = jax.jit(lambda *x: attend(*x, causal=True, platform=platform))(q, k, v)
    np.testing.assert_allclose(got, reference(q, k, v, True), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("positions", "mesh", "kernel"),
    [(1024, "fsdp_tp", True), (1023, "fsdp_tp", False), (1024, None, False)],
)
def test_tpu_runs_the_kernel_for_long_sequences_under_a_mesh(positions, mesh, kernel):
    def attended(x_BTHK):
        return attend(x_BTHK, x_BTHK, x_BTHK, causal=True, platform="tpu")

    x_BTHK = jax.ShapeDtypeStruct((4, positions, 2, 64), jnp.bfloat16)
    if mesh is None:
        graph = str(jax.make_jaxpr(attended)(x_BTHK))
    else:
        layout = make_layout(mesh, LAYOUTS, jax.devices())
        with jax.sharding.use_abstract_mesh(layout.abstract_mesh):
            graph = str(jax.make_jaxpr(attended)(x_BTHK))
            assert not fits(jax.ShapeDtypeStruct((3, positions, 2, 64), jnp.bfloat16))
            assert not fits(jax.ShapeDtypeStruct((4, positions, 3, 64), jnp.bfloat16))
    assert ("pallas_call" in graph and "shard_map" in graph) == kernel


@pytest.mark.parametrize(
    ("dtype", "positions", "features", "backend", "chosen"),
    [
        ("bfloat16", 4, 64, "gpu", "cudnn"),
        ("float16", 4, 128, "gpu", "cudnn"),
        ("bfloat16", 5, 64, "gpu", "xla"),  # its gradient asks for an even number
        ("float32", 4, 64, "gpu", "xla"),
        ("bfloat16", 4, 12, "gpu", "xla"),
        ("bfloat16", 4, 136, "gpu", "xla"),
        ("bfloat16", 4, 64, "cpu", "xla"),  # traced elsewhere
    ],
)
def test_gpu_runs_cudnn_where_it_can(monkeypatch, dtype, positions, features, backend, chosen):
    asked = []

    def record(q, k, v, *, is_causal, implementation):
        asked.append(implementation)
        return q

    monkeypatch.setattr(jax.nn, "dot_product_attention", record)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x_BTHK = jnp.zeros((1, positions, 1, features), dtype)
    attend(x_BTHK, x_BTHK, x_BTHK, causal=True, platform="gpu")
    assert asked == [chosen]


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("causal", [True, False])
def test_weights_times_values_are_what_the_kernel_gives(causal, dtype, platform):
    """Across two blocks of queries; within the rounding of the dtype."""
    q, k, v = (x.astype(dtype) for x in inputs(QUERY_BLOCK + 17)[:3])
    weights = attention_weights(q, k, causal=causal, platform=platform)
    assert weights.dtype == np.float32
    got = np.einsum("bhts,bshk->bthk", np.asarray(weights, np.float64), np.asarray(v, np.float64))
    kernel = np.asarray(attend(q, k, v, causal=causal, platform=platform), np.float64)
    tolerance = {"float32": 2e-5, "bfloat16": 0.05}[dtype]
    np.testing.assert_allclose(got, kernel, rtol=tolerance, atol=tolerance)


def inputs(positions):
    shape = (2, positions, 3, 8)
    return tuple(3 * jax.random.normal(jax.random.key(i), shape) for i in range(4))


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("positions", [5, QUERY_BLOCK, QUERY_BLOCK + 17, 2 * QUERY_BLOCK])
def test_blockwise(positions, causal, alone):
    q, k, v, w = inputs(positions)

    def pulled(attend):
        """The output, and the gradients of its sum weighted by w."""

        def both(q, k, v):
            out, pull = jax.vjp(attend, q, k, v)
            return out, pull(w)

        return jax.jit(both)(q, k, v)

    found, ours = pulled(lambda *x: blockwise(*x, causal, alone=alone))
    np.testing.assert_allclose(found, reference(q, k, v, causal), rtol=2e-4, atol=2e-5)
    _, library = pulled(lambda *x: jax.nn.dot_product_attention(*x, is_causal=causal))
    for a, b in zip(ours, library, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def mesh_of(devices, platform="cpu"):
    device = jax.sharding.AbstractDevice(device_kind=platform, num_cores=None, platform=platform)
    return jax.sharding.AbstractMesh((devices,), ("data",), abstract_device=device)


def factors(dtype):
    x_NI, d_NO = (jax.random.normal(jax.random.key(i), (96, n)) for i, n in ((0, 24), (1, 40)))
    return x_NI.astype(dtype), jax.random.normal(jax.random.key(2), (24, 40)), d_NO.astype(dtype)


def test_one_device_sums_in_float32_whatever_it_is_given():
    """Of bfloat16 numbers only the result is rounded: to half a unit in its last place."""
    q, k, v = (x.astype(jnp.bfloat16) for x in inputs(QUERY_BLOCK + 17)[:3])
    out = jax.jit(lambda *x: blockwise(*x, True, alone=True))(q, k, v)
    assert out.dtype == jnp.bfloat16
    got, exact = np.asarray(out, np.float64), reference(q, k, v, True)
    np.testing.assert_allclose(got, exact, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mesh", [mesh_of(1), mesh_of(8), None])
def test_products_and_their_gradients(mesh, dtype):
    """Against float64; the gradient of a float32 weight keeps float32's digits on one CPU."""
    x_NI, w_IO, d_NO = factors(dtype)

    def graded(x, w):
        out, pull = jax.vjp(product, x, w)
        return out, *pull(d_NO)

    with jax.sharding.use_abstract_mesh(mesh or jax.sharding.get_abstract_mesh()):
        out, d_x, d_w = jax.jit(graded)(x_NI, w_IO)
    x, w, d = (np.asarray(y, np.float64) for y in (x_NI, w_IO.astype(dtype), d_NO))
    assert (out.dtype, d_x.dtype, d_w.dtype) == (dtype, dtype, jnp.float32)
    half = 2**-8 if dtype == "bfloat16" else 1e-5
    np.testing.assert_allclose(np.asarray(out, np.float64), x @ w, rtol=half, atol=1e-4)
    np.testing.assert_allclose(np.asarray(d_x, np.float64), d @ w.T, rtol=half, atol=1e-4)
    alone = mesh is not None and mesh.size == 1
    np.testing.assert_allclose(d_w, x.T @ d, rtol=1e-5 if alone else half, atol=1e-4)


@pytest.mark.parametrize(
    ("mesh", "dtype", "own"),
    [
        (mesh_of(1), "bfloat16", True),
        (mesh_of(1), "float32", False),
        (mesh_of(8), "bfloat16", False),
        (mesh_of(1, "tpu"), "bfloat16", False),
        (mesh_of(1, "gpu"), "bfloat16", False),
        (None, "bfloat16", False),
    ],
)
def test_only_one_cpu_treats_bfloat16_its_own_way(mesh, dtype, own):
    x_NI, w_IO, _ = factors(dtype)
    with jax.sharding.use_abstract_mesh(mesh or jax.sharding.get_abstract_mesh()):
        graph = str(jax.make_jaxpr(product)(x_NI, w_IO))
        assert wide(x_NI).dtype == (jnp.float32 if own else dtype)
    assert ("custom_vjp" in graph) == own
