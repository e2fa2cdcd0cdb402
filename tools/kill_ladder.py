"""Does a ladder that is killed again and again end as one that is not?

    python tools/kill_ladder.py --kills 10 --seed 0
    python tools/kill_ladder.py --kills 10 --seed 0 --scale 0.05    # a rehearsal of three minutes

Trains the first ladder once undisturbed and once in another folder, there killed with SIGKILL
(the whole process tree) at seeded random moments and started again each time. Then every record
must be the same without its clock, the parameters the same bit for bit, and so the forecast.
Flags that are not this tool's go to the ladder. Exit code 1 where something differs, and where
the ladder ended before all kills were delivered.
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
FAILURE, BAD_INPUT = 1, 2
START_UP_S = 2.0  # what a start loses before it trains, at least
SAME = ("same_rows", "same_params", "same_images")


def main() -> int:
    """Run both ladders and compare them."""
    flags, others = parse()
    straight, killed = flags.workdir / "straight", flags.workdir / "killed"
    ladders = ("--config.", "--scale", "--workers")
    wrong = [flag for flag in others if flag.startswith("--") and not flag.startswith(ladders)]
    if wrong:
        return refuse(f"{wrong[0]}: no such flag; see --help")
    for folder in (straight, killed):
        if folder.exists():
            return refuse(f"{folder}: already there; remove it or name another --workdir")
    command = [sys.executable, str(LADDER), "--data", flags.data, *others]
    began_s = time.monotonic()
    finish([*command, "--workdir", str(straight)])
    usual_s = time.monotonic() - began_s
    say(f"undisturbed: {usual_s:.0f} s")
    again = [*command, "--workdir", str(killed)]
    hit = kill_again(again, flags, usual_s=usual_s, folder=killed)
    finish(again)
    found = compare(straight, killed)
    total = len(found["runs"])
    found |= {"kills": len(hit), "kills_in_training": sum(ended < total for ended in hit)}
    found |= {"kills_asked": flags.kills, "undisturbed_s": round(usual_s, 1)}
    show(found, as_json=flags.json)
    return verdict(found)


def parse() -> tuple[argparse.Namespace, list[str]]:
    """This tool's flags, and the ladder's."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--data", default="dead_leaves")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/killed"))
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    return parser.parse_known_args()


def refuse(line: str) -> int:
    """Bad input: one line, exit code 2."""
    print(f"error: {line}", file=sys.stderr)
    return BAD_INPUT


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr, flush=True)


