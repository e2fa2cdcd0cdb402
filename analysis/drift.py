"""What no form knows, as a random walk beyond the edge of the data, measured by forward errors.

The variance of the drift grows by `rate` for each unit of log distance past the largest run. The
rate is what rolling-origin errors have more than the fitted law and its noise expect:
sum(error^2 - expected^2) / sum(log distance), at least zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from analysis.origins import ForwardError

SD_AT = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Walk:
    """Variance of log loss per unit of log distance beyond `edge`, the size of the largest run."""

    rate: float
    edge: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Standard deviation of the drift at x (n, V) in log units, (n,); zero up to the edge."""
        ahead = np.log(np.prod(x, axis=1) / self.edge)
        return np.sqrt(self.rate * np.maximum(ahead, 0.0))


def no_drift(x: np.ndarray) -> np.ndarray:
    """The form taken at its word, (n,) of zeros."""
    return np.zeros(len(x))


def rate_of(errors: tuple[ForwardError, ...]) -> float:
    """The rate of the walk that explains forward errors; zero where they are as expected."""
    distance = sum(np.log(error.distance) for error in errors)
    excess = sum(error.log_error**2 - error.expected_sd**2 for error in errors)
    return max(float(excess / distance), 0.0) if distance > 0 else 0.0
