"""What to run next: which affordable runs narrow the forecast at a target most, and by how much.

    plan = next_runs(fit("separable", table), target={"N": 6.6e9, "D": 1.3e11}, budget_flops=1e20)
    print(plan.summary()); plan.frame()

Bayesian optimal design for one prediction (c-optimality, Chaloner & Verdinelli 1995, section 2) on
the draws of the fitted laws; analysis/belief.py has the equations. Nothing is trained or refitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis import candidates as spaces
from analysis.belief import Belief, best_portfolio, gains, reweighted, variance_after
from analysis.bootstrap import check_level
from analysis.drift import SD_AT, Walk, rate_of
from analysis.errors import AnalysisError
from analysis.plan import Candidate, Plan, PlanStatus, Portfolio

if TYPE_CHECKING:
    import pandas as pd

    from analysis.candidates import FlopsPerToken, Space
    from analysis.fit import Fit
    from analysis.table import Table
    from analysis.token_cost import Flops

BUDGET_FACTORS = (0.5, 1.0, 2.0, 4.0)
MOST_RUNS = 6
MOSTLY_NOISE = 0.8  # share of the width above which the plan says so


@dataclass(frozen=True)
class Laws:
    """Fitted laws of one table in the same variables, with weights that sum to one."""

    fits: tuple[Fit, ...]
    weights: np.ndarray

    @property
    def variables(self) -> tuple[str, ...]:
        return self.fits[0].form.variables

    @property
    def table(self) -> Table:
        return self.fits[0].table

    def _of(self, fit: Fit, x: np.ndarray) -> np.ndarray:
        """x in the order of that fit's variables."""
        return x[:, [self.variables.index(name) for name in fit.form.variables]]

    def log_loss(self, x: np.ndarray) -> np.ndarray:
        """Weighted mean of the fitted log losses at x (n, V), (n,)."""
        every = [fit.estimate.predict(self._of(fit, x)) for fit in self.fits]
        return self.weights @ np.stack(every)

    @property
    def walk(self) -> Walk:
        """The drift of the laws by their forward errors, weighted."""
        rate = self.weights @ np.array([rate_of(fit.forward_errors) for fit in self.fits])
        edge = np.prod([self.table.variable(name) for name in self.variables], axis=0).max()
        return Walk(float(rate), float(edge))

    def belief(self, x: np.ndarray, noise_log: SD_AT | None, drift_log: SD_AT | None) -> Belief:
        """Draws of all laws at x (1 + m, V), each law with its weight over its draws."""
        law, weight = [], []
        for fit, share in zip(self.fits, self.weights, strict=True):
            theta = fit.draws.theta
            law.append(fit.estimate.predict(self._of(fit, x), theta))
            weight.append(np.full(len(theta), share / len(theta)))
        variance = self.weights @ np.square([fit.residual_sd for fit in self.fits])
        noise = np.full(len(x), np.sqrt(variance)) if noise_log is None else noise_log(x)
        drift = (drift_log or self.walk)(x)
        return Belief(np.concatenate(law), np.concatenate(weight), noise, drift)


def laws_of(fits: Fit | Sequence[Fit], weights: Sequence[float] | None = None) -> Laws:
    """The fits with weights brought to a sum of one; equal weights where none are given."""
    every = tuple(fits) if isinstance(fits, Sequence) else (fits,)
    if not every:
        raise AnalysisError("next: no fits given")
    shares = np.ones(len(every)) if weights is None else np.asarray(weights, dtype=float)
    if len(shares) != len(every) or not (shares >= 0).all() or not shares.sum() > 0:
        raise AnalysisError(
            f"next: weights {shares.tolist()} for {len(every)} fits; "
            "allowed is one number of at least zero for each"
        )
    first = every[0]
    for fit in every[1:]:
        if set(fit.form.variables) != set(first.form.variables):
            raise AnalysisError(
                f"next: {fit.form.formula} and {first.form.formula} have different variables"
            )
        if fit.table.digest != first.table.digest:
            raise AnalysisError("next: the fits are of different tables")
    kept = [index for index in range(len(every)) if shares[index] > 0]
    return Laws(tuple(every[i] for i in kept), shares[kept] / shares[kept].sum())