def finish(command: list[str]) -> None:
    """Run to the end; anything but success ends this tool."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} left with {done.returncode}")


def kill_again(
    command: list[str], flags: argparse.Namespace, *, usual_s: float, folder: pathlib.Path
) -> list[int]:
    """Kill and start again at seeded moments; how many runs had ended at each kill."""
    hit: list[int] = []
    for number, seconds in enumerate(gaps(flags.kills, flags.seed, usual_s=usual_s), start=1):
        if not kill_after(command, seconds):
            say(f"finished before kill {number}")
            break
        hit.append(ended_runs(folder))
        say(f"killed {number} of {flags.kills}, {seconds:.1f} s after its start; {reached(folder)}")
    return hit


def gaps(kills: int, seed: int, *, usual_s: float) -> list[float]:
    """Seconds from each start to its kill: moments spread at random over nine tenths of the time.

    A start adds its own cost, or the late stages would never be reached. Work since the last save
    is lost at a kill, so that the ladder is behind the moments and not done before the last.
    """
    chance = random.Random(seed)
    moments = sorted(chance.uniform(0.0, 0.9 * usual_s) for _ in range(kills))
    before = [0.0, *moments[:-1]]
    return [b - a + START_UP_S for a, b in zip(before, moments, strict=True)]


def records(folder: pathlib.Path) -> list[str]:
    """The text of every record."""
    return [path.read_text(encoding="utf-8") for path in folder.glob("*/*/record.jsonl")]


def ended_runs(folder: pathlib.Path) -> int:
    """How many runs have their end row."""
    return sum('"kind": "end"' in text for text in records(folder))


def reached(folder: pathlib.Path) -> str:
    """How far the ladder is, in words."""
    rows = sum(text.count("\n") for text in records(folder))
    forecast = ", forecast frozen" if list(folder.glob("*/forecast.json")) else ""
    return f"{len(records(folder))} runs begun, {ended_runs(folder)} ended, {rows} rows{forecast}"


def kill_after(command: list[str], seconds: float) -> bool:
    """Start it and kill its whole tree after so long; False where it had ended before."""
    import psutil

    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    try:
        code = child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        root = psutil.Process(child.pid)
        root.suspend()  # so that it starts nothing more
        tree = [root, *root.children(recursive=True)]
        for process in tree:
            if process.is_running():
                process.kill()
        psutil.wait_procs(tree, timeout=30)
        child.wait()
        return True
    if code:
        raise SystemExit(f"error: {' '.join(command)} left with {code}")
    return False


def compare(straight: pathlib.Path, killed: pathlib.Path) -> dict[str, Any]:
    """A row a run, whether the forecasts are the same, and what only the killed ladder left."""
    rows = []
    for path in sorted(straight.glob("*/*/record.jsonl")):
        other = killed / path.relative_to(straight)
        ours, theirs = read(path), read(other)
        rows.append(
            {
                "run": ours[0]["name"],
                "rows": len(ours),
                "same_rows": ours == theirs,
                "same_params": bool(theirs)
                and ours[-1]["params_sha256"] == theirs[-1].get("params_sha256"),
                "same_images": same_bytes(path, other, "validation.npz"),
            }
        )
    return {
        "runs": rows,
        "same_forecast": forecasts(straight) == forecasts(killed) and bool(forecasts(straight)),
        "strays": sorted(names(killed) ^ names(straight)),
    }


def same_bytes(path: pathlib.Path, other: pathlib.Path, name: str) -> bool:
    """Whether the file of that name beside the one is that beside the other."""
    first, second = path.with_name(name), other.with_name(name)
    return second.exists() and first.read_bytes() == second.read_bytes()


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a record without the clock."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "clock"} for row in rows]


def forecasts(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The frozen forecasts without their dates."""
    found = [json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*/forecast.json")]
    return [{key: value for key, value in made.items() if key != "date"} for made in found]


def names(folder: pathlib.Path) -> set[str]:
    """Every file and folder down to the numbered checkpoints."""
    patterns = ("*/*", "*/*/*", "*/*/checkpoints/*")
    return {str(p.relative_to(folder)) for pattern in patterns for p in folder.glob(pattern)}


def is_same(found: dict[str, Any]) -> bool:
    """Whether nothing differs."""
    runs = all(row[key] for row in found["runs"] for key in SAME)
    return bool(found["runs"]) and runs and found["same_forecast"] and not found["strays"]


def verdict(found: dict[str, Any]) -> int:
    """The exit code; fewer kills than asked for are a failure, said in the last line."""
    if found["kills"] < found["kills_asked"]:
        say(
            f"error: only {found['kills']} of {found['kills_asked']} kills were delivered: the "
            "ladder ended before; run it again under a steady load"
        )
        return FAILURE
    return 0 if is_same(found) else FAILURE


def show(found: dict[str, Any], *, as_json: bool) -> None:
    """The comparison as a table."""
    if as_json:
        print(json.dumps(found, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    title = f"{found['kills']} kills, {found['kills_in_training']} before the last run had ended"
    table = Table(title=title, title_justify="left")
    for heading in ("run", "rows", "same rows", "same parameters", "same images"):
        table.add_column(heading)
    for row in found["runs"]:
        marks = ["yes" if row[key] else "[red]no[/]" for key in SAME]
        table.add_row(row["run"], str(row["rows"]), *marks)
    Console().print(table)
    print(f"same forecast: {'yes' if found['same_forecast'] else 'no'}")
    print(f"only on one side: {', '.join(found['strays']) or 'nothing'}")


if __name__ == "__main__":
    sys.exit(main())
