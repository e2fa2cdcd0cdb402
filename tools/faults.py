"""Every fault that we know how to make, several times, on small runs: does each end well?

    python tools/faults.py                                       # the table, some minutes
    python tools/faults.py --only kill-in-save --tries 200
    python tools/faults.py --only kill --only nan-skip --json

Each try must end in a run that is bit for bit the one to which nothing happened, or in a clear
stop: one line, and the exit code that docs/reliability.md gives it. Moments are drawn from the
seed. The same command goes on where it was stopped; tries are kept in WORKDIR/tries.jsonl. Exit
code 1 where a try ended otherwise, 2 for bad flags.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRIES = 4


@dataclasses.dataclass(frozen=True)
class Told:
    """One try, as it stands in the file."""

    fault: str
    index: int
    seed: int
    good: bool
    outcome: str
    lost_steps: int | None
    detail: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Row:
    """All tries of a fault."""

    fault: str
    what: str
    tries: int
    good: int
    lost_median: float | None
    lost_most: int | None
    outcomes: dict[str, int]
    details: dict[str, int]
    bad: tuple[str, ...]


def main() -> int:
    """Make the tries that are missing, and show the table."""
    from tools.fault_kinds import FAULTS

    flags = parse(FAULTS)
    flags.workdir.mkdir(parents=True, exist_ok=True)
    wanted = flags.only or list(FAULTS)
    tries = list(told(flags.workdir / "tries.jsonl"))
    have = {(t.fault, t.index) for t in tries if t.seed == flags.seed}
    missing = [(f, i) for f in wanted for i in range(flags.tries) if (f, i) not in have]
    tries += make(missing, flags)
    kept = [t for t in tries if t.seed == flags.seed and t.index < flags.tries]
    rows = [row(name, FAULTS[name][0], [t for t in kept if t.fault == name]) for name in wanted]
    show(rows, as_json=flags.json, seed=flags.seed)
    return int(any(each.good < each.tries for each in rows))


def parse(names: Sequence[str] | Any) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    listed = ", ".join(names)
    parser.add_argument("--tries", type=int, default=TRIES, help=f"of each fault ({TRIES})")
    parser.add_argument("--only", action="append", metavar="FAULT", help=f"one of {listed}")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/faults"))
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    flags = parser.parse_args()
    flags.workdir = flags.workdir.absolute()
    if flags.tries < 1:
        parser.error(f"--tries {flags.tries}: at least 1")
    for name in flags.only or ():
        if name not in names:
            parser.error(f"--only {name}: no such fault; there are {listed}")
    return flags


def told(path: pathlib.Path) -> Iterator[Told]:
    """Tries that were made before; a half-written line is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return (Told(**json.loads(line)) for line in lines)


def make(missing: list[tuple[str, int]], flags: argparse.Namespace) -> list[Told]:
    """Make these tries one after the other, and keep each as soon as it is made."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[at]}"),
    )
    made = []
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(missing), at="")
        for fault, index in missing:
            bar.update(task, at=f"{fault} {index + 1}")
            one = make_one(fault, index, flags)
            with (flags.workdir / "tries.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(one)) + "\n")
            made.append(one)
            if not one.good:
                bar.console.print(f"{fault} {index + 1}: {one.outcome}: {one.detail}", markup=False)
            bar.advance(task)
    return made


def make_one(fault: str, index: int, flags: argparse.Namespace) -> Told:
    """One try; its folder is left where it ended badly."""
    import shutil

    from tools.fault_kinds import FAULTS
    from tools.fault_stage import Stage

    stage, name = Stage(flags.workdir), f"{fault}-{index}"
    began_s = time.monotonic()
    found = FAULTS[fault][1](stage, name, random.Random(f"{flags.seed}/{fault}/{index}"))
    if found.good:
        shutil.rmtree(flags.workdir / name, ignore_errors=True)
    seconds = round(time.monotonic() - began_s, 1)
    return Told(fault, index, flags.seed, **dataclasses.asdict(found), seconds=seconds)


def row(fault: str, what: str, tries: list[Told]) -> Row:
    """A line of the table."""
    lost = [t.lost_steps for t in tries if t.lost_steps is not None]
    return Row(
        fault=fault,
        what=what,
        tries=len(tries),
        good=sum(t.good for t in tries),
        lost_median=statistics.median(lost) if lost else None,
        lost_most=max(lost) if lost else None,
        outcomes=dict(collections.Counter(t.outcome for t in tries).most_common()),
        details=dict(collections.Counter(t.detail for t in tries if t.good and t.detail)),
        bad=tuple(f"try {t.index}: {t.outcome}: {t.detail}" for t in tries if not t.good),
    )


def show(rows: list[Row], *, as_json: bool, seed: int) -> None:
    """The table for people, or as JSON."""
    if as_json:
        print(json.dumps({"seed": seed, "rows": [dataclasses.asdict(r) for r in rows]}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Faults, seed {seed}", title_justify="left")
    for heading in ("fault", "tries", "good", "lost steps: median, most", "outcome"):
        table.add_column(heading)
    for each in rows:
        lost = "" if each.lost_median is None else f"{each.lost_median:g}, {each.lost_most}"
        ways = "; ".join(f"{count} {outcome}" for outcome, count in each.outcomes.items())
        table.add_row(each.what, str(each.tries), str(each.good), lost, ways)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for each in rows:
        for line in each.bad:
            print(f"{each.fault}: {line}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # where this file is run by its path
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
