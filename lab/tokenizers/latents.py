"""Continuous latents of a trained KL autoencoder, as a generator sees them.

B images, T positions, C channels.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.codes import CodeKind
from lab.core.errors import LabError
from lab.core.layout import Layout
from lab.tokenizers.spec import TokenSpec
from lab.tokenizers.trained import TrainedTokenizer


@dataclasses.dataclass(frozen=True)
class LatentTokenizer:
    """A trained KL autoencoder: a position holds C numbers of about unit variance.

    Rows of tokens are the moments of the posterior, means before log variances, divided by the
    latent's standard deviation over the tokenizer's validation images; a generator learns draws.
    """

    trained: TrainedTokenizer

    def __post_init__(self) -> None:
        if self.trained.alphabet.kind is not CodeKind.GAUSSIAN:
            raise LabError(f"tokenizer {self.trained.name}: {self.trained.alphabet} are no latents")
        if self.trained.latent_std is None:
            raise LabError(f"tokenizer {self.trained.name}: its run has not measured latent_std")

    @property
    def scale(self) -> float:
        """What latents are divided by."""
        assert self.trained.latent_std is not None  # checked above
        return self.trained.latent_std

    @property
    def channels(self) -> int:
        """Numbers at a position."""
        return self.trained.alphabet.size

    @property
    def spec(self) -> TokenSpec:
        """One latent a position; bits per dimension are per sub-pixel of the image."""
        rows, columns = self.trained.grid
        return TokenSpec(
            name=self.trained.name,
            vocabulary=0,
            tokens_per_image=rows * columns,
            subcodes=1,
            dims_per_image=self.trained.dims_per_image,
            grid=(rows, columns, 1),
            identity=f"{self.trained.identity}:latents",
            channels=self.channels,
        )

    @property
    def identity(self) -> str:
        """The identity of the spec."""
        return self.spec.identity

    def tokens(self, codes: np.ndarray) -> np.ndarray:
        """Rows (B, T * 2 C) float32 of codes (B, rows, columns, 2 C), scaled."""
        mean, log_variance = np.split(codes.astype(np.float32), 2, axis=-1)
        scaled = (mean / self.scale, log_variance - 2 * math.log(self.scale))
        return np.concatenate(scaled, axis=-1, dtype=np.float32).reshape(len(codes), -1)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Rows (B, T * 2 C) of images (B, H, W, C) uint8."""
        return self.finish(self.frame(images))

    def frame(self, images: np.ndarray) -> np.ndarray:
        """Frames (B, R * R * C) uint8 of images (B, H, W, C) uint8."""
        return self.trained.frames.encode(images)

    def finish(self, frames: np.ndarray) -> np.ndarray:
        """Rows (B, T * 2 C) of frames."""
        images = frames.reshape(-1, *self.trained.image_shape)
        return self.tokens(self.trained.encode_frames(images))

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Images (B, R, R, C) uint8 of latents (B, T * C)."""
        latents = tokens.reshape(-1, *self.trained.grid, self.channels)
        return self.trained.decode_codes((latents * self.scale).astype(np.float32))

    def drawer_on(self, layout: Layout) -> Callable[..., tuple[jax.Array, jax.Array]]:
        """(rows (B, T * 2 C), key, number (B,)) -> latents (B, T, C) and posterior_nats (B,).

        An image draws by its number of the key, whatever else is in the batch and on whichever
        host. posterior_nats is minus the log density of the draw under the posterior.
        """
        channels, rows = self.channels, layout.batch_sharding()

        def draw(moments: jax.Array, key: jax.Array, number_B: jax.Array):
            key_B = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, number_B)
            mean, log_variance = jnp.split(
                moments.reshape(len(moments), -1, 2 * channels), 2, axis=-1
            )
            noise = jax.vmap(lambda k: jax.random.normal(k, mean.shape[1:]))(key_B)
            nats = (noise**2 + log_variance + math.log(2 * math.pi)) / 2
            return mean + jnp.exp(log_variance / 2) * noise, jnp.sum(nats, axis=(1, 2))

        return jax.jit(draw, in_shardings=(rows, None, rows), out_shardings=(rows, rows))
