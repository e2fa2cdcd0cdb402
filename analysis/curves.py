"""Laws of one variable beyond the plain power: saturating (M3), sigmoid (M4), broken (BNSL)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError
from analysis.form import Form, Kind, Parameter, Scale, distinct, exponent, floor, level

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Saturating(Form):
    """L = A (1/x + 1/x0)^a, M3 of Alabdulmohsin et al. 2022: a power that flattens at x0."""

    @property
    def entries(self) -> tuple[Parameter, ...]:
        return (level("A"), exponent("a"), Parameter("x0", Kind.PLACE, -15.0, 60.0, (0.5, 3.0)))

    @property
    def formula(self) -> str:
        (x,) = self.variables
        return f"L({x}) = A (1/{x} + 1/x0)^a"

    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        reach = np.log(np.exp(-z[:, 0]) + np.exp(-theta[..., 2:]))
        return theta[..., :1] + theta[..., 1:2] * reach

    def log_amplitude(self, name: str, theta: np.ndarray, scale: Scale) -> np.ndarray:
        return theta[..., 0] + theta[..., 1] * scale.center[0] + scale.log_loss

    def derived(self, public: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"limit": public["A"] * public["x0"] ** -public["a"]}

    def design_problem(self, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
        return _one_variable(self, log_x, pinned)


def _one_variable(form: Form, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
    needed = len(form.parameters) - len({**form.constants, **pinned})
    values = distinct(log_x[:, 0])
    if values >= needed:
        return None
    return (
        f"{values} value{'s' * (values != 1)} of {form.variables[0]}; "
        f"{', '.join(form.parameters)} need at least {needed}"
    )


@dataclass(frozen=True)
class Sigmoid(Form):
    """(L - E) / (L0 - L)^h = A x^-a, M4 of Alabdulmohsin et al. 2022: from L0 (chance) down to E.

    The loss is the root of an increasing function; h = 0 is a power with a floor.
    """

    chance: float | None = None

    @property
    def entries(self) -> tuple[Parameter, ...]:
        top = Parameter("L0", Kind.LOSS, 1.0, 1000.0, (1.0, 3.0))
        bend = Parameter("h", Kind.EXPONENT, 0.0, 10.0, (0.0, 2.0))
        return (floor(), level("A"), exponent("a"), bend, top)

    @property
    def formula(self) -> str:
        (x,) = self.variables
        top = "L0" if self.chance is None else f"{self.chance:g}"
        return f"(L - E) / ({top} - L)^h = A {x}^-a"

    @property
    def constants(self) -> Mapping[str, float]:
        return {} if self.chance is None else {"L0": self.chance}

    def _root(self, theta: np.ndarray, z: np.ndarray):
        """Logit t of (L - E) / (L0 - E), and the two logistic halves, by Newton's method."""
        import numpy as np

        height = theta[..., 4:5] - theta[..., :1]
        bend = theta[..., 3:4]
        right = theta[..., 1:2] - theta[..., 2:3] * z[:, 0]
        right = right - (1.0 - bend) * np.log(np.maximum(height, 1e-12))
        t = np.clip(np.where(right < 0, right, right / (bend + 0.2)), -40.0, 40.0)
        for _ in range(60):
            low = np.logaddexp(0.0, -t)  # -log sigma(t)
            high = np.logaddexp(0.0, t)  # -log sigma(-t)
            slope = np.exp(-high) + bend * np.exp(-low)
            step = np.clip((right + low - bend * high) / slope, -8.0, 8.0)
            t = np.clip(t + step, -60.0, 60.0)
            if np.all(np.abs(step) < 1e-12):
                break
        return t, height, bend

    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        t, height, _ = self._root(theta, z)
        return np.log(np.maximum(theta[..., :1] + height / (1.0 + np.exp(-t)), 1e-300))

    def jacobian(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        """By the implicit function theorem."""
        import numpy as np

        t, height, bend = self._root(theta, z)
        up, down = 1.0 / (1.0 + np.exp(-t)), 1.0 / (1.0 + np.exp(t))
        slope = down + bend * up
        level_of = (1.0 - bend) / height
        log_height, log_down = np.log(height), -np.logaddexp(0.0, t)
        one = np.ones_like(t)
        moved = np.stack(
            [level_of * one, one, -z[:, 0] * one, log_height + log_down, -level_of * one], axis=-1
        )
        out = (height * up * down / slope)[..., None] * moved
        out[..., 0] += down
        out[..., 4] += up
        return out / (theta[..., :1] + height * up)[..., None]

    def log_amplitude(self, name: str, theta: np.ndarray, scale: Scale) -> np.ndarray:
        """A has the units of L^(1 - h) x^a."""
        in_losses = (1.0 - theta[..., 3]) * scale.log_loss
        return theta[..., 1] + theta[..., 2] * scale.center[0] + in_losses

    def design_problem(self, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
        return _one_variable(self, log_x, pinned)


@dataclass(frozen=True)
class Broken(Form):
    """L = E + A x^-a prod (1 + (x / x_i)^(1 / f_i))^(-c_i f_i): BNSL of Caballero et al. 2023.

    arXiv:2210.14891, equation 1: the power bends by c_i at x_i, over a width of f_i in log x.
    """

    breaks: int = 1

    @property
    def entries(self) -> tuple[Parameter, ...]:
        bends = []
        for i in range(1, self.breaks + 1):
            bends += [
                Parameter(f"c{i}", Kind.EXPONENT, -5.0, 5.0, (-0.6, 0.9)),
                Parameter(f"x{i}", Kind.PLACE, -15.0, 15.0, (0.0, 1.0)),
                Parameter(f"f{i}", Kind.LOG, -3.0, 2.0, (-2.0, 1.0)),
            ]
        return (floor(), level("A"), Parameter("a", Kind.EXPONENT, 0.0, 5.0, (0.02, 1.0)), *bends)

    @property
    def formula(self) -> str:
        (x,) = self.variables
        numbers = range(1, self.breaks + 1)
        bends = "".join(f" (1 + ({x}/x{i})^(1/f{i}))^(-c{i} f{i})" for i in numbers)
        return f"L({x}) = E + A {x}^-a{bends}"

    def _term(self, theta: np.ndarray, z: np.ndarray):
        """The falling term (..., n) and, for each break, c, f, v = (z - x) / f, softplus of v."""
        import numpy as np

        x = z[:, 0]
        log_term = theta[..., 1:2] - theta[..., 2:3] * x
        bends = []
        for i in range(3, theta.shape[-1], 3):
            c, width = theta[..., i : i + 1], np.exp(theta[..., i + 2 : i + 3])
            v = (x - theta[..., i + 1 : i + 2]) / width
            soft = np.where(v.real > 0, v, 0.0) + np.log1p(np.exp(np.where(v.real > 0, -v, v)))
            bends.append((c, width, v, soft))
            log_term = log_term - c * width * soft
        return np.exp(log_term), bends

    def log_loss(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.log(theta[..., :1] + self._term(theta, z)[0])

    def jacobian(self, theta: np.ndarray, z: np.ndarray) -> np.ndarray:
        import numpy as np

        term, bends = self._term(theta, z)
        one = np.ones_like(term)
        columns = [one, -z[:, 0] * one]
        for c, width, v, soft in bends:
            gate = np.exp(v - soft)  # the logistic function of v
            columns += [-width * soft, c * gate, c * width * (v * gate - soft)]
        total = theta[..., :1] + term
        share = (term / total)[..., None]
        return np.concatenate([1.0 / total[..., None], share * np.stack(columns, -1)], axis=-1)

    def log_amplitude(self, name: str, theta: np.ndarray, scale: Scale) -> np.ndarray:
        return theta[..., 1] + theta[..., 2] * scale.center[0] + scale.log_loss

    def public(self, theta: np.ndarray, scale: Scale) -> dict[str, np.ndarray]:
        """The breaks by their place: their order in theta is that of the start."""
        import numpy as np

        bends = theta[..., 3:].reshape(*theta.shape[:-1], self.breaks, 3)
        order = np.argsort(bends[..., 1], axis=-1)[..., None]
        bends = np.take_along_axis(bends, order, axis=-2).reshape(*theta.shape[:-1], -1)
        return super().public(np.concatenate([theta[..., :3], bends], axis=-1), scale)

    def pin(self, pinned: Mapping[str, float], scale: Scale) -> np.ndarray:
        named = [name for name in pinned if name[-1].isdigit()]
        if named and self.breaks > 1:
            raise AnalysisError(f"pinned {named[0]!r}: breaks are told apart by their place only")
        return super().pin(pinned, scale)

    def design_problem(self, log_x: np.ndarray, pinned: Mapping[str, float]) -> str | None:
        return _one_variable(self, log_x, pinned)
