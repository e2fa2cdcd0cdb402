"""A softmax over many codes in parts of the positions, so that its logits never stand whole.

B batch, T positions, n chunks of t positions, S sub-codes of a position, V codes, D width.

Logits of 8 images, 256 positions and 2^16 codes are half a GiB in float32, and training holds them
twice. The backward pass makes those of a chunk again (Chen et al. 2016, "Sublinear memory cost").
Chunks are of positions: the batch is what devices share.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lab.core.layout import TENSOR_AXIS, traced_batch_axes

Weights = TypeVar("Weights")

CHUNK_BYTES = 2**28  # of float32 logits that a device holds at a time, where nothing else is asked


def head_chunks(asked: int, *, images: int, positions: int, outputs: int) -> int:
    """Into how many chunks the positions are cut; `outputs` (S V) are the logits of one of them.

    0 asks for as few as keep a device's logits within `CHUNK_BYTES`. The images and the outputs
    are cut by the mesh under which the step is traced.
    """
    if asked:
        return min(asked, positions)
    mesh = jax.sharding.get_abstract_mesh()
    devices = math.prod(mesh.shape[axis] for axis in traced_batch_axes())
    devices *= mesh.shape.get(TENSOR_AXIS, 1)
    needed = 4 * images * positions * outputs / devices
    return min(positions, max(1, math.ceil(needed / CHUNK_BYTES)))


def by_chunks(
    of: Callable[[Weights, jax.Array, jax.Array], jax.Array],
    weights: Weights,
    x_BTD: jax.Array,
    codes_BTS: jax.Array,
    *,
    chunks: int,
) -> jax.Array:
    """of(weights, x_BtD, codes_BtS) (B, t) for chunks of positions: together (B, T).

    `of` is run again by the backward pass. Devices that share the batch gather the weights once
    and sum their gradients once, not for every chunk: each runs through its images by itself.
    """
    if chunks == 1:
        return of(weights, x_BTD, codes_BTS)
    mesh, axes = jax.sharding.get_abstract_mesh(), traced_batch_axes()
    if math.prod(mesh.shape[axis] for axis in axes) == 1:
        return _one_by_one(of, weights, x_BTD, codes_BTS, chunks)

    def of_device(weights: Weights, x_BTD: jax.Array, codes_BTS: jax.Array) -> jax.Array:
        own = jax.tree.map(lambda leaf: jax.lax.pcast(leaf, axes, to="varying"), weights)
        return _one_by_one(of, own, x_BTD, codes_BTS, chunks)

    whole, rows = PartitionSpec(), PartitionSpec(axes)
    return jax.shard_map(
        of_device, in_specs=(whole, rows, rows), out_specs=rows, axis_names=frozenset(axes)
    )(weights, x_BTD, codes_BTS)


def _one_by_one(
    of: Callable[[Weights, jax.Array, jax.Array], jax.Array],
    weights: Weights,
    x_BTD: jax.Array,
    codes_BTS: jax.Array,
    chunks: int,
) -> jax.Array:
    """`by_chunks` where the images lie; positions that fill the last chunk are zeros."""
    positions = x_BTD.shape[1]
    each = -(-positions // chunks)

    def cut(y_BT: jax.Array) -> jax.Array:
        """(n, B, t, ...)."""
        missing = -positions % each
        padded = jnp.pad(y_BT, ((0, 0), (0, missing)) + ((0, 0),) * (y_BT.ndim - 2))
        return padded.reshape(len(y_BT), -1, each, *y_BT.shape[2:]).swapaxes(0, 1)

    run = jax.checkpoint(lambda given: of(weights, *given), prevent_cse=False)
    found_nBt = jax.lax.map(run, (cut(x_BTD), cut(codes_BTS)))
    return found_nBt.swapaxes(0, 1).reshape(len(x_BTD), -1)[:, :positions]
