"""FLOPs by role and of the training step, against XLA's cost analysis and by hand.

XLA counts a scanned layer once, so models are unrolled; it counts element-wise work too (softmax,
norms, SwiGLU), which ours leaves out: it may be above, by the stated slack, and never below.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from lab.core import counts
from lab.layers import blockwise, kernels
from lab.models import families
from lab.models.generator import Generator
from lab.train.step import training_loss
from tests.models.worlds import config

BATCH = 2
PASSES = {"forward": 1, "training": 3}
# 56 features a head: softmax, about 5 FLOPs a pair and head, is small beside the 4 x 56 counted.
WIDE_HEADS = {"model.heads": 2}


@dataclasses.dataclass(frozen=True)
class World:
    """An abstract model and its sequence."""

    model: Generator
    positions: int
    subcodes: int


def world(*, grid=(8, 8, 1), vocabulary=32, size="s8", **overrides):
    run = config(size, **overrides)
    codes = families.Codes(vocabulary=vocabulary, grid=grid, classes=10)
    running = families.Running(compute_dtype="float32", unroll=True)
    model = jax.eval_shape(families.builder(run.model, codes, running), jax.random.key(0))
    return World(model, codes.positions, run.model.subcodes)


def xla_flops(function, *arguments):
    """What XLA counts of the compiled function."""
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def integers(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def loss_flops_per_token(made, passes):
    """Of the loss that training minimises, alone or with its gradient."""
    positions, subcodes = made.positions, made.subcodes
    batch = {
        "codes": integers(BATCH, positions, subcodes),
        "label": integers(BATCH),
        "weight": floats(BATCH),
    }

    def loss(model, batch):
        return training_loss(model, batch, None)

    function = loss if passes == "forward" else jax.value_and_grad(loss)
    return xla_flops(function, made.model, batch) / (BATCH * positions)


def counted(made):
    """Of a token, forward, with all pairs: 64 positions are one block and none is left out."""
    assert made.positions <= blockwise.QUERY_BLOCK
    flops = made.model.backbone.forward_flops(made.positions, causal=False)
    found = made.model.forward_flops_per_image()
    assert found.blocks == flops.blocks
    return dataclasses.replace(found, attention=flops.attention).shared(made.positions)


@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize(
    ("size", "subcodes"), [("s1", 1), ("s4", 2), pytest.param("s7", 2, marks=pytest.mark.slow)]
)
def test_the_total_of_an_evaluation_and_of_a_training_step(size, subcodes, passes):
    """Within 8 %: 32 features have much element-wise work. Training is three times forward."""
    made = world(size=size, **{"model.subcodes": subcodes})
    ratio = loss_flops_per_token(made, passes) / (PASSES[passes] * counted(made).total)
    assert 1.0 <= ratio < 1.08


def attention_flops(made, passes):
    """Of one image and one block: the inner products, the weights, the sums, and their gradient."""
    spec, positions = made.model.backbone.spec, made.positions
    q = floats(1, positions, spec.heads, spec.width // spec.heads)

    def forward(q, k, v):
        return kernels.attend(q, k, v, causal=True, platform="cpu")

    def both(q, k, v, d_out):
        out, back = jax.vjp(forward, q, k, v)
        return out, back(d_out)

    return xla_flops(forward, q, q, q) if passes == "forward" else xla_flops(both, q, q, q, q)


@pytest.mark.parametrize("passes", PASSES)
def test_attention_alone_and_blocks_by_two_depths(passes):
    """The second of two blocks, without its attention, is the products of its matrices."""
    two, one = (world(**WIDE_HEADS, **{"model.depth": depth}) for depth in (2, 1))
    positions, times = one.positions, PASSES[passes]
    attention = attention_flops(one, passes) / positions
    assert 1.0 <= attention / (times * counted(one).attention) < 1.05
    second = loss_flops_per_token(two, passes) - loss_flops_per_token(one, passes)
    assert 1.0 <= (second - attention) / (times * counted(one).blocks) < 1.03


@pytest.mark.parametrize(
    ("subcodes", "passes"),
    [
        (1, "forward"),
        (2, "training"),
        pytest.param(1, "training", marks=pytest.mark.slow),
        pytest.param(2, "forward", marks=pytest.mark.slow),
    ],
)
def test_the_head_by_two_vocabularies(passes, subcodes):
    """The embedding is a look-up: only the head's products grow with the vocabulary."""
    small, large = (
        world(vocabulary=v, **{"model.subcodes": subcodes, "model.depth": 1}) for v in (64, 256)
    )
    more = loss_flops_per_token(large, passes) - loss_flops_per_token(small, passes)
    expected = PASSES[passes] * (counted(large).head - counted(small).head)
    assert 1.0 <= more / expected < 1.04


@pytest.mark.parametrize("subcodes", [1, 2, 3])
def test_the_embedding_alone(subcodes):
    """One table is looked up and costs nothing; of more, each is projected."""
    made = world(**{"model.subcodes": subcodes})
    codes = integers(BATCH, made.positions, subcodes)
    found = xla_flops(lambda model, codes: model.embedding(codes), made.model, codes)
    expected = counted(made).embedding * BATCH * made.positions
    if subcodes == 1:
        assert expected == 0 and found < 10 * BATCH * made.positions
    else:
        assert 1.0 <= found / expected < 1.001


def test_the_pairs_that_a_causal_mask_leaves(monkeypatch):
    """Blocks of one query make no pair that the mask hides: half of them and the diagonal."""
    monkeypatch.setattr(blockwise, "QUERY_BLOCK", 1)
    q = floats(1, 16, 1, 64)
    found = xla_flops(lambda q, k, v: kernels.attend(q, k, v, causal=True, platform="cpu"), q, q, q)
    expected = counts.attention_flops(width=64, queries=16, keys=16, causal=True)
    assert expected == 4 * 64 * 16 * 17 / 2
    assert 1.0 <= found / expected < 1.08


def test_forward_flops_by_hand():
    """One block of width 24, SwiGLU 64, 5 codes, 4 positions: two FLOPs a weight and a token."""
    made = world(grid=(1, 4, 1), vocabulary=5, size="s1")
    flops = made.model.forward_flops_per_image()
    assert flops.blocks == 4 * 2 * (4 * 24 * 24 + 3 * 24 * 64)
    assert flops.attention == 4 * 24 * 4 * 5 / 2
    assert flops.head == 4 * 2 * 24 * 5
    assert flops.embedding == 0
