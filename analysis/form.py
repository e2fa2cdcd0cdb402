"""What a functional form is: parameters with limits and starts, a log loss, public numbers.

A form predicts the logarithm of the loss from parameters `theta` that are centred and free of
scale: log variables are relative to their mean over the table, losses to the smallest loss.
`theta` has shape (..., P) and log variables `z` have shape (n, V); every leading axis is a batch.
The laws themselves are in analysis/forms.py.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    import numpy as np

SAME_VALUE = 0.01  # two values of a variable closer than 1 % are one value
SMALLEST_SPREAD = 0.1  # log units: a design closer than this to a ray does not separate two powers


class Kind(enum.Enum):
    """How an entry of theta is read as a public number."""

    LOSS = "a loss: theta is over the smallest loss"
    LEVEL = "an amplitude: theta is the log of its term at the centre"
    RATIO = "a ratio of two terms: theta is its log at the centre"
    EXPONENT = "an exponent or another number without units"
    LOG = "a number above zero: theta is its log"
    PLACE = "a value of the first variable: theta is its log from the centre"


FREE = (Kind.LEVEL, Kind.RATIO)  # their public numbers hang on the exponents: they are not pinned


@dataclass(frozen=True)
class Parameter:
    """One entry of theta: public name, kind, limits, and the range that random starts come from."""

    name: str
    kind: Kind
    lower: float
    upper: float
    start: tuple[float, float]


def floor(upper: float = 1.0) -> Parameter:
    """E, the irreducible loss: from zero to the smallest loss measured."""
    return Parameter("E", Kind.LOSS, 0.0, upper, (0.0, 1.0))


def level(name: str) -> Parameter:
    """The log of a term of the law at the centre of the data."""
    return Parameter(name, Kind.LEVEL, -25.0, 12.0, (-1.5, 0.0))


def exponent(name: str, *, largest: float = 5.0) -> Parameter:
    """A falling power."""
    return Parameter(name, Kind.EXPONENT, 1e-3, largest, (0.06, 1.6))


@dataclass(frozen=True)
class Scale:
    """What was subtracted from the data: mean log of each variable, log of the smallest loss."""

    center: np.ndarray
    log_loss: float


@dataclass(frozen=True)
class Form(abc.ABC):
    """A law. A subclass gives entries, formula, log_loss and log_amplitude, and gets the rest."""

    name: str
    variables: tuple[str, ...]

    @property
    @abc.abstractmethod
    def entries(self) -> tuple[Parameter, ...]:
        """The entries of theta in their order."""

    @property
    @abc.abstractmethod
    def formula(self) -> str:
        """The law in one line of text."""

    @abc.abstractmethod
    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Log loss over the scale, (..., n); must accept complex theta."""

    @abc.abstractmethod
    def log_amplitude(self, name: str, theta: np.ndarray, scale: Scale) -> np.ndarray:
        """Log of the public number of a LEVEL or RATIO entry, (...)."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Public names of the parameters, in the order of theta."""
        return tuple(entry.name for entry in self.entries)

    @property
    def domain(self) -> str:
        """Where the law may be asked."""
        return "variables and losses above zero; losses fall towards a floor of at least zero"

    @property
    def constants(self) -> Mapping[str, float]:
        """Parameters that are known and never fitted, by public name."""
        return {}

    def scale(self, log_x: np.ndarray, log_loss: np.ndarray) -> Scale:
        """The centre of a design (n, V) and the smallest of the log losses (n,)."""
        return Scale(log_x.mean(axis=0), float(log_loss.min()))

    def size(self, x: np.ndarray) -> np.ndarray:
        """How large a run at x (n, V) is, in proportion to its compute, (n,)."""
        import numpy as np

        return np.prod(x, axis=1)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper limits of theta, (P,) each."""
        import numpy as np

        lower, upper = zip(*((entry.lower, entry.upper) for entry in self.entries), strict=True)
        return np.array(lower), np.array(upper)

    def starts(
        self, z: np.ndarray, log_loss: np.ndarray, count: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Random starting points (count, P), their level that of the scaled log losses (n,)."""
        import numpy as np

        theta = np.stack([_start(entry, z[:, 0], count, rng) for entry in self.entries], axis=-1)
        levels = [i for i, entry in enumerate(self.entries) if entry.kind is Kind.LEVEL]
        named = self.parameters
        ground = theta[:, named.index("E")] if "E" in named else np.zeros(count)
        above = np.log(np.maximum(np.exp(log_loss) - ground[:, None], 1e-6))
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(2):
                own = np.exp(self.log_loss(theta, z)) - ground[:, None]
                miss = (above - np.log(np.maximum(own, 1e-12))).mean(axis=-1)
                theta[:, levels] += np.where(np.isfinite(miss), miss, 0.0)[:, None]
        return np.clip(theta, *self.bounds())

    def public(self, theta: np.ndarray, scale: Scale) -> dict[str, np.ndarray]:
        """Parameters in the units of the table, by name, each of shape (...)."""
        import numpy as np

        out = {}
        for index, entry in enumerate(self.entries):
            value = theta[..., index]
            if entry.kind is Kind.LOSS:
                value = value * np.exp(scale.log_loss)
            elif entry.kind in (Kind.LEVEL, Kind.RATIO):
                with np.errstate(over="ignore"):  # an amplitude that nothing bounds is infinite
                    value = np.exp(self.log_amplitude(entry.name, theta, scale))
            elif entry.kind is Kind.LOG:
                value = np.exp(value)
            elif entry.kind is Kind.PLACE:
                value = np.exp(value + scale.center[0])
            out[entry.name] = value
        return out

    def pin(self, pinned: Mapping[str, float], scale: Scale) -> np.ndarray:
        """Theta (P,) of the pinned parameters and the constants, NaN where free."""
        import numpy as np

        out = np.full(len(self.entries), np.nan)
        known = self.constants
        allowed = [e.name for e in self.entries if e.kind not in FREE and e.name not in known]
        for name, value in {**known, **pinned}.items():
            if name in pinned and name not in allowed:
                raise AnalysisError(f"pinned {name!r}: {self.name} can pin {', '.join(allowed)}")
            index = self.parameters.index(name)
            entry = self.entries[index]
            out[index] = _as_theta(entry, value, scale)
            if name in pinned and not entry.lower <= out[index] < entry.upper:
                low, high = (_as_public(entry, x, scale) for x in (entry.lower, entry.upper))
                raise AnalysisError(
                    f"pinned {name} = {value:g}: allowed from {low:.6g} to {high:.6g}"
                )
        return out

    def derived(self, public: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What follows from the parameters: exponents and level of the compute optimum."""
        return {}

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


def _start(entry: Parameter, z: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random values of one entry: floors crowd at the smallest loss, exponents are log-uniform.

    The start of a place is a share of the range of the first variable.
    """
    import numpy as np

    low, high = entry.start
    if entry.kind is Kind.PLACE:
        return z.min() + np.ptp(z) * rng.uniform(low, high, count)
    if entry.name == "E":
        return np.minimum(1.0 - 10 ** rng.uniform(-2.5, 0.0, count), entry.upper)
    if entry.kind is Kind.EXPONENT and low > 0:
        return np.exp(rng.uniform(np.log(low), np.log(high), count))
    return rng.uniform(low, high, count)


def _as_theta(entry: Parameter, value: float, scale: Scale) -> float:
    import numpy as np

    if entry.kind is Kind.LOSS:
        return value / np.exp(scale.log_loss)
    if entry.kind in (Kind.LOG, Kind.PLACE):
        if not value > 0:
            raise AnalysisError(f"pinned {entry.name} = {value:g}: must be above zero")
        return float(np.log(value) - (scale.center[0] if entry.kind is Kind.PLACE else 0.0))
    return value


def _as_public(entry: Parameter, value: float, scale: Scale) -> float:
    import numpy as np

    if entry.kind is Kind.LOSS:
        return float(value * np.exp(scale.log_loss))
    if entry.kind is Kind.LOG:
        return float(np.exp(value))
    return float(np.exp(value + scale.center[0])) if entry.kind is Kind.PLACE else value


def distinct(log_values: np.ndarray) -> int:
    """How many different values there are."""
    import numpy as np

    return 1 + int(np.sum(np.diff(np.sort(log_values)) > SAME_VALUE))


def one_ray(log_x: np.ndarray, variables: tuple[str, ...]) -> str | None:
    """Say so where the variables move together in every run (D = k N)."""
    import numpy as np

    centred = log_x - log_x.mean(axis=0)
    spread = np.linalg.svd(centred, compute_uv=False)[-1] / np.sqrt(len(log_x))
    if spread >= SMALLEST_SPREAD:
        return None
    names = " and ".join(variables)
    return f"{names} move together in every run (one ray): their powers are confounded"
