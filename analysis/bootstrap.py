"""Bootstrap refits of a fit: residuals, points or whole clusters are resampled.

RESIDUAL, for small ladders. Residuals are divided by sqrt(1 - leverage) (HC2, MacKinnon & White
1985), centred, and brought to the unbiased variance of n - p degrees of freedom; one resample adds
them to the fitted losses times s, s^2 = nu / chi2(nu), nu = n - p. For a linear law the draws then
follow the multivariate Student t that a small sample calls for, and a curved law is refitted at the
widened noise, so its curvature is kept.

PAIRS resamples the points.

WILD keeps errors together that runs of one cluster share (same size, same sweep, same machine): the
residuals of a cluster, times (I - H)^(-1/2) of its block of the hat matrix (CR2, Bell & McCaffrey
2002), are all multiplied by one random number of Webb's (2023) six: +-sqrt(1/2), +-1, +-sqrt(3/2).
s has Satterthwaite's degrees of freedom of that variance, those of the parameter with the fewest.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from analysis import solver
from analysis.errors import AnalysisError
from analysis.estimate import Estimate
from analysis.form import SAME_VALUE

DRAWS = 1000
REFIT_STEPS = 600  # of the solver: under Huber a few runs make long valleys with kinks
RETRIES = 6  # random starts for refits that do not arrive from the fit
LEAST_CLUSTERS = 5
WEBB = np.sqrt([0.5, 1.0, 1.5])
DETERMINED = 1e-6  # 1 - leverage below this: a cluster alone fits that direction, no residual


class Method(enum.Enum):
    """How resamples are made."""

    RESIDUAL = "residual"
    PAIRS = "pairs"
    WILD = "wild"


@dataclass(frozen=True)
class Resamples:
    """Scaled log losses and weights (B, n), noise of a new run (B,), which can be fitted (B,)."""

    y: np.ndarray
    w: np.ndarray
    noise: np.ndarray
    usable: np.ndarray


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


@dataclass(frozen=True)
class _Clustered:
    """CR2 residuals at weight one (n,), their cluster numbers (n,), degrees of freedom."""

    residual: np.ndarray
    number: np.ndarray
    freedom: float


def clusters_of(fit: Estimate, labels: np.ndarray | None = None) -> np.ndarray:
    """Numbers (n,) of the clusters: by label, or runs of the same N (the first variable)."""
    if labels is not None:
        return np.unique(np.asarray(labels).astype(str), return_inverse=True)[1]
    names = fit.form.variables
    log_x = np.log(fit.points.x[:, names.index("N") if "N" in names else 0])
    order = np.argsort(log_x)
    steps = np.concatenate([[0], np.cumsum(np.diff(log_x[order]) > SAME_VALUE)])
    out = np.empty(len(log_x), dtype=int)
    out[order] = steps
    return out


def _clustered(fit: Estimate, labels: np.ndarray | None) -> _Clustered:
    number = clusters_of(fit, labels)
    count = int(number.max()) + 1
    if count < LEAST_CLUSTERS:
        raise AnalysisError(
            f"wild bootstrap: {count} clusters; at least {LEAST_CLUSTERS} are needed"
        )
    root = np.sqrt(fit.points.weight)
    q, r = np.linalg.qr(fit.design(fit.points.x) * root[:, None])
    raw, out = fit.residual * root, np.zeros(len(root))
    pulls = np.zeros((count, len(root), q.shape[1]))  # a parameter is moved by pull . errors
    columns = np.linalg.solve(r, q.T).T
    for cluster in range(count):
        own = np.flatnonzero(number == cluster)
        values, vectors = np.linalg.eigh(np.eye(len(own)) - q[own] @ q[own].T)
        power = np.where(values > DETERMINED, np.maximum(values, DETERMINED) ** -0.5, 0.0)
        inflate = (vectors * power) @ vectors.T
        out[own] = inflate @ raw[own]
        moved = inflate @ columns[own]
        pulls[cluster, own] = moved
        pulls[cluster] -= q @ (q[own].T @ moved)
    return _Clustered(out, number, _satterthwaite(pulls))


def _satterthwaite(pulls: np.ndarray) -> float:
    """(tr G)^2 / tr G^2 for errors alike and independent; the least over the parameters."""
    gram = np.einsum("gnp,hnp->pgh", pulls, pulls)
    return float(np.min(np.trace(gram, axis1=1, axis2=2) ** 2 / np.sum(gram**2, axis=(1, 2))))


def resample(
    fit: Estimate,
    *,
    method: Method,
    draws: int,
    seed: int = 0,
    clusters: np.ndarray | None = None,
) -> Resamples:
    """What `bootstrap` refits; `clusters` (n,) of labels are for Method.WILD."""
    fit.require()
    rng = np.random.default_rng(seed)
    points, count = fit.points, len(fit.points.loss)
    grouped = _clustered(fit, clusters) if method is Method.WILD else None
    pool = grouped.residual if grouped else noise_pool(fit)
    freedom = grouped.freedom if grouped else degrees_of_freedom(fit)
    stretch = np.sqrt(freedom / rng.chisquare(freedom, draws))
    noise = stretch * rng.choice(pool, draws)
    y, w = np.log(points.loss) - fit.scale.log_loss, points.weight
    usable = np.ones(draws, dtype=bool)
    if method is Method.PAIRS:
        times = rng.multinomial(count, np.full(count, 1.0 / count), draws)
        usable = (times > 0).sum(axis=1) > fit.fitted_count
        return Resamples(np.broadcast_to(y, times.shape), w * times, noise, usable)
    if grouped:
        signs = rng.choice(np.concatenate([WEBB, -WEBB]), (draws, grouped.number.max() + 1))
        errors = stretch[:, None] * signs[:, grouped.number] * pool / np.sqrt(w)
    else:
        errors = stretch[:, None] * rng.choice(pool, (draws, count)) / np.sqrt(w)
    y = fit.predict(points.x) - fit.scale.log_loss + errors
    return Resamples(y, np.broadcast_to(w, y.shape), noise, usable)


def bootstrap(
    fit: Estimate,
    *,
    method: Method = Method.RESIDUAL,
    draws: int = DRAWS,
    seed: int = 0,
    clusters: np.ndarray | None = None,
) -> Draws:
    """Refit resamples, warm-started and run to a certificate each; the others are only counted."""
    made = resample(fit, method=method, draws=draws, seed=seed, clusters=clusters)
    theta, certified = refits(fit, made.y, made.w, seed)
    good = certified & made.usable
    return Draws(theta[good], made.noise[good], draws, int(good.sum()), method)


def refits(
    fit: Estimate, y: np.ndarray, w: np.ndarray, seed: int, warm: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Theta (B, P) and certified (B,): from the fit, and where that fails from random starts.

    `warm` (B, P) is where each begins instead of the fit.
    """
    problem, w = fit.problem, np.broadcast_to(w, y.shape)
    starts = np.tile(fit.theta, (len(y), 1)) if warm is None else warm
    found = solver.solve(problem, y=y, w=w, starts=starts, limit=REFIT_STEPS)
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
        limit=REFIT_STEPS,
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
