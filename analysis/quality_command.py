"""python -m analysis quality: what was measured of runs, a table a column, and the figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.quality_table import (
    RANDOMNESS,
    Column,
    as_rows,
    columns_of,
    floor_of,
    headline,
    last_name,
    read_evaluated,
    shown_settings,
)

if TYPE_CHECKING:
    import pandas as pd

SAY = "list and draw what was measured of images and features"
UNBROKEN = 240  # characters of a line that no terminal cuts
AT_EDGE = "penalty at the edge"
EXAMPLE = "runs/first_ladder --out quality"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `python -m analysis quality`; it takes several directories."""
    parser.add_argument("directories", metavar="DIR", nargs="+", help="studies or runs")
    parser.add_argument("--metric", metavar="M", help="this one only")
    parser.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE",
        help="keep these values only: family, size, step, samples, weights, extractor, settings.X",
    )  # fmt: skip
    parser.add_argument("--convention", default="blocks", help="what N counts (blocks)")
    parser.add_argument("--out", metavar="DIR", help="write the figures there as SVG")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_quality(
    options: argparse.Namespace, where: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Print the tables (or JSON), and write the figures where a folder is named."""
    found = read_evaluated(
        options.directories, convention=options.convention, metric=options.metric, where=where
    )
    written = []
    if options.out:
        from analysis.figures_quality import write_figures

        written = write_figures(found, Path(options.out))
    if options.json:
        left = [str(run) for run in found.left_out]
        out = {"convention_of_N": found.convention, "values": as_rows(found.values)}
        figures = [{"figure": str(path), "caption": caption} for path, caption in written]
        out |= {"left_out": left, "without_quality": list(found.without), "figures": figures}
        say(json.dumps(out, indent=1))
        return
    for column in columns_of(headline(found.values)):
        _show(column, found.values, every_layer=bool(options.metric))
        if column.same["what"] == RANDOMNESS:
            from analysis.quality_best import sentences

            for sentence in sentences(column):
                say(f"  {sentence}")
    for run in found.left_out:
        say(f"left out: {run}")
    if found.without:
        say(f"without quality.jsonl: {', '.join(found.without)}")
    for path, _ in written:
        say(f"wrote {path}")
    if written:
        say(f"wrote {written[0][0].parent / 'captions.md'}: what each figure is of")
    _say_next(options, found.metrics, say)


def _say_next(options: argparse.Namespace, metrics: list[str], say: Callable[[str], None]) -> None:
    if len(options.directories) == 1 and metrics:
        named = [name for name in metrics if name.startswith(("fd_", "fid")) and "_inf" not in name]
        first = (named or metrics)[0]
        say(f"next: python -m analysis fit {options.directories[0]} --metric {first}")


def _show(column: Column, values: pd.DataFrame, *, every_layer: bool) -> None:
    """One column of the study: a row a run and step; settings that differ stand beside it.

    Layers are cells of a row without intervals, or rows of their own with them.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    if column.layered and not every_layer:
        rows = _by_layer(column)
    else:
        rows = [_cells(row, column, values) for row in column.rows.to_dict("records")]
    heads = [head for head in rows[0] if any(row.get(head) for row in rows)]
    console = Console()
    if not console.is_terminal:
        console = Console(width=UNBROKEN)
    console.print(Text(column.title, style="bold"))
    if settings := shown_settings(column):
        console.print(Text(settings, style="dim"))
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    texts = ("run", "family", "size", *column.varied)
    for head in heads:
        grid.add_column(
            last_name(head), justify="left" if head in texts else "right", overflow="fold"
        )
    for row in rows:
        grid.add_row(*(Text(row.get(head, "")) for head in heads))
    console.print(grid)


def _about(row: Mapping, column: Column) -> dict[str, str]:
    return {
        "run": row["run"],
        "family": row["family"],
        "size": row["size"],
        "N": f"{row['N']:,.0f}",
        "step": f"{row['step']:,}",
        **{name: row[name] for name in column.varied},
    }


def _layer(row: Mapping) -> str:
    return "" if row["layer"] != row["layer"] else f"{row['stack']} {row['layer']:.0f}".strip()


def _by_layer(column: Column) -> list[dict[str, str]]:
    """A row a task, a cell a layer, and the widest half interval."""
    out = []
    for _, rows in column.rows.groupby(["identity", "key"], sort=False):
        every = rows.to_dict("records")
        cells = {f"layer {_layer(row)}": shown(row["value"]) for row in every}
        widest = max((row["high"] - row["low"]) / 2 for row in every)
        cells |= {"± at most": shown(widest), AT_EDGE: _at_edge(every)}
        out.append(_about(every[0], column) | cells)
    return out


def _at_edge(rows: Sequence[Mapping]) -> str:
    """1 of 4: probes whose penalty is the largest or smallest tried; empty where none has one."""
    told = [row["penalty_at_edge"] for row in rows if row["penalty_at_edge"] is not None]
    return f"{sum(map(bool, told))} of {len(told)}" if told else ""


def _cells(row: Mapping, column: Column, values: pd.DataFrame) -> dict[str, str]:
    cells = _about(row, column) | {
        "layer": _layer(row),
        column.metric: shown(row["value"]),
        f"{column.same['level']:.0%} interval": interval(row),
        AT_EDGE: {True: "yes", False: "no"}.get(row["penalty_at_edge"], ""),
    }
    real = floor_of(row, values)
    if len(real):
        one = real.iloc[0].to_dict()
        count = "" if one["samples"] == row["samples"] else f" of {one['samples']:,}"
        cells["real images"] = f"{shown(one['value'])} {interval(one)}{count}".strip()
    return cells


def shown(value: float) -> str:
    """Four significant digits, plainly."""
    if value != value:
        return "nan"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def interval(row: Mapping) -> str:
    """[ low, high ]; empty where none was stated."""
    if row["low"] != row["low"] or row["high"] != row["high"]:
        return ""
    return f"[ {shown(row['low'])}, {shown(row['high'])} ]"
