"""Nemenman, Shafee and Bialek's entropy: a mixture of Dirichlet priors, flat in entropy."""

from __future__ import annotations

import numpy as np

GRID = 48  # points of each look at the posterior
LOOKS = 5  # each at the region that the look before left standing
LOWEST, HIGHEST = 1e-4, 1e8  # of the concentration: per alphabet, per symbol
NEGLIGIBLE = 40.0  # log posterior below the peak


def nsb_nats(times: np.ndarray, symbols: np.ndarray, *, alphabet: float) -> float:
    """Posterior mean entropy (Nemenman et al. 2001, eq. 9): `symbols[i]` were drawn `times[i]`.

    Dirichlet priors of concentration beta, weighted so that the prior mean entropy is uniform over
    [0, ln alphabet]; the integral over ln beta is a sum on a grid that closes in on the peak.
    """
    if alphabet <= 1:
        return 0.0
    low, high = np.log(LOWEST / alphabet), np.log(HIGHEST)
    log_beta = log_posterior = np.zeros(0)
    for _ in range(LOOKS):
        log_beta = np.linspace(low, high, GRID)
        log_posterior = _log_posterior(log_beta, times, symbols, alphabet)
        kept = np.flatnonzero(log_posterior > log_posterior.max() - NEGLIGIBLE)
        low, high = log_beta[max(kept[0] - 1, 0)], log_beta[min(kept[-1] + 1, GRID - 1)]
    weights = np.exp(log_posterior - log_posterior.max())
    means = _mean_entropy(np.exp(log_beta), times, symbols, alphabet)
    return float(weights @ means / weights.sum())


def _log_posterior(
    log_beta: np.ndarray, times: np.ndarray, symbols: np.ndarray, alphabet: float
) -> np.ndarray:
    """Up to a constant, per unit of ln beta."""
    from scipy.special import polygamma

    beta, draws = np.exp(log_beta), float(times @ symbols)
    evidence = _log_rising(beta[:, None], times.astype(np.float64)) @ symbols
    slope = alphabet * polygamma(1, alphabet * beta + 1) - polygamma(1, beta + 1)
    # d(prior mean entropy) / d(beta) is positive; at the ends it drowns in rounding.
    prior = np.log(np.maximum(slope, np.finfo(np.float64).tiny)) + log_beta
    return evidence - _log_rising(alphabet * beta, np.array(draws)) + prior


def _log_rising(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    """ln Gamma(a + n) - ln Gamma(a), also where a is so large that the difference would vanish."""
    from scipy.special import gammaln

    large = np.maximum(a, 1e3)
    stirling = (
        n * np.log(large)
        + (large + n - 0.5) * np.log1p(n / large)
        - n
        + (1 / (large + n) - 1 / large) / 12
    )
    return np.where(
        a > 1e3, stirling, gammaln(np.minimum(a, 1e3) + n) - gammaln(np.minimum(a, 1e3))
    )


def _mean_entropy(
    beta: np.ndarray, times: np.ndarray, symbols: np.ndarray, alphabet: float
) -> np.ndarray:
    """Posterior mean entropy at each concentration (Wolpert and Wolf 1995)."""
    from scipy.special import digamma

    total = float(times @ symbols) + alphabet * beta
    each = times + beta[:, None]
    seen = (each * digamma(each + 1)) @ symbols
    unseen = (alphabet - symbols.sum()) * beta * digamma(beta + 1)
    return digamma(total + 1) - (seen + unseen) / total
