"""Laws of parameters, tokens and unique tokens: what data are worth when they are seen again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.form import Form, Kind, Parameter, Scale, distinct, exponent, floor, level

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Repeats(Form):
    """L = E + A N'^-a + B D'^-b with N', D' worth less than N, D: Muennighoff et al. 2023.

    arXiv:2305.16264, equations 5 and 6. With U unique tokens and R = D / U - 1 repeats,
    D' = U (1 + RD (1 - exp(-R / RD))). With U_N = min(N, what is compute-optimal for U tokens) and
    R_N = N / U_N - 1, N' = U_N (1 + RN (1 - exp(-R_N / RN))).

    With `excess` the loss rises by G R^h / (1 + (M U / N)^g): a model that can hold its data, of
    more than M parameters a unique token, learns them by heart.
    """

    excess: bool = False

    @property
    def entries(self) -> tuple[Parameter, ...]:
        worth = [Parameter(name, Kind.LOG, -3.0, 9.0, (0.7, 4.0)) for name in ("RD", "RN")]
        terms = (floor(), level("A"), exponent("a"), level("B"), exponent("b"), *worth)
        if not self.excess:
            return terms
        over = Parameter("G", Kind.RATIO, -25.0, 3.0, (-4.0, -1.0))
        hold = Parameter("M", Kind.RATIO, -8.0, 8.0, (-2.0, 2.0))
        return (*terms, over, exponent("g", largest=8.0), hold, exponent("h", largest=6.0))

    @property
    def formula(self) -> str:
        over = " + G (D/U - 1)^h / (1 + (M U/N)^g)" if self.excess else ""
        return f"L(N, D, U) = E + A N'^-a + B D'^-b{over}, worth RD and RN (Muennighoff 2023)"

    @property
    def domain(self) -> str:
        return "variables and losses above zero; U unique tokens, at most D"

    def scale(self, log_x: np.ndarray, log_loss: np.ndarray) -> Scale:
        """Unique tokens are centred as tokens are, for only their ratio says what was repeated."""
        import numpy as np

        center = log_x.mean(axis=0)
        return Scale(np.array([center[0], center[1], center[1]]), float(log_loss.min()))

    def _worth(self, theta: np.ndarray, z: np.ndarray):
        """Logs of N' and D' from the centre, and the log of the repeats R, (..., n)."""
        import numpy as np

        a, b = theta[..., 2:3], theta[..., 4:5]
        n, d, u = z[:, 0], z[:, 1], z[:, 2]
        repeats = np.maximum(np.expm1(d - u), 0.0)
        most = np.exp(theta[..., 5:6])
        log_d = u + np.log1p(-most * np.expm1(-repeats / most))
        best = (np.log(a) + theta[..., 1:2] - np.log(b) - theta[..., 3:4] + b * u) / a
        used = np.where(best.real < n, best, n)
        over = np.expm1(n - used)
        most = np.exp(theta[..., 6:7])
        return used + np.log1p(-most * np.expm1(-over / most)), log_d, repeats

    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        log_n, log_d, repeats = self._worth(theta, z)
        total = theta[..., :1] + np.exp(theta[..., 1:2] - theta[..., 2:3] * log_n)
        total = total + np.exp(theta[..., 3:4] - theta[..., 4:5] * log_d)
        if self.excess:
            log_repeats = np.log(np.maximum(repeats, 1e-9))
            held = theta[..., 8:9] * (z[:, 0] - z[:, 2] - theta[..., 9:10])
            rise = np.exp(theta[..., 7:8] + theta[..., 10:] * log_repeats)
            total = total + (repeats > 0) * rise / (1.0 + np.exp(-held))
        return np.log(total)

    def jacobian(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        """d log_loss / d theta, (..., n, P)."""
        import numpy as np

        a, b = theta[..., 2:3], theta[..., 4:5]
        log_n, log_d, repeats = self._worth(theta, z)
        of_n, of_d = self._slopes(theta, z, repeats)
        term_n = np.exp(theta[..., 1:2] - a * log_n)
        term_d = np.exp(theta[..., 3:4] - b * log_d)
        columns = [np.ones_like(term_n), term_n, -term_n * log_n, term_d, -term_d * log_d]
        columns += [-term_d * b * of_d, np.zeros_like(term_n)]
        for index, slope in of_n.items():
            columns[index] = columns[index] - term_n * a * slope
        total = theta[..., :1] + term_n + term_d
        if self.excess:
            log_repeats = np.log(np.maximum(repeats, 1e-9))
            beyond = z[:, 0] - z[:, 2] - theta[..., 9:10]
            below = 1.0 / (1.0 + np.exp(theta[..., 8:9] * beyond))  # the share not yet held
            rise = (repeats > 0) * np.exp(theta[..., 7:8] + theta[..., 10:] * log_repeats)
            rise = rise * (1.0 - below)
            slopes = (beyond * below, -theta[..., 8:9] * below, log_repeats)
            columns += [rise, *(rise * slope for slope in slopes)]
            total = total + rise
        return np.stack(columns, axis=-1) / total[..., None]

    def _slopes(self, theta: np.ndarray, z: np.ndarray, repeats: np.ndarray):
        """d log N' by entry of theta, and d log D' by the log of RD, (..., n) each."""
        import numpy as np

        a, b = theta[..., 2:3], theta[..., 4:5]
        n, u = z[:, 0], z[:, 2]
        of_d = _slope_of_worth(repeats, np.exp(theta[..., 5:6]))
        best = (np.log(a) + theta[..., 1:2] - np.log(b) - theta[..., 3:4] + b * u) / a
        over = np.expm1(n - np.minimum(best, n))
        most = np.exp(theta[..., 6:7])
        fading = np.exp(-over / most) * (1.0 + over) / (1.0 - most * np.expm1(-over / most))
        inside = np.where(best < n, 1.0 - fading, 0.0)  # d log N' / d best
        by_best = {1: 1.0 / a, 2: (1.0 / a - best) / a, 3: -1.0 / a, 4: (u - 1.0 / b) / a}
        of_n = {index: inside * slope for index, slope in by_best.items()}
        return of_n | {6: _slope_of_worth(over, most)}, of_d

    def log_amplitude(self, name: str, theta: np.ndarray, scale: Scale) -> np.ndarray:
        if name == "A":
            return theta[..., 1] + theta[..., 2] * scale.center[0] + scale.log_loss
        if name == "B":
            return theta[..., 3] + theta[..., 4] * scale.center[1] + scale.log_loss
        if name == "M":
            return theta[..., 9] + scale.center[0] - scale.center[1]
        return theta[..., 7] + scale.log_loss

    def size(self, x: np.ndarray) -> np.ndarray:
        """N D: unique tokens cost nothing more."""
        return x[:, 0] * x[:, 1]

    def design_problem(self, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
        for index, variable in enumerate(self.variables[:2]):
            known = sum(name in pinned for name in ("E", "ab"[index]))
            values, needed = distinct(log_x[:, index]), max(3 - known, 2)
            if values < needed:
                return f"{values} values of {variable}; at least {needed} are needed"
        if distinct(log_x[:, 1] - log_x[:, 2]) < 3:
            return "fewer than 3 different numbers of epochs: what repeats are worth is not seen"
        return None


def _slope_of_worth(repeats: np.ndarray, most: np.ndarray) -> np.ndarray:
    """d log(1 + most (1 - exp(-repeats / most))) / d log(most)."""
    import numpy as np

    left = repeats / most
    return most * (-np.expm1(-left) - left * np.exp(-left)) / (1.0 - most * np.expm1(-left))
