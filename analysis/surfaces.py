"""Laws of parameters and tokens: sums of powers, one shared exponent, joint powers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.form import Form, Kind, Parameter, Scale, distinct, exponent, floor, level, one_ray

if TYPE_CHECKING:
    import numpy as np

AMPLITUDES = ("A", "B", "G")
EXPONENTS = ("a", "b", "g")


@dataclass(frozen=True)
class SumOfPowers(Form):
    """L = E + sum over variables of A x^-a; theta = (E, then A and a of each variable).

    One variable with a floor is M2 of Alabdulmohsin et al. 2022 (arXiv:2209.06640), without it M1;
    N and D with a floor is equation 10 of Hoffmann et al. 2022 (arXiv:2203.15556).
    """

    floor: bool = True

    @property
    def entries(self) -> tuple[Parameter, ...]:
        count = len(self.variables)
        pairs = zip(AMPLITUDES[:count], EXPONENTS[:count], strict=True)
        terms = tuple(entry for a, x in pairs for entry in (level(a), exponent(x)))
        return (floor(),) * self.floor + terms

    @property
    def formula(self) -> str:
        terms = [
            f"{amplitude} {variable}^-{power}"
            for variable, amplitude, power in zip(
                self.variables, AMPLITUDES, EXPONENTS, strict=False
            )
        ]
        return f"L({', '.join(self.variables)}) = {' + '.join(['E'] * self.floor + terms)}"

    def _terms(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The powers, (..., n, V)."""
        import numpy as np

        log_amplitude = theta[..., None, self.floor :: 2]
        power = theta[..., None, self.floor + 1 :: 2]
        return np.exp(log_amplitude - power * z)

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

    def log_amplitude(self, name: str, theta: np.ndarray, scale: Scale) -> np.ndarray:
        variable = AMPLITUDES.index(name)
        index = self.floor + 2 * variable
        power = theta[..., index + 1]
        return theta[..., index] + power * scale.center[variable] + scale.log_loss

    def derived(self, public: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Exponents and G of N* = G (C / 6)^(b / (a + b)), Hoffmann et al. 2022, equation 4."""
        if self.variables != ("N", "D"):
            return {}
        return _allocation(public["A"], public["a"], public["B"], public["b"])

    def design_problem(self, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
        """Too few values of one variable, or two variables that move together (D = k N)."""
        has_level = self.floor and "E" not in pinned
        for index, variable in enumerate(self.variables):
            own = (AMPLITUDES[index], EXPONENTS[index])
            needed = sum(name not in pinned for name in own) + has_level
            values = distinct(log_x[:, index])
            if values < needed:
                return (
                    f"{values} value{'s' * (values != 1)} of {variable}; "
                    f"{', '.join(self.parameters)} need at least {needed}"
                )
        return one_ray(log_x, self.variables) if len(self.variables) > 1 else None


def _allocation(A, a, B, b) -> dict[str, np.ndarray]:
    return {
        "exponent of N*(C)": b / (a + b),
        "exponent of D*(C)": a / (a + b),
        "G": (a * A / (b * B)) ** (1.0 / (a + b)),
    }


@dataclass(frozen=True)
class SharedExponent(Form):
    """L = E + A N^-a + B D^-a: over-training at one exponent, Gadre et al. 2024, equation 4.

    Their L(C, M) = E + (l M^x + m M^-x) C^-x with M = D / N, C = 6 N D has a = 2 x.
    """

    @property
    def entries(self) -> tuple[Parameter, ...]:
        return (floor(), level("A"), level("B"), exponent("a"))

    @property
    def formula(self) -> str:
        return "L(N, D) = E + A N^-a + B D^-a"

    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        powers = np.exp(theta[..., None, 1:3] - theta[..., None, 3:4] * z)
        return np.log(theta[..., :1] + powers.sum(axis=-1))

    def log_amplitude(self, name: str, theta: np.ndarray, scale: Scale) -> np.ndarray:
        index = AMPLITUDES.index(name)
        return theta[..., 1 + index] + theta[..., 3] * scale.center[index] + scale.log_loss

    def derived(self, public: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return _allocation(public["A"], public["a"], public["B"], public["a"])

    def design_problem(self, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
        counts = [distinct(column) for column in log_x.T]
        if min(counts) < 2 or max(counts) < 3:
            return f"{counts[0]} values of N and {counts[1]} of D; one needs 3 and the other 2"
        return one_ray(log_x, self.variables)


@dataclass(frozen=True)
class Skaling(Form):
    """L = E + A (N^-a + R D^-b)^k (arXiv:2608.07222): k = 1 is separable, k -> 0 a bottleneck.

    With b = 1 it is equation 1.5 of Kaplan et al. 2020 (arXiv:2001.08361) and a floor E on top:
    their alpha_D is k, their alpha_N is a k; pin E = 0 for the published one.
    """

    data_exponent: float | None = None

    @property
    def entries(self) -> tuple[Parameter, ...]:
        ratio = Parameter("R", Kind.RATIO, -15.0, 15.0, (-1.5, 1.5))
        joint = Parameter("k", Kind.LOG, -3.0, 3.0, (-0.7, 0.7))
        return (floor(), level("A"), exponent("a"), exponent("b"), ratio, joint)

    @property
    def formula(self) -> str:
        power = "-b" if self.data_exponent is None else f"-{self.data_exponent:g}"
        return f"L(N, D) = E + A (N^-a + R D^{power})^k"

    @property
    def constants(self) -> Mapping[str, float]:
        return {} if self.data_exponent is None else {"b": self.data_exponent}

    def _parts(self, theta: np.ndarray, z: np.ndarray):
        """The two powers at their weights, and their share of the sum that belongs to D."""
        import numpy as np

        share = 1.0 / (1.0 + np.exp(-theta[..., 4:5]))
        n = np.exp(-theta[..., 2:3] * z[:, 0])
        d = np.exp(-theta[..., 3:4] * z[:, 1])
        return share, n, d, (1.0 - share) * n + share * d

    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        *_, mix = self._parts(theta, z)
        return np.log(
            theta[..., :1] + np.exp(theta[..., 1:2] + np.exp(theta[..., 5:]) * np.log(mix))
        )

    def jacobian(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        share, n, d, mix = self._parts(theta, z)
        k = np.exp(theta[..., 5:])
        term = np.exp(theta[..., 1:2] + k * np.log(mix))
        total = theta[..., :1] + term
        part = term / total
        inner = part * k / mix
        return np.stack(
            [
                1.0 / total,
                part,
                -inner * (1.0 - share) * n * z[:, 0],
                -inner * share * d * z[:, 1],
                inner * share * (1.0 - share) * (d - n),
                part * k * np.log(mix),
            ],
            axis=-1,
        )

    def log_amplitude(self, name: str, theta: np.ndarray, scale: Scale) -> np.ndarray:
        import numpy as np

        a, b, ratio = theta[..., 2], theta[..., 3], theta[..., 4]
        if name == "R":
            return ratio + b * scale.center[1] - a * scale.center[0]
        weight_of_n = a * scale.center[0] - np.log1p(np.exp(ratio))
        return theta[..., 1] + np.exp(theta[..., 5]) * weight_of_n + scale.log_loss

    def derived(self, public: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return _allocation(1.0, public["a"], public["R"], public["b"])

    def design_problem(self, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
        for index, variable in enumerate(self.variables):
            values = distinct(log_x[:, index])
            if values < 3:
                return f"{values} value{'s' * (values != 1)} of {variable}; at least 3 are needed"
        return one_ray(log_x, self.variables)
