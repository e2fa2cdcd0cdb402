"""A measurement beside its target, and the table that is printed of them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from lab.launch.calibration import processor


@dataclass(frozen=True)
class Row:
    """One line: what was measured, what was aimed at; met is None where nothing was aimed at."""

    name: str
    value: str
    target: str
    met: bool | None


def row(name: str, value: float, target: float, *, best: str = "at most", form: str = ".4f") -> Row:
    """A number that must be at most, or at least, its target."""
    met = value <= target if best == "at most" else value >= target
    return Row(name, format(value, form), f"{best} {format(target, form)}", bool(met))


def within(name: str, low: float, high: float, target: tuple[float, float]) -> Row:
    """A range of numbers that must lie inside its target."""
    value = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
    met = target[0] <= low and high <= target[1]
    return Row(name, value, f"{target[0]:.3f} to {target[1]:.3f}", met)


def hardware() -> str:
    """The processor, its cores, and the Python that measured."""
    return f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def show(parts: Iterable[Callable[[], list[Row]]], *, as_json: bool) -> list[Row]:
    """Measure part by part and print each row as it comes, or all of them as JSON."""
    from rich.console import Console
    from rich.table import Table

    made: list[Row] = []
    console = Console(stderr=True)
    for part in parts:
        with console.status(part.__name__.replace("_", " ")):
            made += part()
    if as_json:
        print(json.dumps({"hardware": hardware(), "rows": [asdict(entry) for entry in made]}))
        return made
    table = Table("measured", "value", "target", "met", caption=hardware())
    words = {True: "yes", False: "no", None: ""}
    for entry in made:
        table.add_row(entry.name, entry.value, entry.target, words[entry.met])
    Console(width=140).print(table)
    return made
