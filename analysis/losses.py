"""What a fit minimises: a function of the log residuals, with its first two derivatives."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace

import numpy as np

from analysis.errors import AnalysisError

LAD_DELTA = 1e-8  # log units: the corner of the absolute value is rounded this much
PATH_FACTOR = 4.0  # from one delta to the next on the way to a small one
LONGEST_PATH = 12


@dataclass(frozen=True)
class Loss(abc.ABC):
    """rho(r), psi = rho', curvature = rho''; r = log(measured / fitted), any shape."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As it is called in a summary."""

    @abc.abstractmethod
    def rho(self, residual: np.ndarray) -> np.ndarray:
        """The value."""

    @abc.abstractmethod
    def psi(self, residual: np.ndarray) -> np.ndarray:
        """The derivative."""

    @abc.abstractmethod
    def curvature(self, residual: np.ndarray) -> np.ndarray:
        """The second derivative."""

    def path(self, residual: np.ndarray) -> list[Loss]:
        """Smoother versions to descend first, the smoothest first, from residuals of that size."""
        return []


@dataclass(frozen=True)
class Squares(Loss):
    """Least squares on log residuals."""

    @property
    def name(self) -> str:
        return "least squares on log residuals"

    def rho(self, residual: np.ndarray) -> np.ndarray:
        return 0.5 * residual**2

    def psi(self, residual: np.ndarray) -> np.ndarray:
        return residual

    def curvature(self, residual: np.ndarray) -> np.ndarray:
        return np.ones_like(residual)


@dataclass(frozen=True)
class _Corner(Loss):
    """A loss that grows like the absolute value beyond delta."""

    delta: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.delta < np.inf:
            raise AnalysisError(f"delta {self.delta}: must be finite and above zero")

    def path(self, residual: np.ndarray) -> list[Loss]:
        largest = float(np.nanquantile(np.abs(residual), 0.95))
        steps = int(np.ceil(np.log(max(largest / self.delta, 1.0)) / np.log(PATH_FACTOR)))
        powers = range(min(steps, LONGEST_PATH), 0, -1)
        return [replace(self, delta=self.delta * PATH_FACTOR**k) for k in powers]


@dataclass(frozen=True)
class Huber(_Corner):
    """Huber (1964); delta in log units, so 1e-3 is 0.1 % of the loss: nearly absolute values."""

    @property
    def name(self) -> str:
        return f"Huber (delta {self.delta:g}) on log residuals"

    def rho(self, residual: np.ndarray) -> np.ndarray:
        size = np.abs(residual)
        return np.where(
            size <= self.delta, 0.5 * residual**2, self.delta * (size - 0.5 * self.delta)
        )

    def psi(self, residual: np.ndarray) -> np.ndarray:
        return np.clip(residual, -self.delta, self.delta)

    def curvature(self, residual: np.ndarray) -> np.ndarray:
        return (np.abs(residual) <= self.delta).astype(float)


@dataclass(frozen=True)
class Lad(Huber):
    """Least absolute deviations: Huber's limit, to eight digits of the loss."""

    delta: float = LAD_DELTA

    @property
    def name(self) -> str:
        return "least absolute log residuals"


@dataclass(frozen=True)
class SoftL1(_Corner):
    """delta^2 (sqrt(1 + (r / delta)^2) - 1): Huber's shape with all derivatives."""

    delta: float = 1e-2

    @property
    def name(self) -> str:
        return f"soft L1 (delta {self.delta:g}) on log residuals"

    def rho(self, residual: np.ndarray) -> np.ndarray:
        return residual**2 / (1.0 + np.hypot(1.0, residual / self.delta))  # without cancelling

    def psi(self, residual: np.ndarray) -> np.ndarray:
        return residual / np.hypot(1.0, residual / self.delta)

    def curvature(self, residual: np.ndarray) -> np.ndarray:
        return np.hypot(1.0, residual / self.delta) ** -3.0


@dataclass(frozen=True)
class Asymmetric(Huber):
    """Huber, `below` times as steep for runs under the law: the law follows the lower envelope."""

    below: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.below > 0:
            raise AnalysisError(f"below {self.below}: must be above zero")

    @property
    def name(self) -> str:
        return f"asymmetric Huber (delta {self.delta:g}, {self.below:g} x below the law)"

    def _factor(self, residual: np.ndarray) -> np.ndarray:
        return np.where(residual < 0, self.below, 1.0)

    def rho(self, residual: np.ndarray) -> np.ndarray:
        return self._factor(residual) * super().rho(residual)

    def psi(self, residual: np.ndarray) -> np.ndarray:
        return self._factor(residual) * super().psi(residual)

    def curvature(self, residual: np.ndarray) -> np.ndarray:
        return self._factor(residual) * super().curvature(residual)


NAMED = {
    "squares": Squares,
    "huber": Huber,
    "soft_l1": SoftL1,
    "lad": Lad,
    "asymmetric": Asymmetric,
}


def loss_named(name: str, delta: float | None = None) -> Loss:
    """A loss by its name; delta (log units) where it has one, else its default."""
    if name not in NAMED:
        raise AnalysisError(f"loss {name!r}: allowed are {', '.join(NAMED)}")
    if delta is None:
        return NAMED[name]()
    if name in ("squares", "lad"):
        raise AnalysisError(f"delta {delta:g}: the loss {name!r} has none")
    return NAMED[name](delta=delta)
