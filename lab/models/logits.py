"""Logits made smaller choices: guidance, temperature, the likeliest k, the likeliest mass p.

V codes of a sub-code.
"""

import jax
import jax.numpy as jnp

from lab.models.drawing import Drawing

ROUNDING = 1e-5  # of the largest logit's size


def guided(with_class: jax.Array, without: jax.Array | None, guidance: jax.Array) -> jax.Array:
    """without + guidance (with - without), as LlamaGen and ELM write it (Ho & Salimans 2022)."""
    if without is None:
        return with_class
    return without + guidance * (with_class - without)


def restricted(logits_V: jax.Array, drawing: Drawing) -> jax.Array:
    """Logits (..., V) over the temperature, minus infinity where top-k or top-p leaves out.

    Ties with the k-th likeliest code stay. Of top-p the fewest likeliest codes stay whose
    probability reaches p (Holtzman et al. 2020, section 3.1); it looks at what top-k left.

    A tie is one within rounding: a compiler may compute logits once to sort them and once more to
    compare them, and the k-th code itself must never be below the k-th.
    """
    logits_V = logits_V / drawing.temperature
    vocabulary = logits_V.shape[-1]
    rounding = ROUNDING * jnp.max(jnp.abs(logits_V), axis=-1, keepdims=True)
    if 0 < drawing.top_k < vocabulary:
        kth = jax.lax.top_k(logits_V, drawing.top_k)[0][..., -1:]
        logits_V = jnp.where(logits_V < kth - rounding, -jnp.inf, logits_V)
    if drawing.top_p < 1:
        ordered = jnp.flip(jnp.sort(logits_V, axis=-1), axis=-1)
        shares = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(shares, axis=-1) - shares  # of likelier codes
        least = jnp.min(jnp.where(before < drawing.top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        logits_V = jnp.where(logits_V < least - rounding, -jnp.inf, logits_V)
    return logits_V
