"""python -m analysis COMMAND: table, fit, compare, forecast, report, quality (see --help)."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from analysis import flags
from analysis.errors import AnalysisError
from analysis.flags import AVERAGE

if TYPE_CHECKING:
    from analysis.losses import Loss
    from analysis.study import Study
    from analysis.table import Table

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # before NumPy: matrices here are tiny, threads spin

CONVENTIONS = ("blocks", "blocks+head", "total")
FORECAST_FILE = "forecast.json"


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="a study, a run, or a table of import")
    parser.add_argument("--convention", choices=CONVENTIONS, help="what N counts (blocks)")
    parser.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE", help="keep these runs only"
    )
    parser.add_argument("--weights", choices=("raw", "ema"), help="which evaluation to read")
    parser.add_argument("--json", action="store_true", help="print JSON, units in the keys")
    flags.add_quantity(parser)


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
    flags.add_by(found)
    _fitting(found)
    _add_studies(command)
    _add_quality(commands)
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


def _add_quality(commands: argparse._SubParsersAction) -> None:
    from analysis import quality_command

    found = commands.add_parser(
        "quality",
        help=quality_command.SAY,
        description=quality_command.SAY,
        epilog=f"example: python -m analysis quality {quality_command.EXAMPLE}",
    )
    quality_command.add_arguments(found)


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


def _of_csv(options: argparse.Namespace) -> bool:
    return Path(options.directory).suffix == ".csv"


def _refuse_csv(options: argparse.Namespace, flag: str) -> None:
    if _of_csv(options):
        raise AnalysisError(f"{options.directory}: {flag} is for run directories")


def _study(options: argparse.Namespace) -> Study:
    from analysis.study import read_study

    return read_study(
        options.directory,
        convention=options.convention or CONVENTIONS[0],
        weights=options.weights,
        metric=options.metric,
        unit=options.unit or flags.UNITS[0],
        where=_pairs(options.where, "--where"),
    )


def _table(options: argparse.Namespace) -> Table:
    where = _pairs(options.where, "--where")
    if not _of_csv(options):
        return _study(options).table(where, unique_varies=flags.of_unique_tokens(options))
    from analysis.run_table import read_table

    for flag in ("weights", "metric", "unit"):
        if vars(options)[flag]:
            _refuse_csv(options, f"--{flag}")
    return read_table(options.directory, where=where, convention=options.convention)


def _beside(options: argparse.Namespace, name: str) -> Path:
    """A file in the study, or beside the table."""
    path = Path(options.directory)
    return (path.parent if path.suffix == ".csv" else path) / name


def _loss(options: argparse.Namespace) -> Loss:
    from analysis.losses import loss_named

    return loss_named(options.loss or "huber", options.delta)


def _say(text: str) -> None:
    """Print one line to standard output, at once: a reader of a pipe waits for no other."""
    print(text, flush=True)


def _next(options: argparse.Namespace, command: str) -> None:
    """What to do next, with the flags that chose these runs."""
    if options.json:
        return
    flags_of = [f"--where {shlex.quote(pair)}" for pair in options.where]
    for name in ("metric", "unit", "weights", "convention"):
        if vars(options)[name]:
            flags_of.append(f"--{name} {shlex.quote(vars(options)[name])}")
    _say(" ".join([f"next: python -m analysis {command}", *flags_of]))


def _print_json(data: object) -> None:
    _say(json.dumps(data, indent=1))


def _run_table(options: argparse.Namespace) -> None:
    from analysis.table_command import run_groups, run_table

    where = _pairs(options.where, "--where")
    after = None if _of_csv(options) else run_groups(options, _study(options), where, _say)
    if after is not None:
        _next(options, after)
        return
    run_table(options, _table(options), _say)
    _next(options, f"fit {options.directory}")


def _say_metric(options: argparse.Namespace, table: Table) -> None:
    """Where a metric is in the place of the loss: how it was measured, and of whom it was not."""
    if not options.metric or options.json:
        return
    from analysis.quality_metric import about

    _say(about(table.runs, table.loss_unit))
    for run in table.left_out:
        _say(f"left out: {run}")


def _run_fit(options: argparse.Namespace) -> None:
    from analysis import curve_command
    from analysis.annealing import OF_CURVES
    from analysis.fit_command import run_fit

    if options.form in OF_CURVES:
        curve_command.run(options, _pairs(options.where, "--where"), _pinned(options), _say)
        _next(options, f"report {options.directory}")
        return
    curve_command.refuse_flags(options)
    table = _table(options)
    _say_metric(options, table)
    run_fit(options, table, loss=_loss(options), pinned=_pinned(options), say=_say)
    if "N" in table.runs:
        largest = 4 * table.variable("N").max()
        _next(options, f"forecast {options.directory} --n {largest:.0f}")


def _run_forecast(options: argparse.Namespace) -> None:
    from analysis.forecast_command import run_forecast

    run_forecast(options, _table(options), loss=_loss(options), pinned=_pinned(options), say=_say)
    if options.freeze:
        _next(options, f"verify {options.directory} --frozen {options.freeze}")
    else:
        _next(options, f"forecast {options.directory} ... --freeze {FORECAST_FILE}")


def _frozen(options: argparse.Namespace) -> Path:
    return Path(options.frozen or _beside(options, FORECAST_FILE))


def _run_verify(options: argparse.Namespace) -> None:
    from analysis.forecast_command import run_verify

    run_verify(options, _table(options), _frozen(options), _say)
    _next(options, f"report {options.directory}")


def _run_report(options: argparse.Namespace) -> None:
    from analysis import report_command
    from analysis.report import write_report

    out = Path(options.out or _beside(options, "report.html"))
    if options.by:
        _report_families(options, out)
        return
    frozen = _frozen(options) if options.frozen or _frozen(options).is_file() else None
    path = write_report(
        _table(options), out, frozen=frozen, loss=_loss(options), level=options.level,
        curves=report_command.curves_of(options, _pairs(options.where, "--where")),
    )  # fmt: skip
    _wrote(options, path)


def _wrote(options: argparse.Namespace, path: Path) -> None:
    if options.json:
        _print_json({"report": str(path), "size_bytes": path.stat().st_size})
        return
    _say(f"wrote {path}")
    _next(options, f"table {options.directory}")


def _report_families(options: argparse.Namespace, out: Path) -> None:
    """report --by: the page of several families; a frozen forecast is of one."""
    from analysis import report_families
    from analysis.compare_command import families_of
    from analysis.families import DEFAULT_FORM

    if options.frozen:
        raise AnalysisError("--frozen: not with --by; a forecast is of one family")
    _refuse_csv(options, "--by")
    found = families_of(options, _pairs(options.where, "--where"), DEFAULT_FORM)
    _wrote(options, report_families.write(found, out))


def _run_compare(options: argparse.Namespace) -> None:
    from analysis.compare_command import run_compare, run_families

    if options.by:
        _refuse_csv(options, "--by")
        run_families(options, _pairs(options.where, "--where"), _say)
        return
    table = _table(options)
    _say_metric(options, table)
    run_compare(options, table, _say)
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


def _run_quality(options: argparse.Namespace) -> None:
    from analysis.quality_command import run_quality

    run_quality(options, _pairs(options.where, "--where"), _say)


RUN: dict[str, Callable[[argparse.Namespace], None]] = {
    "table": _run_table,
    "fit": _run_fit,
    "forecast": _run_forecast,
    "compare": _run_compare,
    "optimum": _run_optimum,
    "next": _run_next,
    "import": _run_import,
    "quality": _run_quality,
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
