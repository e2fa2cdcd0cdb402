"""Running the commands as a user does."""

import json
import os
import pathlib
import subprocess
import sys
import time

from lab.launch.door import ROOT
from tests.compiling import compiler_flags

TINY = [
    "--config.optimizer.warmup=1 steps",
    "--config.train.batch_size=8",
    "--config.tokenizer.resolution=2",
    "--config.data.train_examples=64",
    "--config.data.validation_examples=16",
    "--config.train.evaluation_batch_size=16",
    "--config.train.log_every_steps=1",
    "--config.execution.checkpoint_every_steps=4",
]

STARTED: list[subprocess.Popen] = []  # what a failed test may leave behind


def environment(**more):
    """This process's, without the eight virtual devices of the tests."""
    kept = {k: v for k, v in os.environ.items() if k != "TFDS_MANUAL_DIR"}
    return {**kept, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(compiler_flags()), **more}


def start(*arguments, **more):
    """A command in the background."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def command(*arguments, timeout_s=120, **more):
    """A command to its end; returncode, stdout, stderr."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def refused(result, *words):
    """Assert one clear line, exit code 2 and no traceback."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def only(folder: pathlib.Path, pattern: str) -> pathlib.Path:
    """The one path that fits."""
    found = list(folder.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def place(folder):
    """Where runs and data lie."""
    return [
        f"--config.execution.workdir={folder / 'runs'}",
        f"--config.data.data_dir={folder}/data",
    ]


def wait_for_rows(folder, count, *, pattern="runs/*/*/record.jsonl", seconds=60):
    """Wait until some record has that many rows."""
    for _ in range(seconds * 20):
        paths = list(folder.glob(pattern))
        if any(len(p.read_text().splitlines()) >= count for p in paths):
            return
        time.sleep(0.05)
    raise AssertionError(f"no record of {count} rows after {seconds} s")


def ends(folder):
    """name -> end rows of every record."""
    found = {}
    for path in folder.glob("runs/*/*/record.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[rows[0]["name"]] = [row for row in rows if row["kind"] == "end"]
    return found


def rows_of(path):
    """The rows of a record without the clock."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "clock"} for row in rows]
