"""How well the fitting engine does, row by row, against what the best tools reach.

    python -m benchmarks.fitting --tables LAWS [--json] [--only coverage]

LAWS is a folder of public tables (alabdulmohsin92.csv, gadre_*.csv, datablations_contours.csv,
porian2024_isoflop.csv, takano_llm.csv); without it only what needs no table is measured. Times are
CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before NumPy is loaded


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fitting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tables", type=Path, metavar="LAWS", help="the folder of public tables")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--only", metavar="PART", help="one part: " + ", ".join(PARTS))
    return parser


def _curves(folder: Path):
    from benchmarks.fitting_curves import curves

    return curves(folder)


def _decade(folder: Path):
    from benchmarks.fitting_decade import decade

    return decade(folder)


def _solver(folder: Path):
    from benchmarks.fitting_solver import solving

    return solving(folder)


def _isoflop(folder: Path):
    from benchmarks.fitting_isoflop import benchmark_rows

    return benchmark_rows(folder)


def _repeats(folder: Path):
    from benchmarks.fitting_repeats import repeats

    return repeats(folder)


def _refusals(folder: Path | None):
    from benchmarks.fitting_refusals import refusals

    return refusals()


def _coverage(folder: Path | None):
    from benchmarks.fitting_coverage import coverage

    return coverage()


PARTS = {
    "curves": _curves,
    "decade": _decade,
    "solver": _solver,
    "isoflop": _isoflop,
    "repeats": _repeats,
    "coverage": _coverage,
    "refusals": _refusals,
}
NEED_NO_TABLE = ("coverage", "refusals")


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 whether or not a target is met, 2 for a bad argument."""
    from benchmarks.rows import show

    options = _parser().parse_args(arguments)
    if options.only is not None and options.only not in PARTS:
        print(f"--only {options.only}: allowed are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if options.tables is not None and not (options.tables / "alabdulmohsin92.csv").is_file():
        print(f"--tables {options.tables}: holds no alabdulmohsin92.csv", file=sys.stderr)
        return 2
    names = [options.only] if options.only else list(PARTS)
    if options.tables is None:
        left = [name for name in names if name not in NEED_NO_TABLE]
        names = [name for name in names if name in NEED_NO_TABLE]
        if left:
            print(f"not measured without --tables: {', '.join(left)}", file=sys.stderr)
    parts = []
    for name in names:
        part = functools.partial(PARTS[name], options.tables)
        part.__name__ = name  # pyrefly: ignore
        parts.append(part)
    show(parts, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
