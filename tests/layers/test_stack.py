"""What a backward pass keeps of a stack: the same gradients, another graph, more memory or less."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lab.core.execution_config import REMAT
from lab.layers.attention import Mask
from lab.layers.parameters import Init
from lab.layers.stack import REMAT_POLICIES, run_stack, stacked
from lab.models.backbone import BackboneSpec, Block
from lab.models.dit import DiTBlock, DiTSpec
from tests.layers import transformer_reference as ref

DEPTH, POSITIONS, WIDTH = 6, 16, 32
SIZES = {"depth": DEPTH, "width": WIDTH, "heads": 2, "platform": "cpu", "remat": "none"}
INIT = Init(rule="normal", std=0.2)


def llama(key):
    spec = BackboneSpec(
        **SIZES,
        mlp_hidden=80,
        norm_epsilon=1e-5,
        residual_dropout=0.1,
        mlp_dropout=0.1,
        init=INIT,
        mask=Mask.CAUSAL,
    )
    return Block(key, spec)


def dit(key):
    return DiTBlock(key, DiTSpec(**SIZES, mlp_hidden=128, grid=(4, 4), init=INIT, unroll=False))


def gradients(kind, remat, *, images=4):
    """Compiled: of a sum of squares after the layers, and its jaxpr."""
    layers = jax.eval_shape(lambda: stacked(kind, jax.random.key(0), depth=DEPTH))
    angles = np.zeros((POSITIONS, WIDTH // 4), np.float32)
    condition = jnp.ones((images, WIDTH))

    def call(layer, x, key):
        return layer(x, angles, key) if kind is llama else layer(x, condition)

    def loss(layers, x):
        keys = jax.random.split(jax.random.key(1), DEPTH)
        return jnp.sum(jnp.square(run_stack(layers, x, call, keys=keys, remat=remat, unroll=False)))

    given = (layers, jax.ShapeDtypeStruct((images, POSITIONS, WIDTH), jnp.float32))
    of = jax.jit(jax.grad(loss, argnums=(0, 1)))
    traced = of.trace(*given)
    return traced.lower().compile(), str(traced.jaxpr)


def values(kind):
    layers = ref.random(lambda key: stacked(kind, key, depth=DEPTH), size=0.2)
    return layers, jax.random.normal(jax.random.key(3), (4, POSITIONS, WIDTH))


def test_the_config_allows_the_policies_that_there_are():
    assert ("none", *REMAT_POLICIES) == REMAT


FAST = ("projections",)


@pytest.mark.parametrize(
    ("kind", "remat"),
    [
        (kind, remat)
        if kind is llama and remat in FAST
        else pytest.param(kind, remat, marks=pytest.mark.slow)
        for kind in (llama, dit)
        for remat in REMAT_POLICIES
    ],
)
def test_a_policy_changes_the_graph_and_no_gradient(kind, remat):
    given = values(kind)
    (plain, plain_graph), (policy, graph) = gradients(kind, "none"), gradients(kind, remat)
    assert graph != plain_graph
    wanted = jax.tree.leaves(plain(*given))
    size = max(float(jnp.abs(leaf).max()) for leaf in wanted)  # some gradients are zero but for it
    for a, b in zip(jax.tree.leaves(policy(*given)), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * size)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [llama, dit])
def test_what_keeps_more_takes_more_memory(kind):
    """Temporary bytes of the compiled gradients, policies in the order in which they keep more."""
    order = ("full", "attention_out", "block_outputs", "projections", "dots", "none")
    held = {
        remat: gradients(kind, remat, images=64)[0].memory_analysis().temp_size_in_bytes
        for remat in order
    }
    for less, more in itertools.pairwise(order):  # to some per cent: what is done anew needs room
        assert held[more] > 0.9 * held[less], held
    assert held["none"] > held["dots"] > held["projections"] > 1.2 * held["full"], held
    assert held["none"] > 2 * held["full"], held
