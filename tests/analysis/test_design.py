"""What to run next: plans, their statuses, and a true law on which the promise is kept."""

import argparse
import json
import math

import numpy as np
import pandas as pd
import pytest

from analysis import fit, from_frame
from analysis.design import laws_of, next_runs
from analysis.drift import no_drift
from analysis.errors import AnalysisError
from analysis.losses import Squares
from analysis.next_command import add_arguments, run_next
from analysis.plan import PlanStatus

E, A, a, B, b = 1.8, 480.0, 0.35, 2100.0, 0.37
TARGET = {"N": 6.6e9, "D": 1.3e11}
BUDGET = 3e19


def law(N, D):
    return E + A * N**-a + B * D**-b


def table(rng, *, noise=0.003, extra=()):
    """Sixteen runs of the true law with noise in logs, and extra ones given as (N, D, loss)."""
    N, D = (g.ravel() for g in np.meshgrid(np.geomspace(1e7, 3e8, 4), np.geomspace(3e8, 1e10, 4)))
    loss = law(N, D) * np.exp(noise * rng.standard_normal(16))
    rows = [*zip(N, D, loss, strict=True), *extra]
    frame = pd.DataFrame(rows, columns=["N", "D", "loss"])
    frame["C"] = 6 * frame["N"] * frame["D"]
    units = {name: (name, "count") for name in ("N", "D", "C")}
    return from_frame(frame, columns=units | {"loss": ("loss", "nats/token")})


def fitted(data, form="separable", draws=400):
    return fit(form, data, loss="squares", draws=draws)


@pytest.fixture(scope="module")
def separable():
    return fitted(table(np.random.default_rng(0)))


def test_a_plan_ranks_affordable_runs_by_narrowing(separable):
    plan = next_runs(separable, target=TARGET, budget_flops=BUDGET)
    assert plan.status is PlanStatus.RANKED
    frame = plan.frame()
    assert len(frame) > 50
    known = separable.table.runs[["N", "D_tokens"]].to_numpy()
    apart = np.abs(np.log(frame[["N", "D_tokens"]].to_numpy()[:, None] / known)).max(axis=-1)
    assert apart.min() > 0.01  # none is measured already
    assert (frame["C_flops"] <= BUDGET).all()
    np.testing.assert_allclose(frame["C_flops"], 6 * frame["N"] * frame["D_tokens"])
    assert (np.diff(frame["width_after"]) >= -1e-12).all()
    assert (frame["width_after"] >= plan.least_width).all()
    assert frame["width_before"].nunique() == 1
    assert plan.loss == pytest.approx(float(separable.predict(**TARGET).loss[0]), rel=1e-12)
    for bought in plan.portfolios:
        assert bought.flops <= bought.budget_flops
    widths = [bought.width_after for bought in plan.portfolios]
    assert widths == sorted(widths, reverse=True) and widths[0] < plan.width_before
    assert plan.portfolio.width_after < plan.best.width_after
    assert plan.winner_check.trusted
    assert plan.winner_check.width_log * plan.loss == pytest.approx(plan.best.width_after, rel=0.1)


def test_the_plan_as_json_and_text(separable):
    plan = next_runs(separable, target=TARGET, budget_flops=BUDGET)
    out = json.loads(json.dumps(plan.as_json(), allow_nan=False))
    assert out["status"] == "RANKED"
    assert out["width_before_nats_per_token"] == plan.width_before
    assert out["candidates"][0]["flops"] == plan.best.flops
    assert [b["budget_flops"] for b in out["budgets"]] == [f * BUDGET for f in (0.5, 1, 2, 4)]
    assert "what to run next for the loss at N = 6.6e+09" in plan.summary()
    assert "90 % interval" in plan.summary()


def test_the_recommended_run_narrows_the_refit_as_promised_and_more_than_a_random_one():
    """On a true law: the said width within 15 % of that of the refits, on average over tables."""
    rng = np.random.default_rng(7)
    said, got, random = [], [], []
    for _ in range(14):
        data_rng = np.random.default_rng(rng.integers(2**32))
        state = data_rng.bit_generator.state
        first = fitted(table(data_rng))
        plan = next_runs(first, target=TARGET, budget_flops=BUDGET, drift_log=no_drift)
        other = plan.candidates[rng.integers(len(plan.candidates))]
        said.append(plan.best.width_after / plan.width_before)
        for run, out in ((plan.best, got), (other, random)):
            measured = law(run.N, run.D) * math.exp(0.003 * rng.standard_normal())
            data_rng.bit_generator.state = state
            again = fitted(table(data_rng, extra=[(run.N, run.D, measured)]))
            out.append(interval_width(again, rng) / interval_width(first, rng))
    assert np.mean(got) == pytest.approx(np.mean(said), rel=0.15)
    assert np.mean(said) < 0.9  # there was something to promise
    assert np.mean(got) < np.mean(random) - 0.05