def next_runs(
    fits: Fit | Sequence[Fit],
    *,
    target: Mapping[str, float],
    budget_flops: float,
    weights: Sequence[float] | None = None,
    candidates: pd.DataFrame | Sequence[Mapping[str, float]] | None = None,
    flops: Flops | str | FlopsPerToken = "6ND",
    noise_log: SD_AT | None = None,
    drift_log: SD_AT | None = None,
    level: float = 0.9,
    most_runs: int = MOST_RUNS,
    seed: int = 0,
) -> Plan:
    """Rank runs within the budget by how much each is expected to narrow the forecast at target.

    target: the variables of the laws, {"N", "tokens_per_parameter"}, {"C", "N"} or {"C"}.
    noise_log(x) is the sd of a run about the law in log units at x (n, V), by default the residual
    sd; drift_log(x) that of what the form does not know, by default a walk measured by the forward
    errors (analysis/drift.py; no_drift takes the form at its word).
    Candidates are a grid, or rows with the variables of the laws and, where given, FLOPs in C.
    A refused fit, a measured target and too small a budget give a status and no numbers.
    """
    check_level(level)
    if not budget_flops > 0 or most_runs < 1:
        raise AnalysisError(f"budget {budget_flops:g} FLOPs, {most_runs} runs: must be above zero")
    laws = laws_of(fits, weights)
    empty = _empty(laws, target, budget_flops, level)
    if empty.reason:
        return empty
    space = spaces.space_of(laws.table, laws.variables, flops)
    at = spaces.target_point(space, target, laws.log_loss, laws.table)
    empty = replace(empty, target=dict(zip(laws.variables, map(float, at[0]), strict=True)))
    measured = spaces.measured_run(space, laws.table, at)
    if measured:
        reason = f"run {measured} of {laws.table.source} is there"
        return replace(empty, status=PlanStatus.ALREADY_MEASURED, reason=reason)
    x, cost = _points(space, laws.table, at, budget_flops, candidates)
    if not (cost <= budget_flops).any():
        least = f"the cheapest candidate costs {cost.min():.3g} FLOPs" if len(cost) else "no runs"
        return replace(empty, status=PlanStatus.NOTHING_AFFORDABLE, reason=least)
    belief = laws.belief(np.concatenate([at, x]), noise_log, drift_log)
    notes = _notes(laws, space, at, budget_flops)
    forecast = float(np.exp(laws.log_loss(at)[0]))
    every = np.concatenate([[np.inf], cost])
    ranking = _Ranking(belief, forecast, space, x, every, empty)
    return ranking.plan(most_runs, notes, seed)


def _empty(laws: Laws, target: Mapping[str, float], budget: float, level: float) -> Plan:
    """A plan without numbers; its reason names the fits that were refused, if any."""
    named = {fit.form.name: float(w) for fit, w in zip(laws.fits, laws.weights, strict=True)}
    reason = "; ".join(
        f"{fit.form.formula}: {fit.status.value}: {fit.reason}"
        for fit in laws.fits
        if fit.status.refused
    )
    unit = laws.table.loss_unit
    return Plan(PlanStatus.REFUSED, reason, dict(target), budget, level, unit, named)


