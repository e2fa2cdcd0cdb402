"""What a run costs beside its updates: the start, a second rate, saves, evaluations.

    python -m benchmarks.starting [--size s6] [--out benchmarks/results/starting.json]

Runs of one size on small data in a scratch folder, by the command that users type. The first
one compiles; the second has another rate, seed and length, and finds every program in the cache.
"To the first update" is from the start of the process to its row in the record. What a save
holds up is the time that the loop waits, not what a thread writes behind it. An evaluation costs an
image a third of what training costs it (forward against forward and backward).
"""

from __future__ import annotations

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.rows import Row, add_flags, named, report, row

ROOT = pathlib.Path(__file__).resolve().parents[1]
MOST_S = 5.0  # to the first update with a warm cache
LEAST_EVALUATION = 2.0  # images a second over those of training
SAVES, STEPS = 8, 80
SMALL_BYTES = 20_000  # as it is kept; the key's is 14,000, an evaluation's 45,000
ROUNDS = 5  # of an evaluation beside updates
PATIENCE_S, POLL_S = 600.0, 0.005


def command(folder: pathlib.Path, size: str, **numbers: object) -> list[str]:
    """The command of a run on small data."""
    fields = {
        "data.train_examples": 1024,
        "data.validation_examples": 256,
        "train.batch_size": 8,
        "train.log_every_steps": 1,
        "execution.unroll_layers": True,
        "execution.devices": 1,
        "execution.workdir": folder / "runs",
        "data.data_dir": folder / "data",
        **numbers,
    }
    flags = [f"--config.{path}={value}" for path, value in fields.items()]
    config = ROOT / "configs" / f"elm.py:{size}"
    return [sys.executable, "-m", "lab.launch.train", f"--config={config}", *flags]


def started(folder: pathlib.Path, size: str, **numbers: object) -> tuple[pathlib.Path, float]:
    """The directory of a run that ended, and the seconds to its first update."""
    before = set(folder.glob("runs/*/*"))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    began_s = time.perf_counter()
    with subprocess.Popen(
        command(folder, size, **numbers),
        cwd=folder,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        first_s = None
        while process.poll() is None and time.perf_counter() - began_s < PATIENCE_S:
            if first_s is None and any(map(_has_trained, set(folder.glob("runs/*/*")) - before)):
                first_s = time.perf_counter() - began_s
            time.sleep(POLL_S)
        process.terminate()
        _, errors = process.communicate()
    if process.returncode or first_s is None:
        raise RuntimeError(f"exit code {process.returncode}: {errors.decode()[-500:]}")
    (made,) = set(folder.glob("runs/*/*")) - before
    return made, first_s


def _has_trained(directory: pathlib.Path) -> bool:
    record = directory / "record.jsonl"
    return record.exists() and '"kind": "train"' in record.read_text(encoding="utf-8")


def starts(folder: pathlib.Path, size: str) -> list[Row]:
    """The first run against the second, and what the second compiled."""
    cache = folder / ".cache" / "xla"
    _, cold_s = started(folder, size, **{"train.duration": "30 steps"})
    programs = _programs(cache)
    other = {"optimizer.learning_rate": 0.003, "seed": 1, "train.duration": "32 steps"}
    warm = [started(folder, size, **{**other, "seed": seed})[1] for seed in (1, 2, 3)]
    more = _programs(cache) - programs
    name = f"ELM {size}: to the first update"
    return [
        Row(f"{name}, {programs} programs compiled, data made, s", f"{cold_s:.1f}", "", None),
        row(f"{name}, cache and data there, the best of 3, s", min(warm), MOST_S, form=".1f"),
        row(
            f"ELM {size}: programs that 3 other rates, seeds and lengths compile", more, 0, form="d"
        ),
    ]


def _programs(cache: pathlib.Path) -> int:
    """How many are kept: of updates, of evaluations and of the state at the beginning.

    Smaller ones, as of a key, are kept or not as the moment has it: from .2 s of compiling.
    """
    return sum(path.stat().st_size > SMALL_BYTES for path in cache.glob("*-cache"))


def saves(folder: pathlib.Path, size: str) -> list[Row]:
    """What a save holds up, and how much it writes."""
    from lab.launch.goodput import goodput, read_sessions

    often = {"execution.checkpoint_every_steps": STEPS // SAVES, "execution.keep_last": 2}
    made, _ = started(folder, size, seed=9, **{"train.duration": f"{STEPS} steps", **often})
    found = goodput(read_sessions(made / "time.jsonl"))
    newest = max((made / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    megabytes = sum(p.stat().st_size for p in newest.rglob("*") if p.is_file()) / 1e6
    waits_s = found.save_s / SAVES
    name = f"ELM {size}: the loop waits for a save of {megabytes:.1f} MB, ms"
    return [Row(name, f"{1e3 * waits_s:.0f}", "", None)]


def evaluation(size: str) -> list[Row]:
    """Images a second of an evaluation over those of training, in this process."""
    from lab.launch.calibration import measure
    from lab.launch.door import load_config

    run = load_config(
        f"configs/elm.py:{size}",
        {
            "data.train_examples": 1024,
            "data.validation_examples": 256,
            "train.batch_size": 8,
            "train.evaluation_batch_size": 32,
            "execution.unroll_layers": True,
            "execution.devices": 1,
            "execution.steps_per_dispatch": 10,
        },
    )
    ratios = []
    for _ in range(ROUNDS):
        found = measure(run, workers=1, startup_s=0.0)
        ratios.append((256 / found.evaluation_s) / (run.train.batch_size / found.update_s))
    name = f"ELM {size}: images a second, evaluation over training, median of {ROUNDS}"
    return [row(name, statistics.median(ratios), LEAST_EVALUATION, best="at least", form=".2f")]


def main(argv: list[str]) -> int:
    """Print the rows; 1 where a target is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.starting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", default="s6", help="of configs/elm.py (s6)")
    add_flags(parser)
    flags = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        parts = [
            named("starts", starts, folder, flags.size),
            named("saves", saves, folder, flags.size),
            named("evaluation", evaluation, flags.size),
        ]
        return report(parts, flags, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
