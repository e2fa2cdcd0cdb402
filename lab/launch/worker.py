"""A sweep's worker process: claims runs one after the other and reports on standard output.

One JSON object a line goes to the parent. When the parent dies its pipe closes, and the worker
saves and leaves as on a signal, so that no orphan goes on holding a run.
"""

import contextlib
import dataclasses
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
from lab.core.cores import keep_to
from lab.core.errors import ExitCode, LabError
from lab.core.program import program
from lab.core.record import has_ended
from lab.launch.board import FAILURE
from lab.launch.branching import waits_for_trunk
from lab.launch.signals import StopSignal
from lab.launch.timesheet import Startup

POLL_S = 0.5


def work(runs: Sequence[AnyRun], *, cores: Sequence[int], pack: int = 1) -> ExitCode:
    """Train every run that nobody else trains, until none is left; a failed one is reported.

    Up to `pack` runs of one program are trained together (lab/train/pack.py).
    """
    began_s = time.monotonic()
    keep_to(cores)  # before jax counts them for its thread pool
    from lab.launch.devices import set_up_jax
    from lab.launch.memory import keep_freed_memory

    keep_freed_memory()
    set_up_jax(max(run.execution.devices for run in runs))
    import lab.launch.runner  # noqa: F401 now, so that no run waits for it
    from lab.train.programs import Programs

    startup = Startup(time.monotonic() - began_s)
    failed: set[str] = set()
    with StopSignal() as signals:
        here = _Here(signals, failed, startup, Programs())
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
            packs = packs_of(ready, most=pack)
            if not any([_train(p, here) for p in packs if not signals.came]):
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
    return has_ended(run_directory(run) / "record.jsonl")


def _failed(run: AnyRun, failed: set[str]) -> bool:
    """Whether this worker or another of the sweep failed at it; once is enough."""
    return run.name in failed or (run_directory(run) / FAILURE).exists()


def packs_of(runs: Sequence[AnyRun], *, most: int) -> list[list[AnyRun]]:
    """The runs in packs of one program, `most` in each, in the order of their first runs.

    A run whose layout cuts its model over devices is by itself: its seat would have one.
    """
    if most == 1:
        return [[run] for run in runs]
    found: dict[str, list[list[AnyRun]]] = {}
    packs = []
    for run in runs:
        if run.execution.layout != "ddp":
            packs.append([run])
            continue
        same = found.setdefault(program(run), [])
        if not same or len(same[-1]) == most:
            same.append([])
            packs.append(same[-1])
        same[-1].append(run)
    return packs


@dataclasses.dataclass(frozen=True)
class _Here:
    """What a worker's runs have in common."""

    signals: StopSignal
    failed: set[str]
    startup: Startup
    programs: Any  # lab.train.programs.Programs, which imports jax


def _train(pack: Sequence[AnyRun], here: _Here) -> bool:
    """Train the runs of a pack that nobody holds, together; False where there was none."""
    from lab.launch.claim import is_claimed

    free = [
        run
        for run in pack
        if not (_ended(run) or _failed(run, here.failed) or is_claimed(run_directory(run)))
    ]
    if len(free) <= 1:
        return any([_try(run, here) for run in free])
    import jax

    from lab.train.pack import Pack

    seats = Pack(len(free), jax.devices()).seats
    tried: list[bool] = []

    def sit(run: AnyRun, seat: Any) -> None:
        try:
            tried.append(_try(run, here, seat))
        finally:
            seat.leave()

    threads = [
        threading.Thread(target=sit, args=pair, name=pair[0].name)
        for pair in zip(free, seats, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return any(tried)


def _try(run: AnyRun, here: _Here, seat: Any = None) -> bool:
    """Train one run that was free a moment ago; False where another process holds it."""
    from lab.launch.claim import ClaimLost, HeldElsewhere
    from lab.launch.runner import train_run
    from lab.train.loop import Hooks

    hooks = Hooks(
        clock=time.monotonic,
        should_stop=lambda: here.signals.came,
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
            startup=here.startup,
            programs=here.programs,
            seat=seat,
        )
    except ClaimLost as error:
        tell(run, doing="waiting", warning=str(error))
        return False
    except HeldElsewhere:
        return False
    except LabError as error:
        _fail(run, here.failed, reason=str(error), trace="")
    except Exception as error:  # noqa: BLE001 one run's defect must not stop the others
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        _fail(run, here.failed, reason=reason, trace=traceback.format_exc())
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
        sys.stdout.write(json.dumps({"run": run.name, **fields}) + "\n")  # at once: of any thread
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
