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
FAILURE, BAD_INPUT = 1, 2


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
    for number, (title, command) in enumerate(todo, start=1):
        print(f"\n[{number}/{len(todo)}] {title}", flush=True)
        if title == "forecast the large one":
            if frozen.exists():
                print(f"frozen before: {frozen}")
                continue
            command = forecast(study, frozen, target_blocks(command))
        code = run(command)
        if code:
            return code
    return 0


def forecast(study: pathlib.Path, frozen: pathlib.Path, blocks: int) -> list[str]:
    """The command that freezes the forecast, before the model that it speaks of is trained."""
    return ["analysis", "forecast", str(study), "--n", str(blocks), "--freeze", str(frozen)]


def target_blocks(sweep: list[str]) -> int:
    """N of the blocks of the forecast run, as the sweep's own list states it."""
    listed = subprocess.run(
        [sys.executable, "-m", *sweep, "--list", "--json"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(json.loads(listed.stdout)[0]["params_blocks"])


def run(command: list[str]) -> int:
    """A stage in its own process; Ctrl-C reaches it by the terminal, SIGTERM is passed on."""
    child = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            continue  # the stage saves and leaves with its own code
        return code if code >= 0 else FAILURE


if __name__ == "__main__":
    sys.exit(main())
