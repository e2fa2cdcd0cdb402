"""python -m analysis fit --form annealing: a law of whole curves, and what it forecasts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError

if TYPE_CHECKING:
    from analysis.curve_fit import CurveFit, CurvePrediction
    from analysis.learning_curves import Curves
    from analysis.rates import Schedule

LONGEST = "longest"
NUMBERS = ("N", "steps", "warmup_steps", "cooldown_fraction", "final_fraction")
AT = "N=1e6,steps=5000,schedule=wsd,cooldown_fraction=0.2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `fit` that are for the laws of whole curves."""
    curves = parser.add_argument_group("laws of whole curves (--form annealing, annealing_S)")
    curves.add_argument(
        "--memory", type=float, metavar="UPDATES",
        help="H, over which the rate is averaged (default: what fits best)",
    )  # fmt: skip
    curves.add_argument(
        "--hold-out", action="append", default=[], metavar="RUN",
        help=f'leave this run out and forecast its end; "{LONGEST}": the longest of each size',
    )  # fmt: skip
    curves.add_argument("--at", metavar="KEY=VALUE,...", help=f"forecast another schedule: {AT}")
    curves.add_argument("--plot", metavar="PATH", help="write the curves with the law as SVG")


def refuse_flags(options: argparse.Namespace) -> None:
    """Refuse the flags above where the law is none of whole curves."""
    given = {
        "--memory": options.memory,
        "--hold-out": options.hold_out,
        "--at": options.at,
        "--plot": options.plot,
    }
    for flag, value in given.items():
        if value:
            raise AnalysisError(f"{flag}: of the laws of whole curves only (--form annealing)")


def run(
    options: argparse.Namespace,
    where: Mapping[str, str],
    pinned: Mapping[str, float],
    say: Callable[[str], None],
) -> None:
    """Fit, forecast what was held out or asked for, print, draw."""
    from analysis import curve_text
    from analysis.curve_fit import fit_curves

    _refuse_others(options)
    curves = _read(options, where)
    kept, held = _held(curves, options.hold_out)
    how = {"pinned": pinned, "level": options.level, "delta": options.delta}
    found = fit_curves(
        kept, options.form, memory_steps=options.memory, loss=options.loss or "squares",
        cluster=options.cluster or "path", **how,
    )  # fmt: skip
    rows = found.forecast_of(held) if held else None
    made = _at(found, kept, options.at) if options.at else None
    if options.plot:
        found.plot(options.plot, held=held)
    if options.json:
        out = found.as_json()
        out |= {} if rows is None else {"held_out": json.loads(rows.to_json(orient="records"))}
        out |= {} if made is None else {"at": json.loads(made.frame().to_json(orient="records"))}
        say(json.dumps([out], indent=1))
        return
    say(found.summary())
    if rows is not None:
        say(curve_text.forecasts(rows, options.level))
    if made is not None:
        say(curve_text.prediction(made))


def _refuse_others(options: argparse.Namespace) -> None:
    """Refuse the flags of laws of runs, which resample and weigh in other ways."""
    given = {
        "--method": options.method != "residual",
        "--run-weights": options.run_weights != "equal",
        "--profile": options.profile,
        "--metric": options.metric,
    }
    for flag, value in given.items():
        if value:
            raise AnalysisError(f"{flag}: not of a law of whole curves (--form {options.form})")


def _read(options: argparse.Namespace, where: Mapping[str, str]) -> Curves:
    from analysis.flags import UNITS
    from analysis.learning_curves import read_curves

    if Path(options.directory).suffix == ".csv":
        raise AnalysisError(
            f"{options.directory}: --form {options.form} is for run directories, whose records "
            "hold the schedule"
        )
    return read_curves(
        options.directory, convention=options.convention or "blocks", where=where,
        weights=options.weights, unit=options.unit or UNITS[0],
    )  # fmt: skip


def _held(curves: Curves, names: list[str]) -> tuple[Curves, Curves | None]:
    """The curves that are fitted, and those that are held out, None where none are."""
    if not names:
        return curves, None
    wanted = [one for name in names for one in (curves.longest() if name == LONGEST else [name])]
    kept, held = curves.split(wanted)
    if not len(kept.points):
        raise AnalysisError(f"{curves.source}: --hold-out leaves no run to fit")
    return kept, held


def _at(found: CurveFit, curves: Curves, text: str) -> CurvePrediction:
    """The forecast that --at asks for; what it does not say is as in the curves."""
    schedule, size = _asked(text, next(iter(curves.schedules.values())))
    return found.predict(N=size, schedule=schedule)


def _asked(text: str, like: Schedule) -> tuple[Schedule, float | None]:
    """Schedule and size of a text such as AT; what it does not say is that of `like`."""
    from analysis.rates import Schedule

    given: dict[str, float] = {}
    name = "wsd"
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or key not in (*NUMBERS, "schedule"):
            allowed = ", ".join((*NUMBERS, "schedule"))
            raise AnalysisError(f"--at {part!r}: allowed is KEY=VALUE with KEY one of {allowed}")
        if key == "schedule":
            name = value.strip()
            continue
        try:
            given[key] = float(value)
        except ValueError as error:
            raise AnalysisError(f"--at {part!r}: {value!r} is not a number") from error
    if "steps" not in given:
        raise AnalysisError(f"--at {text!r}: no steps; for example {AT}")
    for key in ("steps", "warmup_steps"):
        if key in given and not (given[key] >= 0 and given[key].is_integer()):
            raise AnalysisError(f"--at {key}={given[key]:g}: a whole number of updates is expected")
    made = Schedule(
        name,
        int(given["steps"]),
        like.tokens_per_step,
        int(given.get("warmup_steps", like.warmup_steps)),
        given.get("cooldown_fraction", like.cooldown_fraction),
        given.get("final_fraction", like.final_fraction),
    )
    return made, given.get("N")
