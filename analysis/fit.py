"""Fit a form to a table: an object with params, intervals, status, residuals, predict and plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis import bootstrap, prediction
from analysis import estimate as estimates
from analysis.errors import AnalysisError
from analysis.estimate import Estimate, Points, Status
from analysis.form import Form
from analysis.forms import form_named
from analysis.losses import Loss, loss_named
from analysis.noise import Noise, noise_about, noise_of
from analysis.origins import ForwardError, Origin, by_origin, rolling_origin, widening
from analysis.profile import Profile, profile
from analysis.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WEIGHTS = ("equal", "measurement", "noise")


@dataclass(frozen=True)
class Interval:
    """An interval with its nominal level."""

    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Fit:
    """A form fitted to a table. A refused fit carries no numbers: asking raises AnalysisError."""

    table: Table
    estimate: Estimate
    level: float = 0.9
    draws_asked: int = bootstrap.DRAWS
    method: bootstrap.Method = bootstrap.Method.RESIDUAL
    seed: int = 0
    cluster: str | None = None
    noise: Noise | None = None

    @property
    def form(self) -> Form:
        return self.estimate.form

    @property
    def variables(self) -> tuple[str, ...]:
        return self.form.variables

    @property
    def status(self) -> Status:
        return self.estimate.status

    @property
    def reason(self) -> str:
        """Why the fit was refused, or what bound it lies at; empty where it converged inside."""
        return self.estimate.reason

    @property
    def params(self) -> dict[str, float]:
        """Parameters by name in the units of the table."""
        theta = self.estimate.require().theta
        public = self.form.public(theta, self.estimate.scale)
        return {name: float(value) for name, value in public.items()}

    @property
    def residuals(self) -> np.ndarray:
        """log(measured / fitted) of each run, (n,)."""
        return self.estimate.residual

    @property
    def residual_sd(self) -> float:
        """In-domain noise in log units, unbiased for n - p degrees of freedom."""
        return bootstrap.residual_sd(self.estimate.require())

    @cached_property
    def draws(self) -> bootstrap.Draws:
        """Bootstrap refits; made once."""
        return bootstrap.bootstrap(
            self.estimate,
            method=self.method,
            draws=self.draws_asked,
            seed=self.seed,
            clusters=self._clusters,
        )

    @property
    def _clusters(self) -> np.ndarray | None:
        """Labels of the clusters by the column that was named."""
        if self.cluster is None:
            return None
        if self.cluster not in self.table.runs:
            have = ", ".join(self.table.runs.columns)
            raise AnalysisError(f"cluster {self.cluster!r}: allowed are {have}")
        return self.table.runs[self.cluster].to_numpy()

    @cached_property
    def forward_errors(self) -> tuple[ForwardError, ...]:
        """Each of the largest runs forecast by the smaller ones; made once."""
        return rolling_origin(self.estimate)

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The forward errors, one line per origin."""
        return by_origin(self.forward_errors)

    @property
    def widening(self) -> float:
        """Factor on intervals ahead of the data, from the forward errors."""
        return widening(self.forward_errors)

    @property
    def intervals(self) -> dict[str, Interval]:
        """Bootstrap intervals of the free parameters at the level of the fit."""
        return self.intervals_at(self.level)

    def intervals_at(self, level: float) -> dict[str, Interval]:
        found = bootstrap.parameter_intervals(self.estimate, self.draws, level)
        return {name: Interval(low, high, level) for name, (low, high) in found.items()}

    def profile(self, name: str, *, level: float | None = None) -> Profile:
        """Interval of a parameter by the rise of the objective, with ends that may be open."""
        return profile(
            self.estimate,
            name,
            level=self.level if level is None else level,
            method=self.method,
            clusters=self._clusters,
            draws=self.draws_asked,
            seed=self.seed,
        )

    def predict(
        self,
        *,
        N: float | np.ndarray | None = None,
        D: float | np.ndarray | None = None,
        C: float | np.ndarray | None = None,
        U: float | np.ndarray | None = None,
        level: float | None = None,
        images: prediction.Images = prediction.Images.SAME,
    ) -> prediction.Prediction:
        """Losses at the variables of the form with the interval of a new run."""
        x = variables_of(self.variables, {"N": N, "D": D, "C": C, "U": U})
        return prediction.predict(
            self.estimate,
            x,
            draws=self.draws,
            errors=self.forward_errors,
            level=self.level if level is None else level,
            images=images,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know beside the numbers."""
        notes = [self.reason] if self.reason else []
        if self.noise is not None:
            notes.append(f"weights: {self.noise}")
        if not self.status.refused and self.draws.uncertified:
            draws = self.draws
            notes.append(f"{draws.uncertified} of {draws.asked} refits uncertified and not used")
        return tuple(notes)

    def as_json(self) -> dict:
        """Everything said about the fit, with units in the keys; no numbers where refused."""
        out: dict = {
            "form": self.form.name,
            "formula": self.form.formula,
            "loss_function": self.estimate.loss.name,
            "loss_unit": self.table.loss_unit,
            "convention_of_N": self.table.convention,
            "held": dict(self.table.held),
            "points": len(self.estimate.points.loss),
            "pinned": dict(self.estimate.pinned),
            "status": self.status.name,
            "reason": self.reason,
            "table_sha256": self.table.digest,
        }
        return out if self.status.refused else out | self._numbers()

    def _numbers(self) -> dict:
        forward = [
            {
                "run": error.label,
                "points_used": error.points_used,
                "distance_factor": error.distance,
                "error_log": error.log_error,
                "expected_sd_log": error.expected_sd,
            }
            for error in self.forward_errors
        ]
        return {
            "params": self.params,
            "intervals": {
                name: {"low": interval.low, "high": interval.high, "level": interval.level}
                for name, interval in self.intervals.items()
            },
            "residual_sd_log": self.residual_sd,
            "gradient_cosine": self.estimate.certificate,
            "condition": self.estimate.condition,
            "agreeing_starts_share": self.estimate.agreeing_starts,
            "interval_method": self.method.value,
            "refits": self.draws.asked,
            "refits_uncertified": self.draws.uncertified,
            "forward_errors": forward,
            "widening": self.widening,
        }

    def summary(self) -> str:
        """The fit in a few lines of text."""
        held = "".join(f", {name} = {value:,.0f}" for name, value in self.table.held.items())
        lines = [
            f"{self.form.formula}   [{self.status.value}]",
            f"  {len(self.estimate.points.loss)} runs{held}; N counts {self.table.convention}; "
            f"{self.estimate.loss.name}",
        ]
        lines += [f"  note: {note}" for note in self.notes]
        if self.status.refused:
            return "\n".join(lines)
        for name, value in self.params.items():
            interval = self.intervals.get(name)
            text = f"[ {interval.low:.5g}, {interval.high:.5g} ]" if interval else "pinned"
            lines.append(f"  {name} = {value:.5g}   {self.level:.0%} {text}")
        lines.append(
            f"  in-domain residual {self.residual_sd:.2e} (log); widening {self.widening:.2f}"
        )
        lines += [
            f"  forward: the largest {origin.held_out} from the other {origin.points_used}, up to "
            f"{origin.distance:.2f}x ahead: error {origin.rms_log_error:.2e} rms "
            f"(expected {origin.rms_expected_sd:.2e})"
            for origin in self.origins
        ]
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> Figure:
        """The law with its interval; written as SVG where a path is given."""
        from analysis import figures

        figure = figures.law(self)
        if path is not None:
            Path(path).write_text(figures.svg(figure, "law"))
        return figure

    def plot_profile(
        self, name: str, path: str | Path | None = None, *, level: float | None = None
    ) -> Figure:
        """The profile of a parameter with its interval; written as SVG where a path is given."""
        from analysis import figures, figures_profile

        figure = figures_profile.profile(self.profile(name, level=level))
        if path is not None:
            Path(path).write_text(figures.svg(figure, "profile"))
        return figure


def variables_of(
    names: tuple[str, ...], given: Mapping[str, float | np.ndarray | None]
) -> np.ndarray:
    """Variables of a law as (n, V); refuses missing ones and ones the law has not."""
    extra = {name for name, value in given.items() if value is not None}
    for name in sorted(extra.symmetric_difference(names)):
        what = "is not a variable of" if name in extra else "is missing; it is a variable of"
        raise AnalysisError(f"{name} {what} L({', '.join(names)})")
    arrays = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(given[name], dtype=float)) for name in names)
    )
    x = np.stack(arrays, axis=-1)
    if not (np.isfinite(x) & (x > 0)).all():
        raise AnalysisError(f"{', '.join(names)} must be finite and above zero")
    _check_unique(x, names)
    return x


def _check_unique(x: np.ndarray, names: tuple[str, ...]) -> None:
    """Unique tokens are among the tokens that were seen."""
    if "U" not in names:
        return
    unique, seen = x[:, names.index("U")], x[:, names.index("D")]
    if (unique > seen * (1 + 1e-6)).any():
        at = int(np.argmax(unique > seen * (1 + 1e-6)))
        raise AnalysisError(f"U = {unique[at]:g}: allowed is at most D = {seen[at]:g}")


def points_of(
    table: Table, variables: tuple[str, ...], weights: str = "equal", noise: Noise | None = None
) -> Points:
    """Columns of a table as points; weights are one over a variance, median 1.

    `measurement`: of the standard errors alone. `noise`: of the noise that is given, else of the
    one that runs of equal variables show.
    """
    if weights not in WEIGHTS:
        raise AnalysisError(f"weights {weights!r}: allowed are {', '.join(WEIGHTS)}")
    x = np.stack([table.variable(name) for name in variables], axis=-1)
    _check_unique(x, variables)
    weight = np.ones(len(table))
    if weights == "measurement":
        relative = table.loss_se / table.loss
        if not (relative > 0).all():
            raise AnalysisError(f"{table.source}: weights 'measurement' need every standard error")
        weight = np.median(relative) ** 2 / relative**2
    if weights == "noise":
        noise = noise or noise_of(table, variables)
        if noise is None:
            raise AnalysisError(f"{table.source}: weights 'noise' need runs of equal variables")
        weight = noise.weights
    labels = tuple(table.runs["name"].astype(str))
    return Points(x, table.loss, table.loss_se, weight, labels)


def fit(
    form: Form | str,
    table: Table,
    *,
    loss: Loss | str = "huber",
    delta: float | None = None,
    pinned: Mapping[str, float] | None = None,
    weights: str = "equal",
    level: float = 0.9,
    method: bootstrap.Method = bootstrap.Method.RESIDUAL,
    draws: int = bootstrap.DRAWS,
    starts: int = estimates.STARTS,
    seed: int = 0,
    cluster: str | None = None,
    images: prediction.Images = prediction.Images.SAME,
) -> Fit:
    """Fit a form to all runs of a table; a bad design gives a status, a bad argument an error.

    `cluster` is the column whose values share errors, for Method.WILD. Weights "noise" are one over
    the run-to-run and evaluation variance: from runs of equal variables, and where there are none
    from the residuals of a first fit at equal weights. `images` says whether evaluation errors are
    common to all runs (and cancel) or each run's own.
    """
    form = form_named(form) if isinstance(form, str) else form
    loss = loss_named(loss, delta) if isinstance(loss, str) else loss
    bootstrap.check_level(level)
    how = {"loss": loss, "pinned": pinned or {}, "starts": starts, "seed": seed}
    noise = _noise(form, table, how, images) if weights == "noise" else None
    refused_first = weights == "noise" and noise is None
    points = points_of(table, form.variables, "equal" if refused_first else weights, noise)
    found = estimates.estimate(form, points, **how)
    return Fit(
        table, found, level=level, draws_asked=draws, method=method, seed=seed, cluster=cluster,
        noise=noise,
    )  # fmt: skip


def _noise(form: Form, table: Table, how: dict, images: prediction.Images) -> Noise | None:
    """From replicates, else about a first fit; None where that fit is refused."""
    noise = noise_of(table, form.variables, images=images)
    if noise is not None:
        return noise
    first = estimates.estimate(form, points_of(table, form.variables), **how)
    return None if first.status.refused else noise_about(first, table, images=images)
