"""The main job: train the ladder, freeze a forecast, train the forecast model, judge it, report.

    python experiments/01_first_ladder/ladder.py --data dead_leaves

Each stage is a command that can be run alone; this file is their order. Stopped at any moment, it
goes on where it stopped. Flags like --config.train.duration="200 steps" go to every run.
"""

import argparse
import json
import pathlib
import runpy
import signal
import subprocess
import sys
import time
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FAILURE, BAD_INPUT, INTERRUPTED = 1, 2, 75


class Stop:
    """SIGTERM and Ctrl-C: the stage in progress saves and leaves, and no other begins."""

    def __init__(self) -> None:
        self.came = False
        self.child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.hear)

    def hear(self, number: int, _frame: object) -> None:
        """A handler; the terminal itself sends Ctrl-C to the stage."""
        self.came = True
        if self.child is not None and number == signal.SIGTERM:
            self.child.terminate()


def main() -> int:
    """Run the stages that are not done yet; the code of the first that fails is ours."""
    sys.path.insert(0, str(ROOT))
    ladder = runpy.run_path(str(HERE / "sweep.py"))
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--data", default="dead_leaves", choices=sorted(ladder["CHANNELS"]))
    parser.add_argument("--scale", type=float, default=1, help="a factor on all token budgets")
    parser.add_argument("--workers", type=int, default=2, help="processes for the small runs")
    parser.add_argument("--workdir", default="runs", help="where the study's folder lies")
    flags, overrides = parser.parse_known_args()
    wrong = [flag for flag in overrides if not flag.startswith("--config.")]
    if wrong:
        print(f"error: {wrong[0]}: no such flag; see --help", file=sys.stderr)
        return BAD_INPUT
    began_s = time.monotonic()
    argument = flags.data if flags.scale == 1 else f"{flags.data},{flags.scale:g}"
    if not 0 < flags.scale <= 100:
        print(f"error: --scale {flags.scale:g}: allowed is (0, 100]", file=sys.stderr)
        return BAD_INPUT
    study = pathlib.Path(flags.workdir) / ladder["plan"](argument).study
    code = run_stages(stages(flags, ladder, argument, overrides), study=study)
    if code == 0:
        print(f"report: {study / 'report.html'}   ({time.monotonic() - began_s:.0f} s this time)")
    return code


def stages(
    flags: argparse.Namespace, ladder: dict[str, Any], argument: str, overrides: list[str]
) -> list[tuple[str, list[str]]]:
    """Title and command of each stage, in order."""
    spec = f"{HERE.relative_to(ROOT)}/sweep.py:{argument}"
    study = pathlib.Path(flags.workdir) / ladder["plan"](argument).study
    names = [str(run["name"]) for run in ladder["sweep"](argument)]
    target = ladder["plan"](argument).forecast_run
    place = [f"--config.execution.workdir={flags.workdir}", *overrides]
    small = ["--only", *(name for name in names if name != target)]
    workers = ["--workers", str(flags.workers)]
    return [
        ("train the small runs", ["lab.launch.sweep", spec, *small, *workers, *place]),
        ("forecast the large one", ["lab.launch.sweep", spec, "--only", target, *place]),
        ("train the large one", ["lab.launch.sweep", spec, "--only", target, *place]),
        ("report", ["analysis", "report", str(study)]),
        ("the runs", ["analysis", "table", str(study)]),
        ("judge the forecast", ["analysis", "verify", str(study)]),
    ]


def run_stages(todo: list[tuple[str, list[str]]], *, study: pathlib.Path) -> int:
    """Run one after the other; the forecast is frozen once and never made again."""
    frozen = study / "forecast.json"
    stop = Stop()
    for number, (title, command) in enumerate(todo, start=1):
        print(f"\n[{number}/{len(todo)}] {title}", flush=True)
        if title == "forecast the large one":
            if frozen.exists():
                if not is_of_this_sweep(frozen, todo[0][1]):
                    print(f"error: {frozen}: made from other runs; move {study} away")
                    return BAD_INPUT
                print(f"frozen before: {frozen}")
                continue
            target = planned(command)
            if not target:
                return INTERRUPTED if stop.came else FAILURE
            command = forecast(study, frozen, int(target[0]["params"]))
        code = run(command, stop)
        if code == INTERRUPTED:
            print("interrupted; the same command goes on from there", flush=True)
        if code:
            return code
    return 0


def forecast(study: pathlib.Path, frozen: pathlib.Path, blocks: int) -> list[str]:
    """The command that freezes the forecast, before the model that it speaks of is trained."""
    return ["analysis", "forecast", str(study), "--n", str(blocks), "--freeze", str(frozen)]


def planned(sweep: list[str]) -> list[dict[str, Any]]:
    """The sweep's runs, as its own list states them; none where a signal came meanwhile."""
    listed = subprocess.run(
        [sys.executable, "-m", *sweep, "--list", "--json"],
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(listed.stdout)["runs"] if listed.returncode == 0 else []


def is_of_this_sweep(frozen: pathlib.Path, sweep: list[str]) -> bool:
    """Whether a frozen forecast was made from runs of the sweep as it stands."""
    made_from = set(json.loads(frozen.read_text(encoding="utf-8"))["identities"])
    return made_from <= {run["identity"] for run in planned(sweep)}


def run(command: list[str], stop: Stop) -> int:
    """The exit code of a stage in its own process; the one for "start me again" after a signal."""
    if stop.came:
        return INTERRUPTED
    stop.child = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT)
    if stop.came:  # it came while the process began
        stop.child.terminate()
    code = stop.child.wait()
    if code and stop.came:
        return INTERRUPTED
    return code if code >= 0 else FAILURE


if __name__ == "__main__":
    sys.exit(main())
