"""An entropy with its error, its sub-sampling curve, and whether it has converged."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lab.metrics.draws import Draws, standard_error, t_quantile
from lab.metrics.entropy import HEADLINE, Estimator, counts_of_counts, entropy_nats

LEVEL = 0.9
TOLERANCE_NATS = 0.05
# On sources that are sampled too thinly Miller-Madow is low, NSB mostly on the other side of the
# headline, and the jackknife sees that tokens of a unit are alike. Where all agree, little is
# unseen.
WITNESSES = (Estimator.MILLER_MADOW, Estimator.NSB)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """All estimates from a nested part of the units."""

    units: int
    draws: int
    entropy_nats: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """An entropy: all estimators, an error over units, and a verdict.

    The error is the jackknife over groups of units, so symbols of one unit may depend on each
    other. Bias is judged by `converged`, and its scale widens the interval.
    """

    alphabet: float
    draws: int
    distinct: int
    coverage: float
    by_estimator_nats: dict[str, float]
    jackknife_nats: float  # plug-in, its bias taken from leaving out groups of units
    left_out_nats: np.ndarray  # (G,) headline without each group
    plug_in_se_nats: float
    curve: tuple[CurvePoint, ...]
    tolerance_nats: float

    @property
    def nats(self) -> float:
        """The headline estimate."""
        return self.by_estimator_nats[HEADLINE]

    @property
    def plug_in_nats(self) -> float:
        """The plug-in estimate: its expectation is below the entropy."""
        return self.by_estimator_nats[Estimator.PLUG_IN]

    @property
    def se_nats(self) -> float:
        """Standard error of the headline."""
        return float(standard_error(self.left_out_nats))

    @property
    def half_width_nats(self) -> float:
        """Half of the 90 % interval, and what bias may add to it."""
        return t_quantile(len(self.left_out_nats), level=LEVEL) * self.se_nats + self.bias_nats

    @property
    def bias_nats(self) -> float:
        """A scale of what is left of the bias: how far the others are, or the last doubling led.

        What a doubling moves by chance (a standard error) is not bias.
        """
        chance = t_quantile(len(self.left_out_nats), level=LEVEL) * self.se_nats
        return max(self.disagreement_nats, abs(self.last_doubling_nats) - chance)

    @property
    def least_nats(self) -> float:
        """A bound from below on the entropy, converged or not: plug-in less its error."""
        width = t_quantile(len(self.left_out_nats), level=LEVEL) * self.plug_in_se_nats
        return max(0.0, self.plug_in_nats - width)

    @property
    def most_nats(self) -> float:
        """A bound from above on the entropy: of the interval, or ln K where not converged."""
        top = float(np.log(self.alphabet))
        return min(top, self.nats + self.half_width_nats) if self.converged else top

    @property
    def least_kl_nats(self) -> float:
        """A bound from below on the KL from uniform."""
        return float(np.log(self.alphabet)) - self.most_nats

    @property
    def last_doubling_nats(self) -> float:
        """How far the headline moved when the units were last doubled."""
        return self.nats - self.curve[-2].entropy_nats[HEADLINE]

    @property
    def disagreement_nats(self) -> float:
        """The farthest that a witness is from the headline."""
        others = [self.by_estimator_nats[name] for name in WITNESSES] + [self.jackknife_nats]
        return max(abs(other - self.nats) for other in others)

    @property
    def converged(self) -> bool:
        """Whether the last doubling and the other estimators leave the estimate where it is."""
        worst = max(abs(self.last_doubling_nats), self.disagreement_nats)
        return worst <= self.tolerance_nats

    def as_json(self) -> dict[str, Any]:
        """Estimates and verdict, for a record; the entropy itself is a Quantity (bigram.py)."""
        return {
            "estimator": str(HEADLINE),
            "by_estimator_nats": {**self.by_estimator_nats, "jackknife": self.jackknife_nats},
            "converged": self.converged,
            "last_doubling_nats": self.last_doubling_nats,
            "bias_nats": self.bias_nats,
            "disagreement_nats": self.disagreement_nats,
            "tolerance_nats": self.tolerance_nats,
            "draws": self.draws,
            "distinct": self.distinct,
            "coverage": self.coverage,
            "ln_alphabet_nats": float(np.log(self.alphabet)),
            "curve": [dataclasses.asdict(point) for point in self.curve],
        }


def estimate(draws: Draws, *, tolerance_nats: float = TOLERANCE_NATS) -> Estimate:
    """Estimate the entropy of what a unit draws, from nested parts of the units and from all."""
    curve = tuple(_curve_point(draws, 1 << i) for i in range(draws.groups.bit_length()))
    whole = counts_of_counts(draws.counts)
    plug_in, headline = [], []
    for counts in draws.without_each():
        kept = counts_of_counts(counts)
        plug_in.append(entropy_nats(kept, alphabet=draws.alphabet, by=Estimator.PLUG_IN))
        headline.append(entropy_nats(kept, alphabet=draws.alphabet, by=HEADLINE))
    found, groups = curve[-1].entropy_nats, draws.groups
    corrected = groups * found[Estimator.PLUG_IN] - (groups - 1) * float(np.mean(plug_in))
    return Estimate(
        alphabet=draws.alphabet,
        draws=whole.draws,
        distinct=whole.distinct,
        coverage=whole.coverage,
        by_estimator_nats=found,
        jackknife_nats=corrected,
        left_out_nats=np.array(headline),
        plug_in_se_nats=float(standard_error(np.array(plug_in))),
        curve=curve,
        tolerance_nats=tolerance_nats,
    )


def _curve_point(draws: Draws, groups: int) -> CurvePoint:
    units, counts = draws.first(groups)
    of = counts_of_counts(counts)
    found = {str(by): entropy_nats(of, alphabet=draws.alphabet, by=by) for by in Estimator}
    return CurvePoint(units=units, draws=of.draws, entropy_nats=found)
