"""The law of a whole training curve with its learning-rate schedule, and of its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.form import Form, Parameter, Scale, distinct, exponent, floor, level, one_ray

if TYPE_CHECKING:
    import numpy as np

OF_CURVES = ("annealing", "annealing_S")  # names of the laws of whole curves
AMPLITUDE_OF = {"N": ("A", "a"), "S": ("B", "b")}


@dataclass(frozen=True)
class Annealing(Form):
    """L = E + A N^-a + B S^-b + C R, of the rates so far; theta = (E, A, a, B, b, C).

    Tissue et al. 2024 (arXiv:2408.11029), L = L0 + A S1^-alpha + B N^-beta - C S2, in numbers of
    analysis/rates.py: their L0 is E + C, so that E is the floor of a run that has cooled down, no
    term is below zero, and C is what a full cooldown takes off the loss. At a constant rate R is 1
    and S the tokens: a separable law of N and D.
    """

    @property
    def entries(self) -> tuple[Parameter, ...]:
        named = [AMPLITUDE_OF[name] for name in self.variables[:-1]]
        terms = [entry for a, x in named for entry in (level(a), exponent(x))]
        return (floor(), *terms, level("C"))

    @property
    def formula(self) -> str:
        terms = [f"{AMPLITUDE_OF[v][0]} {v}^-{AMPLITUDE_OF[v][1]}" for v in self.variables[:-1]]
        return f"L({', '.join(self.variables)}) = E + {' + '.join(terms)} + C R"

    @property
    def domain(self) -> str:
        return "N and S above zero, R above zero and at most 1"

    def size(self, x: np.ndarray) -> np.ndarray:
        """N S: what a run costs, with its tokens at the peak rate."""
        import numpy as np

        return np.prod(x[:, :-1], axis=1)

    def _terms(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The powers and the term of the rate, (..., n, V)."""
        import numpy as np

        log_amplitude = theta[..., None, 1::2]
        powers = theta[..., None, 2::2]
        out = log_amplitude - np.concatenate([powers, -np.ones_like(powers[..., :1])], -1) * z
        return np.exp(out)

    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.log(theta[..., :1] + self._terms(theta, z).sum(axis=-1))

    def jacobian(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        terms = self._terms(theta, z)
        total = theta[..., :1] + terms.sum(axis=-1)
        shares = terms / total[..., None]
        out = np.empty((*total.shape, theta.shape[-1]), dtype=shares.dtype)
        out[..., 0] = 1.0 / total
        out[..., 1::2] = shares
        out[..., 2::2] = -z[:, :-1] * shares[..., :-1]
        return out

    def log_amplitude(self, name: str, theta: np.ndarray, scale: Scale) -> np.ndarray:
        index = self.parameters.index(name)
        variable = (index - 1) // 2
        power = -1.0 if name == "C" else theta[..., index + 1]
        return theta[..., index] + power * scale.center[variable] + scale.log_loss

    def design_problem(self, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
        """Too few sizes or lengths, no cooldown, or sizes and lengths that move together."""
        counts = dict(zip(self.variables, map(distinct, log_x.T), strict=True))
        for name in self.variables[:-1]:
            needed = 3 - sum(each in pinned for each in ("E", AMPLITUDE_OF[name][1]))
            if counts[name] < needed:
                return (
                    f"{counts[name]} value{'s' * (counts[name] != 1)} of {name}; {self.formula} "
                    f"needs at least {needed}"
                )
        if counts["R"] < 2:
            return (
                "every evaluation is at one relative rate R: C and E are told apart by a cooldown"
            )
        return one_ray(log_x[:, :-1], self.variables[:-1]) if len(self.variables) > 2 else None
