"""What enters a backbone: token embeddings and the class.

B batch, T positions, S sub-codes at a position, V codes of a sub-code, D width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lab.layers.linear import linear
from lab.layers.parameters import Init, matrix, table


class SubcodeEmbedding(nnx.Module):
    """t tables whose rows are concatenated and projected; one table alone is not projected.

    ELM, section 3.2 and its code: t sub-codes of k bits, `Linear(t d -> d)` without a bias.
    `slots` adds an embedding of the position inside a grid cell (the colour channel of a
    sub-pixel), which rotary positions in two dimensions do not tell apart.
    """

    def __init__(
        self,
        key: jax.Array,
        *,
        vocabulary: int,
        subcodes: int,
        slots: int,
        width: int,
        init: Init,
    ):
        table_key, slot_key, projection_key = jax.random.split(key, 3)
        self.tables = table(table_key, (subcodes * vocabulary, width), ("vocab", "embed"), init)
        self.vocabulary = vocabulary
        self.subcodes = subcodes
        self.slots = slots
        if subcodes > 1:
            shape = (subcodes * width, width)
            self.projection = matrix(projection_key, shape, ("embed", "embed_out"), init)
        if slots > 1:
            self.slot_table = table(slot_key, (slots, width), ("slots", "embed"), init)

    def __call__(self, codes_BTS: jax.Array) -> jax.Array:
        """Embeddings (B, T, D) of the codes; T is a multiple of `slots` or a prefix of one."""
        first_row_S = self.vocabulary * jnp.arange(self.subcodes, dtype=jnp.int32)
        rows_BTSD = self.tables[...][codes_BTS.astype(jnp.int32) + first_row_S[None, None, :]]
        batch, positions = codes_BTS.shape[:2]
        x_BTD = rows_BTSD.reshape(batch, positions, -1)
        if self.subcodes > 1:
            x_BTD = linear(x_BTD, self.projection)
        if self.slots > 1:
            slot_T = jnp.arange(positions) % self.slots
            x_BTD = x_BTD + self.slot_table[...][slot_T][None]
        return x_BTD


class ClassEmbedding(nnx.Module):
    """A row a class and one for the null class, which stands in at random in training.

    Training with a share of null classes is what classifier-free guidance needs
    (Ho & Salimans 2022, algorithm 1).
    """

    def __init__(self, key: jax.Array, *, classes: int, width: int, init: Init, drop_rate: float):
        self.table = table(key, (classes + 1, width), ("classes", "embed"), init)
        self.null = classes
        self.drop_rate = drop_rate

    def __call__(self, label_B: jax.Array, key: jax.Array | None) -> jax.Array:
        """Embeddings (B, D); with a key, each label becomes the null class at the drop rate."""
        if key is not None and self.drop_rate > 0:
            dropped_B = jax.random.bernoulli(key, self.drop_rate, label_B.shape)
            label_B = jnp.where(dropped_B, self.null, label_B)
        return self.table[...][label_B]
