"""A plan for people, and as JSON."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from lab.launch.compile_table import console
from lab.launch.memory import machine_bytes
from lab.launch.plan_runs import PlannedRun, duration_text, rungs_of

MIB = 2**20


def as_json(plan: Any, kept: Any, *, workers: int) -> dict[str, Any]:
    """Plain values, units in the names."""
    names = {run.name for run in kept.runs}
    seconds = kept.seconds(workers)
    return {
        "schema": "lab.plan/1",
        "runs": [run.as_json() for run in kept.runs],
        "left_out": [run.name for run in plan.runs if run.name not in names],
        "total": {
            **_sums(kept.runs),
            "workers": workers,
            "startup_s": kept.startup_s,
            "wall_s": None if seconds is None else {"low": seconds[0], "high": seconds[1]},
        },
    }


def _sums(runs: list[PlannedRun]) -> dict[str, float]:
    return {
        "runs": len(runs),
        "flops": sum(run.own_flops for run in runs),
        "flops_without_trunks": sum(run.flops for run in runs if not _is_trunk(run, runs)),
    }


def _is_trunk(run: PlannedRun, runs: list[PlannedRun]) -> bool:
    return any(each.trunk == run.identity for each in runs)


def show(plan: Any, kept: Any, flags: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Print the table, the total, what to look out for, and what to type next."""
    out = console()
    out.print(_table(kept.runs, title=flags.sweep))
    out.print(_total(kept, workers=flags.workers))
    names = {run.name for run in kept.runs}
    for rung, runs in rungs_of(plan.runs).items():
        if runs[0].name not in names:
            out.print(f"left out: {escape(rung)}, {len(runs)} runs", style="dim")
    for line in warnings_of(kept.runs, workers=flags.workers, here=not flags.report):
        out.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True)
    out.print(f"next: {_next(kept, flags, overrides)}", markup=False, soft_wrap=True)


def _table(runs: list[PlannedRun], *, title: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    roles = list(dict.fromkeys(role for run in runs for role in run.params))
    heads = ["run", *(f"{role}" for role in roles), "tokens", "tokens/N", "FLOPs", "epochs"]
    for heading in [*heads, "steps", "MiB", "time"]:
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for run in runs:
        steps = f"{run.own_steps:,}"
        if run.own_steps < run.steps:
            steps += f" of {run.steps:,}"
        epochs = f"{run.epochs:.2f}"
        table.add_row(
            escape(run.name),
            *(f"{run.params.get(role, 0):,}" for role in roles),
            _engineering(run.tokens),
            f"{run.tokens / run.parameters:,.3g}",
            f"{run.own_flops:.3g}",
            f"[yellow]{epochs}[/]" if run.epochs > 1 else epochs,
            steps,
            _memory(run),
            _time(run),
        )
    return table


def _engineering(count: float) -> str:
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.4g}{letter}"
    return f"{count:g}"


def _memory(run: PlannedRun) -> str:
    if run.step_bytes is None:
        return f"≥ {run.state_bytes / MIB:,.1f}"
    return f"{run.step_bytes / MIB:,.1f}"


def _time(run: PlannedRun) -> str:
    if run.seconds is None:
        return "not measured"
    low, high = duration_text(run.seconds.low_s), duration_text(run.seconds.high_s)
    return low if low == high else f"{low} to {high}"


def _total(kept: Any, *, workers: int) -> str:
    sums = _sums(kept.runs)
    flops, alone = sums["flops"], sums["flops_without_trunks"]
    line = f"{len(kept.runs)} runs, {flops:.4g} training FLOPs"
    if flops < 0.999 * alone:
        line += f" ({flops / alone:.0%} of the {alone:.4g} that they take without trunks)"
    seconds = kept.seconds(workers)
    if seconds is not None:
        low, high = (duration_text(end) for end in seconds)
        time = low if low == high else f"{low} to {high} (an estimate)"
        line += f"; {time} with {workers} worker{'s' if workers > 1 else ''}"
    return line


def warnings_of(runs: list[PlannedRun], *, workers: int, here: bool) -> list[str]:
    """What to look out for; memory where the runs are for this machine and not for a pod."""
    lines = []
    repeated = [run for run in runs if run.epochs > 1 + 1e-9]
    if repeated:
        most = max(repeated, key=lambda run: run.epochs)
        lines.append(
            f"{len(repeated)} of {len(runs)} runs see their data more than once, {most.name} "
            f"{most.epochs:.3g} times: repeated tokens are worth less than new ones"
        )
    if not here:
        return lines
    memory = machine_bytes()
    largest = sorted((run.step_bytes or run.state_bytes for run in runs), reverse=True)
    needed = sum(largest[:workers])
    if needed > memory:
        lines.append(
            f"{workers} of the largest runs at once need {needed / 2**30:.1f} GiB; this machine "
            f"has {memory / 2**30:.1f}"
        )
    return lines


def _next(kept: Any, flags: argparse.Namespace, overrides: Mapping[str, str]) -> str:
    """Measure what is not known, else train; by a report's times the runs are named."""
    given = [flags.sweep, "--workers", str(flags.workers)]
    given += [f"--config.{path}={value}" for path, value in overrides.items()]
    budget = ["--budget", flags.budget] if flags.budget else []
    unknown = any(run.seconds is None for run in kept.runs)
    if unknown and not flags.report:
        return shlex.join(["python", "-m", "lab.launch.plan", *given, *budget, "--calibrate"])
    if budget and flags.report:
        budget = ["--only", *(run.name for run in kept.runs)]
    return shlex.join(["python", "-m", "lab.launch.sweep", *given, *budget])
