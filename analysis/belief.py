"""What fitted laws believe about losses not measured yet, and how a measurement would narrow it.

Draws of one or several laws are samples of the log loss at the target (column 0) and at candidate
runs (the other columns). Their covariance K, with the noise of a run, makes a joint Gaussian, in
which measuring run j lowers the variance at the target by K_0j^2 / (K_jj + noise_j^2), whatever
the outcome. Laws that disagree are draws that disagree: a run that tells them apart has a large
K_0j.

Drift is what no form knows: a random walk that starts at the edge of the data, so the covariance of
two points is the smaller of their variances. A run on the way to the target measures a part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BISECTIONS = 40
NEGLIGIBLE = 1e-9  # weight of a draw over the largest; noise in log units
LEAST_EFFECTIVE_DRAWS = 30


@dataclass(frozen=True)
class Belief:
    """law (B, 1 + m) log losses, weight (B,) of each draw, noise and drift sd (1 + m,) in logs."""

    law: np.ndarray
    weight: np.ndarray
    noise_sd: np.ndarray
    drift_sd: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean log losses, (1 + m,)."""
        return self.weight @ self.law / self.weight.sum()

    @property
    def covariance(self) -> np.ndarray:
        """Of law and drift at target and candidates, without the noise of runs, (1 + m, 1 + m)."""
        centred = self.law - self.mean
        share = self.weight / self.weight.sum()
        drift = np.minimum(self.drift_sd[:, None], self.drift_sd[None, :]) ** 2
        return (centred * share[:, None]).T @ centred + drift

    @property
    def noise_variance(self) -> np.ndarray:
        return self.noise_sd**2

    def quantiles(self, level: float) -> np.ndarray:
        """Low and high deviation of a new run at the target from its mean log loss, (2,)."""
        spread = float(np.hypot(self.noise_sd[0], self.drift_sd[0]))
        values = self.law[:, 0] - self.mean[0]
        return _noisy_quantiles(values, self.weight, spread, level)


@dataclass(frozen=True)
class Reweighting:
    """Expected width in logs after measuring some runs, by weights on the draws, not by Gauss.

    `effective_draws` is the median number of draws that carry the weight; below
    LEAST_EFFECTIVE_DRAWS the width says nothing.
    """

    width_log: float
    effective_draws: float

    @property
    def trusted(self) -> bool:
        return self.effective_draws >= LEAST_EFFECTIVE_DRAWS


def gains(covariance: np.ndarray, noise_variance: np.ndarray) -> np.ndarray:
    """Variance at the target that measuring each point would take away, (1 + m,)."""
    total = np.diag(covariance) + noise_variance
    return np.divide(covariance[0] ** 2, total, out=np.zeros_like(total), where=total > 0)


def conditioned(covariance: np.ndarray, index: int, noise_variance: np.ndarray) -> np.ndarray:
    """Covariance after one run at `index` was measured; exact for a Gaussian."""
    column = covariance[:, index]
    return covariance - np.outer(column, column) / (column[index] + noise_variance[index])


def variance_after(belief: Belief, runs: Sequence[int]) -> float:
    """Variance of the law and drift at the target after all these runs were measured."""
    covariance = belief.covariance
    for index in runs:
        covariance = conditioned(covariance, index, belief.noise_variance)
    return max(float(covariance[0, 0]), 0.0)


def greedy(
    belief: Belief,
    cost: np.ndarray,
    budget: float,
    *,
    most: int,
    per_cost: bool,
    taken: tuple[int, ...] = (),
) -> tuple[int, ...]:
    """Runs chosen one after the other by variance taken away (per FLOP), within the budget.

    cost is (1 + m,). Column 0 is never chosen, nor any run twice: residuals hold what the form
    misses at a point, which another seed would share.
    """
    covariance, left, chosen = belief.covariance, budget, []
    worth = np.ones_like(cost) if not per_cost else 1.0 / cost
    for _ in range(most):
        gain = gains(covariance, belief.noise_variance)
        usable = cost <= left
        usable[[0, *taken, *chosen]] = False
        score = np.where(usable, gain * worth, 0.0)
        best = int(np.argmax(score))
        if not score[best] > 0:
            break
        chosen.append(best)
        left -= cost[best]
        covariance = conditioned(covariance, best, belief.noise_variance)
    return tuple(chosen)


