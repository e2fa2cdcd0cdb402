"""A measurement beside its target; the table that is printed of them, and the file."""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata as metadata
import importlib.util
import json
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from lab.core.step_folders import one_line
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
    """The accelerators if any, the processor, its cores, and the Python that measured."""
    cores = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if "jax" not in sys.modules:
        return cores
    import jax

    devices = jax.devices()
    if devices[0].platform == "cpu":
        return cores
    return f"{len(devices)} x {devices[0].device_kind}, {cores}"


def named(name: str, part: Callable[..., list[Row]], *given: object) -> Callable[[], list[Row]]:
    """A part to measure, with the name that the progress line shows."""
    made = functools.partial(part, *given)
    made.__name__ = name  # type: ignore[attr-defined]
    return made


def add_flags(parser: argparse.ArgumentParser) -> None:
    """How a benchmark tells its rows."""
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--out", type=pathlib.Path, help="write rows and hardware there")


def report(
    parts: Iterable[Callable[[], list[Row]]], flags: argparse.Namespace, argv: Sequence[str]
) -> int:
    """Measure, print and write as the flags say; 1 where a target is missed.

    2 where the file cannot be written, which is seen before anything is measured.
    """
    if flags.out and (reason := _refusal(flags.out)):
        print(f"error: --out {flags.out}: cannot be written: {reason}", file=sys.stderr)
        return 2
    rows = show(parts, as_json=flags.json)
    if flags.out:
        module = pathlib.Path(sys.argv[0]).stem
        document = {
            "command": shlex.join(["python", "-m", f"benchmarks.{module}", *argv]),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "hardware": hardware(),
            "versions": {
                name: metadata.version(name)
                for name in ("jax", "jaxlib", "torch")
                if importlib.util.find_spec(name)
            },
            "rows": [asdict(entry) for entry in rows],
        }
        flags.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return int(any(entry.met is False for entry in rows))


def _refusal(path: pathlib.Path) -> str:
    """Why a file cannot be written; "" where it can. What it holds stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        path.open("a", encoding="utf-8").close()
        if new:
            path.unlink()
    except OSError as error:
        return one_line(error)
    return ""


def show(parts: Iterable[Callable[[], list[Row]]], *, as_json: bool) -> list[Row]:
    """Measure part by part, then print all rows: a table, or JSON."""
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
