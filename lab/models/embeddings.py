"""What enters a backbone: token embeddings and the class.

B batch, T positions, S numbers at a position (sub-codes, bits or channels), V codes of a sub-code,
D width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lab.layers.draws import WHOLE, Part
from lab.layers.linear import Affine, linear
from lab.layers.parameters import Init, input_matrix, matrix, table


class MaskVector(nnx.Module):
    """What stands at a hidden position: a learned vector in place of the token's embedding."""

    def __init__(self, key: jax.Array, *, width: int, init: Init):
        self.vector = table(key, (1, width), ("slots", "embed"), init)

    def __call__(self, x_BTD: jax.Array, hidden_BT: jax.Array | None) -> jax.Array:
        """x with the vector where `hidden_BT` is true; x itself without one."""
        if hidden_BT is None:
            return x_BTD
        vector_11D = self.vector[...].astype(x_BTD.dtype)[None]
        return jnp.where(hidden_BT[..., None], vector_11D, x_BTD)


class SubcodeEmbedding(nnx.Module):
    """t tables whose rows are concatenated and projected; one table alone is not projected.

    ELM, section 3.2 and its code: t sub-codes of k bits, `Linear(t d -> d)` without a bias.
    `slots` adds an embedding of the position inside a grid cell (the colour channel of a
    sub-pixel), which rotary positions in two dimensions do not tell apart. `masked` adds the
    vector of hidden positions (MaskGIT's mask token).
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
        masked: bool = False,
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
        self.masked = masked  # where it is not, the backbone keeps hidden positions out
        if masked:
            self.mask = MaskVector(jax.random.fold_in(key, 3), width=width, init=init)

    def __call__(
        self,
        codes_BTS: jax.Array,
        hidden_BT: jax.Array | None = None,
        *,
        first: jax.Array | int = 0,
    ) -> jax.Array:
        """Embeddings (B, T, D) of the codes of positions from `first` on."""
        first_row_S = self.vocabulary * jnp.arange(self.subcodes, dtype=jnp.int32)
        rows_BTSD = self.tables[...][codes_BTS.astype(jnp.int32) + first_row_S[None, None, :]]
        batch, positions = codes_BTS.shape[:2]
        x_BTD = rows_BTSD.reshape(batch, positions, -1)
        if self.subcodes > 1:
            x_BTD = linear(x_BTD, self.projection)
        if self.masked:
            x_BTD = self.mask(x_BTD, hidden_BT)
        return x_BTD + _of_slots(self, positions, first) if self.slots > 1 else x_BTD

    @property
    def forward_flops_per_position(self) -> int:
        """The projection of several sub-codes; a look-up costs nothing."""
        width = self.tables.shape[1]
        return 2 * self.subcodes * width * width if self.subcodes > 1 else 0


def _of_slots(embedding: "SubcodeEmbedding | VectorEmbedding", positions: int, first) -> jax.Array:
    """What each of so many positions (1, T, D), from `first` on, has of its slot."""
    slot_T = (first + jnp.arange(positions)) % embedding.slots
    return embedding.slot_table[...][slot_T][None]


class VectorEmbedding(nnx.Module):
    """One affine map from the numbers at a position: bits as they are (BiGR), or a latent (MAR).

    `slots` and `masked` as in `SubcodeEmbedding`.
    """

    def __init__(
        self,
        key: jax.Array,
        *,
        inputs: int,
        slots: int,
        width: int,
        init: Init,
        masked: bool = False,
    ):
        matrix_key, mask_key = jax.random.split(key)
        self.projection = Affine(
            input_matrix(matrix_key, (inputs, width), ("features", "embed"), init)
        )
        self.slots = slots
        if slots > 1:
            slot_key = jax.random.fold_in(key, 3)
            self.slot_table = table(slot_key, (slots, width), ("slots", "embed"), init)
        self.masked = masked
        if masked:
            self.mask = MaskVector(mask_key, width=width, init=init)

    def __call__(
        self,
        tokens_BTS: jax.Array,
        hidden_BT: jax.Array | None = None,
        *,
        first: jax.Array | int = 0,
    ) -> jax.Array:
        """Embeddings (B, T, D) of positions from `first` on."""
        x_BTD = self.projection(tokens_BTS.astype(jnp.float32))
        if self.masked:
            x_BTD = self.mask(x_BTD, hidden_BT)
        return x_BTD + _of_slots(self, x_BTD.shape[1], first) if self.slots > 1 else x_BTD

    @property
    def forward_flops_per_position(self) -> int:
        """The projection."""
        inputs, width = self.projection.weight.shape
        return 2 * inputs * width


class ClassEmbedding(nnx.Module):
    """A row a class and one for the null class, which stands in at random in training.

    Training with a share of null classes is what classifier-free guidance needs
    (Ho & Salimans 2022, algorithm 1).
    """

    def __init__(self, key: jax.Array, *, classes: int, width: int, init: Init, drop_rate: float):
        self.table = table(key, (classes + 1, width), ("classes", "embed"), init)
        self.null = classes
        self.drop_rate = drop_rate

    def __call__(self, label_B: jax.Array, key: jax.Array | None, part: Part = WHOLE) -> jax.Array:
        """Embeddings (B, D); with a key, each label becomes the null class at the drop rate."""
        if key is not None and self.drop_rate > 0:
            dropped_B = part.bernoulli(key, self.drop_rate, label_B.shape)
            label_B = jnp.where(dropped_B, self.null, label_B)
        return self.table[...][label_B]
