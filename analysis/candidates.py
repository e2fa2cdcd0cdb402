"""Targets of a forecast and the runs that could be trained on the way: where, and at what cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.errors import AnalysisError
from analysis.table import COLUMN_OF, Table
from analysis.token_cost import Flops, flops_named, token_cost

if TYPE_CHECKING:
    import pandas as pd

FlopsPerToken = Callable[[np.ndarray], np.ndarray]
STEPS = 15  # values of N and of D in the grid
RATIO_SLACK = 2.0  # how far tokens per parameter may leave the range of the table
SAME_VALUE = 1e-2  # relative
TOKENS_PER_PARAMETER = "tokens_per_parameter"


def flops_per_token(table: Table, flops: Flops | str | FlopsPerToken) -> FlopsPerToken:
    """FLOPs of a token by N: 6 N, as the runs of the table counted them, or the user's function."""
    if not isinstance(flops, Flops | str):
        return flops
    cost = token_cost(table, flops_named(flops))
    return lambda parameters: parameters * cost.per_parameter(np.log(parameters))


@dataclass(frozen=True)
class Space:
    """Where the runs of a plan lie: variables of the laws, the fixed other one, the cost.

    `fixed` holds N or D where the laws do not have it (a ladder at one D); empty for laws of C.
    """

    variables: tuple[str, ...]
    fixed: Mapping[str, float]
    flops_per_token: FlopsPerToken

    def value(self, x: np.ndarray, name: str) -> np.ndarray:
        """N or D of the points x (n, V), NaN where the space does not know it."""
        if name in self.variables:
            return x[:, self.variables.index(name)]
        return np.full(len(x), self.fixed.get(name, np.nan))

    def cost(self, x: np.ndarray) -> np.ndarray:
        """Training FLOPs of runs at x (n, V)."""
        if self.variables == ("C",):
            return x[:, 0]
        return self.flops_per_token(self.value(x, "N")) * self.value(x, "D")


def space_of(table: Table, variables: tuple[str, ...], flops: Flops | str | FlopsPerToken) -> Space:
    """The space of laws in these variables; an AnalysisError where a run would have no cost."""
    if variables == ("C",):
        return Space(variables, {}, _no_parameters)
    if not set(variables) <= {"N", "D"}:
        raise AnalysisError(f"next: laws in {', '.join(variables)}; allowed are N, D, both, or C")
    fixed = {name: _fixed(table, name) for name in ("N", "D") if name not in variables}
    return Space(variables, fixed, flops_per_token(table, flops))


def _no_parameters(parameters: np.ndarray) -> np.ndarray:
    """What a token costs where the runs are given by their compute alone."""
    return np.full_like(parameters, np.nan)


def _fixed(table: Table, name: str) -> float:
    """The value that all runs of a table share."""
    if name in table.held:
        return float(table.held[name])
    values = table.variable(name)
    if values.max() / values.min() - 1.0 > SAME_VALUE:
        raise AnalysisError(
            f"{table.source}: a law without {name}, but {name} goes from {values.min():g} to "
            f"{values.max():g}; give the runs at one {name}, or a law of N and D"
        )
    return float(np.median(values))


def target_point(
    space: Space, target: Mapping[str, float], law: Callable[[np.ndarray], np.ndarray], table: Table
) -> np.ndarray:
    """The target as x (1, V). For N and D: both, N and tokens_per_parameter, C and N, or C alone.

    C alone means the N and D that `law` (mean log loss at x) thinks best for that compute.
    """
    for name, value in target.items():
        if not (np.isfinite(value) and value > 0):
            raise AnalysisError(f"target {name} = {value}: must be finite and above zero")
    given = set(target)
    if given == set(space.variables):
        return np.array([[target[name] for name in space.variables]], dtype=float)
    if set(space.variables) != {"N", "D"}:
        raise AnalysisError(
            f"target {', '.join(sorted(given))}: allowed for these laws is {space.variables[0]}"
        )
    if given == {"N", TOKENS_PER_PARAMETER}:
        tokens = target["N"] * target[TOKENS_PER_PARAMETER]
    elif given == {"C", "N"}:
        tokens = target["C"] / float(space.flops_per_token(np.array([target["N"]]))[0])
    elif given == {"C"}:
        return _optimum(space, target["C"], law, table)
    else:
        raise AnalysisError(
            f"target {', '.join(sorted(given)) or 'empty'}: allowed are N and D, "
            f"N and {TOKENS_PER_PARAMETER}, C and N, or C"
        )
    return _ordered(space, np.array([target["N"]]), np.array([tokens]))


