"""python -m analysis next: fit the laws, rank what to run, print it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.losses import Loss
    from analysis.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m analysis next`, beside those of every command and of fitting."""
    parser.add_argument(
        "--form", action="append", required=True, metavar="FORM[:WEIGHT]",
        help="a law; several disagree, and runs that tell them apart rank high",
    )  # fmt: skip
    parser.add_argument(
        "--target", required=True, metavar="NAME=VALUE,...",
        help="N=6.6e9,D=1.3e11 or N=6.6e9,tokens_per_parameter=20 or C=1e22",
    )  # fmt: skip
    parser.add_argument("--budget", type=float, required=True, help="training FLOPs to spend")
    parser.add_argument("--runs", type=int, default=6, help="most runs of a portfolio")
    parser.add_argument("--flops", choices=("6ND", "counted"), default="6ND", help="what C is")
    parser.add_argument(
        "--drift", choices=("forward", "none"), default="forward",
        help="what the law does not know ahead, from its forward errors; none trusts the law",
    )  # fmt: skip


def run_next(
    options: argparse.Namespace, table: Table, loss: Loss, say: Callable[[str], None]
) -> None:
    """Fit the forms, print the plan (or JSON)."""
    from analysis.design import next_runs
    from analysis.drift import no_drift
    from analysis.fit import fit

    named = [text.partition(":") for text in options.form]
    weights = [_number(weight or "1", "--form") for _, _, weight in named]
    target = {}
    for item in options.target.split(","):
        name, _, value = item.partition("=")
        target[name.strip()] = _number(value, "--target")
    if not options.json:
        say(f"{len(table)} runs; fitting {', '.join(form for form, _, _ in named)}")
    fits = [fit(form, table, loss=loss, level=options.level) for form, _, _ in named]
    plan = next_runs(
        fits,
        target=target,
        budget_flops=options.budget,
        weights=weights,
        flops=options.flops,
        drift_log=no_drift if options.drift == "none" else None,
        level=options.level,
        most_runs=options.runs,
    )
    say(json.dumps(plan.as_json(), indent=1) if options.json else plan.summary())


def _number(text: str, flag: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise AnalysisError(f"{flag}: {text!r} is not a number") from error
