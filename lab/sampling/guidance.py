"""How strong classifier-free guidance is at each step of a draw: ELM's six schedules."""

import dataclasses
import enum
import math

import jax
import jax.numpy as jnp

from lab.core.errors import LabError


class Schedule(enum.StrEnum):
    """How guidance grows from 1 to its scale; `linear` is also MAR's, in the share unmasked."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COS = "cos"
    LOG = "log"
    SQUARE = "square"
    SQUARE_ROOT = "square_root"


@dataclasses.dataclass(frozen=True)
class Guidance:
    """Guided = null + s (conditional - null), s from a schedule (Ho & Salimans 2022; ELM's code).

    s = 1 is the conditional model, s = 0 the null class (of a Gaussian chain but for the variance,
    which stays that of the class). With a scale of 1 every schedule is 1, and the null class is not
    computed at all.
    """

    scale: float = 1.0
    schedule: Schedule = Schedule.CONSTANT

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise LabError(f"guidance {self.scale}: allowed is >= 0; 1 is none")

    @property
    def needed(self) -> bool:
        """Whether the null class is of any account."""
        return self.scale != 1

    def at(self, step: jax.Array | int, steps: int) -> jax.Array:
        """s at step 0 to steps - 1 of equal steps."""
        return self.between(step / steps, (step + 1) / steps)

    def between(self, before: jax.Array | float, after: jax.Array | float) -> jax.Array:
        """s of the step that takes what is done from the share `before` to the share `after`.

        As in ELM's code all grow with the share after the step, but the square root with the one
        before it.
        """
        r = jnp.asarray(after, jnp.float32)
        grown = {
            Schedule.CONSTANT: lambda: jnp.ones_like(r),
            Schedule.LINEAR: lambda: r,
            Schedule.COS: lambda: jnp.cos(-jnp.pi / 2 + r * jnp.pi / 2),
            Schedule.LOG: lambda: jnp.log1p(r * (math.e - 1)),
            Schedule.SQUARE: lambda: r**2,
            Schedule.SQUARE_ROOT: lambda: jnp.sqrt(jnp.asarray(before, jnp.float32)),
        }[self.schedule]()
        return 1 + (self.scale - 1) * grown
