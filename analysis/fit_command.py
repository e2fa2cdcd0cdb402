"""python -m analysis fit: laws with their intervals, one form or the three of a ladder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.laws import Law
    from analysis.losses import Loss
    from analysis.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m analysis fit`, beside those of every command and of fitting."""
    parser.add_argument("--form", help="one form; without it L(N), L(C) and L(N, D)")
    parser.add_argument(
        "--method", choices=("residual", "pairs", "wild"), default="residual",
        help="how the bootstrap resamples; wild: errors shared by runs of a cluster",
    )  # fmt: skip
    parser.add_argument("--cluster", metavar="COLUMN", help="of wild (default: runs of the same N)")
    parser.add_argument(
        "--run-weights", choices=("equal", "measurement", "noise"), default="equal",
        help="noise: one over the run-to-run and evaluation variance",
    )  # fmt: skip
    parser.add_argument(
        "--profile", action="append", default=[], metavar="NAME",
        help="also the interval of a parameter by its profile",
    )  # fmt: skip
    from analysis import curve_command

    curve_command.add_arguments(parser)


def _laws(
    options: argparse.Namespace, table: Table, loss: Loss, pinned: Mapping[str, float]
) -> tuple[Law, ...]:
    from analysis.bootstrap import Method
    from analysis.fit import fit
    from analysis.forms import form_named
    from analysis.ladder import runs_for
    from analysis.laws import Law, standard_laws

    if options.form:
        made = fit(
            options.form,
            runs_for(form_named(options.form).variables, table),
            loss=loss,
            pinned=pinned,
            level=options.level,
            method=Method(options.method),
            cluster=options.cluster,
            weights=options.run_weights,
        )
        return (Law(options.form, made),)
    asked = {
        "--pin": pinned,
        "--profile": options.profile,
        "--cluster": options.cluster,
        "--method": options.method != "residual",
        "--run-weights": options.run_weights != "equal",
    }
    for flag, given in asked.items():
        if given:
            raise AnalysisError(f"{flag} needs --form")
    return standard_laws(table, loss=loss, level=options.level)


def run_fit(
    options: argparse.Namespace,
    table: Table,
    *,
    loss: Loss,
    pinned: Mapping[str, float],
    say: Callable[[str], None],
) -> None:
    """Fit and print, law by law, so that the first is there while the next is computed."""
    if options.form and not options.json:
        say(f"{len(table)} runs; fitting {options.form}")
    laws = _laws(options, table, loss, pinned)
    if options.json:
        say(json.dumps([_as_json(law, options.profile) for law in laws], indent=1))
        return
    for law in laws:
        say(law.fit.summary() if law.fit else f"{law.title}: {law.problem}")
        if law.fit and law.fit.table.not_used:
            say(f"  not used (another D): {', '.join(law.fit.table.not_used)}")
        if law.fit and options.profile:
            for name in options.profile:
                say(f"  {law.fit.profile(name)}")


def _as_json(law: Law, profiled: list[str]) -> dict:
    if law.fit is None:
        return {"problem": law.problem}
    profiles = {name: law.fit.profile(name).as_json() for name in profiled}
    return law.fit.as_json() | ({"profiles": profiles} if profiles else {})
