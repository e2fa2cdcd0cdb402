"""Categorical heads: a softmax over the codes of each sub-code.

B batch, T positions, S sub-codes at a position, V codes of a sub-code, D width. The sub-codes of a
position are independent of each other given its features.
"""

import abc
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from lab.core.scopes import HEAD, LOSS
from lab.layers.linear import linear
from lab.layers.norm import LayerNorm, RMSNorm
from lab.layers.parameters import Init, bias, head_matrix, matrix
from lab.models.chunks import by_chunks, head_chunks
from lab.models.drawing import Drawing, Proposal
from lab.models.logits import guided, restricted
from lab.models.objective import NATS, Likelihood, Objective


class CategoricalFacts:
    """What is known of a softmax over codes without its weights."""

    likelihood = Likelihood.EXACT
    vocabulary: int
    subcodes: int
    smoothing: float
    z_loss: float  # weight of the squared log normaliser
    chunks: int  # of positions that a loss runs in; 0: as memory asks for

    @property
    def objective(self) -> Objective:
        """Nats of a position, its sub-codes summed; by another name where something is added."""
        words = ["smoothed"] * bool(self.smoothing) + ["penalised"] * bool(self.z_loss)
        return Objective(
            key="_".join(["loss", *words, "nats_per_token"]) if words else NATS,
            unit=" ".join([*words, "nats/token"]),
            uninformed=self.subcodes * math.log(self.vocabulary),
        )


