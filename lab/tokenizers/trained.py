"""A trained tokenizer, from its run directory: images to codes to images, on any devices."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.codes import Alphabet, CodeKind, bits_to_subcodes, check_split, subcodes_to_bits
from lab.core.config import TokenizerRunConfig, identity
from lab.core.errors import LabError
from lab.core.finished import read_finished
from lab.core.layout import Layout, data_layout
from lab.core.store import Store, tree_sha256
from lab.tokenizers.autoencoder import Autoencoder
from lab.tokenizers.build import autoencoder_builder
from lab.tokenizers.levels import in_unit_range, to_levels
from lab.tokenizers.pixels import CHANNELS, Pixels, frames_of
from lab.tokenizers.spec import TokenSpec

PER_DEVICE = 32  # images at once: one compiled program whatever is asked for


class TrainedTokenizer:
    """Images uint8 to codes and back. All devices run the same program on PER_DEVICE images each,
    so that a code does not depend on how many devices or hosts encode.
    """

    def __init__(
        self,
        run: TokenizerRunConfig,
        params: Autoencoder,
        *,
        weights: str,
        digest: str,
        latent_std: float | None,
        devices: Sequence[jax.Device],
    ) -> None:
        self.run = run
        self.run_identity = identity(run)
        self.weights = weights  # "ema" where the run kept an average, else "raw"
        self.digest = digest  # SHA-256 (hex) of the parameters
        self.latent_std = latent_std  # of a continuous code: what a generator divides by
        self.frames: Pixels = frames_of(run.images.resolution, run.images.channels)
        self.layout = data_layout(devices)
        self.params = jax.device_put(params, self.layout.replicated())

    @property
    def name(self) -> str:
        """The name of its run, for people."""
        return self.run.name

    @property
    def identity(self) -> str:
        """Equal only when the codes of every image are equal."""
        return f"{self.run.code.kind}/1:{self.run_identity}:{self.weights}:{self.digest[:12]}"

    @property
    def alphabet(self) -> Alphabet:
        """The codes of a position."""
        return self.params.bottleneck.alphabet

    @functools.cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes."""
        side = self.run.images.resolution // self.params.downscale
        return side, side

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of an image."""
        side = self.run.images.resolution
        return side, side, CHANNELS[self.run.images.channels]

    @property
    def dims_per_image(self) -> int:
        """Sub-pixels of an image."""
        return math.prod(self.image_shape)

    def encode_frames(self, images: np.ndarray) -> np.ndarray:
        """Codes, as `Alphabet` states them, of images (B, R, R, C) uint8; no bit is drawn."""
        codes = self._in_batches(lambda part: self._encode(self.params, part), images)
        return codes.astype(self.alphabet.dtype)

    def decode_codes(self, codes: np.ndarray) -> np.ndarray:
        """Images (B, R, R, C) uint8 of codes; of a continuous code the mean is decoded."""
        if self.alphabet.kind is CodeKind.GAUSSIAN:
            codes = codes[..., : self.alphabet.size]
        whole = codes.astype(np.float32 if codes.dtype == np.float32 else np.int32)
        return self._in_batches(lambda part: self._decode(self.params, part), whole)

    def _in_batches(self, of: Callable[[Any], jax.Array], values: np.ndarray) -> np.ndarray:
        size, done = PER_DEVICE * self.layout.batch_shards, []
        for first in range(0, len(values), size):
            part = values[first : first + size]
            padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            placed = jax.device_put(padded, self.layout.batch_sharding())
            done.append(np.asarray(of(placed))[: len(part)])
        if not done:
            raise LabError(f"{self.name}: no images were given to encode or decode")
        return np.concatenate(done)

    @functools.cached_property
    def _encode(self) -> Callable[..., jax.Array]:
        rows = self.layout.batch_sharding()
        return jax.jit(_codes, in_shardings=(None, rows), out_shardings=rows)

    @functools.cached_property
    def _decode(self) -> Callable[..., jax.Array]:
        rows = self.layout.batch_sharding()
        return jax.jit(_images, in_shardings=(None, rows), out_shardings=rows)


def _codes(params: Autoencoder, images_u8: jax.Array, key: jax.Array | None = None) -> jax.Array:
    return params.encode(in_unit_range(images_u8), key)


def _images(params: Autoencoder, codes: jax.Array) -> jax.Array:
    return to_levels(params.decode(codes)).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True)
class SplitTokenizer:
    """A trained tokenizer as a generator sees it: t sub-codes at each position of the grid.

    Bits fall into `subcodes` groups (ELM's t-k split); an id is one code. `sampled` says that
    training draws the bits anew each time.
    """

    trained: TrainedTokenizer
    subcodes: int
    sampled: bool = False

    def __post_init__(self) -> None:
        alphabet = self.trained.alphabet
        if alphabet.kind is CodeKind.GAUSSIAN:
            raise LabError(
                f"tokenizer {self.trained.name}: {alphabet} are continuous; a head over codes "
                "needs bits or ids"
            )
        if alphabet.kind is CodeKind.BITS:
            check_split(alphabet.size, self.subcodes)
        elif self.subcodes != 1:
            raise LabError(
                f"config.model.subcodes = {self.subcodes}: {alphabet} of {self.trained.name} are "
                "one code a position"
            )

    @property
    def vocabulary(self) -> int:
        """Codes of a sub-code."""
        alphabet = self.trained.alphabet
        bits = alphabet.kind is CodeKind.BITS
        return 2 ** (alphabet.size // self.subcodes) if bits else alphabet.size

    @property
    def spec(self) -> TokenSpec:
        """One token a position; bits per dimension are per sub-pixel of the image."""
        rows, columns = self.trained.grid
        drawn = ":sampled" if self.sampled else ""
        return TokenSpec(
            name=self.trained.name,
            vocabulary=self.vocabulary,
            tokens_per_image=rows * columns,
            subcodes=self.subcodes,
            dims_per_image=self.trained.dims_per_image,
            grid=(rows, columns, 1),
            identity=f"{self.trained.identity}:{self.subcodes}{drawn}",
        )

    @property
    def identity(self) -> str:
        """The identity of the spec."""
        return self.spec.identity

    def tokens(self, codes: np.ndarray) -> np.ndarray:
        """Tokens (B, T * S) of codes of the grid; the sub-codes of a position stand together."""
        if self.trained.alphabet.kind is CodeKind.BITS:
            codes = bits_to_subcodes(codes, self.subcodes)
        return codes.reshape(len(codes), -1)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Tokens (B, T * S) of images (B, H, W, C) uint8."""
        return self.finish(self.frame(images))

    def frame(self, images: np.ndarray) -> np.ndarray:
        """Frames (B, R * R * C) uint8 of images (B, H, W, C) uint8."""
        return self.trained.frames.encode(images)

    def finish(self, frames: np.ndarray) -> np.ndarray:
        """Tokens (B, T * S) of frames."""
        images = frames.reshape(-1, *self.trained.image_shape)
        return self.tokens(self.trained.encode_frames(images))

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Images (B, R, R, C) uint8 of tokens (B, T * S)."""
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocabulary:
            raise LabError(f"{self.trained.name}: a token is not in 0 to {self.vocabulary - 1}")
        grid, alphabet = self.trained.grid, self.trained.alphabet
        if alphabet.kind is CodeKind.BITS:
            codes = subcodes_to_bits(tokens.reshape(-1, *grid, self.subcodes), alphabet.size)
        else:
            codes = tokens.reshape(-1, *grid)
        return self.trained.decode_codes(codes)

    def encoder_on(self, layout: Layout) -> Callable[..., jax.Array]:
        """(frames (B, R * R * C) uint8, key or None, first) -> codes (B, T, S) on these devices.

        With a key the bits are drawn; image i of the batch draws by number `first` + i of the key,
        whatever else is in the batch and however it is spread over devices.
        """
        params = layout.replicate(self.trained.params)
        shape, subcodes = self.trained.image_shape, self.subcodes
        bits = self.trained.alphabet.kind is CodeKind.BITS

        def encode(
            params: Autoencoder, frames: jax.Array, key: jax.Array | None, first: int
        ) -> jax.Array:
            if key is not None:
                numbers = first + jnp.arange(len(frames))
                key = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)
            codes = _codes(params, frames.reshape(-1, *shape), key)
            if bits:
                groups = codes.reshape(*codes.shape[:-1], subcodes, -1).astype(jnp.int32)
                places = 2 ** jnp.arange(groups.shape[-1] - 1, -1, -1, dtype=jnp.int32)
                codes = jnp.sum(groups * places[None, None, None, None], axis=-1)
            return codes.astype(jnp.int32).reshape(codes.shape[0], -1, subcodes)

        rows = layout.batch_sharding()
        compiled = jax.jit(encode, in_shardings=(None, rows, None, None), out_shardings=rows)
        return lambda frames, key, first: compiled(params, frames, key, first)


def open_tokenizer(
    directory: pathlib.Path, *, devices: Sequence[jax.Device] | None = None
) -> TrainedTokenizer:
    """The tokenizer of a finished run; its average where the run kept one.

    Raises LabError for a directory of anything else, and for a run that has not ended well.
    """
    finished = read_finished(directory, TokenizerRunConfig)
    run, rows = finished.run, finished.rows
    weights = "ema" if run.optimizer.ema_decay else "raw"
    part = "params" if weights == "raw" else weights
    make = autoencoder_builder(run, compute_dtype="float32")
    like = {part: jax.eval_shape(make, jax.random.key(0))}
    with Store(directory / "checkpoints", writable=False) as store:
        restored = store.restore(like, step=finished.step, part=True)
    assert restored is not None  # a named step is restored or raises
    return TrainedTokenizer(
        run,
        restored.tree[part],
        weights=weights,
        digest=tree_sha256(restored.tree[part]),
        latent_std=_last(rows, weights).get("latent_std"),
        devices=devices or jax.local_devices()[:1],
    )


def _last(rows: list[dict[str, Any]], weights: str) -> dict[str, Any]:
    found = [r for r in rows if r["kind"] == "evaluation" and r["weights"] == weights]
    return found[-1] if found else {}
