"""A law of whole curves fitted to runs with their schedules, and forecasts of other schedules.

    curves = read_curves("runs/surface")
    found = fit_curves(curves)
    found.predict(N=332_352, schedule=Schedule("wsd", 5208, 1536, 20, 0.2))

The memory H of the rate (updates; Tissue's lambda is 1 - 1/H) is chosen from a grid by the fit, or
given. Errors inside one run belong together, so resamples keep the residuals of a path whole (the
wild cluster bootstrap of analysis/bootstrap.py), and each refit chooses its own memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis import bootstrap, solver
from analysis.errors import AnalysisError
from analysis.estimate import STARTS, Estimate, Status
from analysis.fit import Fit, Interval, fit
from analysis.form import Form
from analysis.forms import curve_forms
from analysis.learning_curves import Curves
from analysis.losses import Loss, loss_named
from analysis.prediction import distance_of, widening_at
from analysis.rates import Schedule

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MEMORIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # updates
DRAWS = 400
MEMORY = "H"
CLUSTERS = ("path", "run")


@dataclass(frozen=True)
class CurveDraws:
    """Certified refits: theta (B, P), which memory each has (B,), noise of a new run (B,)."""

    theta: np.ndarray
    memory: np.ndarray
    noise: np.ndarray
    asked: int

    @property
    def uncertified(self) -> int:
        return self.asked - len(self.theta)


@dataclass(frozen=True)
class CurvePrediction:
    """Losses after `steps` updates of a run of N parameters, with the interval of a new run."""

    N: float
    steps: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    distance: np.ndarray

    def frame(self) -> pd.DataFrame:
        """One row per number of updates."""
        import pandas as pd

        names = ("N", "steps", "tokens", "loss", "low", "high", "distance")
        return pd.DataFrame({name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class CurveFit:
    """A law of curves at each memory of a grid; the lowest is the fit.

    A refused fit carries no numbers: asking raises AnalysisError.
    """

    curves: Curves
    memories: tuple[float, ...]
    fits: tuple[Fit, ...]
    best: int
    cluster: str
    draws_asked: int
    seed: int

    @property
    def fit(self) -> Fit:
        """The fit at the chosen memory."""
        return self.fits[self.best]

    @property
    def form(self) -> Form:
        return self.fit.form

    @property
    def status(self) -> Status:
        return self.fit.status

    @property
    def reason(self) -> str:
        """Why the fit was refused, or what bound it lies at; empty where it converged inside."""
        return self.fit.reason

    @property
    def memory_steps(self) -> float:
        """H, over which the rate is averaged."""
        self.fit.estimate.require()
        return self.memories[self.best]

    @property
    def params(self) -> dict[str, float]:
        """Parameters by name, H among them, in the units of the curves."""
        return self.fit.params | {MEMORY: self.memory_steps}

    @property
    def residuals(self) -> np.ndarray:
        """log(measured / fitted) of each evaluation of `fit.table`, (n,)."""
        return self.fit.residuals

    @cached_property
    def draws(self) -> CurveDraws:
        """Wild cluster refits, each at the memory that suits it; made once."""
        return _draws(self)

    @property
    def intervals(self) -> dict[str, Interval]:
        """Bootstrap intervals at the level of the fit, that of H from the grid."""
        made = self.draws
        if not len(made.theta):
            raise AnalysisError(f"{self.form.formula}: no bootstrap refit converged; no intervals")
        values = {name: np.empty(len(made.theta)) for name in self.form.parameters}
        for index, one in enumerate(self.fits):
            at = made.memory == index
            public = self.form.public(made.theta[at], one.estimate.scale)
            for name in values:
                values[name][at] = public[name]
        values[MEMORY] = np.array(self.memories)[made.memory]
        held = {**self.fit.estimate.pinned, **({MEMORY: 0} if len(self.memories) == 1 else {})}
        level, tails = self.fit.level, [(1 - self.fit.level) / 2, (1 + self.fit.level) / 2]
        return {
            name: Interval(float(low), float(high), level)
            for name, found in values.items()
            if name not in held
            for low, high in [np.quantile(found, tails)]
        }

    def predict(
        self,
        *,
        schedule: Schedule,
        N: float | None = None,
        steps: Sequence[int] | np.ndarray | None = None,
        level: float | None = None,
    ) -> CurvePrediction:
        """Losses of a run of N parameters under a schedule: after `steps` updates, else at its end.

        A new run = law of a refit + a resampled residual, widened ahead of the data as in
        analysis/prediction.py.
        """
        level = self.fit.level if level is None else level
        bootstrap.check_level(level)
        at = np.array([schedule.steps] if steps is None else steps, dtype=int)
        best = self.fit.estimate.require()
        if best.status is Status.AT_BOUND:
            raise AnalysisError(f"{self.form.formula}: no prediction at a bound: {self.reason}")
        size = self._size(N)
        x = [self.variables_at(size, schedule, at, memory) for memory in self.memories]
        center, made = best.predict(x[self.best]), self.draws
        if not len(made.theta):
            raise AnalysisError(f"{self.form.formula}: no bootstrap refit converged; no interval")
        law = np.empty((len(made.theta), len(at)))
        for index, one in enumerate(self.fits):
            mask = made.memory == index
            law[mask] = one.estimate.predict(x[index], made.theta[mask])
        distance = distance_of(best, x[self.best])
        factor = widening_at(self.fit.forward_errors, distance)
        run = (law - center + made.noise[:, None]) * factor
        low, high = np.exp(center + np.quantile(run, [(1 - level) / 2, (1 + level) / 2], axis=0))
        loss, tokens = np.exp(center), at * schedule.tokens_per_step
        low, high = np.minimum(low, loss), np.maximum(high, loss)
        return CurvePrediction(size, at, tokens, loss, low, high, level, distance)

    def _size(self, N: float | None) -> float:
        if ("N" in self.form.variables) != (N is not None):
            what = "is missing" if N is None else "is not a variable"
            raise AnalysisError(f"N {what} of {self.form.formula}")
        if N is not None and not (np.isfinite(N) and N > 0):
            raise AnalysisError(f"N = {N:g}: must be finite and above zero")
        return float("nan") if N is None else float(N)

    def variables_at(
        self, size: float, schedule: Schedule, at: np.ndarray, memory_steps: float | None = None
    ) -> np.ndarray:
        """The variables of the law after `at` updates of a schedule, (n, V), at the fitted H."""
        memory = self.memory_steps if memory_steps is None else memory_steps
        columns = schedule.seen(at, memory)
        if "N" in self.form.variables:
            columns = (np.full(len(at), size), *columns)
        return np.stack(columns, axis=-1)

    def forecast_of(self, held: Curves) -> pd.DataFrame:
        """Each run of other curves at its end: measured, forecast, interval, log error."""
        import pandas as pd

        rows = []
        for end in held.points[held.points["is_end"]].to_dict("records"):
            size = float(end["N"]) if "N" in self.form.variables else None
            made = self.predict(N=size, schedule=held.schedules[str(end["identity"])])
            measured = float(end[held.loss_column])
            row = {name: end[name] for name in ("name", "identity", "N")}
            row |= {"steps": end["step"], "tokens": end["tokens"], "measured": measured}
            row |= {name: float(getattr(made, name)[0]) for name in ("loss", "low", "high")}
            row["log_error"] = float(np.log(measured / made.loss[0]))
            rows.append(row | {"inside": bool(made.low[0] <= measured <= made.high[0])})
        return pd.DataFrame(rows)

    def as_json(self) -> dict:
        """What `Fit.as_json` says, with H and the objective at each memory."""
        from analysis.curve_text import as_json

        return as_json(self)

    def summary(self) -> str:
        """The fit in a few lines of text."""
        from analysis.curve_text import summary

        return summary(self)

    def plot(self, path: str | Path | None = None, *, held: Curves | None = None) -> Figure:
        """The curves with the law, held-out runs open; written as SVG where a path is given."""
        from analysis import figures, figures_curves

        figure = figures_curves.curves(self, held)
        if path is not None:
            Path(path).write_text(figures.svg(figure, "curves"))
        return figure


def fit_curves(
    curves: Curves,
    form: Form | str = "annealing",
    *,
    memory_steps: float | None = None,
    loss: Loss | str = "squares",
    delta: float | None = None,
    pinned: Mapping[str, float] | None = None,
    level: float = 0.9,
    cluster: str = "path",
    draws: int = DRAWS,
    starts: int = STARTS,
    seed: int = 0,
) -> CurveFit:
    """Fit a law of curves to every evaluation; a bad design gives a status and no numbers.

    `memory_steps` holds H, else it is the best of MEMORIES. `cluster` is the column of the points
    whose values share errors: "path" (size and seed), or "run" where there are few paths.
    """
    if isinstance(form, str):
        if form not in curve_forms():
            raise AnalysisError(f"form {form!r} of curves: allowed are {', '.join(curve_forms())}")
        form = curve_forms()[form]
    loss = loss_named(loss, delta) if isinstance(loss, str) else loss
    if cluster not in CLUSTERS:
        raise AnalysisError(f"cluster {cluster!r}: allowed are {', '.join(CLUSTERS)}")
    if form.variables[0] != "N" and curves.points["N"].nunique() > 1:
        raise AnalysisError(
            f"{curves.source}: {form.formula} is of runs of one size; give annealing"
        )
    memories = MEMORIES if memory_steps is None else (float(memory_steps),)
    found = [
        fit(
            form, curves.table(memory), loss=loss, pinned=pinned, level=level, starts=starts,
            seed=seed, method=bootstrap.Method.WILD, cluster=cluster, draws=draws,
        )
        for memory in memories
    ]  # fmt: skip
    kept = [index for index, one in enumerate(found) if not one.status.refused] or [0]
    fits = tuple(found[index] for index in kept)
    objective = [one.estimate.objective for one in fits]
    best = 0 if fits[0].status.refused else int(np.argmin(objective))
    return CurveFit(curves, tuple(memories[i] for i in kept), fits, best, cluster, draws, seed)


def _draws(found: CurveFit) -> CurveDraws:
    """Resamples of the fit refitted at every memory; the lowest certified one is the draw."""
    best = found.fit.estimate.require()
    clusters = found.fit.table.runs[found.cluster].to_numpy()
    if (count := len(np.unique(clusters))) < bootstrap.LEAST_CLUSTERS:
        hint = '; cluster="run" (--cluster run) takes runs for independent'
        raise AnalysisError(
            f"{found.curves.source}: {count} {found.cluster}{'s' * (count != 1)} to resample; at "
            f"least {bootstrap.LEAST_CLUSTERS} are needed{hint * (found.cluster == 'path')}"
        )
    made = bootstrap.resample(
        best,
        method=bootstrap.Method.WILD,
        draws=found.draws_asked,
        seed=found.seed,
        clusters=clusters,
    )
    count = len(found.fits)
    theta = np.empty((count, *made.y.shape[:1], len(best.theta)))
    value = np.empty(theta.shape[:2])
    for index in [*range(found.best, count), *range(found.best - 1, -1, -1)]:
        neighbour = index - 1 if index > found.best else index + 1
        warm = None if index == found.best else theta[neighbour]  # far memories need long walks
        one = found.fits[index].estimate
        theta[index], certified = bootstrap.refits(one, made.y, made.w, found.seed, warm)
        value[index] = np.where(certified, _objective(one, theta[index], made), np.inf)
    lowest, row = np.argmin(value, axis=0), np.arange(len(made.y))
    good = np.isfinite(value[lowest, row])
    chosen = theta[lowest, row]
    return CurveDraws(chosen[good], lowest[good], made.noise[good], found.draws_asked)


def _objective(fit: Estimate, theta: np.ndarray, made: bootstrap.Resamples) -> np.ndarray:
    """Sum of weighted rho of each resample, (B,)."""
    problem: solver.Problem = fit.problem
    residual = made.y - fit.form.log_loss(theta, problem.z)
    return np.sum(made.w * fit.loss.rho(residual), axis=-1)
