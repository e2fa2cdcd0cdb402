"""Attention and products with matrices: the implementation of each device, chosen here.

B batch, T queries, S keys, H heads, K features of a head. Every implementation is tested against
the same reference.
"""

import math

import jax
import jax.numpy as jnp

from lab.layers.blockwise import HIDDEN, blockwise
from lab.layers.flash import fits, flash

# Positions from which TPU runs the kernel. Compiled for v5e (libtpu 0.0.52; causal, forward and
# backward, 4096 tokens a device, 16 heads of 64 features) XLA holds 385 MiB beside its arguments at
# 1024 positions and moves 2.1 GiB, the kernel 35 MiB and 0.5 GiB; at 256 positions XLA holds 1 MiB
# and moves 0.6 GiB, the kernel 8 and 0.3. Not timed on a TPU: short sequences stay with XLA.
FLASH_FROM = 1024
CUDNN_MOST = 128  # features of a head; they are a multiple of 8


def attend(
    q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, *, causal: bool, platform: str
) -> jax.Array:
    """softmax(q k / sqrt(K)) v with the implementation for "cpu", "gpu" or "tpu"."""
    if platform == "cpu":
        return blockwise(q_BTHK, k_BTHK, v_BTHK, causal, alone=_alone_on_cpu())
    if platform == "tpu" and q_BTHK.shape[1] >= FLASH_FROM and fits(q_BTHK):
        return flash(q_BTHK, k_BTHK, v_BTHK, causal=causal)
    implementation = "cudnn" if platform == "gpu" and _cudnn_has(q_BTHK) else "xla"
    return jax.nn.dot_product_attention(
        q_BTHK, k_BTHK, v_BTHK, is_causal=causal, implementation=implementation
    )


def _cudnn_has(q_BTHK: jax.Array) -> bool:
    """Whether cuDNN's flash attention takes these heads; jax asks for the library as it traces.

    jax 0.11.2 refuses to differentiate it for an odd number of positions, as are 256 and a class.
    """
    half = q_BTHK.dtype in (jnp.bfloat16, jnp.float16)
    positions, features = q_BTHK.shape[1], q_BTHK.shape[-1]
    sized = features % 8 == 0 and features <= CUDNN_MOST and positions % 2 == 0
    return half and sized and jax.default_backend() == "gpu"


def attend_seen(
    q_BTHK: jax.Array,
    k_BSHK: jax.Array,
    v_BSHK: jax.Array,
    seen_BS: jax.Array,
    *,
    platform: str,
) -> jax.Array:
    """`attend` to the keys where `seen_BS` is true: the others get the weight 0 and no gradient.

    At least one key of each image must be seen.
    """
    if platform != "cpu":
        mask_B11S = seen_BS[:, None, None, :]
        return jax.nn.dot_product_attention(q_BTHK, k_BSHK, v_BSHK, mask=mask_B11S)
    q_BHTK, k_BHSK, v_BHSK = (x.transpose(0, 2, 1, 3) for x in (q_BTHK, k_BSHK, v_BSHK))
    scaled_BHTK = q_BHTK * q_BHTK.shape[-1] ** -0.5
    logits = jnp.einsum("bhtk,bhsk->bhts", scaled_BHTK, k_BHSK).astype(jnp.float32)
    logits = jnp.where(seen_BS[:, None, None, :], logits, HIDDEN)
    weights = jax.nn.softmax(logits, axis=-1).astype(v_BHSK.dtype)
    return jnp.einsum("bhts,bhsk->bhtk", weights, v_BHSK).transpose(0, 2, 1, 3)


