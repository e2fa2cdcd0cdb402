"""python -m analysis table|fit|forecast|verify|report DIR."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.estimate import Loss
    from analysis.table import Table

CONVENTIONS = ("blocks", "blocks+head", "total")
FORECAST_FILE = "forecast.json"


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="a study, or one run, or a tree of them")
    parser.add_argument("--convention", choices=CONVENTIONS, default="blocks", help="what N counts")
    parser.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE", help="keep these runs only"
    )
    parser.add_argument("--weights", choices=("raw", "ema"), help="which evaluation to read")
    parser.add_argument("--json", action="store_true", help="print JSON, units in the keys")


def _fitting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loss", choices=("huber", "squares"), default="huber")
    parser.add_argument("--delta", type=float, default=1e-3, help="Huber's delta in log units")
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
    found = command("fit", "fit laws to the runs", "runs/first_ladder --form power_floor_N")
    found.add_argument("--form", help="one form; without it L(N), L(C) and L(N, D)")
    _pins(found)
    _fitting(found)
    example = "runs/first_ladder --n 331776 --freeze runs/first_ladder/forecast.json"
    found = command("forecast", "forecast a run that is not trained yet", example)
    found.add_argument("--form", default="power_floor_N")
    for name, what in (("n", "parameters"), ("d", "tokens"), ("c", "FLOPs")):
        found.add_argument(f"--{name}", type=float, help=f"{what} of the new run")
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
    return parser


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
    from analysis.table import read_runs

    where = _pairs(options.where, "--where")
    return read_runs(
        options.directory, convention=options.convention, where=where, weights=options.weights
    )


def _loss(options: argparse.Namespace) -> Loss:
    from analysis.fit import loss_named

    return loss_named(options.loss, options.delta)


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

    title = f"{table.source}: N counts {table.convention}; losses in nats/token"
    grid = Grid(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, head in enumerate(("run", "N", "D tokens", "C FLOPs", "loss", "± SE", "bits/dim")):
        grid.add_column(head, justify="right" if index else "left", no_wrap=True)
    for run in table.runs.itertuples():
        cells = (
            str(run.name),
            f"{run.N:,.0f}",
            f"{run.D_tokens:,.0f}",
            f"{run.C_flops:.2e}",
            f"{run.loss_nats_per_token:.4f}",
            f"{run.loss_se_nats_per_token:.4f}",
            f"{run.bits_per_dim:.4f}",
        )
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
    from analysis.fit import fit
    from analysis.laws import Law, ladder_of, standard_laws

    table, loss = _table(options), _loss(options)
    pinned = _pinned(options)
    if options.form:
        used = ladder_of(table) if options.form != "separable" else table
        made = fit(options.form, used, loss=loss, pinned=pinned, level=options.level)
        laws = (Law(options.form, made),)
    elif pinned:
        raise AnalysisError("--pin needs --form")
    else:
        laws = standard_laws(table, loss=loss, level=options.level)
    if options.json:
        _print_json([law.fit.as_json() if law.fit else {"problem": law.problem} for law in laws])
        return
    for law in laws:
        _say(law.fit.summary() if law.fit else f"{law.title}: {law.problem}")
        if law.fit and law.fit.table.not_used:
            _say(f"  not used (another D): {', '.join(law.fit.table.not_used)}")
    largest = 4 * table.variable("N").max()
    _next(options, f"forecast {options.directory} --n {largest:.0f}")


def _run_forecast(options: argparse.Namespace) -> None:
    import datetime

    from analysis.fit import fit
    from analysis.forecast import as_json, forecast, freeze
    from analysis.laws import ladder_of
    from analysis.uncertainty import Images

    table = _table(options)
    table = table if options.form == "separable" else ladder_of(table)
    law = fit(
        options.form, table, loss=_loss(options), pinned=_pinned(options), level=options.level
    )
    images = Images(options.images)
    made = forecast(law, N=options.n, D=options.d, C=options.c, level=options.level, images=images)
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
    return Path(options.frozen or Path(options.directory) / FORECAST_FILE)


def _run_verify(options: argparse.Namespace) -> None:
    import datetime

    from analysis.forecast import verify

    verdict = verify(
        _frozen(options),
        _table(options),
        identity=options.identity,
        date=datetime.date.today().isoformat(),
    )
    if options.json:
        unit = verdict.loss_unit.replace("/", "_per_")
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
    out = Path(options.out or Path(options.directory) / "report.html")
    path = write_report(
        _table(options), out, frozen=frozen, loss=_loss(options), level=options.level
    )
    if options.json:
        _print_json({"report": str(path), "size_bytes": path.stat().st_size})
        return
    _say(f"wrote {path}")
    _next(options, f"table {options.directory}")


RUN: dict[str, Callable[[argparse.Namespace], None]] = {
    "table": _run_table,
    "fit": _run_fit,
    "forecast": _run_forecast,
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
