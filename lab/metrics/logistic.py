"""Multinomial logistic regression with an L2 penalty, to a gradient that is checked.

N images, F features, K classes that have images.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lab.core.errors import LabError

MOST_ITERATIONS = 20_000  # of 8,000 images of pixels 2,000 were needed at lambda = 1e-7
MEMORY = 20  # pairs that L-BFGS keeps


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Logistic:
    """A solution: log probabilities are log_softmax(x W + b) over the classes that had images."""

    class_K: np.ndarray  # their numbers
    weight_FK: np.ndarray
    offset_K: np.ndarray
    penalty: float
    iterations: int
    gradient_norm: float  # Euclidean, of the objective in W and b

    def predicted(self, x_NF: np.ndarray) -> np.ndarray:
        """The likeliest class (N,) of each image."""
        return self.class_K[np.argmax(x_NF @ self.weight_FK + self.offset_K, axis=1)]

    def nats(self, x_NF: np.ndarray, label_N: np.ndarray) -> float:
        """Mean cross-entropy of images whose classes all had images."""
        log_p_NK = _log_softmax(x_NF @ self.weight_FK + self.offset_K)
        place_N = np.searchsorted(self.class_K, label_N)
        return -float(log_p_NK[np.arange(len(label_N)), place_N].mean())


class LogisticProblem:
    """mean cross-entropy + lambda / 2 |W|^2, in float64; the offsets b are free.

    Solved by L-BFGS (Liu & Nocedal 1989) in principal axes, each scaled by the curvature that the
    objective has along it at zero weights: features of any correlation then cost about as many
    iterations as independent ones.
    """

    def __init__(self, x_NF: np.ndarray, label_N: np.ndarray):
        self._class_K, place_N = np.unique(label_N, return_inverse=True)
        self._target_NK = np.eye(len(self._class_K))[place_N]
        variance_F, self._axes_FF = np.linalg.eigh(x_NF.T @ x_NF / len(x_NF))
        self._variance_F = np.maximum(variance_F, 0.0)
        self._x_NF = x_NF @ self._axes_FF

    def solve(self, penalty: float, *, tolerance: float, start: Logistic | None = None) -> Logistic:
        """The minimum for a penalty, lambda > 0, from another solution or from zero.

        Raises LabError where the gradient's norm does not come down to the tolerance.
        """
        from scipy.optimize import minimize

        features, classes = self._x_NF.shape[1], len(self._class_K)
        curvature_F = self._variance_F / classes + penalty
        scale_GK = np.append(curvature_F, 1 / classes)[:, None] ** -0.5 * np.ones((1, classes))
        first_GK = np.zeros((features + 1, classes))
        if start is not None:
            first_GK[:-1], first_GK[-1] = self._axes_FF.T @ start.weight_FK, start.offset_K
        last: list[float] = []

        def scaled(v: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient_GK = self._objective(v.reshape(scale_GK.shape) * scale_GK, penalty)
            last[:] = [float(np.linalg.norm(gradient_GK))]
            return value, (gradient_GK * scale_GK).ravel()

        def enough(intermediate_result) -> None:
            if last[0] <= tolerance:
                raise StopIteration

        options = {"maxiter": MOST_ITERATIONS, "maxfun": 2 * MOST_ITERATIONS, "maxcor": MEMORY}
        found = minimize(
            scaled,
            (first_GK / scale_GK).ravel(),
            jac=True,
            method="L-BFGS-B",
            callback=enough,
            options={**options, "ftol": 0.0, "gtol": 0.0},
        )
        solved_GK = found.x.reshape(scale_GK.shape) * scale_GK
        gradient_norm = float(np.linalg.norm(self._objective(solved_GK, penalty)[1]))
        if not gradient_norm <= tolerance:
            raise LabError(
                f"probe: gradient norm {gradient_norm:.1e} after {found.nit} iterations at "
                f"lambda = {penalty:.1e}: allowed is {tolerance:.1e}"
            )
        return Logistic(
            class_K=self._class_K,
            weight_FK=self._axes_FF @ solved_GK[:-1],
            offset_K=solved_GK[-1],
            penalty=penalty,
            iterations=int(found.nit),
            gradient_norm=gradient_norm,
        )

    def _objective(self, w_GK: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """Value and gradient in principal axes; the last row is the offsets."""
        log_p_NK = _log_softmax(self._x_NF @ w_GK[:-1] + w_GK[-1])
        images = len(log_p_NK)
        value = -np.sum(log_p_NK * self._target_NK) / images
        residual_NK = (np.exp(log_p_NK) - self._target_NK) / images
        gradient_GK = np.empty_like(w_GK)
        gradient_GK[:-1] = self._x_NF.T @ residual_NK + penalty * w_GK[:-1]
        gradient_GK[-1] = residual_NK.sum(axis=0)
        return float(value + penalty / 2 * np.sum(w_GK[:-1] ** 2)), gradient_GK


def _log_softmax(score_NK: np.ndarray) -> np.ndarray:
    score_NK = score_NK - score_NK.max(axis=1, keepdims=True)
    return score_NK - np.log(np.exp(score_NK).sum(axis=1, keepdims=True))
