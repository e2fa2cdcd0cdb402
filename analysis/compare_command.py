"""python -m analysis compare: laws side by side, their average, and what it says ahead."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from analysis import flags

if TYPE_CHECKING:
    from analysis.table import Table

SAY = "weigh laws by what they forecast inside the table"
EXAMPLE = "runs/first_ladder --n 1e6 --d 2e7"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m analysis compare`, beside those of every command."""
    parser.add_argument(
        "--form",
        action="append",
        metavar="FORM",
        help="a law of forms.py; without it four of one variable or four of N and D",
    )
    flags.add_variables(parser, "a run to forecast")
    parser.add_argument("--loss", choices=flags.LOSSES, default="squares")
    parser.add_argument(
        "--local", type=float, default=1.0, help="a run weighs (size / largest)^LOCAL; 0: all alike"
    )
    parser.add_argument("--level", type=float, default=0.9, help="level of the intervals")
    parser.add_argument("--plot", metavar="PATH", help="write the figure as SVG")


def run_compare(options: argparse.Namespace, table: Table, say: Callable[[str], None]) -> None:
    """Compare, forecast where a run is named, and print it (or JSON)."""
    from analysis.compare import compare
    from analysis.forecast import as_json, as_text, forecast

    found = compare(
        table, options.form, loss=options.loss, local=options.local, level=options.level
    )
    made = None
    if any(value is not None for value in (options.n, options.d, options.c, options.u)):
        made = forecast(
            found, N=options.n, D=options.d, C=options.c, U=options.u, level=options.level
        )
    if options.plot:
        found.plot(options.plot)
    if options.json:
        out = found.as_json() | ({"forecast": as_json(made)} if made else {})
        say(as_text(out))
        return
    say(found.summary())
    if made:
        say(made.sentence)
