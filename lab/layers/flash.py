"""Attention on TPU whose weights never leave the chip: Pallas's splash kernel.

B batch, T positions, H heads, K features of a head.

The online softmax of FlashAttention (Dao et al. 2022); blocks that a causal mask hides are left
out. A kernel is for one device: under a mesh each runs its images and its heads by itself.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lab.core.layout import TENSOR_AXIS, traced_batch_axes

LANES = 128  # the kernel's blocks are multiples of it
BLOCKS = (512, 256, 128)  # positions of a block; the largest that divides


def fits(q_BTHK: jax.Array) -> bool:
    """Whether the mesh under which a step is traced cuts images and heads evenly.

    Outside a mesh there is no saying where an array lies: the kernel is left alone.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.axis_names:
        return False
    images = math.prod(mesh.shape[axis] for axis in traced_batch_axes())
    heads = mesh.shape.get(TENSOR_AXIS, 1)
    return q_BTHK.shape[0] % images == 0 and q_BTHK.shape[2] % heads == 0


def flash(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, *, causal: bool) -> jax.Array:
    """softmax(q k / sqrt(K)) v under the mesh of the step, where it `fits`."""
    mesh = jax.sharding.get_abstract_mesh()
    heads = TENSOR_AXIS if TENSOR_AXIS in mesh.axis_names else None
    spec = PartitionSpec(traced_batch_axes(), None, heads)
    # What a kernel gives is not marked with the axes that it varies over, so none are checked.
    run = jax.shard_map(
        functools.partial(of_device, causal=causal),
        in_specs=(spec, spec, spec),
        out_specs=spec,
        check_vma=False,
    )
    return run(q_BTHK, k_BTHK, v_BTHK)


def of_device(
    q_BTHK: jax.Array,
    k_BTHK: jax.Array,
    v_BTHK: jax.Array,
    *,
    causal: bool,
    interpret: bool = False,
) -> jax.Array:
    """The kernel on one device; `interpret` runs it as plain operations, to test it anywhere."""
    # Imported here: no other device needs it, and it takes long.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    positions, heads, features = q_BTHK.shape[1:]
    padded = positions + -positions % LANES
    block = next(n for n in BLOCKS if padded % n == 0)
    mask = masks.CausalMask((padded, padded)) if causal else masks.FullMask((padded, padded))
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(*(block,) * 6, use_fused_bwd_kernel=True),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    # Padding is a segment of its own: it sees itself, and no position sees it.
    segment = (jnp.arange(padded) >= positions).astype(jnp.int32)
    ids = None if padded == positions else splash.SegmentIds(segment, segment)

    def heads_first(x_BTHK: jax.Array) -> jax.Array:
        padding = ((0, 0), (0, padded - positions), (0, 0), (0, 0))
        return jnp.pad(x_BTHK, padding).transpose(0, 2, 1, 3)

    q_BHTK = heads_first(q_BTHK * features**-0.5)
    k_BHTK, v_BHTK = heads_first(k_BTHK), heads_first(v_BTHK)
    y_BHTK = jax.vmap(lambda q, k, v: kernel(q, k, v, segment_ids=ids))(q_BHTK, k_BHTK, v_BHTK)
    return jnp.asarray(y_BHTK).transpose(0, 2, 1, 3)[:, :positions]