def _ordered(space: Space, sizes: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    values = {"N": sizes, "D": tokens}
    return np.stack([values[name] for name in space.variables], axis=-1)


def _optimum(
    space: Space, flops: float, law: Callable[[np.ndarray], np.ndarray], table: Table
) -> np.ndarray:
    """The best of many sizes at one compute, refused at the ends of a wide range."""
    known = table.variable("N")
    middle = np.sqrt(known.min() * known.max() * max(flops / _largest(space, table), 1.0))
    sizes = middle * np.logspace(-6, 6, 4001)
    x = _ordered(space, sizes, flops / space.flops_per_token(sizes))
    best = int(np.argmin(law(x)))
    if best in (0, len(sizes) - 1):
        raise AnalysisError(f"target C = {flops:g}: the laws have no best N there; give N as well")
    return x[best : best + 1]


def _largest(space: Space, table: Table) -> float:
    x = np.stack([table.variable(name) for name in space.variables], axis=-1)
    return float(space.cost(x).max())


def grid(space: Space, table: Table, target: np.ndarray, budget: float) -> np.ndarray:
    """Runs not in the table, from its smallest towards the target, within the budget, (m, V).

    For N and D the tokens per parameter stay within twice the range of the table and the target: a
    corner far outside would win on paper, where the form is taken at its word.
    """
    known = np.stack([table.variable(name) for name in space.variables], axis=-1)
    low, high = known.min(axis=0), np.maximum(known.max(axis=0), target[0])
    axes = [np.geomspace(a, b, STEPS) for a, b in zip(low, high, strict=True)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    new = np.abs(np.log(x[:, None, :] / known)).max(axis=-1).min(axis=1) > SAME_VALUE
    x = x[new & (space.cost(x) <= budget)]
    if len(axes) == 1:
        return x
    seen = np.concatenate([known, target])
    ratio = space.value(seen, "D") / space.value(seen, "N")
    own = space.value(x, "D") / space.value(x, "N")
    near = (own >= ratio.min() / RATIO_SLACK) & (own <= ratio.max() * RATIO_SLACK)
    return x[near]


def given_points(
    space: Space, candidates: pd.DataFrame | Sequence[Mapping[str, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """The user's candidates as x (m, V) and their costs (m,): column C where there is one."""
    import pandas as pd

    frame = pd.DataFrame(candidates)
    for name in space.variables:
        if name not in frame:
            raise AnalysisError(f"candidates: no {name}; there are {', '.join(map(str, frame))}")
    x = frame[list(space.variables)].to_numpy(dtype="float64")
    cost = frame["C"].to_numpy(dtype="float64") if "C" in frame else space.cost(x)
    for row, value in enumerate(np.column_stack([x, cost])):
        if not (np.isfinite(value) & (value > 0)).all():
            raise AnalysisError(f"candidate {row}: {value} must be finite and above zero")
    return x, cost


def measured_run(space: Space, table: Table, target: np.ndarray) -> str | None:
    """Name of a run of the table at the target, or None."""
    known = np.stack([table.variable(name) for name in space.variables], axis=-1)
    near = np.abs(np.log(known / target)).max(axis=1) < SAME_VALUE
    return str(table.runs["name"][int(np.argmax(near))]) if near.any() else None


def is_inside(space: Space, table: Table, target: np.ndarray) -> bool:
    """True where no variable of the target lies beyond the runs of the table."""
    columns = [name for name in space.variables if COLUMN_OF[name] in table.runs]
    known = np.stack([table.variable(name) for name in columns], axis=-1)
    return bool(((target[0] <= known.max(axis=0)) & (target[0] >= known.min(axis=0))).all())
