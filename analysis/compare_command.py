"""python -m analysis compare: laws side by side, their average, and what it says ahead."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import flags
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.families import Families
    from analysis.table import Table

SAY = "weigh laws by what they forecast inside the table"
EXAMPLE = "runs/first_ladder --n 1e6 --d 2e7"
WIDE = 200  # characters of a line where nothing is a terminal
NOT_BY = ("n", "d", "c", "u")


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
    flags.add_by(parser)


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


def families_of(options: argparse.Namespace, where: Mapping[str, str], form: str) -> Families:
    """The laws of --by, in --unit (bits/image) or of --metric."""
    from analysis.families import OF_IMAGES, families
    from analysis.losses import loss_named
    from analysis.study import read_study
    from analysis.table import PER_TOKEN

    unit = PER_TOKEN if options.metric else options.unit or OF_IMAGES
    study = read_study(
        options.directory, convention=options.convention or "blocks", weights=options.weights,
        metric=options.metric, where=where, unit=unit,
    )  # fmt: skip
    return families(
        study, options.by, where=where, form=form, loss=loss_named(options.loss or "squares"),
        level=options.level,
    )  # fmt: skip


def run_families(
    options: argparse.Namespace, where: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """compare --by: a law a family, printed (or JSON) and drawn where a path is named."""
    from analysis.families import DEFAULT_FORM
    from analysis.forecast import as_text

    for name in NOT_BY:
        if vars(options)[name] is not None:
            raise AnalysisError(f"--{name}: not with --by; forecast one family with its --where")
    forms = options.form or [DEFAULT_FORM]
    if len(forms) > 1:
        raise AnalysisError(f"--form {', '.join(forms)}: --by takes one form")
    found = families_of(options, where, forms[0])
    if options.plot:
        from analysis import figures, figures_families

        Path(options.plot).write_text(figures.svg(figures_families.laws(found), "families"))
    if options.json:
        say(as_text(found.as_json()))
        return
    show(found, say)


def show(found: Families, say: Callable[[str], None]) -> None:
    """A row a family, what is not comparable about them, and what was left out."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    table = found.table
    say(f"{found.form.formula}; {table.loss_word}; N counts {table.convention}; {found.level:.0%}")
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    heads = list(dict.fromkeys(head for row in found.rows for head in row if head != "status"))
    for index, head in enumerate([*heads, "status"]):
        grid.add_column(head, justify="right" if index else "left")
    for row in found.rows:
        grid.add_row(*(Text(row.get(head, "")) for head in [*heads, "status"]))
    console = Console()
    (console if console.is_terminal else Console(width=WIDE)).print(grid)
    for note in found.notes:
        say(f"note: {note}")
    for run in table.left_out:
        say(f"left out: {run}")
