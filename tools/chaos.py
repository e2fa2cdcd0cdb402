"""Machines that come and go at random while they serve one sweep: is each run trained once?

    python tools/chaos.py                                         # 4 rounds, some minutes
    python tools/chaos.py --rounds 1 --runs 2 --machines 3 --seed 7 --json
    python tools/chaos.py --only stall --only kill-worker --every-s 1

A round is a sweep of small runs in an empty folder, served by several sweep commands as if each
were a machine of its own. Random ones, at moments drawn from the seed, lose all of their processes,
their worker or their launcher by SIGKILL, get SIGTERM, or stand still (SIGSTOP) for longer than a
lease and go on; new ones come in their place. When all runs have ended, each must have one end row,
the rows and parameters, bit for bit, of one that nothing happened to, and no two sessions at a
time; no process and no folder may be left over. The same command goes on where it was stopped;
rounds are kept in WORKDIR/rounds.jsonl, and the folder of a bad one stays. Exit code 1 where a
round was bad, 2 for bad flags.
"""

import argparse
import collections
import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import sys
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main() -> int:
    """Play the rounds that are missing, and show the table."""
    from tools.chaos_machines import DISTURBANCES

    flags = parse(list(DISTURBANCES))
    flags.workdir.mkdir(parents=True, exist_ok=True)
    path = flags.workdir / "rounds.jsonl"
    asked = asked_of(flags)
    have = {row["round"]: row for row in told(path) if row["asked"] == asked}
    for index in range(flags.rounds):
        if index not in have:
            have[index] = {"round": index, "asked": asked, **play_one(index, flags)}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(have[index]) + "\n")
    rows = [have[index] for index in range(flags.rounds)]
    show(rows, as_json=flags.json)
    return int(any(not good(row) for row in rows))


def parse(kinds: list[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=4)
    add("--runs", type=int, default=3, help="of a sweep (3)")
    add("--steps", type=int, default=600, help="of a run (600)")
    add(
        "--machines",
        type=int,
        default=4,
        help="at any time: more than runs, so that some can take over (4)",
    )
    add("--disturbances", type=int, default=20, help="of a round, at most (20)")
    add("--every-s", type=float, default=2.0, help="seconds between two, on the mean (2)")
    add("--only", action="append", metavar="KIND", help=f"one of {', '.join(kinds)}")
    add("--seed", type=int, default=0, help="of moments, machines and disturbances")
    add("--workdir", type=pathlib.Path, default=pathlib.Path("runs/chaos"))
    add("--json", action="store_true", help="print the table as JSON")
    flags = parser.parse_args()
    flags.workdir = flags.workdir.absolute()
    for name in ("rounds", "runs", "steps", "machines", "disturbances"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name} {getattr(flags, name)}: at least 1")
    if not 0 < flags.every_s < float("inf"):
        parser.error(f"--every-s {flags.every_s}: more than 0")
    for kind in flags.only or ():
        if kind not in kinds:
            parser.error(f"--only {kind}: no such disturbance; there are {', '.join(kinds)}")
    flags.kinds = flags.only or kinds
    return flags


def asked_of(flags: argparse.Namespace) -> dict[str, Any]:
    """What a round is a function of, but for its number and the moments of the machine."""
    names = ("runs", "steps", "machines", "disturbances", "every_s", "kinds", "seed")
    return {name: getattr(flags, name) for name in names}


def told(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Rounds that were played before; a half-written line is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return (json.loads(line) for line in lines)


def play_one(index: int, flags: argparse.Namespace) -> dict[str, Any]:
    """One round, said in a line; its folder is left where it was bad."""
    from tools.chaos_round import Plan, play

    asked = asked_of(flags)
    seed, kinds = asked.pop("seed"), tuple(asked.pop("kinds"))
    plan = Plan(workdir=flags.workdir, kinds=kinds, **asked)
    folder = flags.workdir / f"round-{seed}-{index}"
    shutil.rmtree(folder, ignore_errors=True)
    found = dataclasses.asdict(play(plan, random.Random(f"{seed}/{index}"), folder))
    if good(found | {"asked": asked}):
        shutil.rmtree(folder, ignore_errors=True)
    disturbed = sum(found["disturbed"].values())
    line = f"round {index + 1} of {flags.rounds}: {disturbed} disturbances, {found['seconds']} s"
    print(f"{line}, {len(found['bad'])} defects", file=sys.stderr, flush=True)
    return found


def good(row: dict[str, Any]) -> bool:
    """Whether something was disturbed, and all ended as it should."""
    whole = row["ended_once"] == row["same"] == row["asked"]["runs"]
    return whole and not row["bad"] and bool(row["disturbed"])


def show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """The table for people, or as JSON."""
    if as_json:
        print(json.dumps({"rounds": rows, "good": sum(good(row) for row in rows)}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    asked = rows[0]["asked"]
    title = f"Chaos, seed {asked['seed']}: {asked['runs']} runs, {asked['machines']} machines"
    table = Table(title=title, title_justify="left")
    headings = ("round", "good", "disturbances", "sessions", "ended once", "bit for bit")
    for heading in (*headings, "productive", "seconds"):
        table.add_column(heading)
    for row in rows:
        ways = collections.Counter(row["disturbed"]).most_common()
        table.add_row(
            str(row["round"] + 1),
            "yes" if good(row) else "[red]no[/]",
            ", ".join(f"{count} {kind}" for kind, count in ways),
            str(row["sessions"]),
            f"{row['ended_once']} of {asked['runs']}",
            f"{row['same']} of {asked['runs']}",
            f"{row['productive_share']:.0%}",
            f"{row['seconds']:.0f}",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for row in rows:
        for line in row["bad"] or ([] if row["disturbed"] else ["nothing was disturbed"]):
            print(f"round {row['round'] + 1}: {line}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # where this file is run by its path
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends machines too
    sys.exit(main())