def attention_weights(
    q_BTHK: jax.Array,
    k_BSHK: jax.Array,
    *,
    platform: str,
    causal: bool = False,
    seen_BS: jax.Array | None = None,
) -> jax.Array:
    """What `attend`, or `attend_seen` where some keys are seen only, weighs values with.

    (B, H, T, S) in float32, before any rounding to the dtype of the values. Logits are rounded as
    the implementation for the platform rounds them.
    """
    scale = q_BTHK.shape[-1] ** -0.5
    if platform == "cpu":
        if _alone_on_cpu():
            q_BTHK, k_BSHK = q_BTHK.astype(jnp.float32), k_BSHK.astype(jnp.float32)
        logits = jnp.einsum("bthk,bshk->bhts", q_BTHK * scale, k_BSHK).astype(jnp.float32)
    else:
        kept = {"preferred_element_type": jnp.float32}
        logits = scale * jnp.einsum("bthk,bshk->bhts", q_BTHK, k_BSHK, **kept)
    queries, keys = logits.shape[2:]
    if causal:
        before_TS = jnp.arange(keys)[None, :] <= jnp.arange(queries)[:, None]
        logits = jnp.where(before_TS[None, None], logits, HIDDEN)
    if seen_BS is not None:
        logits = jnp.where(seen_BS[:, None, None, :], logits, HIDDEN)
    return jax.nn.softmax(logits, axis=-1)


def attend_one(
    q_BHK: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array, index: jax.Array | int
) -> jax.Array:
    """The query of position `index` with the keys up to its own: (B, H, K)."""
    scaled_BHK = q_BHK * q_BHK.shape[-1] ** -0.5
    logits_BHS = jnp.einsum("bhk,bhsk->bhs", scaled_BHK, k_BHSK).astype(jnp.float32)
    seen_S = jnp.arange(k_BHSK.shape[2]) <= index
    logits_BHS = jnp.where(seen_S[None, None], logits_BHS, HIDDEN)
    weights_BHS = jax.nn.softmax(logits_BHS, axis=-1).astype(v_BHSK.dtype)
    return jnp.einsum("bhs,bhsk->bhk", weights_BHS, v_BHSK)


def product(x_NI: jax.Array, w_IO: jax.Array) -> jax.Array:
    """x times w, in x's dtype."""
    if x_NI.dtype == jnp.bfloat16 and _alone_on_cpu():
        return _half_product(x_NI, w_IO)
    return x_NI @ w_IO.astype(x_NI.dtype)


def wide(x: jax.Array) -> jax.Array:
    """x as element-wise work takes it: one CPU takes bfloat16 numbers as float32.

    XLA on CPU rounds bfloat16 after every single operation, which made rotary positions an eighth
    of a step.
    """
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 and _alone_on_cpu() else x


def _alone_on_cpu() -> bool:
    """Whether the step is traced for one CPU device, be it here or not.

    So it is for each of several that compute by themselves, as those of a pack do.
    """
    mesh = jax.sharding.get_abstract_mesh()
    device = mesh.abstract_device
    together = math.prod(
        mesh.shape[name] for name in mesh.axis_names if name not in mesh.manual_axes
    )
    return device is not None and device.platform == "cpu" and together == 1 and not mesh.empty


@jax.custom_vjp
def _half_product(x_NI: jax.Array, w_IO: jax.Array) -> jax.Array:
    """A product of bfloat16 numbers as the CPU's own instructions do it, AVX512-BF16.

    XLA (jaxlib 0.10.2) widens both factors to float32 first unless the result is asked for in
    float32 and both are contracted along the first one's last axis. Of 1536 x 256 times 256 x 256
    it makes 223 instead of 104 GFLOP/s on one core of a Zen 4, and of the gradient of the weight,
    whose first factor must be laid down transposed, 145 instead of 79. Sums and the gradient of the
    weight are in float32.
    """
    return _half_forward(x_NI, w_IO)[0]


def _half_forward(x_NI, w_IO):
    half_IO = w_IO.astype(x_NI.dtype)
    y_NO = jnp.matmul(x_NI, half_IO, preferred_element_type=jnp.float32)
    return y_NO.astype(x_NI.dtype), (x_NI, half_IO, jnp.zeros((), w_IO.dtype))


def _half_backward(residuals, d_NO):
    x_NI, half_IO, like = residuals
    kept = {"preferred_element_type": jnp.float32}
    d_x_NI = jax.lax.dot_general(d_NO, half_IO, (((1,), (1,)), ((), ())), **kept)
    # Through a flat array: what is only called transposed is folded into the product again.
    flat = jax.lax.optimization_barrier(x_NI.T.reshape(-1))
    d_w_IO = jnp.matmul(flat.reshape(x_NI.shape[::-1]), d_NO, **kept)
    return d_x_NI.astype(x_NI.dtype), d_w_IO.astype(like.dtype)


_half_product.defvjp(_half_forward, _half_backward)
