"""A straight line through points that have known errors and an unknown lack of fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.frontier import Value

SMALLEST_ERROR = 1e-9  # relative to the largest standard error; keeps weights finite


@dataclass(frozen=True)
class Line:
    """y = level + slope (x - center): coefficients (2,), covariance (2, 2), lack of fit (sd)."""

    center: float
    coefficients: np.ndarray
    covariance: np.ndarray
    degrees_of_freedom: int
    lack_of_fit: float

    @property
    def slope(self) -> float:
        return float(self.coefficients[1])

    def _value(self, direction: np.ndarray, level: float) -> Value:
        from scipy import stats

        middle = float(direction @ self.coefficients)
        quantile = stats.t.ppf(0.5 + level / 2, self.degrees_of_freedom)
        half = float(quantile * np.sqrt(direction @ self.covariance @ direction))
        return Value(middle, middle - half, middle + half)

    def slope_at(self, level: float) -> Value:
        """The slope with its interval."""
        return self._value(np.array([0.0, 1.0]), level)

    def at(self, x: float, level: float) -> Value:
        """The line at x with its interval."""
        return self._value(np.array([1.0, x - self.center]), level)


def _weighted(design: np.ndarray, y: np.ndarray, variance: np.ndarray):
    """Coefficients, their covariance under the given variances, and the weighted squares."""
    information = design.T @ (design / variance[:, None])
    inverse = np.linalg.inv(information)
    coefficients = inverse @ (design.T @ (y / variance))
    squares = float(np.sum((y - design @ coefficients) ** 2 / variance))
    return coefficients, inverse, squares


def _lack_of_fit(design: np.ndarray, y: np.ndarray, known: np.ndarray) -> float:
    """Variance beyond the known one at which the weighted squares are n - 2 (Paule & Mandel 1982).

    Zero where the known errors explain the scatter already. The squares fall as it grows.
    """
    freedom = len(y) - 2
    if _weighted(design, y, known)[2] <= freedom:
        return 0.0
    low, high = 0.0, float(np.sum((y - y.mean()) ** 2)) + float(known.max())
    for _ in range(200):
        middle = 0.5 * (low + high)
        if _weighted(design, y, known + middle)[2] > freedom:
            low = middle
        else:
            high = middle
    return high


def line(x: np.ndarray, y: np.ndarray, se: np.ndarray) -> Line:
    """Weighted regression of y (n,) on x with standard errors se and a common lack of fit; n >= 3.

    Weights are 1 / (se^2 + tau^2), tau^2 by Paule & Mandel. The covariance is scaled by the
    weighted squares over n - 2, to be used with Student's t (Knapp & Hartung 2003), so the interval
    follows the scatter of the points and not the belief in their errors.
    """
    center = float(x.mean())
    design = np.column_stack([np.ones_like(x), x - center])
    largest = float(se.max())
    known = np.maximum(se, SMALLEST_ERROR * largest) ** 2 if largest > 0 else np.ones_like(se)
    extra = _lack_of_fit(design, y, known) if largest > 0 else 0.0
    coefficients, inverse, squares = _weighted(design, y, known + extra)
    freedom = len(y) - 2
    return Line(center, coefficients, inverse * squares / freedom, freedom, float(np.sqrt(extra)))
