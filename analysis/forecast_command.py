"""python -m analysis forecast and verify: a forecast before the run, its judgement after it."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import AnalysisError
from analysis.flags import AVERAGE

if TYPE_CHECKING:
    from analysis.compare import Comparison
    from analysis.fit import Fit
    from analysis.losses import Loss
    from analysis.table import Table


def _law(
    options: argparse.Namespace, table: Table, *, loss: Loss, pinned: Mapping[str, float]
) -> Fit | Comparison:
    """The law that forecasts: one form, or the average of all that fit the table."""
    from analysis.compare import compare
    from analysis.fit import fit
    from analysis.forms import form_named
    from analysis.ladder import runs_for

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
        runs_for(form_named(options.form).variables, table),
        loss=loss,
        pinned=pinned,
        level=options.level,
    )


def run_forecast(
    options: argparse.Namespace,
    table: Table,
    *,
    loss: Loss,
    pinned: Mapping[str, float],
    say: Callable[[str], None],
) -> None:
    """Forecast, freeze where a path is named, and print the law and the sentence (or JSON)."""
    from analysis.forecast import as_json, forecast, freeze
    from analysis.prediction import Images

    law = _law(options, table, loss=loss, pinned=pinned)
    images = Images(options.images)
    made = forecast(
        law, N=options.n, D=options.d, C=options.c, U=options.u, level=options.level,
        images=images,
    )  # fmt: skip
    if options.freeze:
        freeze(made, options.freeze, date=datetime.date.today().isoformat())
    if options.json:
        say(json.dumps(as_json(made), indent=1))
        return
    say(law.summary())
    for note in made.notes:
        say(f"note: {note}")
    say(made.sentence)


def run_verify(
    options: argparse.Namespace, table: Table, frozen: Path, say: Callable[[str], None]
) -> None:
    """Judge a frozen forecast, keep the verdict, and print it (or JSON)."""
    from analysis.forecast import verify
    from analysis.units import suffix

    verdict = verify(
        frozen,
        table,
        identity=options.identity,
        date=datetime.date.today().isoformat(),
    )
    if options.json:
        unit = suffix(verdict.loss_unit)
        out = {"sentence": verdict.sentence, "inside": verdict.inside, "identity": verdict.identity}
        out |= {f"measured_{unit}": verdict.measured, f"winkler_{unit}": verdict.winkler}
        say(json.dumps(out, indent=1))
        return
    say(verdict.sentence)
    say(f"Winkler score {verdict.winkler:.4f} {verdict.loss_unit}")
