"""What a sweep will take, before anything runs: parameters, tokens, FLOPs, epochs, memory, time.

python -m lab.launch.plan experiments/01_first_ladder/sweep.py --workers 2 --calibrate
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lab.core.config import AnyRun, identity
from lab.core.cores import keep_to
from lab.core.errors import ExitCode, LabError
from lab.core.program import program
from lab.core.sweep import RUNG
from lab.launch import calibration
from lab.launch.door import Parser, leave, parse
from lab.launch.plan_runs import (
    Budget,
    PlannedRun,
    chosen,
    makespan_s,
    parse_budget,
    planned_run,
    with_measured,
    with_report,
)

EPILOG = """examples:
  python -m lab.launch.plan experiments/01_first_ladder/sweep.py --workers 2 --calibrate
  python -m lab.launch.plan experiments/06_surface/sweep.py --workers 2 --budget 1h
  python -m lab.launch.plan experiments/06_surface/sweep.py --budget 1e13flops --json
  python -m lab.launch.plan SWEEP --report 7b_v5e.json      # of lab.launch.compile --json

Times come from a measurement of this machine (--calibrate makes it: some seconds a program, kept in
WORKDIR/calibration.jsonl) or from reports of lab.launch.compile for a pod; without either they are
left open. --budget keeps the largest part of the design that fits: whole rungs (a size of a ladder,
all sizes of an isoFLOP budget), the cheapest first. python -m lab.launch.sweep takes the same
--budget and trains that part."""


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.plan",
        description="Say what a sweep will take, before anything runs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("sweep", metavar="FILE:ARG", help="a Python file with sweep()")
    made.add_argument("--workers", type=int, default=1, help="processes that will train it")
    made.add_argument("--budget", metavar="B", help="2h, 90m, 1d or 1e17flops: plan what fits")
    made.add_argument(
        "--calibrate", action="store_true", help="measure on this machine what is not measured yet"
    )
    made.add_argument(
        "--report", metavar="JSON", nargs="+", default=[], help="times from compile reports instead"
    )
    made.add_argument("--json", action="store_true", help="print as JSON")
    made.add_argument("--config.PATH", dest="unused", metavar="VALUE", help="a field of every run")
    made.add_argument("--measure", default="", help=argparse.SUPPRESS)
    made.add_argument("--cores", default="", help=argparse.SUPPRESS)
    return made


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep, counted and timed."""

    runs: list[PlannedRun]
    startup_s: float | None  # of a worker; None: not measured

    def seconds(self, workers: int) -> tuple[float, float] | None:
        """When all is done, low and high; None where a time is unknown."""
        ends = [
            makespan_s(self.runs, workers=workers, startup_s=self.startup_s or 0.0, high=high)
            for high in (False, True)
        ]
        return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])


def main(argv: Sequence[str]) -> ExitCode:
    """Plan, and print it."""
    began_s = time.monotonic()
    flags, overrides = parse(parser(), argv)
    if flags.workers < 1:
        raise LabError(f"--workers {flags.workers}: at least 1")
    if flags.calibrate and flags.report:
        raise LabError("--calibrate: of this machine; --report says how fast another one is")
    budget = None if flags.budget is None else parse_budget(flags.budget)
    if flags.measure:
        return measure_some(flags, overrides, began_s)
    if flags.calibrate:
        calibrate(flags, argv, overrides)
    plan = make_plan(flags.sweep, overrides, workers=flags.workers, reports=flags.report)
    kept = cut(plan, budget, workers=flags.workers) if budget else plan
    from lab.launch.plan_table import as_json, show

    if flags.json:
        print(json.dumps(as_json(plan, kept, workers=flags.workers), indent=1))
    else:
        show(plan, kept, flags, overrides)
    return ExitCode.DONE


def make_plan(
    spec: str, overrides: Mapping[str, str], *, workers: int, reports: Sequence[str] = ()
) -> Plan:
    """Count every run of a sweep, and time it as far as that is known."""
    from lab.launch.devices import set_up_jax
    from lab.launch.sweep import load_sweep, overrides_of

    runs = load_sweep(spec, dict(overrides))
    rungs = [override.get(RUNG, "") for override in overrides_of(spec, dict(overrides))]
    set_up_jax(1)
    from lab.launch.runner import make_job, on_one_device

    planned, identities = [], {identity(run) for run in runs}
    first: dict[str, Any] = {}  # job of each program
    with _showing() as tell:
        for run, rung in zip(runs, rungs, strict=True):
            tell(run.name)
            alone = dataclasses.replace(run, execution=on_one_device(run.execution))
            job = make_job(alone, lambda p, name=run.name: tell(name, p))  # of the same counts
            job.share_shapes(first.setdefault(program(alone), job))
            planned.append(planned_run(run, job, rung=rung, identities=identities))
    if reports:
        found = [_report(path) for path in reports]
        return Plan([with_report(run, found) for run in planned], startup_s=None)
    known = calibration.read(_calibration_file(runs))
    here = calibration.machine()
    measured = [known.get((run.program, here, workers)) for run in planned]
    timed = [with_measured(*pair) for pair in zip(planned, measured, strict=True)]
    startups = [each.startup_s for each in measured if each]
    return Plan(timed, startup_s=max(startups) if startups else None)


