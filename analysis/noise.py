"""How noisy the losses of a table are: from run to run, and from the images they are measured on.

Log losses of runs of equal variables differ by a run-to-run part of one variance and by an
evaluation part, whose variance is the recorded standard error over the loss, squared, where every
run is measured on images of its own. On the same images the evaluation error is common to all
runs and cancels, but for what a run makes of these images, which counts as run-to-run.

The run-to-run variance t^2 solves Q(t^2) = sum of r^2 / (t^2 + v) = degrees of freedom, r being
residuals about the weighted mean of replicates (Paule & Mandel 1982). With normal errors Q is
chi-squared at the true t^2, so its quantiles give an exact interval (Viechtbauer 2007). Without
replicates r are the residuals of a law, and what the law misses counts as run-to-run.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.errors import AnalysisError
from analysis.estimate import Estimate
from analysis.form import SAME_VALUE
from analysis.prediction import Images
from analysis.quantiles import chi_squared
from analysis.table import Table

LARGEST_VARIANCE = 1e4  # of log losses; Q falls to nothing long before


class Source(enum.Enum):
    """What the run-to-run variance was learned from."""

    REPLICATES = "runs of equal variables"
    RESIDUALS = "residuals of the law"


@dataclass(frozen=True)
class Noise:
    """Variances in log units: of a run, its interval, and of the evaluation of each run (n,)."""

    run_variance: float
    low: float
    high: float
    level: float
    evaluation_variance: np.ndarray
    freedom: int
    source: Source
    images: Images

    @property
    def variance(self) -> np.ndarray:
        """Of the log loss of each run, (n,)."""
        return self.run_variance + self.evaluation_variance

    @property
    def weights(self) -> np.ndarray:
        """One over the variance, median one, (n,)."""
        variance = self.variance
        if not (variance > 0).all():
            raise AnalysisError(
                "weights 'noise': no variance between runs of equal variables and no evaluation "
                "error; use weights 'equal'"
            )
        return np.median(variance) / variance

    @property
    def assumed(self) -> str:
        """What the numbers rest on, in one line."""
        where = (
            "evaluation errors cancel: all runs on the same images"
            if self.images is Images.SAME
            else "evaluation errors as recorded: every run on its own images"
        )
        from_what = (
            f"run-to-run noise from {self.freedom} degrees of freedom of {self.source.value}"
        )
        if self.source is Source.RESIDUALS:
            from_what += ", so it holds what the law misses"
        return f"{from_what}; {where}"

    def __str__(self) -> str:
        run, low, high = (100 * value**0.5 for value in (self.run_variance, self.low, self.high))
        evaluation = 100 * float(np.sqrt(np.median(self.evaluation_variance)))
        return (
            f"run-to-run sd {run:.3g} %   {self.level:.0%} [ {low:.3g}, {high:.3g} ]; "
            f"evaluation sd {evaluation:.3g} % (median); {self.assumed}"
        )


def evaluation_variance(table: Table, images: Images) -> np.ndarray:
    """Of each log loss, (n,): zero on the same images; else every standard error is needed."""
    if images is Images.SAME:
        return np.zeros(len(table))
    relative = table.loss_se / table.loss
    if not (relative > 0).all():
        raise AnalysisError(
            f"{table.source}: noise with images of their own needs every standard error"
        )
    return relative**2


def replicates(table: Table, variables: tuple[str, ...]) -> np.ndarray:
    """Group numbers (n,): runs whose variables are all within 1 % are one group.

    Runs of one group must have different seeds, where the table has a column of seeds.
    """
    keys = []
    for name in variables:
        log_x = np.log(table.variable(name))
        order = np.argsort(log_x)
        key = np.empty(len(log_x), dtype=int)
        key[order] = np.concatenate([[0], np.cumsum(np.diff(log_x[order]) > SAME_VALUE)])
        keys.append(key)
    group = np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    if "seed" in table.runs:
        seen: dict[tuple[int, str], str] = {}
        rows = zip(group, table.runs["seed"].astype(str), table.runs["name"], strict=True)
        for number, seed, name in rows:
            other = seen.get((int(number), seed))
            if other is not None:
                raise AnalysisError(f"{table.source}: {other} and {name} are alike, seed and all")
            seen[int(number), seed] = str(name)
    return group


def _about_means(y: np.ndarray, v: np.ndarray, group: np.ndarray) -> Callable[[float], float]:
    """Q of a run-to-run variance: squares about the weighted mean of each group."""

    def total(variance: float) -> float:
        w = 1.0 / (variance + v)
        mean = np.bincount(group, w * y) / np.bincount(group, w)
        return float(np.sum(w * (y - mean[group]) ** 2))

    return total


def _solved(total: Callable[[float], float], target: float, least: float) -> float:
    """Where the falling Q meets the target; zero where it lies below it from the start."""
    from scipy import optimize

    if total(least) <= target:
        return 0.0

    def above(variance: float) -> float:
        return total(variance) - target

    found = optimize.root_scalar(above, bracket=(least, LARGEST_VARIANCE), xtol=1e-16)
    return float(found.root)


def _noise(
    total: Callable[[float], float],
    v: np.ndarray,
    freedom: int,
    level: float,
    source: Source,
    images: Images,
) -> Noise:
    least = 0.0 if (v > 0).all() else 1e-20
    ends = chi_squared(np.array([(1 + level) / 2, (1 - level) / 2]), freedom)
    value, low, high = (_solved(total, float(target), least) for target in (freedom, *ends))
    return Noise(value, low, high, level, v, freedom, source, images)


def noise_of(
    table: Table,
    variables: tuple[str, ...],
    *,
    images: Images = Images.SAME,
    level: float = 0.9,
) -> Noise | None:
    """The noise of a table from runs of equal variables; None where there are none."""
    group = replicates(table, variables)
    freedom = len(group) - int(group.max(initial=-1)) - 1
    if freedom < 1:
        return None
    v = evaluation_variance(table, images)
    total = _about_means(np.log(table.loss), v, group)
    return _noise(total, v, freedom, level, Source.REPLICATES, images)


def noise_about(
    fit: Estimate, table: Table, *, images: Images = Images.SAME, level: float = 0.9
) -> Noise:
    """The noise of a table from the residuals of a law that was fitted to it at equal weights."""
    fit.require()
    v, design = evaluation_variance(table, images), fit.design(fit.points.x)
    total = _about_law(fit.residual, design, v)
    freedom = len(v) - design.shape[1]
    return _noise(total, v, freedom, level, Source.RESIDUALS, images)


def _about_law(residual: np.ndarray, design: np.ndarray, v: np.ndarray) -> Callable[[float], float]:
    """Q of a run-to-run variance: squares about the law, refitted (linearly) at these weights."""

    def total(variance: float) -> float:
        root = (variance + v) ** -0.5
        q, _ = np.linalg.qr(design * root[:, None])
        left = residual * root
        return float(left @ left - np.sum((q.T @ left) ** 2))

    return total
