"""The share of a step's time that training waits for data, from the records of runs.

    python -m benchmarks.data_wait runs/02_tokens_elm [--json]

Every record under the folders is read: the time between asking for a batch and having it, over the
time of the steps, the first rows left out. A run that shares its cores with others shows more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.rows import Row, add_flags, named, report, row

SKIPPED_ROWS = 2  # of training, whose batches were being prefetched for the first time
TARGET = 0.02


def _measured(path: Path):
    from analysis.records import read_rows

    rows = read_rows(path)
    name = rows[0]["name"] if rows else str(path)
    clocks = [r["clock"] for r in rows if r["kind"] == "train"][SKIPPED_ROWS:]
    clocks = [clock for clock in clocks if "data_wait_s" in clock]
    if not clocks:
        return [
            Row(f"{name}: waiting", f"too short: no row after the first {SKIPPED_ROWS}", "", None)
        ]
    step_s = sum(clock["step_s"] for clock in clocks)
    share = sum(clock["data_wait_s"] for clock in clocks) / step_s
    title = f"{name}: waiting, of {1000 * step_s / len(clocks):.1f} ms a step"
    return [row(title, share, TARGET, form=".2%")]


def main(argv: list[str]) -> int:
    """Print a row a run; 1 where one waits longer than the target."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.data_wait",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    add_flags(parser)
    flags = parser.parse_args(argv)
    from analysis.errors import AnalysisError
    from analysis.records import record_paths

    try:
        paths = [path for folder in flags.runs for path in record_paths(folder)]
    except AnalysisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    parts = [named(path.parent.name, _measured, path) for path in paths]
    return report(parts, flags, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
