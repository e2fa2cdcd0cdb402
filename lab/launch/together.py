"""A sweep on several hosts that train each run together: the runs one after the other.

Every host runs the same command, goes through the runs in the same order and trains each in a
process of its own, which finds the others of that run: this module as a program, which is
`lab.launch.train` that saves and leaves when the sweep dies. The hosts need no word between the
runs: a run leaves with one exit code on all of them (docs/reliability.md), and the code alone
decides what is next. The runs' processes wait for each other, so no host gets ahead. What had ended
before is passed over; where another job ends a run just then, hosts may see that differently, do
not find each other and leave with 6, to begin again.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from lab.core.config import AnyRun, identity, run_directory
from lab.core.errors import ExitCode, LabError
from lab.core.record import finished, read_rows
from lab.launch.claim import is_claimed
from lab.launch.door import leave, load_config
from lab.launch.signals import StopSignal
from lab.launch.train import main as train
from lab.launch.worker import wait_for_end_of_parent

NEXT = (ExitCode.DONE, ExitCode.FAILURE, ExitCode.BAD_INPUT, ExitCode.DIVERGED)
PASSES = 2  # what another job held at first may be free after the others


def arguments_of(run: AnyRun, override: dict[str, Any]) -> list[str]:
    """The arguments of lab.launch.train for a run of a sweep.

    Raises LabError where a value of the sweep means another run as text than as itself.
    """
    config, rest = override["config"], {k: v for k, v in override.items() if k != "config"}
    texts = {path: str(value) for path, value in rest.items()}
    if identity(load_config(config, texts)) != identity(run):
        raise LabError(f"{run.name}: a value of this run is another one on a command line: {rest}")
    return ["--config", config, *(f"--config.{path}={text}" for path, text in texts.items())]


def train_together(runs: Sequence[tuple[AnyRun, list[str]]], flags: Sequence[str]) -> ExitCode:
    """Train every run; `flags` go to each process. Gives the exit code of all.

    A run that fails is reported and the next one begins; a machine's fault ends the sweep, for
    all hosts must begin again together.
    """
    left = [(run, given) for run, given in runs if not has_ended(run)]
    failed: list[AnyRun] = []
    with StopSignal() as signals:
        for _ in range(PASSES):
            refused = []
            for run, arguments in left:
                if signals.came:
                    return ExitCode.INTERRUPTED
                print(f"{run.name}: begins", flush=True)
                code = _train([*arguments, *flags], signals)
                if code not in NEXT:
                    return _as_exit_code(code)
                if code == ExitCode.DONE:
                    continue
                print(f"{run.name}: left with {code}", file=sys.stderr, flush=True)
                if code == ExitCode.BAD_INPUT:
                    refused.append((run, arguments))
                else:
                    failed.append(run)
            left = refused
            if not left:
                break
    failed += [run for run, _ in left if not _is_held(run)]
    diverged = any(has_ended(run, as_status="diverged") for run, _ in runs)
    return ExitCode.FAILURE if failed or diverged else ExitCode.DONE


def has_ended(run: AnyRun, *, as_status: str | None = None) -> bool:
    """Whether the record of a run has its end row, with this status or any."""
    try:
        rows = read_rows(run_directory(run) / "record.jsonl")
    except LabError:
        return False  # trying it says what is wrong with the record
    return finished(rows) and as_status in (None, rows[-1]["status"])


def _is_held(run: AnyRun) -> bool:
    """Whether another job trains it: it is that one's."""
    return is_claimed(run_directory(run))


def _train(arguments: Sequence[str], signals: StopSignal) -> int:
    """One run in a process of its own, which is told of a signal and saves; its exit code."""
    command = [sys.executable, "-m", "lab.launch.together", *arguments]
    pipe = subprocess.PIPE  # it closes when this process dies
    told = False
    # Ctrl-C comes by way of us
    with subprocess.Popen(command, stdin=pipe, start_new_session=True) as child:
        while True:
            try:
                return child.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                if signals.came and not told:
                    told = True
                    assert child.stdin is not None  # a pipe
                    child.stdin.close()  # no signal: where a launcher tells all, a second one kills


def _as_exit_code(code: int) -> ExitCode:
    """A code of ours as it is; a process that a signal killed is a lost host to the others."""
    try:
        return ExitCode(code)
    except ValueError:
        return ExitCode.HOST_LOST


def main(argv: Sequence[str]) -> ExitCode:
    """Train one run of a sweep that waits for this process."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    return train(argv)


def _stop_with_parent() -> None:
    """A first signal to this process where its sweep dies; never a second one, which would kill it
    while it saves.
    """
    wait_for_end_of_parent()
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # not yet heard, or told before
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    leave(main)
