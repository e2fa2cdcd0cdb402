"""Products with a matrix."""

import jax
from flax import nnx


def linear(x: jax.Array, weight: nnx.Param) -> jax.Array:
    """x (..., I) times weight (I, O), in x's dtype.

    Flattened to two dimensions first: XLA on CPU differentiates a 3-D product at 4.1 times its
    forward cost, and the flat one at 3.1 to 3.3.
    """
    flat = x.reshape(-1, x.shape[-1]) @ weight[...].astype(x.dtype)
    return flat.reshape(*x.shape[:-1], weight.shape[-1])
