"""Functional forms of scaling laws: the one place where a law is added.

A form predicts the logarithm of the loss from parameters `theta` that are centred and free of
scale: log variables are relative to their mean over the table, losses to the smallest loss.
`theta` has shape (..., P) and log variables `z` have shape (n, V); every leading axis is a batch.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    import numpy as np

AMPLITUDES = ("A", "B", "G")
EXPONENTS = ("a", "b", "g")
SAME_VALUE = 0.01  # two values of a variable closer than 1 % are one value
SMALLEST_SPREAD = 0.1  # log units: a design closer than this to a ray does not separate two powers


@dataclass(frozen=True)
class Scale:
    """What was subtracted from the data: mean log of each variable, log of the smallest loss."""

    center: np.ndarray
    log_loss: float


@dataclass(frozen=True)
class Form(abc.ABC):
    """A law: a subclass gives names, bounds, starts and log_loss, and gets fits and intervals."""

    name: str
    variables: tuple[str, ...]

    @property
    @abc.abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Public names of the parameters, in the order of theta."""

    @property
    @abc.abstractmethod
    def formula(self) -> str:
        """The law in one line of text."""

    @property
    def domain(self) -> str:
        return "variables and losses above zero; losses fall towards a floor of at least zero"

    @abc.abstractmethod
    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Log loss over the scale, (..., n); must accept complex theta."""

    @abc.abstractmethod
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper limits of theta, (P,) each."""

    @abc.abstractmethod
    def starts(self, log_loss: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Starting points (count, P) for scaled log losses (n,)."""

    @abc.abstractmethod
    def public(self, theta: np.ndarray, scale: Scale) -> dict[str, np.ndarray]:
        """Parameters in the units of the table, by name, each of shape (...)."""

    @abc.abstractmethod
    def pin(self, pinned: Mapping[str, float], scale: Scale) -> np.ndarray:
        """Theta (P,) of the pinned parameters, NaN where free."""

    def jacobian(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        """d log_loss / d theta, (..., n, P); the default is a complex step, exact to rounding."""
        import numpy as np

        columns = []
        for index in range(theta.shape[-1]):
            step = np.zeros(theta.shape[-1], dtype=complex)
            step[index] = 1e-30j
            columns.append(np.imag(self.log_loss(theta + step, z)) / 1e-30)
        return np.stack(columns, axis=-1)

    def design_problem(self, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
        """Say why the design (n, V) cannot identify the free parameters, or None."""
        return None


def _distinct(log_values: np.ndarray) -> int:
    import numpy as np

    return 1 + int(np.sum(np.diff(np.sort(log_values)) > SAME_VALUE))


@dataclass(frozen=True)
class SumOfPowers(Form):
    """L = E + sum over variables of A x^-a; theta = (E / min L, then log A at the centre and a).

    One variable with a floor is M2 of Alabdulmohsin et al. 2022 (arXiv:2209.06640), without it M1;
    N and D with a floor is equation 10 of Hoffmann et al. 2022 (arXiv:2203.15556).
    """

    floor: bool = True

    @property
    def parameters(self) -> tuple[str, ...]:
        count = len(self.variables)
        pairs = zip(AMPLITUDES[:count], EXPONENTS[:count], strict=True)
        return ("E",) * self.floor + tuple(name for pair in pairs for name in pair)

    @property
    def formula(self) -> str:
        terms = [
            f"{amplitude} {variable}^-{exponent}"
            for variable, amplitude, exponent in zip(
                self.variables, AMPLITUDES, EXPONENTS, strict=False
            )
        ]
        return f"L({', '.join(self.variables)}) = {' + '.join(['E'] * self.floor + terms)}"

    def _terms(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The powers, (..., n, V)."""
        import numpy as np

        log_amplitude = theta[..., None, self.floor :: 2]
        exponent = theta[..., None, self.floor + 1 :: 2]
        return np.exp(log_amplitude - exponent * z)

    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        total = self._terms(theta, z).sum(axis=-1)
        return np.log(total + theta[..., :1]) if self.floor else np.log(total)

    def jacobian(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        terms = self._terms(theta, z)
        total = terms.sum(axis=-1) + (theta[..., :1] if self.floor else 0.0)
        shares = terms / total[..., None]
        out = np.empty((*shares.shape[:-1], theta.shape[-1]), dtype=shares.dtype)
        if self.floor:
            out[..., 0] = 1.0 / total
        out[..., self.floor :: 2] = shares
        out[..., self.floor + 1 :: 2] = -z * shares
        return out

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        count = len(self.variables)
        lower = [0.0] * self.floor + [-25.0, 1e-3] * count
        upper = [1.0] * self.floor + [12.0, 5.0] * count
        return np.array(lower), np.array(upper)

    def starts(self, log_loss: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Random floors, shares and exponents; the level is that of the data."""
        import numpy as np

        powers = len(self.variables)
        floor = 1.0 - 10 ** rng.uniform(-2.5, 0.0, count) if self.floor else np.zeros(count)
        above = np.exp(log_loss)[None, :] - floor[:, None]
        level = np.log(np.maximum(above, 1e-6)).mean(axis=-1)
        share = rng.dirichlet(np.full(powers, 2.0), count)
        exponent = 10 ** rng.uniform(-1.2, 0.2, (count, powers))
        out = np.empty((count, self.floor + 2 * powers))
        if self.floor:
            out[:, 0] = floor
        out[:, self.floor :: 2] = level[:, None] + np.log(share)
        out[:, self.floor + 1 :: 2] = exponent
        return np.clip(out, *self.bounds())

    def public(self, theta: np.ndarray, scale: Scale) -> dict[str, np.ndarray]:
        import numpy as np

        out = {"E": theta[..., 0] * np.exp(scale.log_loss)} if self.floor else {}
        for index in range(len(self.variables)):
            log_amplitude = theta[..., self.floor + 2 * index]
            exponent = theta[..., self.floor + 2 * index + 1]
            level = log_amplitude + exponent * scale.center[index] + scale.log_loss
            out[AMPLITUDES[index]] = np.exp(level)
            out[EXPONENTS[index]] = exponent
        return out

    def pin(self, pinned: Mapping[str, float], scale: Scale) -> np.ndarray:
        import numpy as np

        lower, upper = self.bounds()
        out = np.full(lower.shape, np.nan)
        for name, value in pinned.items():
            allowed = [p for p in self.parameters if p not in AMPLITUDES]
            if name not in allowed:
                raise AnalysisError(f"pinned {name!r}: {self.name} can pin {', '.join(allowed)}")
            index = self.parameters.index(name)
            out[index] = value / np.exp(scale.log_loss) if name == "E" else value
            if not lower[index] <= out[index] < upper[index]:
                limit = np.exp(scale.log_loss) if name == "E" else upper[index]
                raise AnalysisError(f"pinned {name} = {value:g}: allowed from 0 to {limit:.6g}")
        return out

    def design_problem(self, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
        """Too few values of one variable, or two variables that move together (D = k N)."""
        import numpy as np

        has_level = self.floor and "E" not in pinned
        for index, variable in enumerate(self.variables):
            own = (AMPLITUDES[index], EXPONENTS[index])
            needed = sum(name not in pinned for name in own) + has_level
            values = _distinct(log_x[:, index])
            if values < needed:
                return (
                    f"{values} value{'s' * (values != 1)} of {variable}; "
                    f"{', '.join(self.parameters)} need at least {needed}"
                )
        if len(self.variables) > 1:
            centred = log_x - log_x.mean(axis=0)
            spread = np.linalg.svd(centred, compute_uv=False)[-1] / np.sqrt(len(log_x))
            if spread < SMALLEST_SPREAD:
                names = " and ".join(self.variables)
                return f"{names} move together in every run (one ray): their powers are confounded"
        return None


def power_floor(variable: str = "N") -> SumOfPowers:
    """L(x) = E + A x^-a for x one of N, D, C."""
    return SumOfPowers(f"power_floor_{variable}", (variable,))


def power(variable: str = "N") -> SumOfPowers:
    """L(x) = A x^-a, without a floor (M1)."""
    return SumOfPowers(f"power_{variable}", (variable,), floor=False)


def separable() -> SumOfPowers:
    """L(N, D) = E + A N^-a + B D^-b."""
    return SumOfPowers("separable", ("N", "D"))


def named_forms() -> dict[str, Form]:
    """Every form by its name."""
    forms = [make(variable) for make in (power_floor, power) for variable in ("N", "D", "C")]
    return {form.name: form for form in [*forms, separable()]}


def form_named(name: str) -> Form:
    """The form of that name; an AnalysisError lists the names."""
    forms = named_forms()
    if name not in forms:
        raise AnalysisError(f"form {name!r}: allowed are {', '.join(forms)}")
    return forms[name]
