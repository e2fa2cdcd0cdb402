"""The main job: train the ladder, freeze a forecast, train the forecast model, judge it, report.

    python experiments/01_first_ladder/ladder.py --data dead_leaves

Each stage is a command that can be run alone; this file is their order. Stopped at any moment, it
goes on where it stopped.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import sweep as ladder  # noqa: E402

INTERRUPTED = 75


def main() -> int:
    """Run the stages that are not done yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="dead_leaves", choices=sorted(ladder.CHANNELS))
    parser.add_argument("--workers", type=int, default=2, help="processes for the small runs")
    parser.add_argument("--workdir", default="runs", help="where the study's folder lies")
    flags = parser.parse_args()
    began_s = time.monotonic()
    study = pathlib.Path(flags.workdir) / ladder.study(flags.data)
    spec = f"{HERE.relative_to(ROOT)}/sweep.py:{flags.data}"
    names = [str(run["name"]) for run in ladder.sweep(flags.data)]
    target = ladder.forecast_run()
    small = ["--only", *(n for n in names if n != target), "--workers", str(flags.workers)]
    place = ["--config.execution.workdir", flags.workdir]
    frozen = study / "forecast.json"
    large = ["lab.launch.sweep", spec, "--only", target, *place]
    stages = [
        ("train the small runs", ["lab.launch.sweep", spec, *small, *place]),
        (
            "forecast the large one",
            None if frozen.exists() else forecast(study, frozen, target_blocks(large)),
        ),
        ("train the large one", large),
        ("report", ["analysis", "report", str(study)]),
        ("judge the forecast", ["analysis", "verify", str(study)]),
    ]
    for number, (title, command) in enumerate(stages, start=1):
        print(f"\n[{number}/{len(stages)}] {title}", flush=True)
        if command is None:
            print(f"frozen before: {frozen}")
            continue
        code = run(command)
        if code:
            return code
    print(f"\nreport: {study / 'report.html'}   ({time.monotonic() - began_s:.0f} s this time)")
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
    """A stage in its own process; Ctrl-C reaches it by the terminal, and its code is ours."""
    child = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # the stage saves and leaves with its own code


if __name__ == "__main__":
    sys.exit(main())