class Categorical(CategoricalFacts, abc.ABC):
    """What follows from logits: losses and draws."""

    @abc.abstractmethod
    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Logits (B, T, S, V) in float32."""

    def nats(
        self, x_BTD: jax.Array, codes_BTS: jax.Array, key_B: jax.Array | None = None
    ) -> jax.Array:
        """Negative log likelihood (B, T) of the codes at each position, summed over sub-codes."""
        return self._of_logits(_nats, x_BTD, codes_BTS)

    def loss(
        self, x_BTD: jax.Array, codes_BTS: jax.Array, key_B: jax.Array | None = None
    ) -> jax.Array:
        """Cross-entropy (B, T) with the targets mixed with a uniform distribution; the z-loss.

        Label smoothing (Szegedy et al. 2016, section 7); MaskGIT trains with 0.1. The z-loss is
        the squared log normaliser of each softmax (PaLM, Chowdhery et al. 2022, section 5).
        """
        plain = not (self.smoothing or self.z_loss)
        return self._of_logits(_nats if plain else self._with_terms, x_BTD, codes_BTS)

    @jax.named_scope(LOSS)
    def _with_terms(self, logits_BTSV: jax.Array, codes_BTS: jax.Array) -> jax.Array:
        found_BT = _nats(logits_BTSV, codes_BTS)
        if self.smoothing:
            log_p_BTSV = jax.nn.log_softmax(logits_BTSV, axis=-1)
            uniform_BT = -jnp.sum(jnp.mean(log_p_BTSV, axis=-1), axis=-1)
            found_BT = (1 - self.smoothing) * found_BT + self.smoothing * uniform_BT
        if self.z_loss:
            log_z_BTS = jax.nn.logsumexp(logits_BTSV, axis=-1)
            found_BT += self.z_loss * jnp.sum(log_z_BTS**2, axis=-1)
        return found_BT

    @jax.named_scope(HEAD)
    def _of_logits(
        self,
        measure: Callable[[jax.Array, jax.Array], jax.Array],
        x_BTD: jax.Array,
        codes_BTS: jax.Array,
    ) -> jax.Array:
        """measure(logits, codes) (B, T), in as many chunks of positions as memory asks for."""
        images, positions = x_BTD.shape[:2]
        outputs = self.subcodes * self.vocabulary
        chunks = head_chunks(self.chunks, images=images, positions=positions, outputs=outputs)
        return by_chunks(
            lambda head, x, codes: measure(head.logits(x), codes),
            self,
            x_BTD,
            codes_BTS,
            chunks=chunks,
        )

    def propose(
        self,
        x_TD: jax.Array,
        null_TD: jax.Array | None,
        guidance: jax.Array,
        key: jax.Array,
        drawing: Drawing,
        *,
        first: jax.Array | int = 0,
    ) -> Proposal:
        """Codes of positions of one image, from `first` on, drawn independently of each other.

        Both confidences are means over sub-codes: of the log probability of the drawn code, and
        of minus the entropy, under the distribution that was drawn from.
        """
        with_TSV = self.logits(x_TD[None])[0]
        null_TSV = None if null_TD is None else self.logits(null_TD[None])[0]
        logits_TSV = restricted(guided(with_TSV, null_TSV, guidance), drawing)
        codes_TS = jax.random.categorical(key, logits_TSV)
        log_p_TSV = jax.nn.log_softmax(logits_TSV, axis=-1)
        chosen_TS = jnp.take_along_axis(log_p_TSV, codes_TS[..., None], axis=-1)[..., 0]
        p_TSV = jnp.exp(log_p_TSV)
        parts_TSV = jnp.where(p_TSV > 0, p_TSV * log_p_TSV, 0.0)
        certainty_T = jnp.mean(jnp.sum(parts_TSV, axis=-1), axis=-1)
        return Proposal(codes_TS.astype(jnp.int32), jnp.mean(chosen_TS, axis=-1), certainty_T)


@jax.named_scope(LOSS)
def _nats(logits_BTSV: jax.Array, codes_BTS: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(logits_BTSV, codes_BTS[..., None].astype(jnp.int32), axis=-1)
    return jnp.sum(jax.nn.logsumexp(logits_BTSV, axis=-1) - chosen[..., 0], axis=-1)


class CategoricalHead(Categorical, nnx.Module):
    """ELM's untied, bias-free, zero-initialised heads: t matrices (D, V), held side by side."""

    def __init__(
        self,
        *,
        vocabulary: int,
        subcodes: int,
        width: int,
        norm_epsilon: float,
        smoothing: float = 0.0,
        z_loss: float = 0.0,
        chunks: int = 0,
    ):
        self.norm = RMSNorm(width, epsilon=norm_epsilon)
        self.out = head_matrix((width, subcodes * vocabulary), ("embed", "vocab"))
        self.subcodes = subcodes
        self.vocabulary = vocabulary
        self.smoothing = smoothing
        self.z_loss = z_loss
        self.chunks = chunks

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Logits (B, T, S, V) in float32."""
        flat = linear(self.norm(x_BTD), self.out).astype(jnp.float32)
        return flat.reshape(*x_BTD.shape[:2], self.subcodes, -1)

    @property
    def forward_flops_per_position(self) -> int:
        """The matrix."""
        width, outputs = self.out.shape
        return 2 * width * outputs


class TiedHead(CategoricalFacts, nnx.Module):
    """MaskGIT's head: affine, GELU, LayerNorm, then the products with the token embedding.

    As published by MaskGIT and ELM's MLM (`MlmLayer`): the embedding gets no gradient from here.
    It is made a head by `tied_to` the table of an embedding.
    """

    def __init__(
        self,
        key: jax.Array,
        *,
        vocabulary: int,
        subcodes: int,
        width: int,
        norm_epsilon: float,
        init: Init,
        smoothing: float = 0.0,
        z_loss: float = 0.0,
        chunks: int = 0,
    ):
        self.norm = RMSNorm(width, epsilon=norm_epsilon)
        self.dense = matrix(key, (width, width), ("embed", "embed_out"), init)
        self.dense_bias = bias(width, "embed_out")
        self.layer_norm = LayerNorm(width, epsilon=norm_epsilon)
        self.bias = bias(subcodes * vocabulary, "vocab")
        self.subcodes = subcodes
        self.vocabulary = vocabulary
        self.smoothing = smoothing
        self.z_loss = z_loss
        self.chunks = chunks

    def tied_to(self, table: jax.Array) -> "Tied":
        """This head on the rows (S * V, D) of a token embedding."""
        return Tied(self, jax.lax.stop_gradient(table))

    def features(self, x_BTD: jax.Array) -> jax.Array:
        """What is multiplied with the embedding: (B, T, D) in float32."""
        h_BTD = linear(self.norm(x_BTD), self.dense).astype(jnp.float32)
        h_BTD = jax.nn.gelu(h_BTD + self.dense_bias[...][None, None], approximate=False)
        return self.layer_norm(h_BTD)

    @property
    def forward_flops_per_position(self) -> int:
        """The affine map and the products with the embedding."""
        width = self.dense.shape[0]
        return 2 * width * (width + self.bias.shape[0])


@jax.tree_util.register_pytree_node_class
class Tied(Categorical):
    """A tied head with the embedding that it is tied to."""

    def __init__(self, head: TiedHead, table: jax.Array):
        self.head = head
        self.table = table
        self.subcodes = head.subcodes
        self.vocabulary = head.vocabulary
        self.smoothing = head.smoothing
        self.z_loss = head.z_loss
        self.chunks = head.chunks

    def tree_flatten(self) -> tuple[tuple[TiedHead, jax.Array], None]:
        """The head and the table, as jax's transformations see them."""
        return (self.head, self.table), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[TiedHead, jax.Array]) -> "Tied":
        """The inverse of `tree_flatten`."""
        return cls(*children)

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Logits (B, T, S, V) in float32."""
        h_BTD = self.head.features(x_BTD).astype(x_BTD.dtype)
        flat = jnp.einsum("btd,vd->btv", h_BTD, self.table.astype(x_BTD.dtype))
        flat = flat.astype(jnp.float32) + self.head.bias[...][None, None]
        return flat.reshape(*x_BTD.shape[:2], self.subcodes, -1)
