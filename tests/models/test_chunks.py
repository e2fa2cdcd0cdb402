"""A softmax in chunks of positions against the whole one: values, gradients, layouts, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.layouts import LAYOUTS
from lab.core.layout import make_layout, tree_shardings
from lab.layers.parameters import axes_of
from lab.models.chunks import CHUNK_BYTES, head_chunks
from lab.models.heads import CategoricalHead, TiedHead
from tests.models.test_heads import tied, untied

SIZES = {"vocabulary": 16, "subcodes": 2, "width": 8, "norm_epsilon": 1e-5}
X_BTD = jax.random.normal(jax.random.key(0), (8, 10, 8))
CODES_BTS = jax.random.randint(jax.random.key(1), (8, 10, 2), 0, 16)
WEIGHT_BT = jax.random.uniform(jax.random.key(2), (8, 10))
TABLE = jax.random.normal(jax.random.key(3), (2 * 16, 8))


def head_of(kind, **settings):
    make = untied if kind == "untied" else tied
    return make(**SIZES, **settings)


def weighted(head, x_BTD, table, measure="loss"):
    """A sum over positions that weights each differently, as masks and padding do."""
    predictor = head.tied_to(table) if isinstance(head, TiedHead) else head
    return jnp.sum(WEIGHT_BT * getattr(predictor, measure)(x_BTD, CODES_BTS))


def assert_near(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "smoothing", "chunks"),
    [
        ("untied", 0.0, 4),
        ("tied", 0.1, 4),
        pytest.param("untied", 0.1, 10, marks=pytest.mark.slow),
        pytest.param("tied", 0.0, 10, marks=pytest.mark.slow),
    ],
)
def test_chunks_change_nothing_but_rounding(kind, smoothing, chunks):
    """4 chunks of 3 positions, the last one with two of its own, and one chunk a position."""
    whole, cut = (head_of(kind, smoothing=smoothing, chunks=n) for n in (1, chunks))
    found = [
        jax.jit(jax.value_and_grad(weighted, (0, 1)))(head, X_BTD, TABLE) for head in (whole, cut)
    ]
    assert_near(found[1], found[0])
    of_nats = functools.partial(weighted, x_BTD=X_BTD, table=TABLE, measure="nats")
    nats = jax.jit(of_nats)
    assert float(nats(cut)) == pytest.approx(float(nats(whole)), rel=1e-6)
    graphs = [str(jax.make_jaxpr(weighted)(head, X_BTD, TABLE)) for head in (whole, cut)]
    assert "scan" in graphs[1] and "scan" not in graphs[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["untied", "tied"])
def test_chunks_where_the_vocabulary_and_the_batch_are_sharded(kind):
    layout = make_layout("fsdp_tp", LAYOUTS, jax.devices())
    head = head_of(kind, smoothing=0.1, chunks=4)
    shardings = tree_shardings(layout, head, axes_of=axes_of)
    rows, table = layout.batch_sharding(), layout.sharding(("vocab", "embed"), TABLE.shape)

    def sharded(*given):
        with jax.sharding.use_abstract_mesh(layout.abstract_mesh):
            return jax.value_and_grad(weighted, (0, 1))(*given)

    found = jax.jit(sharded, in_shardings=(shardings, rows, table))(head, X_BTD, TABLE)
    whole = head_of(kind, smoothing=0.1, chunks=1)
    assert_near(found, jax.value_and_grad(weighted, (0, 1))(whole, X_BTD, TABLE))


def test_as_few_chunks_as_memory_asks_for():
    images, positions = 64, 256
    assert head_chunks(0, images=images, positions=positions, outputs=1024) == 1
    wide = 4 * images * positions * 2**16 // CHUNK_BYTES
    assert head_chunks(0, images=images, positions=positions, outputs=2**16) == wide == 16
    assert head_chunks(3, images=images, positions=positions, outputs=2) == 3
    assert head_chunks(300, images=images, positions=positions, outputs=2) == positions
    assert head_chunks(0, images=10**9, positions=positions, outputs=2**16) == positions
    for name in ("ddp", "fsdp", "fsdp_tp"):  # eight devices hold an eighth each, either way
        with jax.sharding.use_abstract_mesh(
            make_layout(name, LAYOUTS, jax.devices()).abstract_mesh
        ):
            assert head_chunks(0, images=images, positions=positions, outputs=2**16) == wide // 8


def test_logits_of_many_codes_never_stand_whole():
    """Of 2^16 codes: the temporary memory of loss and gradients in chunks, and at once."""
    images, positions, width, vocabulary = 4, 32, 8, 2**16
    logits = 4 * images * positions * vocabulary

    def bytes_of(chunks):
        head = jax.eval_shape(
            lambda: CategoricalHead(
                vocabulary=vocabulary, subcodes=1, width=width, norm_epsilon=1e-5, chunks=chunks
            )
        )
        x = jax.ShapeDtypeStruct((images, positions, width), jnp.float32)
        codes = jax.ShapeDtypeStruct((images, positions, 1), jnp.int32)
        loss = jax.jit(jax.value_and_grad(lambda h, x, c: jnp.sum(h.loss(x, c)), (0, 1)))
        return loss.lower(head, x, codes).compile().memory_analysis().temp_size_in_bytes

    whole, cut = bytes_of(1), bytes_of(8)
    assert whole > logits and cut < whole / 4, (logits, whole, cut)
