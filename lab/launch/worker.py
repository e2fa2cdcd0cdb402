"""A sweep's worker process: claims runs one after the other and reports on standard output.

One JSON object a line goes to the parent. When the parent dies its pipe closes, and the worker
saves and leaves as on a signal, so that no orphan goes on holding a run.
"""

import contextlib
import functools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

from lab.core.config import AnyRun, run_directory
from lab.core.errors import ExitCode, LabError
from lab.core.record import finished, read_rows
from lab.launch.board import FAILURE
from lab.launch.branching import waits_for_trunk
from lab.launch.signals import StopSignal
from lab.launch.timesheet import Startup

POLL_S = 0.5


def work(runs: Sequence[AnyRun], *, cores: Sequence[int]) -> ExitCode:
    """Train every run that nobody else trains, until none is left; a failed one is reported."""
    began_s = time.monotonic()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # before jax counts them for its thread pool
    from lab.launch.devices import set_up_jax
    from lab.launch.memory import keep_freed_memory

    keep_freed_memory()
    set_up_jax(max(run.execution.devices for run in runs))
    import lab.launch.runner  # noqa: F401 now, so that no run waits for it

    startup = Startup(time.monotonic() - began_s)
    failed: set[str] = set()
    with StopSignal() as signals:
        threading.Thread(target=_stop_with_parent, args=(signals,), daemon=True).start()
        while not signals.came:
            left = [run for run in runs if not _ended(run) and not _failed(run, failed)]
            if not left:
                break
            ready = [
                run
                for run in left
                if not waits_for_trunk(run, runs, functools.partial(_failed, failed=failed))
            ]
            if not any([_try(run, signals, failed, startup) for run in ready if not signals.came]):
                time.sleep(POLL_S)
    if signals.came:
        return ExitCode.INTERRUPTED
    return ExitCode.FAILURE if failed else ExitCode.DONE


def wait_for_end_of_parent() -> None:
    """Return when the parent has closed its end of standard input, which its death does too."""
    sys.stdin.read()


def _stop_with_parent(signals: StopSignal) -> None:
    wait_for_end_of_parent()
    signals.stop()


def _ended(run: AnyRun) -> bool:
    try:
        return finished(read_rows(run_directory(run) / "record.jsonl"))
    except LabError:
        return False  # trying it says what is wrong with the record


def _failed(run: AnyRun, failed: set[str]) -> bool:
    """Whether this worker or another of the sweep failed at it; once is enough."""
    return run.name in failed or (run_directory(run) / FAILURE).exists()


def _try(run: AnyRun, signals: StopSignal, failed: set[str], startup: Startup) -> bool:
    """Train one run; False where another process holds it or it has ended meanwhile."""
    from lab.launch.claim import ClaimLost, HeldElsewhere, is_claimed
    from lab.launch.runner import train_run
    from lab.train.loop import Hooks

    directory = run_directory(run)
    if _ended(run) or _failed(run, failed) or is_claimed(directory):
        return False
    hooks = Hooks(
        clock=time.monotonic,
        should_stop=lambda: signals.came,
        progress=lambda p: tell(
            run, step=p.step, total_steps=p.total_steps, loss=p.loss, loss_unit=p.loss_unit
        ),
        warn=lambda line: tell(run, warning=line),
    )
    try:
        outcome = train_run(
            run,
            hooks,
            lambda p: tell(run, doing=f"preparing {p.what}", done=p.done, total=p.total),
            startup=startup,
        )
    except ClaimLost as error:
        tell(run, doing="waiting", warning=str(error))
        return False
    except HeldElsewhere:
        return False
    except LabError as error:
        _fail(run, failed, reason=str(error), trace="")
    except Exception as error:  # noqa: BLE001 one run's defect must not stop the others
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _fail(run, failed, reason=reason, trace=traceback.format_exc())
    else:
        tell(run, doing=str(outcome.status))
    return True


def _fail(run: AnyRun, failed: set[str], *, reason: str, trace: str) -> None:
    failed.add(run.name)
    with contextlib.suppress(OSError):  # a full disk must not stop the others either
        (run_directory(run) / FAILURE).write_text(f"{reason}\n{trace}", encoding="utf-8")
    tell(run, doing="failed", warning=f"{run.name} failed: {reason}")


def tell(run: AnyRun, **fields: Any) -> None:
    """One line to the parent; to nobody where it has died, for the run is still to be saved."""
    try:
        print(json.dumps({"run": run.name, **fields}), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
