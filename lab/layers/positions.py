"""Fixed positions in two dimensions: rotations (Su et al. 2021; RoFormer, section 3.2, per axis)
and sinusoids.

B batch, T positions, H heads, K features of a head.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lab.core.errors import LabError

SINUSOID_BASE = 10_000
Angles = np.ndarray | jax.Array  # on the host for all images, on the device for each


def grid_angles(rows: int, columns: int, *, head_features: int, base: float) -> np.ndarray:
    """Angles (rows * columns, head_features / 2): one half turns by row, the other by column.

    Each half uses the frequencies base^(-2 i / (head_features / 2)).
    """
    half = head_features // 2
    frequencies = base ** (-np.arange(0, half, 2) / half)
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.concatenate([row[:, None] * frequencies, column[:, None] * frequencies], axis=1)


def with_prefix(angles_TK: np.ndarray) -> np.ndarray:
    """The angles with a prefix token before them that is not turned: the identity rotation.

    The published code of LlamaGen, ELM and BiGR gives the class token (cos, sin) = (0, 0), which
    zeroes its query and key, so that every query gives it the constant logit 0. Here it attends
    and is attended like any other token.
    """
    return np.concatenate([np.zeros_like(angles_TK[:1]), angles_TK])


def rotate(x_BTHK: jax.Array, angles_TK: Angles) -> jax.Array:
    """Turn the pairs (i, i + K / 2) of each head's features by the angles of their position.

    The angles are (T, K), or (B, T, K) where each image has its own. Pairing halves rather than
    neighbours is the same model up to an order of features.
    """
    cos_BT1K, sin_BT1K = (each[..., None, :] for each in _cos_sin(angles_TK, x_BTHK.dtype))
    return _turned(x_BTHK, cos_BT1K, sin_BT1K)


def rotate_one(x_BHK: jax.Array, angles_TK: Angles, index: jax.Array | int) -> jax.Array:
    """Turn the features of one position, number `index`, which may be traced."""
    cos_BT1K, sin_BT1K = (each[..., None, :] for each in _cos_sin(angles_TK, x_BHK.dtype))
    return _turned(x_BHK, cos_BT1K[:, index], sin_BT1K[:, index])


def _cos_sin(angles_TK: Angles, dtype) -> tuple[jax.Array, jax.Array]:
    """(1, T, K), computed on the host in float64, or (B, T, K)."""
    host = isinstance(angles_TK, np.ndarray)
    cos, sin = (np.cos, np.sin) if host else (jnp.cos, jnp.sin)
    angles_BTK = angles_TK[None] if host else angles_TK
    return jnp.asarray(cos(angles_BTK), dtype), jnp.asarray(sin(angles_BTK), dtype)


def _turned(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def sinusoids(rows: int, columns: int, *, width: int) -> np.ndarray:
    """Fixed features (rows * columns, width): half tell the row, the other half the column.

    Each half is sin and cos at frequencies 10000^(-i / (width / 4)) (Vaswani et al. 2017, section
    3.5, for each axis). Raises LabError unless 4 divides the width.
    """
    if width % 4:
        raise LabError(f"width {width}: sinusoids in two dimensions need a multiple of 4")
    frequencies = SINUSOID_BASE ** (-np.arange(width // 4) / (width // 4))
    place = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    angles = place[:, :, None] * frequencies  # (T, 2, width / 4)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=2).reshape(rows * columns, width)