def interval_width(found, rng):
    """90 % interval of a new run at the target from the draws of a fit and normal noise."""
    x = np.array([[TARGET[name] for name in found.form.variables]])
    loss = np.exp(found.estimate.predict(x, found.draws.theta)[:, 0])
    noise = np.exp(found.residual_sd * rng.standard_normal((25, len(loss))))
    return float(np.diff(np.quantile(loss * noise, [0.05, 0.95]))[0])


def test_statuses_carry_no_numbers(separable):
    data = separable.table
    small = next_runs(separable, target=TARGET, budget_flops=1e10)
    assert small.status is PlanStatus.NOTHING_AFFORDABLE
    assert small.candidates == () and math.isnan(small.width_before)
    row = data.runs.iloc[5]
    there = {"N": row["N"], "D": row["D_tokens"]}
    known = next_runs(separable, target=there, budget_flops=BUDGET)
    assert known.status is PlanStatus.ALREADY_MEASURED and row["name"] in known.reason
    ray = data.select(np.isin(np.arange(16), [0, 5, 10, 15]))
    refused = next_runs(fitted(ray), target=TARGET, budget_flops=BUDGET)
    assert refused.status is PlanStatus.REFUSED and "separable" not in refused.reason
    for plan in (small, known, refused):
        assert plan.status.value in plan.summary() and plan.reason
        json.dumps(plan.as_json(), allow_nan=False)
        assert not any("width" in key for key in plan.as_json())
        with pytest.raises(AnalysisError, match=f"next: {plan.status.value}: "):
            plan.best  # noqa: B018


def test_a_compute_target_is_the_optimum_of_the_law():
    """N* = G (C/6)^(b/(a+b)), equation 4 of Hoffmann et al. 2022."""
    exact = fitted(table(np.random.default_rng(1), noise=1e-9))
    plan = next_runs(exact, target={"C": 1e22}, budget_flops=BUDGET)
    G = (a * A / (b * B)) ** (1 / (a + b))
    best = G * (1e22 / 6) ** (b / (a + b))
    assert plan.target["N"] == pytest.approx(best, rel=0.02)
    assert 6 * plan.target["N"] * plan.target["D"] == pytest.approx(1e22)
    other = next_runs(exact, target={"C": 1e22, "N": 1e9}, budget_flops=BUDGET)
    assert other.target["D"] == pytest.approx(1e22 / 6e9)
    ratio = next_runs(exact, target={"N": 1e9, "tokens_per_parameter": 20}, budget_flops=BUDGET)
    assert ratio.target == {"N": 1e9, "D": 2e10}


def test_several_laws_widen_the_forecast_by_their_disagreement(separable):
    skaling = fitted(separable.table, "skaling")
    assert not skaling.status.refused
    options = {"target": TARGET, "budget_flops": BUDGET, "drift_log": no_drift}
    both = next_runs([separable, skaling], weights=[1, 1], **options)
    x = np.array([[TARGET["N"], TARGET["D"]]])
    draws = [f.estimate.predict(x, f.draws.theta)[:, 0] for f in (separable, skaling)]
    means, variances = [d.mean() for d in draws], [d.var() for d in draws]
    mixed = np.mean(variances) + np.var(means)
    own = next_runs(separable, weights=[1.0], **options)
    one = next_runs([separable, skaling], weights=[1, 0], **options)
    assert one.width_before == own.width_before
    few = fitted(separable.table, "skaling", draws=100)
    belief = laws_of([separable, few], [1, 3]).belief(x, None, no_drift)
    assert belief.weight[: separable.draws.certified].sum() == pytest.approx(0.25)
    assert belief.weight.sum() == pytest.approx(1.0)
    assert mixed > variances[0] and both.width_before > own.width_before
    assert both.laws == {"separable": 0.5, "skaling": 0.5}


def test_where_the_law_drifts_larger_runs_rank_higher():
    """The true loss bends away from the fitted power at the larger sizes."""
    rng = np.random.default_rng(11)
    N = np.geomspace(1e6, 1e9, 10)
    log_loss = np.log(1.8 + 60 * N**-0.3) + 0.03 * np.log(N / 1e8).clip(0)
    loss = np.exp(log_loss + 0.001 * rng.standard_normal(10))
    frame = pd.DataFrame({"N": N, "D": 1e9, "loss": loss})
    units = {"N": ("N", "count"), "D": ("D", "count"), "loss": ("loss", "nats/token")}
    found = fitted(from_frame(frame, columns=units), "power_floor_N")
    options = {"target": {"N": 1e11}, "budget_flops": 3e20}
    trusting = next_runs(found, drift_log=no_drift, **options)
    wary = next_runs(found, **options)
    assert wary.width_before > trusting.width_before
    assert wary.best.N >= trusting.best.N and wary.best.N == max(run.N for run in wary.candidates)


