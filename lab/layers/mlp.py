"""The gated feed-forward layer of a Llama block: SwiGLU (Shazeer 2020, equation 6)."""

import jax
from flax import nnx

from lab.core.scopes import FEED_FORWARD
from lab.layers.kernels import wide
from lab.layers.linear import linear
from lab.layers.parameters import Init, branch_end, matrix
from lab.layers.stack import MLP_OUT, kept


class SwiGLU(nnx.Module):
    """(silu(x W1) * x W3) W2 without biases."""

    def __init__(self, key: jax.Array, *, width: int, hidden: int, init: Init, depth: int):
        gate_key, up_key, down_key = jax.random.split(key, 3)
        self.gate = matrix(gate_key, (width, hidden), ("embed", "mlp"), init)
        self.up = matrix(up_key, (width, hidden), ("embed", "mlp"), init)
        self.down = branch_end(down_key, (hidden, width), ("mlp", "embed"), init, depth=depth)

    @jax.named_scope(FEED_FORWARD)
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        h_BTD = jax.nn.silu(wide(linear(x_BTD, self.gate))) * wide(linear(x_BTD, self.up))
        return kept(linear(h_BTD.astype(x_BTD.dtype), self.down), MLP_OUT)
