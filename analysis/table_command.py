"""python -m analysis table: the finished runs, and what was left out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from analysis.groups import COMPARABLE, FAMILY, differing, groups_of, side_by_side
from analysis.table import Table, filtered

if TYPE_CHECKING:
    from analysis.study import Study


def run_table(options: argparse.Namespace, table: Table, say: Callable[[str], None]) -> None:
    """Print the runs, or JSON."""
    if options.json:
        left = [vars(run) | {"path": str(run.path)} for run in table.left_out]
        runs = json.loads(table.runs.to_json(orient="records"))
        out = {"convention_of_N": table.convention, "runs": runs, "left_out": left}
        say(json.dumps(out, indent=1))
        return
    show_runs(table)
    for run in table.left_out:
        say(f"left out: {run}")


def run_groups(
    options: argparse.Namespace,
    study: Study,
    where: Mapping[str, str],
    say: Callable[[str], None],
) -> str | None:
    """Print the groups of a study that no single law may hold, each with what chooses it.

    Gives back the next command; None, and nothing printed, where the runs are one group.
    """
    runs = filtered(study.runs, where, study.source)
    groups = groups_of(runs, list(differing(runs, COMPARABLE | FAMILY)))
    if len(groups) == 1:
        return None
    if options.json:
        left = [vars(run) | {"path": str(run.path)} for run in study.left_out]
        found = [
            {"where": dict(group.where), "runs": json.loads(group.runs.to_json(orient="records"))}
            for group in groups
        ]
        out = {"convention_of_N": study.convention, "groups": found, "left_out": left}
        say(json.dumps(out, indent=1))
        return ""
    say(f"{len(runs)} runs in {len(groups)} groups whose losses are not comparable")
    for group in groups:
        kept = group.runs.sort_values(["N", "D_tokens", "seed"])
        show_runs(Table(kept, kept.iloc[:0], study.convention, group.flags, loss_unit=study.unit))
        fields = ", ".join(differing(kept, dict.fromkeys(study.varied, "")))
        if fields:
            say(f"differ in {fields}")
    for run in study.left_out:
        say(f"left out: {run}")
    by = side_by_side(runs)
    largest = max(groups, key=lambda group: len(group.runs))
    return f"report {study.source} {by}" if by else f"fit {study.source} {largest.flags}"


def show_runs(table: Table) -> None:
    """A row a run: sizes, tokens, compute, loss."""
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
