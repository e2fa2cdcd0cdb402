"""`python -m analysis optimum DIR`: its flags and its answer."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from analysis.optimum import Optimum
    from analysis.table import Table

SAY = "the compute-optimal frontier by envelope, isoFLOP and a law, with their disagreement"
EXAMPLE = "runs/first_ladder --target 1e18 --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command beside those that every command has."""
    add = parser.add_argument
    add("--target", action="append", type=float, metavar="FLOPS", help="a budget; may be repeated")
    add("--flops", choices=("6ND", "counted"), default="6ND", help="which compute C is meant")
    add("--form", default="separable", help="the law L(N, D) of the parametric road")
    add("--interpolant", choices=("akima", "cubic", "parabola"), default="akima")
    add(
        "--budget", action="append", type=float, metavar="FLOPS",
        help="an isoFLOP budget; without it runs of nearly one C are one budget",
    )  # fmt: skip
    add("--tolerance", type=float, default=0.02, help="how close to a budget a run's C must be")
    add(
        "--ends-only", action="store_true",
        help="runs without a schedule in the table count in the envelope with their ends alone",
    )  # fmt: skip
    add("--level", type=float, default=0.9, help="level of the intervals")
    add("--sensitivity", action="store_true", help="add the table over conventions of N and C")
    add("--plot", metavar="PATH", help="write the frontier as SVG")
    add("--plot-bowls", metavar="PATH", help="write the isoFLOP bowls as SVG")
    add("--plot-sensitivity", metavar="PATH", help="write the sensitivity as SVG")


def run(options: argparse.Namespace, table: Table) -> str:
    """The answer to print, JSON where --json was given; writes the figures asked for."""
    from analysis.optimum import optimum

    chosen = {
        "form": options.form,
        "interpolant": options.interpolant,
        "budgets": options.budget,
        "tolerance": options.tolerance,
        "ends_only": options.ends_only,
        "level": options.level,
    }
    found = optimum(table, targets=options.target, flops=options.flops, **chosen)
    if options.plot:
        found.plot(options.plot)
    if options.plot_bowls:
        found.plot_bowls(options.plot_bowls)
    rows = _sensitivity(found, options, chosen)
    return _json(found, rows) if options.json else _text(found, rows)


def _sensitivity(found: Optimum, options: argparse.Namespace, chosen: dict) -> pd.DataFrame | None:
    """The table over conventions, where it is asked for, and its figure."""
    if not (options.sensitivity or options.plot_sensitivity):
        return None
    from analysis.sensitivity import sensitivity

    rows = sensitivity(found.table, targets=found.targets, **chosen)
    if options.plot_sensitivity:
        from analysis.figures_optimum import written
        from analysis.figures_sensitivity import exponents

        written(exponents(rows), options.plot_sensitivity, "sensitivity")
    return rows


def _json(found: Optimum, rows: pd.DataFrame | None) -> str:
    out = found.as_json()
    if rows is not None:
        out["sensitivity"] = json.loads(rows.to_json(orient="records"))
    return json.dumps(out, indent=1, allow_nan=False)


def _text(found: Optimum, rows: pd.DataFrame | None) -> str:
    lines = [found.summary()]
    if rows is not None:
        lines += ["sensitivity to conventions:", rows.drop(columns="reason").to_string(index=False)]
    return "\n".join(lines)
