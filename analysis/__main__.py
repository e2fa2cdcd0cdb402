"""python -m analysis table|fit|compare|forecast|optimum|next|verify|report DIR, import FILE."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import flags
from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.compare import Comparison
    from analysis.fit import Fit
    from analysis.losses import Loss
    from analysis.table import Table

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # before NumPy: matrices here are tiny, threads spin

CONVENTIONS = ("blocks", "blocks+head", "total")
FORECAST_FILE = "forecast.json"
AVERAGE = "average"


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="a study, a run, or a table of import")
    parser.add_argument("--convention", choices=CONVENTIONS, help="what N counts (blocks)")
    parser.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE", help="keep these runs only"
    )
    parser.add_argument("--weights", choices=("raw", "ema"), help="which evaluation to read")
    parser.add_argument("--json", action="store_true", help="print JSON, units in the keys")


def _fitting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--loss", choices=flags.LOSSES,
        help="what a fit minimises (huber)",
    )  # fmt: skip
    parser.add_argument("--delta", type=float, help="of the loss, in log units (huber: 1e-3)")
    parser.add_argument("--level", type=float, default=0.9, help="level of the intervals")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Fit, extrapolate and report the laws of a study.",
        epilog="example: python -m analysis report runs/first_ladder_dead_leaves",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, example: str) -> argparse.ArgumentParser:
        found = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: python -m analysis {name} {example}",
        )
        _common(found)
        return found

    command("table", "list the finished runs and what was left out", "runs/first_ladder")
    from analysis import fit_command

    found = command("fit", "fit laws to the runs", "runs/first_ladder --form power_floor_N")
    fit_command.add_arguments(found)
    _pins(found)
    _fitting(found)
    example = "runs/first_ladder --n 331776 --freeze runs/first_ladder/forecast.json"
    found = command("forecast", "forecast a run that is not trained yet", example)
    found.add_argument(
        "--form", default="power_floor_N", help='a law, or "average" of all that fit the table'
    )
    flags.add_variables(found, "the new run")
    found.add_argument(
        "--images", choices=("same", "other"), default="same",
        help="other adds the standard error of the loss (a run measured on other images)",
    )  # fmt: skip
    found.add_argument("--freeze", metavar="PATH", help="write the forecast down, with its date")
    _pins(found)
    _fitting(found)
    found = command("verify", "judge a frozen forecast by a measured run", "runs/first_ladder")
    found.add_argument("--frozen", metavar="PATH", help=f"default DIR/{FORECAST_FILE}")
    found.add_argument("--identity", help="the run to judge by, where several fit")
    found = command("report", "write one offline HTML page", "runs/first_ladder --out report.html")
    found.add_argument("--out", metavar="PATH", help="default DIR/report.html")
    found.add_argument(
        "--frozen", metavar="PATH", help=f"default DIR/{FORECAST_FILE} if it is there"
    )
    _fitting(found)
    _add_studies(command)
    _add_import(commands)
    return parser


def _add_studies(command: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """Commands with a file of their own."""
    from analysis import compare_command, next_command, optimum_command

    compare_command.add_arguments(command("compare", compare_command.SAY, compare_command.EXAMPLE))
    optimum_command.add_arguments(command("optimum", optimum_command.SAY, optimum_command.EXAMPLE))
    example = "runs/first_ladder --form separable --target N=1e6,D=2e7 --budget 1e14"
    found = command("next", "rank what to run next for one forecast", example)
    next_command.add_arguments(found)
    _fitting(found)


def _add_import(commands: argparse._SubParsersAction) -> None:
    from analysis import importers
    from analysis.columns import EXAMPLE

    text = "make a table of the runs that another tool recorded"
    example = f"runs.csv --kind wandb --columns {EXAMPLE} --output table.csv"
    example = f"example: python -m analysis import {example}"
    found = commands.add_parser("import", help=text, description=text, epilog=example)
    importers.add_arguments(found)


def _pins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pin", action="append", default=[], metavar="NAME=VALUE", help="hold a parameter"
    )


def _pairs(items: list[str], flag: str) -> dict[str, str]:
    for item in items:
        if "=" not in item:
            raise AnalysisError(f"{flag} {item!r}: allowed is NAME=VALUE")
    return dict(item.split("=", 1) for item in items)


def _pinned(options: argparse.Namespace) -> dict[str, float]:
    out = {}
    for name, value in _pairs(options.pin, "--pin").items():
        try:
            out[name] = float(value)
        except ValueError as error:
            raise AnalysisError(f"--pin {name}={value}: not a number") from error
    return out


def _table(options: argparse.Namespace) -> Table:
    where = _pairs(options.where, "--where")
    if Path(options.directory).suffix == ".csv":
        from analysis.run_table import read_table

        if options.weights:
            raise AnalysisError(f"{options.directory}: --weights is for run directories")
        return read_table(options.directory, where=where, convention=options.convention)
    from analysis.table import read_runs

    convention = options.convention or CONVENTIONS[0]
    return read_runs(options.directory, convention=convention, where=where, weights=options.weights)


def _beside(options: argparse.Namespace, name: str) -> Path:
    """A file in the study, or beside the table."""
    path = Path(options.directory)
    return (path.parent if path.suffix == ".csv" else path) / name


def _loss(options: argparse.Namespace) -> Loss:
    from analysis.losses import loss_named

    return loss_named(options.loss or "huber", options.delta)


def _say(text: str) -> None:
    """Print one line to standard output."""
    print(text)


def _next(options: argparse.Namespace, command: str) -> None:
    if not options.json:
        _say(f"next: python -m analysis {command}")


def _print_json(data: object) -> None:
    _say(json.dumps(data, indent=1))


def _show_runs(table: Table) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    title = f"{table.source}: N counts {table.convention}; losses in {table.loss_unit}"
    grid = Grid(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    shown = {
        "N": ("N", ",.0f"),
        "D_tokens": ("D tokens", ",.0f"),
        "C_flops": ("C FLOPs", ".2e"),
        table.loss_column: ("loss", ".4f"),
        table.loss_column.replace("loss_", "loss_se_", 1): ("± SE", ".4f"),
        "bits_per_dim": ("bits/dim", ".4f"),
    }
    columns = [name for name in shown if name in table.runs]
    for index, head in enumerate(("run", *(shown[name][0] for name in columns))):
        grid.add_column(head, justify="right" if index else "left", no_wrap=True)
    for _, run in table.runs.iterrows():
        cells = (str(run["name"]), *(format(run[name], shown[name][1]) for name in columns))
        grid.add_row(*map(Text, cells))
    Console().print(grid)


def _run_table(options: argparse.Namespace) -> None:
    table = _table(options)
    if options.json:
        left = [vars(run) | {"path": str(run.path)} for run in table.left_out]
        runs = json.loads(table.runs.to_json(orient="records"))
        _print_json({"convention_of_N": table.convention, "runs": runs, "left_out": left})
        return
    _show_runs(table)
    for run in table.left_out:
        _say(f"left out: {run}")
    _next(options, f"fit {options.directory}")


def _run_fit(options: argparse.Namespace) -> None:
    from analysis.fit_command import run_fit

    table = _table(options)
    run_fit(options, table, loss=_loss(options), pinned=_pinned(options), say=_say)
    if "N" in table.runs:
        largest = 4 * table.variable("N").max()
        _next(options, f"forecast {options.directory} --n {largest:.0f}")


def _law(options: argparse.Namespace) -> Fit | Comparison:
    """The law that forecasts: one form, or the average of all that fit the table."""
    from analysis.compare import compare
    from analysis.fit import fit
    from analysis.fit_command import points_for

    table, pinned = _table(options), _pinned(options)
    if options.form == AVERAGE:
        for flag, given in {
            "--pin": pinned,
            "--loss": options.loss,
            "--delta": options.delta,
        }.items():
            if given:
                raise AnalysisError(f"{flag}: not with --form {AVERAGE} (see compare)")
        return compare(table, level=options.level)
    return fit(
        options.form,
        points_for(options.form, table),
        loss=_loss(options),
        pinned=pinned,
        level=options.level,
    )


def _run_forecast(options: argparse.Namespace) -> None:
    import datetime

    from analysis.forecast import as_json, forecast, freeze
    from analysis.uncertainty import Images

    law = _law(options)
    images = Images(options.images)
    made = forecast(
        law, N=options.n, D=options.d, C=options.c, U=options.u, level=options.level,
        images=images,
    )  # fmt: skip
    if options.freeze:
        freeze(made, options.freeze, date=datetime.date.today().isoformat())
    if options.json:
        _print_json(as_json(made))
        return
    _say(law.summary())
    for note in made.notes:
        _say(f"note: {note}")
    _say(made.sentence)
    if options.freeze:
        _next(options, f"verify {options.directory} --frozen {options.freeze}")
    else:
        _next(options, f"forecast {options.directory} ... --freeze {FORECAST_FILE}")


def _frozen(options: argparse.Namespace) -> Path:
    return Path(options.frozen or _beside(options, FORECAST_FILE))


def _run_verify(options: argparse.Namespace) -> None:
    import datetime

    from analysis.forecast import suffixed, verify

    verdict = verify(
        _frozen(options),
        _table(options),
        identity=options.identity,
        date=datetime.date.today().isoformat(),
    )
    if options.json:
        unit = suffixed(verdict.loss_unit)
        out = {"sentence": verdict.sentence, "inside": verdict.inside, "identity": verdict.identity}
        _print_json(
            out | {f"measured_{unit}": verdict.measured, f"winkler_{unit}": verdict.winkler}
        )
        return
    _say(verdict.sentence)
    _say(f"Winkler score {verdict.winkler:.4f} {verdict.loss_unit}")
    _next(options, f"report {options.directory}")


def _run_report(options: argparse.Namespace) -> None:
    from analysis.report import write_report

    frozen = _frozen(options) if options.frozen or _frozen(options).is_file() else None
    out = Path(options.out or _beside(options, "report.html"))
    path = write_report(
        _table(options), out, frozen=frozen, loss=_loss(options), level=options.level
    )
    if options.json:
        _print_json({"report": str(path), "size_bytes": path.stat().st_size})
        return
    _say(f"wrote {path}")
    _next(options, f"table {options.directory}")


def _run_compare(options: argparse.Namespace) -> None:
    from analysis.compare_command import run_compare

    run_compare(options, _table(options), _say)
    _next(options, f"forecast {options.directory} --form {AVERAGE} ...")


def _run_optimum(options: argparse.Namespace) -> None:
    from analysis.optimum_command import run

    _say(run(options, _table(options)))
    _next(options, f"next {options.directory} ...")


def _run_next(options: argparse.Namespace) -> None:
    from analysis.next_command import run_next

    run_next(options, _table(options), _loss(options), _say)


def _run_import(options: argparse.Namespace) -> None:
    from analysis.importers import run_import

    run_import(options, _say)


RUN: dict[str, Callable[[argparse.Namespace], None]] = {
    "table": _run_table,
    "fit": _run_fit,
    "forecast": _run_forecast,
    "compare": _run_compare,
    "optimum": _run_optimum,
    "next": _run_next,
    "import": _run_import,
    "verify": _run_verify,
    "report": _run_report,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 2 and one line on stderr where the user erred."""
    options = _parser().parse_args(arguments)
    try:
        RUN[options.command](options)
    except (AnalysisError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
