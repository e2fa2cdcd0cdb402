"""Intervals of parameters and predictions: bootstrap draws, residual noise, forward errors.

Residual bootstrap for small ladders. Residuals are divided by sqrt(1 - leverage) (HC2, MacKinnon &
White 1985), centred, and brought to the unbiased variance of n - p degrees of freedom; one resample
adds them to the fitted losses times s, s^2 = nu / chi2(nu), nu = n - p. For a linear law the draws
then follow the multivariate Student t that a small sample calls for, and a curved law is refitted
at the widened noise, so its curvature is kept. `PAIRS` resamples the points instead.

A new run = law of the draw + a resampled residual, both at the draw's own s.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis import solver
from analysis.errors import AnalysisError
from analysis.estimate import Estimate, Points, Status, estimate

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 1000
LEAST_POINTS = 4  # that a rolling-origin fit is made of
MOST_ORIGINS = 6
RETRIES, RETRY_STEPS = 8, 600  # random starts and steps for refits that crawl from the fit


class Method(enum.Enum):
    """How resamples are made."""

    RESIDUAL = "residual"
    PAIRS = "pairs"


class Images(enum.Enum):
    """Where a new run is measured: decides whether the standard error of the loss is added.

    On the SAME images as the table the sampling error of the images is common to all losses and
    cancels in a forecast. On OTHER images (or for a statement about the population of images) the
    median standard error of the table is added in quadrature.
    """

    SAME = "same"
    OTHER = "other"


@dataclass(frozen=True)
class Draws:
    """Certified refits: theta (B, P), the noise of a new run in log units (B,), and the counts."""

    theta: np.ndarray
    noise: np.ndarray
    asked: int
    certified: int
    method: Method

    @property
    def uncertified(self) -> int:
        return self.asked - self.certified


@dataclass(frozen=True)
class ForwardError:
    """One run forecast by the smaller runs: log(measured / forecast) and what was to be expected.

    `distance` is the factor beyond the largest run that the forecast was made from.
    """

    label: str
    points_used: int
    distance: float
    log_error: float
    expected_sd: float


@dataclass(frozen=True)
class Origin:
    """The forward errors of one rolling origin together."""

    points_used: int
    held_out: int
    distance: float
    rms_log_error: float
    rms_expected_sd: float


@dataclass(frozen=True)
class Prediction:
    """Losses at x (n, V), the interval of a new run, the band of the law itself; (n,) each."""

    x: np.ndarray
    variables: tuple[str, ...]
    loss: np.ndarray
    low: np.ndarray
    high: np.ndarray
    law_low: np.ndarray
    law_high: np.ndarray
    level: float
    distance: np.ndarray
    widening: np.ndarray
    notes: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """One row per point: variables, loss, the two intervals, distance and widening."""
        import pandas as pd

        columns = ("loss", "low", "high", "law_low", "law_high", "distance", "widening")
        out = pd.DataFrame(self.x, columns=list(self.variables))
        return out.assign(**{name: getattr(self, name) for name in columns})


def leverage(fit: Estimate) -> np.ndarray:
    """Diagonal of the hat matrix of the weighted Jacobian, (n,)."""
    weighted = fit.design(fit.points.x) * np.sqrt(fit.points.weight)[:, None]
    q, _ = np.linalg.qr(weighted)
    return np.clip(np.sum(q**2, axis=1), 0.0, 1.0 - 1e-6)


def degrees_of_freedom(fit: Estimate) -> int:
    """Points less fitted parameters."""
    return len(fit.points.loss) - fit.fitted_count


def residual_sd(fit: Estimate) -> float:
    """In-domain noise in log units at weight one, unbiased for n - p degrees of freedom."""
    squares = np.sum(fit.points.weight * fit.residual**2)
    return float(np.sqrt(squares / degrees_of_freedom(fit)))


def noise_pool(fit: Estimate) -> np.ndarray:
    """HC2 residuals at weight one, centred, with the unbiased variance, (n,)."""
    raw = fit.residual * np.sqrt(fit.points.weight) / np.sqrt(1.0 - leverage(fit))
    raw = raw - raw.mean()
    size = np.sqrt(np.mean(raw**2))
    return raw * (residual_sd(fit) / size) if size > 0 else raw


def bootstrap(
    fit: Estimate, *, method: Method = Method.RESIDUAL, draws: int = DRAWS, seed: int = 0
) -> Draws:
    """Refit resamples, warm-started and run to a certificate each; the others are only counted."""
    fit.require()
    rng = np.random.default_rng(seed)
    points, count = fit.points, len(fit.points.loss)
    pool = noise_pool(fit)
    freedom = degrees_of_freedom(fit)
    stretch = np.sqrt(freedom / rng.chisquare(freedom, draws))
    noise = stretch * rng.choice(pool, draws)
    y, w = np.log(points.loss) - fit.scale.log_loss, points.weight
    usable = np.ones(draws, dtype=bool)
    if method is Method.RESIDUAL:
        errors = stretch[:, None] * rng.choice(pool, (draws, count)) / np.sqrt(w)
        y = fit.predict(points.x) - fit.scale.log_loss + errors
    else:
        times = rng.multinomial(count, np.full(count, 1.0 / count), draws)
        usable = (times > 0).sum(axis=1) > fit.fitted_count
        w = w * times
    theta, certified = _refits(fit, np.broadcast_to(y, (draws, count)), w, seed)
    good = certified & usable
    return Draws(theta[good], noise[good], draws, int(good.sum()), method)


def _refits(fit: Estimate, y: np.ndarray, w: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    """Theta (B, P) and certified (B,): from the fit, and where that fails from random starts."""
    problem, w = fit.problem, np.broadcast_to(w, y.shape)
    found = solver.solve(problem, y=y, w=w, starts=np.tile(fit.theta, (len(y), 1)))
    theta, certified = found.theta.copy(), found.certified.copy()
    left = np.flatnonzero(~certified)
    if not len(left):
        return theta, certified
    rng = np.random.default_rng(seed)
    fresh = fit.form.starts(problem.z, np.log(fit.points.loss) - fit.scale.log_loss, RETRIES, rng)
    tries = [np.vstack([theta[index], fresh]) for index in left]
    again = solver.solve(
        problem,
        y=np.repeat(y[left], RETRIES + 1, axis=0),
        w=np.repeat(w[left], RETRIES + 1, axis=0),
        starts=np.concatenate(tries),
        limit=RETRY_STEPS,
    )
    theta[left], certified[left] = solver.lowest(again, len(left))
    return theta, certified


def parameter_intervals(
    fit: Estimate, draws: Draws, level: float
) -> dict[str, tuple[float, float]]:
    """Percentile intervals by parameter name; pinned parameters are left out."""
    check_level(level)
    if not draws.certified:
        raise AnalysisError(f"{fit.form.formula}: no bootstrap refit converged; no intervals")
    tails = [(1 - level) / 2, (1 + level) / 2]
    public = fit.form.public(draws.theta, fit.scale)
    return {
        name: (float(low), float(high))
        for name, values in public.items()
        if name not in fit.pinned
        for low, high in [np.quantile(values, tails)]
    }


def check_level(level: float) -> None:
    """Refuse a level that is no probability."""
    if not 0 < level < 1:
        raise AnalysisError(f"level {level}: allowed are numbers between 0 and 1, such as 0.9")


def _size(x: np.ndarray) -> np.ndarray:
    """How large a run is: its variable, or the product of its variables (compute for N and D)."""
    return np.prod(x, axis=1)


def _origins(size: np.ndarray) -> list[np.ndarray]:
    """Masks of the runs to fit: all but the largest 1, 2, ... sizes, LEAST_POINTS or more left.

    At most half of the sizes is held out, and at most MOST_ORIGINS origins are spread over them.
    """
    values = np.unique(size)
    cuts = range(1, max(len(values) // 2, 1) + 1)
    masks = [size < values[-cut] for cut in cuts]
    masks = [mask for mask in masks if mask.sum() >= LEAST_POINTS]
    chosen = np.unique(np.linspace(0, len(masks) - 1, min(len(masks), MOST_ORIGINS)).round())
    return [masks[int(index)] for index in chosen] if masks else []


def _expected_sd(origin: Estimate, x: np.ndarray, sd: float) -> np.ndarray:
    """Delta-method sd of log(measured / forecast) at x (m, V), were the form right, (m,)."""
    design = origin.design(origin.points.x) * np.sqrt(origin.points.weight)[:, None]
    q, r = np.linalg.qr(design)
    ahead = np.linalg.solve(r.T, origin.design(x).T)
    return sd * np.sqrt(1.0 + np.sum(ahead**2, axis=0))


def rolling_origin(fit: Estimate) -> tuple[ForwardError, ...]:
    """Forecast the largest 1, 2, ... sizes from the rest; refused origins give no error."""
    fit.require()
    size, sd = _size(fit.points.x), residual_sd(fit)
    out = []
    for mask in _origins(size):
        kept, held = fit.points.take(np.flatnonzero(mask)), np.flatnonzero(~mask)
        origin = estimate(fit.form, kept, loss=fit.loss, pinned=fit.pinned)
        if origin.status.refused:
            continue
        x = fit.points.x[held]
        errors = np.log(fit.points.loss[held]) - origin.predict(x)
        expected = _expected_sd(origin, x, sd)
        for index, error, spread in zip(held, errors, expected, strict=True):
            out.append(
                ForwardError(
                    fit.points.labels[index],
                    int(mask.sum()),
                    float(size[index] / size[mask].max()),
                    float(error),
                    float(spread),
                )
            )
    return tuple(out)


def by_origin(errors: tuple[ForwardError, ...]) -> tuple[Origin, ...]:
    """Group forward errors by the number of runs they were forecast from, most runs first."""
    out = []
    for used in sorted({error.points_used for error in errors}, reverse=True):
        group = [error for error in errors if error.points_used == used]
        error_rms, expected_rms = (
            float(np.sqrt(np.mean(np.square([getattr(error, name) for error in group]))))
            for name in ("log_error", "expected_sd")
        )
        farthest = max(error.distance for error in group)
        out.append(Origin(used, len(group), farthest, error_rms, expected_rms))
    return tuple(out)


def widening(errors: tuple[ForwardError, ...]) -> float:
    """Root mean square of forward error / expected sd, at least 1.

    The expected sd holds the in-domain residual and the spread of the law at that origin, so a
    right form gives about 1, and a form that bends away from the data more. No constant is tuned.
    """
    ratios = [error.log_error / error.expected_sd for error in errors if error.expected_sd > 0]
    return max(1.0, float(np.sqrt(np.mean(np.square(ratios))))) if ratios else 1.0


def _distance(fit: Estimate, x: np.ndarray) -> np.ndarray:
    """Factor by which x (m, V) lies beyond the largest run, or below the smallest; 1 inside."""
    size, own = _size(fit.points.x), _size(x)
    return np.maximum(np.maximum(own / size.max(), size.min() / own), 1.0)


def _widening_at(errors: tuple[ForwardError, ...], distance: np.ndarray) -> np.ndarray:
    """From 1 at the edge of the data to the full widening at the mean distance of the checks."""
    full = widening(errors)
    if full == 1.0:
        return np.ones_like(distance)
    reach = np.mean([np.log(error.distance) for error in errors])
    return 1.0 + (full - 1.0) * np.minimum(np.log(distance) / reach, 1.0)


def predict(
    fit: Estimate,
    x: np.ndarray,
    *,
    draws: Draws,
    errors: tuple[ForwardError, ...],
    level: float,
    images: Images = Images.SAME,
) -> Prediction:
    """Interval of a new run at x (m, V): draws of the law + residual noise, widened ahead.

    Deviations from the fitted law are multiplied by the widening of the forward errors, which
    grows from 1 at the edge of the data. The point is the fitted law. Where each run is measured
    on its own images (Images.OTHER) the median standard error is added.
    """
    check_level(level)
    fit.require()
    if fit.status is Status.AT_BOUND and len(fit.form.variables) > 1:
        raise AnalysisError(f"{fit.form.formula}: no prediction at a bound: {fit.reason}")
    if not draws.certified:
        raise AnalysisError(f"{fit.form.formula}: no bootstrap refit converged; no interval")
    center = fit.predict(x)
    distance = _distance(fit, x)
    factor = _widening_at(errors, distance)
    law = (fit.predict(x, draws.theta) - center) * factor
    noise = draws.noise.copy()
    if images is Images.OTHER:
        noise = noise + _measurement_noise(fit, len(noise))
    run = law + noise[:, None] * factor
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.exp(center + np.quantile(run, tails, axis=0))
    law_low, law_high = np.exp(center + np.quantile(law, tails, axis=0))
    notes = (fit.reason,) if fit.status is Status.AT_BOUND else ()
    loss = np.exp(center)
    return Prediction(
        x, fit.form.variables, loss, np.minimum(low, loss), np.maximum(high, loss),
        law_low, law_high, level, distance, factor, notes,
    )  # fmt: skip


def relative_error(points: Points) -> float:
    """Median standard error of the loss over the loss: the log error of other images."""
    relative = points.loss_se / points.loss
    if np.isnan(relative).all():
        raise AnalysisError("images: other needs standard errors of the loss; the table has none")
    return float(np.nanmedian(relative))


def _measurement_noise(fit: Estimate, count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, relative_error(fit.points), count)
