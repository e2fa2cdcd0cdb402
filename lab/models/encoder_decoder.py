"""The trunk of MAR: an encoder of the visible positions, a decoder of all (Li et al. 2024, 4.1).

B batch, T positions, N tokens of a stack (a buffer, then positions), V places, D width.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lab.core.counts import Flops, attention_flops
from lab.core.errors import LabError
from lab.core.layout import constrain_batch
from lab.core.scopes import LAYERS
from lab.layers.draws import WHOLE, Part
from lab.layers.dropout import dropout
from lab.layers.linear import Affine
from lab.layers.norm import LayerNorm
from lab.layers.parameters import Init, matrix, table
from lab.layers.stack import Seen, observe_stack, run_stack, stacked
from lab.layers.vit import BiasedAttention, GeluMLP


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderSpec:
    """The shape of an encoder and decoder and how they run."""

    depth: int  # of the encoder
    decoder_depth: int
    width: int
    heads: int
    mlp_hidden: int
    buffer: int  # copies of the class before the positions
    positions: int
    dropout: float  # at the end of each branch; the published one drops attention weights too
    norm_epsilon: float
    init: Init
    platform: str
    remat: str
    unroll: bool


class ViTBlock(nnx.Module):
    """h = x + Attention(norm(x)); y = h + MLP(norm(h)); of `depth` in a stack."""

    def __init__(self, key: jax.Array, spec: EncoderDecoderSpec, *, depth: int):
        attention_key, mlp_key = jax.random.split(key)
        self.attention_norm = LayerNorm(spec.width, epsilon=spec.norm_epsilon)
        self.attention = BiasedAttention(
            attention_key,
            width=spec.width,
            heads=spec.heads,
            init=spec.init,
            depth=depth,
            platform=spec.platform,
        )
        self.mlp_norm = LayerNorm(spec.width, epsilon=spec.norm_epsilon)
        self.mlp = GeluMLP(
            mlp_key,
            width=spec.width,
            hidden=spec.mlp_hidden,
            init=spec.init,
            depth=depth,
            tanh=False,
        )
        self.rate = spec.dropout

    def __call__(
        self,
        x_BND: jax.Array,
        seen_BN: jax.Array | None,
        key: jax.Array | None,
        part: Part = WHOLE,
    ) -> jax.Array:
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        attended_BND = self.attention(self.attention_norm(x_BND), seen_BN)
        x_BND = x_BND + dropout(attended_BND, keys[0], rate=self.rate, part=part)
        fed_BND = self.mlp(self.mlp_norm(x_BND))
        x_BND = x_BND + dropout(fed_BND, keys[1], rate=self.rate, part=part)
        return constrain_batch(x_BND)

    def attention_weights(self, x_BND: jax.Array) -> jax.Array:
        """Of the attention of this block, given what enters it: (B, H, N, N) in float32."""
        return self.attention.weights(self.attention_norm(x_BND))

    @property
    def forward_flops(self) -> int:
        """Of the matrices, one token."""
        return self.attention.forward_flops + self.mlp.forward_flops


class Places(NamedTuple):
    """Where the encoder holds the positions of an image: the visible ones first, in order."""

    position_BV: jax.Array  # the position in each place
    filled_BV: jax.Array  # whether that position is visible
    place_BT: jax.Array  # the place of each position; of a hidden one, any
    kept_BT: jax.Array  # whether the position has one


class EncoderDecoder(nnx.Module):
    """Features of all positions from the visible ones and the class; the last norm is the head's.

    Nothing of a hidden position enters: the encoder gives it no weight or has no place for it, and
    the decoder has a learned vector there.
    """

    def __init__(
        self,
        key: jax.Array,
        *,
        depth: int,
        decoder_depth: int,
        width: int,
        heads: int,
        mlp_hidden: int,
        buffer: int,
        positions: int,
        dropout: float,
        norm_epsilon: float,
        init: Init,
        platform: str,
        remat: str,
        unroll: bool,
    ):
        if buffer < 1:
            raise LabError(f"config.model.buffer = {buffer}: at least 1, or a class has no place")
        self.spec = spec = EncoderDecoderSpec(
            depth=depth,
            decoder_depth=decoder_depth,
            width=width,
            heads=heads,
            mlp_hidden=mlp_hidden,
            buffer=buffer,
            positions=positions,
            dropout=dropout,
            norm_epsilon=norm_epsilon,
            init=init,
            platform=platform,
            remat=remat,
            unroll=unroll,
        )
        keys = jax.random.split(key, 6)
        tokens, learned = (buffer + positions, width), ("positions", "embed")
        self.place = table(keys[0], tokens, learned, init)
        self.entry_norm = LayerNorm(width, epsilon=norm_epsilon)
        self.encoder = stacked(lambda k: ViTBlock(k, spec, depth=depth), keys[1], depth=depth)
        self.encoder_norm = LayerNorm(width, epsilon=norm_epsilon)
        self.bridge = Affine(matrix(keys[2], (width, width), ("embed", "embed_out"), init))
        self.mask = table(keys[3], (1, width), ("slots", "embed"), init)
        self.decoder_place = table(keys[4], tokens, learned, init)
        self.decoder = stacked(
            lambda k: ViTBlock(k, spec, depth=decoder_depth), keys[5], depth=decoder_depth
        )

    @jax.named_scope(LAYERS)
    def infill(
        self,
        x_BTD: jax.Array,
        hidden_BT: jax.Array,
        class_BD: jax.Array,
        angles_TK: np.ndarray | None,
        key: jax.Array | None,
        *,
        condition_BD: jax.Array | None = None,
        visible_limit: int | None = None,
        part: Part = WHOLE,
    ) -> jax.Array:
        """Features (B, T, D) of all positions; those hidden do not enter.

        At most `visible_limit` positions of an image are visible: the encoder then has so many
        places. Any beyond that count as hidden. Positions are learned and the class is in the
        buffer: the angles and the condition are not used.
        """
        keys = (None, None) if key is None else tuple(jax.random.split(key))
        limit = self._places(visible_limit)
        buffer_BbD = self._buffer(class_BD, x_BTD.dtype)
        if limit == self.spec.positions:
            encoded_BND = self._encode(buffer_BbD, x_BTD, ~hidden_BT, None, keys[0], part)
            return self._decode(encoded_BND, hidden_BT, keys[1], part)
        places = visible_first(hidden_BT, limit)
        kept_BVD = jnp.take_along_axis(x_BTD, places.position_BV[..., None], axis=1)
        encoded_BND = self._encode(
            buffer_BbD, kept_BVD, places.filled_BV, places.position_BV, keys[0], part
        )
        head_BbD, kept_BVD = jnp.split(encoded_BND, [self.spec.buffer], axis=1)
        spread_BTD = jnp.take_along_axis(kept_BVD, places.place_BT[..., None], axis=1)
        spread_BND = jnp.concatenate([head_BbD, spread_BTD], axis=1)
        return self._decode(spread_BND, ~places.kept_BT, keys[1], part)

    def _encode(
        self,
        buffer_BbD: jax.Array,
        x_BVD: jax.Array,
        filled_BV: jax.Array,
        position_BV: jax.Array | None,
        key: jax.Array | None,
        part: Part,
    ) -> jax.Array:
        """The buffer and the places, encoded and projected: what the decoder takes."""
        spec = self.spec
        x_BND = self._placed(buffer_BbD, x_BVD, position_BV)
        always_Bb = jnp.ones((x_BVD.shape[0], spec.buffer), bool)
        seen_BN = jnp.concatenate([always_Bb, filled_BV], axis=1)
        x_BND = self._run(self.encoder, self.entry_norm(x_BND), seen_BN, key, spec.depth, part)
        return self.bridge(self.encoder_norm(x_BND))

    def _buffer(self, class_BD: jax.Array, dtype) -> jax.Array:
        return jnp.repeat(class_BD[:, None].astype(dtype), self.spec.buffer, axis=1)

    def _placed(
        self, buffer_BbD: jax.Array, x_BVD: jax.Array, position_BV: jax.Array | None
    ) -> jax.Array:
        """The buffer and the places, each with the vector of its position."""
        start_bD, rest_TD = jnp.split(self.place[...].astype(x_BVD.dtype), [self.spec.buffer])
        at_BVD = rest_TD[None] if position_BV is None else rest_TD[position_BV]
        return jnp.concatenate([buffer_BbD + start_bD[None], x_BVD + at_BVD], axis=1)

    def observe(
        self,
        x_BTD: jax.Array,
        class_BD: jax.Array,
        look: Callable[[jax.Array, Callable[[], jax.Array]], Seen],
    ) -> list[tuple[jax.Array, Seen]]:
        """Of the encoder, then of the decoder: features (B, N, D) of the buffer and all positions,
        none hidden, and what `look` makes of each block: its input and a way to its weights.
        """

        def run(layers: nnx.Module, x_BND: jax.Array) -> tuple[jax.Array, Seen]:
            return observe_stack(
                layers,
                constrain_batch(x_BND),
                lambda block, x: block(x, None, None),
                lambda block, x: look(x, lambda: block.attention_weights(x)),
            )

        x_BND = self._placed(self._buffer(class_BD, x_BTD.dtype), x_BTD, None)
        encoded_BND, of_encoder = run(self.encoder, self.entry_norm(x_BND))
        x_BND = self.bridge(self.encoder_norm(encoded_BND))
        x_BND = x_BND + self.decoder_place[...].astype(x_BND.dtype)[None]
        return [(encoded_BND, of_encoder), run(self.decoder, x_BND)]

    def _decode(
        self, x_BND: jax.Array, hidden_BT: jax.Array, key: jax.Array | None, part: Part
    ) -> jax.Array:
        spec = self.spec
        head_BbD, x_BTD = jnp.split(x_BND, [spec.buffer], axis=1)
        mask_11D = self.mask[...].astype(x_BTD.dtype)[None]
        x_BTD = jnp.where(hidden_BT[..., None], mask_11D, x_BTD)
        x_BND = jnp.concatenate([head_BbD, x_BTD], axis=1)
        x_BND = x_BND + self.decoder_place[...].astype(x_BND.dtype)[None]
        x_BND = self._run(self.decoder, x_BND, None, key, spec.decoder_depth, part)
        return x_BND[:, spec.buffer :]

    def _run(
        self,
        layers: nnx.Module,
        x_BND: jax.Array,
        seen_BN: jax.Array | None,
        key: jax.Array | None,
        depth: int,
        part: Part,
    ) -> jax.Array:
        random = key is not None and self.spec.dropout > 0
        return run_stack(
            layers,
            constrain_batch(x_BND),
            lambda block, x, k: block(x, seen_BN, k, part),
            keys=jax.random.split(key, depth) if random else None,
            remat=self.spec.remat,
            unroll=self.spec.unroll,
        )

    def _places(self, visible_limit: int | None) -> int:
        """Positions that the encoder has room for."""
        if visible_limit is None:
            return self.spec.positions
        return max(1, min(visible_limit, self.spec.positions))

    def forward_flops(self, positions: int, visible: int) -> Flops:
        """Of one image with `visible` places in the encoder; the buffer runs through both."""
        spec = self.spec
        encoded, decoded = spec.buffer + visible, spec.buffer + positions
        blocks = (
            spec.depth * encoded * self.encoder.forward_flops
            + encoded * self.bridge.forward_flops
            + spec.decoder_depth * decoded * self.decoder.forward_flops
        )
        stacks = ((spec.depth, encoded), (spec.decoder_depth, decoded))
        attention = sum(
            depth * attention_flops(width=spec.width, queries=tokens, keys=tokens)
            for depth, tokens in stacks
        )
        return Flops(blocks, attention)

    def infill_flops(self, positions: int, *, visible_limit: int | None = None) -> Flops:
        """Of one image as `infill` runs it."""
        return self.forward_flops(positions, self._places(visible_limit))


def visible_first(hidden_BT: jax.Array, limit: int) -> Places:
    """Places for `limit` positions of each image."""
    order_BT = jnp.argsort(hidden_BT, axis=1, stable=True)
    rank_BT = jnp.argsort(order_BT, axis=1)
    position_BV = order_BT[:, :limit]
    return Places(
        position_BV=position_BV,
        filled_BV=~jnp.take_along_axis(hidden_BT, position_BV, axis=1),
        place_BT=jnp.minimum(rank_BT, limit - 1),
        kept_BT=~hidden_BT & (rank_BT < limit),
    )
