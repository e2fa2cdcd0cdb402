"""What a backbone's output predicts.

B batch, T positions, S sub-codes at a position, V codes of a sub-code, D width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lab.layers.linear import linear
from lab.layers.norm import RMSNorm
from lab.layers.parameters import head_matrix


class CategoricalHead(nnx.Module):
    """A softmax over the codes of each sub-code, given the prefix independent of each other.

    ELM's untied, bias-free, zero-initialised heads: t matrices (D, V), held side by side.
    """

    def __init__(self, *, vocabulary: int, subcodes: int, width: int, norm_epsilon: float):
        self.norm = RMSNorm(width, epsilon=norm_epsilon)
        self.out = head_matrix((width, subcodes * vocabulary), ("embed", "vocab"))
        self.subcodes = subcodes

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Logits (B, T, S, V) in float32."""
        flat = linear(self.norm(x_BTD), self.out).astype(jnp.float32)
        return flat.reshape(*x_BTD.shape[:2], self.subcodes, -1)

    def nats(self, x_BTD: jax.Array, codes_BTS: jax.Array) -> jax.Array:
        """Negative log likelihood (B, T) of the codes at each position, summed over sub-codes."""
        logits_BTSV = self.logits(x_BTD)
        chosen = jnp.take_along_axis(logits_BTSV, codes_BTS[..., None].astype(jnp.int32), axis=-1)
        return jnp.sum(jax.nn.logsumexp(logits_BTSV, axis=-1) - chosen[..., 0], axis=-1)
