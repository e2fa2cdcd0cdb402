"""A law of whole curves as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.curve_fit import CurveFit, CurvePrediction


def _counts(found: CurveFit) -> dict[str, int]:
    rows = found.fit.table.runs
    return {
        "evaluations": len(rows),
        "runs": len(found.curves.names),
        "paths": int(rows["path"].nunique()),
    }


def as_json(found: CurveFit) -> dict:
    """What the fit at the chosen memory says, with H, the grid, and the intervals of all refits."""
    fit = found.fit
    out: dict = {
        "form": found.form.name,
        "formula": found.form.formula,
        "loss_function": fit.estimate.loss.name,
        "loss_unit": found.curves.loss_unit,
        "convention_of_N": found.curves.convention,
        **_counts(found),
        "pinned": dict(fit.estimate.pinned),
        "status": found.status.name,
        "reason": found.reason,
        "table_sha256": fit.table.digest,
    }
    if found.status.refused:
        return out
    out |= {"params": found.params, "residual_sd_log": fit.residual_sd}
    out["objective_by_memory_steps"] = [
        {"H": memory, "objective": one.estimate.objective}
        for memory, one in zip(found.memories, found.fits, strict=True)
    ]
    try:
        intervals = found.intervals
    except AnalysisError as error:
        return out | {"intervals": {}, "intervals_problem": str(error)}
    out["intervals"] = {name: vars(interval) for name, interval in intervals.items()}
    out |= {"refits": found.draws.asked, "refits_uncertified": found.draws.uncertified}
    return out | {"resampled": found.cluster, "widening": fit.widening}


def summary(found: CurveFit) -> str:
    """Formula, counts, parameters with their intervals, what the memory is."""
    counts, fit = _counts(found), found.fit
    lines = [
        f"{found.form.formula}   [{found.status.value}]",
        f"  {counts['evaluations']} evaluations of {counts['runs']} runs on {counts['paths']} "
        f"path{'s' * (counts['paths'] != 1)} (size and seed); N counts "
        f"{found.curves.convention}; {fit.estimate.loss.name}",
        "  S: tokens, each as much as its rate is of the peak; R: relative rate, mean of about the "
        "last H updates",
    ]
    if found.reason:
        lines.append(f"  note: {found.reason}")
    if found.status.refused:
        return "\n".join(lines)
    try:
        intervals = found.intervals
    except AnalysisError as error:
        intervals = {}
        lines.append(f"  note: no intervals: {error}")
    for name, value in found.params.items():
        one = intervals.get(name)
        text = f"   {one.level:.0%} [ {one.low:.5g}, {one.high:.5g} ]" if one else ""
        lines.append(f"  {name} = {value:.5g}{text}")
    lines.append(f"  in-domain residual {fit.residual_sd:.2e} (log); widening {fit.widening:.2f}")
    return "\n".join(lines)


def forecasts(rows: pd.DataFrame, level: float) -> str:
    """Held-out runs: measured, forecast, interval, error, and the error of all."""
    lines = ["held out:"]
    for row in rows.itertuples():
        inside = "inside" if row.inside else "OUTSIDE"
        lines.append(
            f"  {row.name}: measured {row.measured:.5g}, forecast {row.loss:.5g} "
            f"{level:.0%} [ {row.low:.5g}, {row.high:.5g} ], error {row.log_error:+.4f} ({inside})"
        )
    rms = float((rows["log_error"] ** 2).mean() ** 0.5)
    lines.append(f"  error {rms:.4f} rms (log); {int(rows['inside'].sum())} of {len(rows)} inside")
    return "\n".join(lines)


def prediction(made: CurvePrediction) -> str:
    """One forecast of another schedule."""
    far = f"   ({made.distance[-1]:.3g}x beyond the data)" if made.distance[-1] > 1 else ""
    size = f"N = {made.N:,.0f}, " if made.N == made.N else ""
    return (
        f"at {size}{made.steps[-1]:,} updates, {made.tokens[-1]:,.0f} tokens: {made.loss[-1]:.5g} "
        f"{made.level:.0%} [ {made.low[-1]:.5g}, {made.high[-1]:.5g} ]{far}"
    )