def test_own_candidates_costs_noise_and_drift(separable):
    rows = [{"N": 1e9, "D": 1e9, "C": 1e19}, {"N": 1e9, "D": 1e10, "C": 1e30}]
    plan = next_runs(separable, target=TARGET, budget_flops=BUDGET, candidates=rows)
    assert [(run.N, run.flops) for run in plan.candidates] == [(1e9, 1e19)]
    loud = next_runs(
        separable, target=TARGET, budget_flops=BUDGET, candidates=rows,
        noise_log=lambda x: np.full(len(x), 0.1),
    )  # fmt: skip
    assert loud.least_width > 10 * plan.least_width
    unsure = next_runs(
        separable, target=TARGET, budget_flops=BUDGET, candidates=rows,
        drift_log=lambda x: 0.01 * np.log(np.prod(x, axis=1) / 3e18).clip(0),
    )  # fmt: skip
    assert unsure.width_before > plan.width_before
    dear = next_runs(separable, target=TARGET, budget_flops=BUDGET, flops=lambda n: 60 * n)
    cheap = next_runs(separable, target=TARGET, budget_flops=BUDGET, flops="counted")
    same = next_runs(separable, target=TARGET, budget_flops=BUDGET)
    assert dear.best.width_after > same.best.width_after
    assert cheap.best.flops == pytest.approx(same.best.flops, rel=1e-6)


def test_a_ladder_at_one_d_and_a_law_of_compute():
    rng = np.random.default_rng(8)
    N = np.geomspace(1e6, 1e8, 8)
    loss = (1.8 + 60 * N**-0.3) * np.exp(0.002 * rng.standard_normal(8))
    frame = pd.DataFrame({"N": N, "D": 1e9, "C": 6e9 * N, "loss": loss})
    units = {name: (name, "count") for name in ("N", "D", "C")}
    data = from_frame(frame, columns=units | {"loss": ("loss", "nats/token")})
    plan = next_runs(fitted(data, "power_floor_N"), target={"N": 1e9}, budget_flops=1e18)
    assert {run.D for run in plan.candidates} == {1e9}
    assert plan.best.flops == pytest.approx(6e9 * plan.best.N)
    of_c = next_runs(fitted(data, "power_floor_C"), target={"C": 6e18}, budget_flops=1e18)
    assert max(run.flops for run in of_c.candidates) <= 1e18
    assert math.isnan(of_c.best.N)
    json.dumps(of_c.as_json(), allow_nan=False)
    assert of_c.best.width_after == pytest.approx(plan.best.width_after, rel=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": {"N": 1e9}}, "allowed are N and D, N and tokens_per_parameter"),
        ({"target": {"N": -1e9, "D": 1e9}}, "target N = -1000000000.0: must be finite"),
        ({"budget_flops": 0.0}, "must be above zero"),
        ({"weights": [1, 1]}, "for 1 fits"),
        ({"weights": [-1]}, "at least zero"),
        ({"candidates": [{"N": 1e9}]}, "candidates: no D; there are N"),
        ({"candidates": [{"N": 1e9, "D": 0.0}]}, "candidate 0: .* above zero"),
        ({"level": 1.0}, "level 1.0"),
        ({"flops": "8ND"}, "flops '8ND': allowed are 6ND, counted"),
    ],
)
def test_bad_arguments(separable, change, message):
    options = {"target": TARGET, "budget_flops": BUDGET} | change
    with pytest.raises(AnalysisError, match=message):
        next_runs(separable, **options)


def test_laws_of_other_variables_or_tables_are_refused(separable):
    other = fitted(table(np.random.default_rng(9)))
    with pytest.raises(AnalysisError, match="different tables"):
        next_runs([separable, other], target=TARGET, budget_flops=BUDGET)
    of_c = fitted(separable.table, "power_floor_C")
    with pytest.raises(AnalysisError, match="different variables"):
        next_runs([separable, of_c], target=TARGET, budget_flops=BUDGET)
    of_n = fitted(separable.table, "power_floor_N")
    with pytest.raises(AnalysisError, match="a law without D, but D goes from"):
        next_runs(of_n, target={"N": 1e9}, budget_flops=BUDGET)


def test_the_command(separable):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    said = []
    text = "--form separable:2 --form skaling --target N=6.6e9,D=1.3e11 --budget 3e19 --runs 2"
    options = parser.parse_args(text.split())
    options.level, options.json = 0.8, True
    assert options.drift == "forward"
    run_next(options, separable.table, Squares(), said.append)
    out = json.loads(said[0])
    assert out["level"] == 0.8 and out["laws"]["separable"] == pytest.approx(2 / 3)
    assert max(len(bought["runs"]) for bought in out["budgets"]) <= 2
    options.json, said = False, []
    run_next(options, separable.table, Squares(), said.append)
    assert said[0] == f"{len(separable.table)} runs; fitting separable, skaling"  # before the fits
    options.target = "N=big,D=1"
    with pytest.raises(AnalysisError, match="--target: 'big' is not a number"):
        run_next(options, separable.table, Squares(), said.append)