def cut(plan: Plan, budget: Budget, *, workers: int) -> Plan:
    """The largest part of a plan that fits."""
    startup_s = plan.startup_s or 0.0
    kept = chosen(plan.runs, budget, workers=workers, startup_s=startup_s)
    return dataclasses.replace(plan, runs=kept)


def names_within(
    spec: str, overrides: Mapping[str, str], budget_text: str, *, workers: int
) -> list[str]:
    """The names of the runs that fit into a budget, for lab.launch.sweep.

    By a process that ends: who counts on an accelerator holds it, and the workers need it.
    """
    from lab.launch.measuring import output_of

    given = [f"--config.{path}={value}" for path, value in overrides.items()]
    given += ["--workers", str(workers), f"--budget={budget_text}", "--json"]
    plan = json.loads(output_of(["-m", "lab.launch.plan", spec, *given]))
    return [run["name"] for run in plan["runs"]]


def _report(path: str) -> dict[str, Any]:
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError:
        raise LabError(f"--report {path}: not JSON") from None
    if not isinstance(found, dict) or found.get("schema") != "lab.compile/1":
        raise LabError(f"--report {path}: a report of lab.launch.compile --json is expected")
    return found


def _calibration_file(runs: Sequence[AnyRun]) -> pathlib.Path:
    return pathlib.Path(runs[0].execution.workdir) / calibration.FILE


class _showing:
    """A line on a terminal's standard error of what is being counted."""

    def __enter__(self) -> Any:
        from rich.console import Console

        self._status = Console(stderr=True).status("counting")
        self._status.start()
        return self._tell

    def _tell(self, name: str, preparing: Any = None) -> None:
        text = f"counting {name}"
        if preparing is not None:
            text += f": {preparing.what} {preparing.done or ''}"
        self._status.update(text)

    def __exit__(self, *_: object) -> None:
        self._status.stop()


def calibrate(flags: argparse.Namespace, argv: Sequence[str], overrides: Mapping[str, str]) -> None:
    """Measure the programs of a sweep that are not in the file, by as many workers at once."""
    from lab.launch.measuring import machine_of_workers, measure_on_workers
    from lab.launch.sweep import load_sweep

    runs = load_sweep(flags.sweep, dict(overrides))
    file, here = _calibration_file(runs), machine_of_workers()
    known = calibration.read(file)
    wanted: dict[str, AnyRun] = {}
    for run in runs:
        if (program(run), here, flags.workers) not in known:
            wanted.setdefault(program(run), run)
    if wanted:
        names = [run.name for run in wanted.values()]
        calibration.append(file, measure_on_workers(argv, names, workers=flags.workers))


def measure_some(
    flags: argparse.Namespace, overrides: Mapping[str, str], began_s: float
) -> ExitCode:
    """A worker of `calibrate`: measure the runs named, one JSON object a line."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_to([int(core) for core in flags.cores.split(",") if core])
    from lab.launch.devices import set_up_jax
    from lab.launch.memory import keep_freed_memory
    from lab.launch.sweep import load_sweep

    keep_freed_memory()
    names = json.loads(flags.measure)
    runs = {run.name: run for run in load_sweep(flags.sweep, dict(overrides), names)}
    set_up_jax(max(run.execution.devices for run in runs.values()))
    import lab.launch.runner  # noqa: F401 before the clock of start-up is read

    startup_s = time.monotonic() - began_s
    for name in names:
        found = calibration.measure(runs[name], workers=flags.workers, startup_s=startup_s)
        print(json.dumps(dataclasses.asdict(found)), flush=True)
    return ExitCode.DONE


def _end_with_parent() -> None:
    """At once: nothing is written by this process."""
    from lab.launch.worker import wait_for_end_of_parent

    wait_for_end_of_parent()
    os._exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    leave(main)
