"""How well the fitting engine does, row by row, against what the best tools reach.

    python -m benchmarks.fitting --tables LAWS [--json] [--out FILE] [--only coverage]

LAWS is a folder of public tables (alabdulmohsin92.csv, gadre_*.csv, datablations_contours.csv,
porian2024_isoflop.csv, takano_llm.csv); without it only what needs no table is measured. Times are
CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before NumPy is loaded


def _parser() -> argparse.ArgumentParser:
    from benchmarks.rows import add_flags

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fitting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tables", type=Path, metavar="LAWS", help="the folder of public tables")
    parser.add_argument("--only", metavar="PART", choices=sorted(PARTS), help="one part")
    add_flags(parser)
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


def main(argv: list[str]) -> int:
    """Print the rows; 1 where a target is missed, 2 for a bad argument."""
    from benchmarks.rows import named, report

    flags = _parser().parse_args(argv)
    if flags.tables is not None and not (flags.tables / "alabdulmohsin92.csv").is_file():
        print(f"error: --tables {flags.tables}: holds no alabdulmohsin92.csv", file=sys.stderr)
        return 2
    chosen = [flags.only] if flags.only else list(PARTS)
    if flags.tables is None:
        left = [name for name in chosen if name not in NEED_NO_TABLE]
        chosen = [name for name in chosen if name in NEED_NO_TABLE]
        if left:
            print(f"not measured without --tables: {', '.join(left)}", file=sys.stderr)
    return report([named(name, PARTS[name], flags.tables) for name in chosen], flags, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
