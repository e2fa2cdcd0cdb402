"""Rotary positions in two dimensions (Su et al. 2021; RoFormer, section 3.2, per axis).

T positions, K features of a head.
"""

import jax
import jax.numpy as jnp
import numpy as np


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


def rotate(x_BTHK: jax.Array, angles_TK: np.ndarray) -> jax.Array:
    """Turn the pairs (i, i + K / 2) of each head's features by the angles of their position.

    Pairing halves rather than neighbours is the same model up to an order of features.
    """
    cos_T1K = jnp.asarray(np.cos(angles_TK), x_BTHK.dtype)[None, :, None, :]
    sin_T1K = jnp.asarray(np.sin(angles_TK), x_BTHK.dtype)[None, :, None, :]
    a, b = jnp.split(x_BTHK, 2, axis=-1)
    return jnp.concatenate([a * cos_T1K - b * sin_T1K, a * sin_T1K + b * cos_T1K], axis=-1)
