"""A mixture of normal distributions of one number, for which diffusion is known in closed form.

Noised, it is a mixture still: sum_k w_k N(signal m_k, signal^2 s_k^2 + noise^2).
"""

import dataclasses

import numpy as np
import scipy.optimize
import scipy.stats


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Weights, means and standard deviations of the components."""

    weights: tuple[float, ...] = (0.3, 0.7)
    means: tuple[float, ...] = (-1.3, 0.6)
    stds: tuple[float, ...] = (0.2, 0.4)

    def noised(self, signal, noise):
        """The mixture after noise."""
        return Mixture(
            self.weights,
            tuple(signal * m for m in self.means),
            tuple(float(np.hypot(signal * s, noise)) for s in self.stds),
        )

    def density(self, x):
        return self._summed(scipy.stats.norm.pdf, x)

    def below(self, x):
        """P(X <= x)."""
        return self._summed(scipy.stats.norm.cdf, x)

    def quantile(self, share):
        """The x below which a share of the mass is."""
        found = [scipy.optimize.brentq(lambda x, u=u: self.below(x) - u, -20, 20) for u in share]
        return np.array(found)

    def entropy(self, points=20_001):
        """Of the density, by the trapezoidal rule."""
        x = np.linspace(-6, 6, points)
        p = self.density(x)
        return np.trapezoid(-p * np.log(np.maximum(p, 1e-300)), x)

    def noise_given(self, x, signal, noise, xp=np):
        """E[e | signal x_0 + noise e = x]: minus noise times the slope of the log density."""
        w, m, s = (np.array(v) for v in (self.weights, self.means, self.stds))
        variance = signal**2 * s**2 + noise**2
        off = x[..., None] - signal * m
        logit = xp.log(w / xp.sqrt(variance)) - off**2 / (2 * variance)
        share = xp.exp(logit - logit.max(-1, keepdims=True))
        return (share * noise * off / variance).sum(-1) / share.sum(-1)

    def _summed(self, of, x):
        parts = zip(self.weights, self.means, self.stds, strict=True)
        return sum(w * of(x, m, s) for w, m, s in parts)