def _points(
    space: Space,
    table: Table,
    target: np.ndarray,
    budget: float,
    given: pd.DataFrame | Sequence[Mapping[str, float]] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates (m, V) and costs (m,), up to the largest budget that widths are told for."""
    if given is not None:
        return spaces.given_points(space, given)
    x = spaces.grid(space, table, target, budget * max(BUDGET_FACTORS))
    return x, space.cost(x)


def _notes(laws: Laws, space: Space, target: np.ndarray, budget: float) -> list[str]:
    notes = [f"{fit.form.name}: {fit.reason}" for fit in laws.fits if fit.reason]
    if spaces.is_inside(space, laws.table, target):
        notes.append("the target is inside the range of the runs: this forecast interpolates")
    cost = float(space.cost(target)[0])
    if cost <= budget:
        notes.append(f"the target itself costs {cost:.3g} FLOPs, within the budget")
    return notes


@dataclass(frozen=True)
class _Ranking:
    """A belief over target and candidates, with what is needed to say it in units of the loss."""

    belief: Belief
    loss: float
    space: Space
    x: np.ndarray
    cost: np.ndarray
    empty: Plan

    def width(self, law_variance: np.ndarray | float) -> np.ndarray:
        """Width in the unit of the loss where law and drift have this variance at the target.

        The interval keeps its shape (that of the draws) and shrinks with its standard deviation.
        """
        noise = self.belief.noise_variance[0]
        before = self.belief.covariance[0, 0] + noise
        shrink = np.sqrt((np.asarray(law_variance) + noise) / before)
        low, high = self.belief.quantiles(self.empty.level)
        return self.loss * (np.exp(high * shrink) - np.exp(low * shrink))

    def candidate(self, index: int, before: float, after: float) -> Candidate:
        point = self.x[index - 1 : index]
        size, tokens = (float(self.space.value(point, name)[0]) for name in ("N", "D"))
        return Candidate(size, tokens, float(self.cost[index]), before, after)

    def ranked(self) -> tuple[list[int], tuple[Candidate, ...]]:
        """Affordable candidates, the one that takes most variance away first."""
        covariance = self.belief.covariance
        gain = gains(covariance, self.belief.noise_variance)
        usable = np.flatnonzero(self.cost <= self.empty.budget_flops)
        order = usable[np.argsort(-gain[usable], kind="stable")]
        before, after = float(self.width(covariance[0, 0])), self.width(covariance[0, 0] - gain)
        found = tuple(self.candidate(int(i), before, float(after[i])) for i in order)
        return [int(index) for index in order], found

    def bought(self, budget: float, runs: tuple[int, ...]) -> Portfolio:
        """The chosen runs in their order, each with the width before and after it."""
        widths = [
            float(self.width(variance_after(self.belief, runs[:count])))
            for count in range(len(runs) + 1)
        ]
        made = [self.candidate(i, *widths[k : k + 2]) for k, i in enumerate(runs)]
        return Portfolio(budget, tuple(made), widths[-1])

    def plan(self, most: int, notes: list[str], seed: int) -> Plan:
        order, found = self.ranked()
        portfolios, runs = [], dict[float, tuple[int, ...]]()
        other: tuple[int, ...] = ()
        for factor in BUDGET_FACTORS:
            budget = factor * self.empty.budget_flops
            other = best_portfolio(self.belief, self.cost, budget, most=most, other=other)
            runs[factor] = other
            portfolios.append(self.bought(budget, other))
        level = self.empty.level
        checks = [
            reweighted(self.belief, chosen, level, seed=seed) for chosen in ([order[0]], runs[1.0])
        ]
        before, least = (
            float(self.width(variance)) for variance in (self.belief.covariance[0, 0], 0.0)
        )
        if least > MOSTLY_NOISE * before:
            notes.append(
                f"the noise of one run makes {least / before * 100:.0f} % of the width: "
                "no plan narrows more than the rest"
            )
        for what, check in zip(("best run", "runs of the budget"), checks, strict=True):
            if not check.trusted:
                notes.append(
                    f"width after the {what}: too few draws to check it without the Gaussian "
                    f"({check.effective_draws:.0f} effective)"
                )
        return replace(
            self.empty,
            status=PlanStatus.RANKED,
            loss=self.loss,
            width_before=before,
            least_width=least,
            candidates=found,
            portfolios=tuple(portfolios),
            winner_check=checks[0],
            portfolio_check=checks[1],
            notes=tuple(notes),
        )