def best_portfolio(
    belief: Belief, cost: np.ndarray, budget: float, *, most: int, other: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """The better of the two greedy choices and of another affordable one.

    Greedy per FLOP spends little where a run is cheap, greedy in all spends all on one run; the
    better of both is within a constant of the best (Leskovec et al. 2007, section 3).
    """
    plans = [greedy(belief, cost, budget, most=most, per_cost=kind) for kind in (True, False)]
    filled = []
    for count in range(1, len(plans[0])):
        start = plans[0][:count]
        rest = budget - float(cost[list(start)].sum())
        after = _measured(belief, start)
        more = greedy(after, cost, rest, most=most - count, per_cost=False, taken=start)
        filled.append(start + more)
    return min([*plans, *filled, other], key=lambda runs: (variance_after(belief, runs), len(runs)))


def _measured(belief: Belief, runs: tuple[int, ...]) -> Belief:
    """A belief with the covariance left after some runs; its draws are a square root of it."""
    covariance = belief.covariance
    for index in runs:
        covariance = conditioned(covariance, index, belief.noise_variance)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    keep = values > values[-1] * 1e-12
    half = root[:, keep].T * np.sqrt(keep.sum())
    law = np.concatenate([half, -half])
    none = np.zeros_like(belief.drift_sd)
    return Belief(law, np.ones(len(law)), belief.noise_sd, none)


def _noisy_quantiles(
    values: np.ndarray, weight: np.ndarray, spread: float, level: float
) -> np.ndarray:
    """Quantiles (2,) of weighted values (B,) plus normal noise of sd spread, by bisection."""
    from scipy.special import ndtr

    kept = weight > weight.max() * NEGLIGIBLE
    values, share = values[kept], weight[kept] / weight[kept].sum()
    spread = max(spread, NEGLIGIBLE)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    low = np.full(2, values.min() - 10 * spread)
    high = np.full(2, values.max() + 10 * spread)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        below = ndtr((middle[:, None] - values) / spread) @ share < tails
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5 * (low + high)


def reweighted(
    belief: Belief, runs: Sequence[int], level: float, *, outcomes: int = 100, seed: int = 0
) -> Reweighting:
    """Average width of a new run at the target over outcomes of `runs` that the draws predict.

    An outcome is the loss under one draw with noise; the other draws are weighted by its likelihood
    and give an interval as they are: no Gaussian, no linear law.
    """
    rng = np.random.default_rng(seed)
    at = np.array([0, *runs])
    law = belief.law[:, at] + _walks(belief.drift_sd[at], len(belief.law), rng)
    noise = belief.noise_sd[at]
    share = belief.weight / belief.weight.sum()
    widths, effective = [], []
    for truth in rng.choice(len(law), size=outcomes, p=share):
        measured = law[truth, 1:] + noise[1:] * rng.standard_normal(len(runs))
        miss = ((measured - law[:, 1:]) / noise[1:]) ** 2
        log_weight = np.log(np.maximum(share, 1e-300)) - 0.5 * miss.sum(axis=1)
        log_weight[truth] = -np.inf
        weight = np.exp(log_weight - log_weight.max())
        effective.append(weight.sum() ** 2 / np.sum(weight**2))
        low, high = _noisy_quantiles(law[:, 0], weight, float(noise[0]), level)
        widths.append(high - low)
    return Reweighting(float(np.mean(widths)), float(np.median(effective)))


def _walks(sd: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Samples (count, n) of a random walk whose standard deviations at the points are sd."""
    order = np.argsort(sd)
    steps = np.sqrt(np.maximum(np.diff(sd[order] ** 2, prepend=0.0), 0.0))
    walk = np.cumsum(rng.standard_normal((count, len(sd))) * steps, axis=1)
    out = np.empty_like(walk)
    out[:, order] = walk
    return out
