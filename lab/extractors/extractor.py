"""What turns images into features and class probabilities, and how images are brought to it.

B batch, H rows, W columns, C channels, F features, K classes.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lab.core.errors import LabError

LUMA = (0.299, 0.587, 0.114)  # Rec. 601
PRECISION = "highest"  # of products: TPUs and GPUs would round their factors to fewer bits


class Features(NamedTuple):
    """Of one batch, both float32."""

    features_BF: jax.Array
    log_probabilities_BK: jax.Array


class Extractor(Protocol):
    """Images to features: pure, and a pytree of its weights.

    Compile it as `jax.jit(lambda extractor, images: extractor(images))`: weights that are closed
    over become constants of the program, of which Inception has 95 MB.
    """

    @property
    def name(self) -> str:
        """For people: "conv-small", "inception-v3"."""
        ...

    @property
    def identity(self) -> str:
        """Twelve hex digits of its weights and of what is done to an image before them."""
        ...

    @property
    def metric(self) -> str:
        """What a Frechet distance in its features is called: "fid", "fd_eurosat"."""
        ...

    @property
    def features(self) -> int:
        """F."""
        ...

    @property
    def classes(self) -> int:
        """K."""
        ...

    @property
    def about(self) -> dict[str, Any]:
        """What a record says of it, as JSON."""
        ...

    def __call__(self, images_BHWC: jax.Array) -> Features:
        """Of images uint8, square, of any side, with 1 or 3 channels; grey is repeated."""
        ...


def resized(images_BHWC: jax.Array, *, side: int, channels: int, antialias: bool) -> jax.Array:
    """Levels (B, side, side, channels) float32, 0 to 255, of images uint8.

    Bilinear with half-pixel centres (a pixel's centre stands at its index plus a half); with
    `antialias` the kernel widens where an image shrinks. Grey is repeated, colour becomes grey by
    Rec. 601. Raises LabError for what is no batch of square images of 1 or 3 channels.
    """
    shape = images_BHWC.shape
    square = len(shape) == 4 and shape[1] == shape[2] and shape[3] in (1, 3)
    if not square or images_BHWC.dtype != jnp.uint8:
        raise LabError(
            f"images {images_BHWC.dtype} {shape}: an extractor takes uint8 (B, R, R, 1 or 3)"
        )
    levels_BHWC = images_BHWC.astype(jnp.float32)
    if channels > shape[3]:
        levels_BHWC = jnp.repeat(levels_BHWC, channels, axis=3)
    elif channels < shape[3]:
        weights = jnp.asarray(LUMA, jnp.float32).reshape(1, 1, 1, 3)
        levels_BHWC = jnp.sum(levels_BHWC * weights, axis=3, keepdims=True)
    wanted = (shape[0], side, side, channels)
    return jax.image.resize(levels_BHWC, wanted, "bilinear", antialias=antialias)
