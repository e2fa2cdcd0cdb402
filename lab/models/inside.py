"""What stands inside a generator: features after each block, and where each block attends.

B batch, T positions, N tokens of a stack (a prefix, then positions), S numbers at a position,
D width, L blocks, H heads, Q queries, K keys.

Nothing is dropped or hidden. All tokens of an image enter, also of an autoregressive model: there
the inputs are the class and every token, the last of the scan included, which training never feeds,
so that each token is seen; the causal mask stays. An image that diffuses enters without noise, at
the time that is said.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.errors import LabError
from lab.layers.attention import Mask
from lab.layers.stack import Seen
from lab.models.backbone import Backbone
from lab.models.encoder_decoder import EncoderDecoder
from lab.models.generator import Generator
from lab.models.joint import JointOrder
from lab.models.masked import MaskedOrder
from lab.models.orders import ANY, RasterOrder
from lab.models.paths import Path

Look = Callable[[jax.Array, Callable[[], jax.Array]], Seen]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMap:
    """How much each query of one block takes of each key, and where in the image both lie.

    Cells are of the tokenizer's grid; a patch lies where its first cell does, and the slots of a
    cell (colours of a pixel) lie in one place. A prefix (the class) has -1 for both.
    """

    weights_BHQK: jax.Array  # float32; rows sum to one
    query_cell_Q: np.ndarray  # (Q, 2) int32: row and column
    key_cell_K: np.ndarray  # (K, 2)
    layer: int  # from 0, on through both stacks of an encoder and decoder
    stack: str  # "blocks", "encoder" or "decoder"
    causal: bool  # whether a query sees no key after its own


jax.tree_util.register_dataclass(
    AttentionMap,
    data_fields=["weights_BHQK", "query_cell_Q", "key_cell_K"],
    meta_fields=["layer", "stack", "causal"],
)


class Site(NamedTuple):
    """A block that attends, without its weights; cells as in `AttentionMap`."""

    layer: int
    stack: str
    cell_N: np.ndarray  # (N, 2) int32, of queries and keys
    causal: bool


class _Pass(NamedTuple):
    """One stack, run."""

    out_BND: jax.Array
    seen: Any  # what was made of each block, stacked


def layer_features(model: Generator, tokens_BTS: jax.Array, *, time: int = 0) -> jax.Array:
    """Means over image positions of `layer_states` under the null class.

    (L + 1, B, D) in float32. A model that was trained without class dropout never saw its null
    class.
    """
    label_B = jnp.full(len(tokens_BTS), model.classes.null)
    return _states(model, tokens_BTS, label_B, time, lambda x_BTD: jnp.mean(x_BTD, axis=1))


def layer_states(
    model: Generator, tokens_BTS: jax.Array, label_B: jax.Array, *, time: int = 0
) -> jax.Array:
    """What enters the first block and what leaves each: (L + 1, B, T, D) in float32.

    Positions are in raster order. The prefix is left out and no final norm applied. Of an encoder
    and decoder: what enters the encoder, what leaves its blocks, and what leaves the decoder's.
    `time` is what the network of a diffusing image is told: 0, the least noise, to T - 1. LabError
    for another, and for any but 0 of a model that has no time.
    """
    return _states(model, tokens_BTS, label_B, time, lambda x_BTD: x_BTD)


def attention_maps(
    model: Generator, tokens_BTS: jax.Array, label_B: jax.Array, *, time: int = 0
) -> list[AttentionMap]:
    """Of every block, in order; those of an encoder come before those of its decoder.

    It holds L B H N^2 numbers; `attention_reads` holds those of one block. `time` as in
    `layer_states`.
    """
    weights = attention_reads(model, tokens_BTS, label_B, lambda weights: weights, time=time)
    return [
        AttentionMap(
            weights_BHQK=weights_BHQK,
            query_cell_Q=site.cell_N,
            key_cell_K=site.cell_N,
            layer=site.layer,
            stack=site.stack,
            causal=site.causal,
        )
        for site, weights_BHQK in zip(attention_sites(model), weights, strict=True)
    ]


def attention_reads(
    model: Generator,
    tokens_BTS: jax.Array,
    label_B: jax.Array,
    read: Callable[[jax.Array], Any],
    *,
    time: int = 0,
) -> list[Any]:
    """read(weights_BHQK) of every block, in the order of `attention_sites`, as its block runs."""
    passes = _run(model, tokens_BTS, label_B, time, lambda x_BND, weights: read(weights()))
    return [
        jax.tree.map(lambda stacked, i=layer: stacked[i], of.seen)
        for (_, depth), of in zip(_stacks(model), passes, strict=True)
        for layer in range(depth)
    ]


def attention_sites(model: Generator) -> list[Site]:
    """Every block of a model, in the order in which they run."""
    causal = isinstance(model.backbone, Backbone) and model.backbone.spec.mask is Mask.CAUSAL
    cell_N = _cells(model)
    stacks = [stack for stack, depth in _stacks(model) for _ in range(depth)]
    return [Site(layer, stack, cell_N, causal) for layer, stack in enumerate(stacks)]


def _states(
    model: Generator,
    tokens_BTS: jax.Array,
    label_B: jax.Array,
    time: int,
    reduce: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """`reduce` of the positions of each state in float32, stacked."""

    def of_positions(x_BND: jax.Array) -> jax.Array:
        x_BTD = x_BND[:, _prefix(model) :].astype(jnp.float32)
        return reduce(_path(model).back(x_BTD))

    passes = _run(model, tokens_BTS, label_B, time, lambda x_BND, _: of_positions(x_BND))
    states = []
    for number, each in enumerate(passes):
        # What enters a second stack is the first one's output in other words: no block made it.
        states += [each.seen[1:] if number else each.seen, of_positions(each.out_BND)[None]]
    return jnp.concatenate(states)


def _run(
    model: Generator, tokens_BTS: jax.Array, label_B: jax.Array, time: int, look: Look
) -> list[_Pass]:
    """Every stack in order; `look` gets the input of each block and a way to its weights."""
    order, dtype = model.order, model.compute_dtype
    steps = order.process.steps if isinstance(order, JointOrder) else 1
    if not 0 <= time < steps:
        raise LabError(f"time {time}: this model has the times 0 to {steps - 1}")
    if isinstance(order, JointOrder):
        condition_BD = order.condition(model, jnp.full(len(label_B), time), label_B, None)
        x_BTD = model.embedding(order.numbers(tokens_BTS).astype(dtype))
        return [_Pass(*model.backbone.observe(x_BTD, condition_BD.astype(dtype), look))]
    class_BD = model.classes(label_B, None)
    path = _path(model)
    x_BTD = model.embedding(path.along(tokens_BTS)).astype(dtype)
    if isinstance(model.backbone, EncoderDecoder):
        return [_Pass(*of) for of in model.backbone.observe(x_BTD, class_BD.astype(dtype), look)]
    head_features = model.backbone.spec.width // model.backbone.spec.heads
    if isinstance(order, RasterOrder):
        x_BND = order.inputs(model, class_BD.astype(dtype), x_BTD, path).astype(dtype)
        angles_NK = order.all_angles(head_features, path)
    else:
        assert isinstance(order, MaskedOrder)
        x_BND = jnp.concatenate([class_BD[:, None].astype(dtype), x_BTD], axis=1)
        angles_NK = order.all_angles(head_features)
    return [_Pass(*model.backbone.observe(x_BND, angles_NK, class_BD, look))]


def _stacks(model: Generator) -> list[tuple[str, int]]:
    """Name and depth of each stack."""
    spec = model.backbone.spec
    if isinstance(model.backbone, EncoderDecoder):
        return [("encoder", spec.depth), ("decoder", spec.decoder_depth)]
    return [("blocks", spec.depth)]


def _prefix(model: Generator) -> int:
    """Tokens before the positions."""
    if isinstance(model.order, JointOrder):
        return 0
    return model.backbone.spec.buffer if isinstance(model.backbone, EncoderDecoder) else 1


def _cells(model: Generator) -> np.ndarray:
    """(N, 2) int32: row and column of each token, in the order in which they stand in a stack."""
    cell_T = _path(model).along(_cells_in_rows(model)[None])[0]
    prefix = np.full((_prefix(model), 2), -1)
    return np.concatenate([prefix, cell_T]).astype(np.int32)


def _cells_in_rows(model: Generator) -> np.ndarray:
    """(T, 2): row and column of each position, in raster order."""
    order = model.order
    if isinstance(order, JointOrder):
        side, slots = order.patch, 1
        rows, columns = (cells // side for cells in order.grid)
    else:
        assert isinstance(order, RasterOrder | MaskedOrder)
        side, (rows, columns, slots) = 1, dataclasses.astuple(order.grid)
    row, column = np.divmod(np.repeat(np.arange(rows * columns), slots), columns)
    return side * np.stack([row, column], axis=1)


def _path(model: Generator) -> Path:
    """In which order positions stand in a stack: along a scan, in rows where there is none."""
    order = model.order
    if isinstance(order, RasterOrder) and order.scan != ANY:
        return order.path()
    return Path(np.arange(len(_cells_in_rows(model))))
