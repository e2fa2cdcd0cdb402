"""Attention on CPU: blocks of queries, each against only the keys that it may see.

The gradient keeps the weights and uses sum_s p_ts dp_ts = o_t . do_t (Dao et al. 2022, section
3.1), one pass over T x S less than that of softmax. Against `jax.nn.dot_product_attention` forward
and backward take 0.4 times as long.

One device alone has a faster way than several: in float32, weights are divided by their sum after
the product with the values, and the gradient's products with queries and outputs are of the small
factor transposed, for XLA on CPU has no fast product with transposed weights. With 16 features a
head it takes 0.8 times as long as the other, forward and backward (192 positions, one core), with
64 about as long. On several devices XLA (jaxlib 0.10.2) starts two gathers of its program in
different orders, and waits for ever (MLM under fsdp_tp on eight).
"""

import functools

import jax
import jax.numpy as jnp

QUERY_BLOCK = 96  # of 32 to 192 the fastest at T = 192, 16 features a head
HIDDEN = -1e30  # a logit that no softmax sees


def blockwise(
    q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, causal: bool, *, alone: bool
) -> jax.Array:
    """softmax(q k / sqrt(K)) v, for one device `alone` or for several."""
    heads_first = [x.transpose(0, 2, 1, 3) for x in (q_BTHK, k_BTHK, v_BTHK)]
    if not alone:
        return _shared(*heads_first, causal).transpose(0, 2, 1, 3)
    wide = [x.astype(jnp.float32) for x in heads_first]
    return _alone(*wide, causal).transpose(0, 2, 1, 3).astype(q_BTHK.dtype)


def _blocks(positions: int, causal: bool) -> list[tuple[int, int, int]]:
    """(first query, query after the last, keys seen by any of them) of each block."""
    if not causal:
        return [(0, positions, positions)]
    starts = range(0, positions, QUERY_BLOCK)
    ends = [min(positions, start + QUERY_BLOCK) for start in starts]
    return [(start, end, end) for start, end in zip(starts, ends, strict=True)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _shared(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    return _shared_forward(q, k, v, causal)[0]


def _shared_weights(q_BHTK: jax.Array, k_BHSK: jax.Array, *, start: int, causal: bool) -> jax.Array:
    queries, keys = q_BHTK.shape[2], k_BHSK.shape[2]
    scaled = q_BHTK * q_BHTK.shape[-1] ** -0.5
    logits = jnp.einsum("bhtk,bhsk->bhts", scaled, k_BHSK).astype(jnp.float32)
    if causal:
        seen_TS = jnp.arange(keys)[None, :] <= start + jnp.arange(queries)[:, None]
        logits = logits + jnp.where(seen_TS, 0.0, HIDDEN)[None, None]
    return jax.nn.softmax(logits, axis=-1).astype(q_BHTK.dtype)


def _shared_forward(q, k, v, causal):
    outs, kept = [], []
    for start, end, keys in _blocks(q.shape[2], causal):
        weights = _shared_weights(q[:, :, start:end], k[:, :, :keys], start=start, causal=causal)
        outs.append(jnp.einsum("bhts,bhsk->bhtk", weights, v[:, :, :keys]))
        kept.append(weights)
    out = jnp.concatenate(outs, axis=2)
    return out, (q, k, v, out, kept)


def _shared_backward(causal, residuals, d_out):
    q, k, v, out, kept = residuals
    along = jnp.sum(d_out * out, axis=-1, keepdims=True)
    d_q, d_k, d_v = [], jnp.zeros_like(k), jnp.zeros_like(v)
    for (start, end, keys), weights in zip(_blocks(q.shape[2], causal), kept, strict=True):
        part = slice(start, end)
        d_weights = jnp.einsum("bhtk,bhsk->bhts", d_out[:, :, part], v[:, :, :keys])
        d_logits = weights * (d_weights - along[:, :, part]) * q.shape[-1] ** -0.5
        d_q.append(jnp.einsum("bhts,bhsk->bhtk", d_logits, k[:, :, :keys]))
        d_k_part = jnp.einsum("bhts,bhtk->bhsk", d_logits, q[:, :, part])
        d_v_part = jnp.einsum("bhts,bhtk->bhsk", weights, d_out[:, :, part])
        d_k = d_k.at[:, :, :keys].add(d_k_part)
        d_v = d_v.at[:, :, :keys].add(d_v_part)
    return jnp.concatenate(d_q, axis=2), d_k, d_v


_shared.defvjp(_shared_forward, _shared_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _alone(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    return _alone_forward(q, k, v, causal)[0]


def _alone_weights(
    q_BHTK: jax.Array, k_BHSK: jax.Array, *, start: int, causal: bool
) -> tuple[jax.Array, jax.Array]:
    """exp(logits - their maximum) (B, H, T, S), and one over their sums (B, H, T, 1)."""
    queries, keys = q_BHTK.shape[2], k_BHSK.shape[2]
    scaled = q_BHTK * q_BHTK.shape[-1] ** -0.5
    logits = jnp.einsum("bhtk,bhsk->bhts", scaled, k_BHSK)
    if causal:
        seen_TS = jnp.arange(keys)[None, :] <= start + jnp.arange(queries)[:, None]
        logits = logits + jnp.where(seen_TS, 0.0, HIDDEN)[None, None]
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return weights, 1 / jnp.sum(weights, axis=-1, keepdims=True)


def _alone_forward(q, k, v, causal):
    outs, kept = [], []
    for start, end, keys in _blocks(q.shape[2], causal):
        weights, inverse = _alone_weights(
            q[:, :, start:end], k[:, :, :keys], start=start, causal=causal
        )
        outs.append(jnp.einsum("bhts,bhsk->bhtk", weights, v[:, :, :keys]) * inverse)
        kept.append((weights, inverse))
    out = jnp.concatenate(outs, axis=2)
    return out, (q, k, v, out, kept)


def _alone_backward(causal, residuals, d_out):
    q, k, v, out, kept = residuals
    scale = q.shape[-1] ** -0.5
    along = jnp.sum(d_out * out, axis=-1, keepdims=True)
    d_q = []
    d_k_BHKS, d_v_BHKS = (jnp.zeros_like(x.swapaxes(2, 3)) for x in (k, v))
    for (start, end, keys), (weights, inverse) in zip(
        _blocks(q.shape[2], causal), kept, strict=True
    ):
        part, seen = slice(start, end), (..., slice(0, keys))
        divided = d_out[:, :, part] * inverse
        d_weights = jnp.einsum("bhtk,bhsk->bhts", divided * scale, v[:, :, :keys])
        d_logits = weights * (d_weights - along[:, :, part] * inverse * scale)
        d_q.append(jnp.einsum("bhts,bhsk->bhtk", d_logits, k[:, :, :keys]))
        q_BHKT, d_BHKT = (x.swapaxes(2, 3) for x in (q[:, :, part], divided))
        d_k_BHKS = d_k_BHKS.at[seen].add(jnp.einsum("bhkt,bhts->bhks", q_BHKT, d_logits))
        d_v_BHKS = d_v_BHKS.at[seen].add(jnp.einsum("bhkt,bhts->bhks", d_BHKT, weights))
    return jnp.concatenate(d_q, axis=2), d_k_BHKS.swapaxes(2, 3), d_v_BHKS.swapaxes(2, 3)


_alone.defvjp(_alone_forward, _alone_backward)
