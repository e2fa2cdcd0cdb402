"""Does a ladder that is killed again and again end as one that is not?

    python tools/kill_ladder.py --kills 10 --seed 0
    python tools/kill_ladder.py --kills 10 --seed 0 --scale 0.05    # a rehearsal of two minutes

Trains the first ladder once undisturbed and once in another folder, there killed with SIGKILL
(the whole process tree) at seeded random moments and started again each time. Then every record
must be the same without its clock, and the parameters the same bit for bit. Exit code 1 where not.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
LADDER = ROOT / "experiments" / "01_first_ladder" / "ladder.py"


def main() -> int:
    """Run both ladders and compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--data", default="dead_leaves")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/killed"))
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    flags, overrides = parser.parse_known_args()
    command = [sys.executable, str(LADDER), "--data", flags.data, *overrides]
    straight, killed = flags.workdir / "straight", flags.workdir / "killed"
    began_s = time.monotonic()
    finish([*command, "--workdir", str(straight)])
    usual_s = time.monotonic() - began_s
    say(f"undisturbed: {usual_s:.0f} s")
    again = [*command, "--workdir", str(killed)]
    moments = random.Random(flags.seed)
    done = 0
    while done < flags.kills:
        # The gaps add up to about the time that the ladder takes, start-ups lost included.
        if kill_after([*again], moments.uniform(2.0, 2.4 * usual_s / flags.kills + 4.0)):
            done += 1
            say(f"killed {done} of {flags.kills}")
        else:
            say(f"finished after {done} kills")
            break
    finish(again)
    rows = compare(straight, killed)
    show(rows, kills=done, as_json=flags.json)
    return 0 if rows and all(row["same_rows"] and row["same_params"] for row in rows) else 1


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr, flush=True)


def finish(command: list[str]) -> None:
    """Run to the end; anything but success ends this tool."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} left with {done.returncode}")


def kill_after(command: list[str], seconds: float) -> bool:
    """Start it and kill its whole tree after so long; False where it had ended before."""
    import psutil

    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    try:
        child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        tree = [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]
        for process in tree:
            if process.is_running():
                process.kill()
        psutil.wait_procs(tree, timeout=30)
        child.wait()
        return True
    return False


def compare(straight: pathlib.Path, killed: pathlib.Path) -> list[dict[str, Any]]:
    """A row a run: are the rows and the parameters the same, and how many rows there are."""
    rows = []
    for path in sorted(straight.glob("*/*/record.jsonl")):
        ours, theirs = read(path), read(killed / path.relative_to(straight))
        rows.append(
            {
                "run": ours[0]["name"],
                "rows": len(ours),
                "same_rows": ours == theirs,
                "same_params": bool(theirs)
                and ours[-1].get("params_sha256") == theirs[-1].get("params_sha256"),
            }
        )
    return rows


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a record without the clock."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "clock"} for row in rows]


def show(rows: list[dict[str, Any]], *, kills: int, as_json: bool) -> None:
    """The comparison as a table."""
    if as_json:
        print(json.dumps({"kills": kills, "runs": rows}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{kills} kills", title_justify="left")
    for heading in ("run", "rows", "same rows", "same parameters"):
        table.add_column(heading)
    for row in rows:
        marks = ["yes" if row[key] else "[red]no[/]" for key in ("same_rows", "same_params")]
        table.add_row(row["run"], str(row["rows"]), *marks)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
