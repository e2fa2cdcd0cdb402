"""The way that an autoregressive model takes over the positions of its grid.

B images, T positions, K half the features of a head.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Path:
    """Positions, by their number in raster order, as they follow each other.

    (T,) on the host for all images alike, or (B, T) for each image.
    """

    position: Any

    @property
    def shared(self) -> bool:
        """Whether all images go the same way."""
        return self.position.ndim == 1

    @property
    def straight(self) -> bool:
        """Whether it is raster order."""
        return self.shared and np.array_equal(self.position, np.arange(len(self.position)))

    def along(self, x_BT: Any) -> Any:
        """Values (B, T, ...) that stand in raster order, in the order of the way."""
        if self.straight:
            return x_BT
        return x_BT[:, self.position] if self.shared else _taken(x_BT, self.position)

    def back(self, x_BT: Any) -> Any:
        """Values (B, T, ...) that stand in the order of the way, in raster order."""
        if self.straight:
            return x_BT
        if self.shared:
            return x_BT[:, np.argsort(self.position)]
        return _taken(x_BT, jnp.argsort(self.position, axis=1))

    def angles(self, angles_NK: np.ndarray) -> Any:
        """Of the angles (1 + T, K) of a prefix and all positions those along the way.

        (1 + T, K), or (B, 1 + T, K).
        """
        if self.shared:
            return angles_NK[np.concatenate([[0], 1 + self.position])]
        index_BN = jnp.pad(1 + self.position, ((0, 0), (1, 0)))
        return jnp.asarray(angles_NK)[index_BN]


def _taken(x_BT: Any, index_BT: jax.Array) -> jax.Array:
    return jax.vmap(lambda x_T, index_T: x_T[index_T])(jnp.asarray(x_BT), index_BT)
