"""A law in which one amplitude is a parameter of its own, so that it can be held at a value.

Theta holds the log of a term at the centre of the data; the public amplitude A hangs on the
exponents as well. Here that entry of theta is log A, and the term follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.form import Form, Kind, Parameter, Scale

if TYPE_CHECKING:
    import numpy as np

REACH = 100.0  # log units to either side of the fit: as far as an amplitude is followed


@dataclass(frozen=True)
class ByAmplitude(Form):
    """The law `own` with entry `index` (an amplitude or a ratio) as the log of its public number.

    `center` is the log amplitude of the fit.
    """

    own: Form
    index: int
    units: Scale
    center: float

    @property
    def entries(self) -> tuple[Parameter, ...]:
        entries = list(self.own.entries)
        name = entries[self.index].name
        limits = (self.center - REACH, self.center + REACH)
        entries[self.index] = Parameter(name, Kind.LOG, *limits, limits)
        return tuple(entries)

    @property
    def formula(self) -> str:
        return self.own.formula

    @property
    def constants(self) -> Mapping[str, float]:
        return self.own.constants

    def outer(self, theta: np.ndarray) -> np.ndarray:
        """Theta of this law from theta (..., P) of the own one."""
        out = theta.copy()
        name = self.parameters[self.index]
        out[..., self.index] = self.own.log_amplitude(name, theta, self.units)
        return out

    def inner(self, theta: np.ndarray) -> np.ndarray:
        """Theta (..., P) of the own law: log amplitudes are their entry of theta and a rest."""
        out = theta.copy()
        out[..., self.index] -= self._rest(theta)
        return out

    def _rest(self, theta: np.ndarray) -> np.ndarray:
        plain = theta.copy()
        plain[..., self.index] = 0.0
        return self.own.log_amplitude(self.parameters[self.index], plain, self.units)

    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        return self.own.log_loss(self.inner(theta), z)

    def jacobian(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        """By the chain rule; the slope of the rest by a complex step."""
        import numpy as np

        own = self.own.jacobian(self.inner(theta), z)
        rest = np.empty(theta.shape)
        for index in range(theta.shape[-1]):
            step = np.zeros(theta.shape[-1], dtype=complex)
            step[index] = 1e-30j
            rest[..., index] = np.imag(self._rest(theta + step)) / 1e-30
        return own - own[..., self.index : self.index + 1] * rest[..., None, :]

    def log_amplitude(self, name: str, theta: np.ndarray, scale: Scale) -> np.ndarray:
        return self.own.log_amplitude(name, self.inner(theta), scale)
