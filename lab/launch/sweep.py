"""List, run, resume and watch a sweep: a Python file with `sweep()` returning overrides.

python -m lab.launch.sweep experiments/01_first_ladder/sweep.py --workers 2
"""

import argparse
import json
import sys
from collections.abc import Sequence

from lab.core.config import AnyRun, identity, run_directory
from lab.core.errors import ExitCode, LabError
from lab.core.sweep import CONFIG, RUNG, Override
from lab.launch.board import Entry, RunState, forget_failures, read_entry
from lab.launch.door import Parser, leave, load_config, load_function, parse
from lab.launch.next_command import after_study
from lab.launch.place import add_flags, asked_place

EPILOG = """examples:
  python -m lab.launch.sweep experiments/01_first_ladder/sweep.py --list
  python -m lab.launch.sweep experiments/01_first_ladder/sweep.py --workers 2
  python -m lab.launch.sweep experiments/01_first_ladder/sweep.py --status --watch
  python -m lab.launch.sweep experiments/01_first_ladder/sweep.py:eurosat --status --json

--status reads the run directories only: any machine that sees them can tell. It says how many runs
are in which state, the time that they need yet by the speed of runs of the same cost ("unknown"
where there is none), and where their time went (docs/run_directory.md, time.jsonl).
A run that is finished is not run again; one that was stopped goes on, and one that failed is tried
again where nobody is at work on the sweep. Any number of these may serve one sweep, on any number
of machines that share its folder: each run is claimed by one, and that of a dead one is taken over.
With --together several hosts train each run as one, all with the same command. Exit codes: 0 all
finished, 1 some failed or diverged, 2 bad input, 75 interrupted and saved (start me again);
together also 4, 5 and 6, see docs/reliability.md. For a scheduler:
python -m lab.launch.render --help"""
PLAIN_WIDTH = 140  # columns, where no terminal says so


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.sweep",
        description="List, run, resume and watch a sweep.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("sweep", metavar="FILE:ARG", help="a Python file with sweep()")
    made.add_argument("--list", action="store_true", help="print the runs and leave")
    made.add_argument("--status", action="store_true", help="print how far each run is and leave")
    made.add_argument("--watch", action="store_true", help="with --status: again and again")
    made.add_argument("--json", action="store_true", help="print as JSON")
    made.add_argument(
        "--workers", type=int, default=1, help="processes; each gets its share of cores"
    )
    made.add_argument(
        "--pack",
        type=int,
        default=1,
        metavar="K",
        help="a worker trains up to K runs that differ in numbers only by one program",
    )
    made.add_argument("--only", metavar="NAME", nargs="+", help="these runs of the sweep only")
    made.add_argument(
        "--budget", metavar="B", help="the part of the design that fits: see lab.launch.plan"
    )
    made.add_argument(
        "--together", action="store_true", help="all hosts with this command train each run as one"
    )
    made.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    made.add_argument("--cores", default="", help=argparse.SUPPRESS)
    add_flags(made)
    made.add_argument("--config.PATH", dest="unused", metavar="VALUE", help="a field of every run")
    return made


def load_sweep(
    spec: str, overrides: dict[str, str], only: Sequence[str] | None = None
) -> list[AnyRun]:
    """The admitted runs of a sweep file; refuses two runs of one identity or one name."""
    runs = []
    for override in overrides_of(spec, overrides):
        rest = {path: value for path, value in override.items() if path not in (CONFIG, RUNG)}
        runs.append(load_config(override[CONFIG], rest))
    for what, values in (
        ("identity", [identity(run) for run in runs]),
        ("name", [run.name for run in runs]),
    ):
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise LabError(f"{spec}: two runs of one {what}: {', '.join(sorted(twice))}")
    if any(run.execution.tensorboard for run in runs):
        raise LabError(f"{spec}: config.execution.tensorboard: only lab.launch.train writes events")
    names = [run.name for run in runs]
    for name in only or ():
        if name not in names:
            raise LabError(f"--only {name}: no such run; allowed: {', '.join(names)}")
    return [run for run in runs if not only or run.name in only]


def overrides_of(spec: str, overrides: dict[str, str]) -> list[Override]:
    """What a sweep file says of each run, with flags laid over it."""
    found = load_function(spec, "sweep")()
    for override in found:
        if CONFIG not in override:
            raise LabError(f'{spec}: a run without "config": {override}')
    return [{**override, **overrides} for override in found]


def entries_of(runs: Sequence[AnyRun]) -> list[Entry]:
    """How far each run is."""
    return [read_entry(run, run_directory(run)) for run in runs]


def main(argv: Sequence[str]) -> ExitCode:
    """Run the sweep, or say how it stands."""
    flags, overrides = parse(parser(), argv)
    if flags.workers < 1:
        raise LabError(f"--workers {flags.workers}: at least 1")
    if flags.pack < 1 or (flags.pack > 1 and flags.together):
        raise LabError(f"--pack {flags.pack}: at least 1, and 1 with --together")
    if flags.watch and (flags.json or not flags.status):
        raise LabError("--watch: of use with --status, and without --json")
    place = asked_place(flags)
    runs = load_sweep(flags.sweep, overrides, flags.only)
    if flags.budget is not None:
        from lab.launch.plan import names_within

        within = names_within(flags.sweep, overrides, flags.budget, workers=flags.workers)
        runs = [run for run in runs if run.name in within]
        if not runs:
            raise LabError(
                f"--only {' '.join(flags.only)}: none of them fits into --budget {flags.budget}; "
                f"what does: {', '.join(within)}"
            )
        argv = [*without(argv, "--budget"), "--only", *(run.name for run in runs)]
    if place and not flags.together:
        raise LabError("--coordinator: of use with --together only")
    if flags.worker:
        from lab.launch.worker import work

        cores = [int(core) for core in flags.cores.split(",") if core]
        return work(runs, cores=cores, pack=flags.pack)
    if flags.list or flags.status:
        _print(flags, runs)
        return ExitCode.DONE
    if flags.together:
        return together(runs, flags, overrides)
    entries, interrupted = entries_of(runs), False
    if any(entry.state is not RunState.FINISHED for entry in entries):
        if all(entry.state is not RunState.RUNNING for entry in entries):
            forget_failures(runs)  # else another sweep is at work, for which once is enough
        interrupted = train(runs, argv, flags)
        entries = entries_of(runs)
    elif not flags.json:
        print("all is done; nothing is trained again")
    _print(flags, runs)
    if interrupted:
        return ExitCode.INTERRUPTED
    unfinished = [e for e in entries if e.state is not RunState.FINISHED]
    return ExitCode.FAILURE if unfinished else ExitCode.DONE


def without(argv: Sequence[str], flag: str) -> list[str]:
    """The arguments less a flag and its value."""
    kept, words = [], iter(argv)
    for word in words:
        if word == flag:
            next(words, None)
        elif not word.startswith(f"{flag}="):
            kept.append(word)
    return kept


def together(
    runs: Sequence[AnyRun], flags: argparse.Namespace, overrides: dict[str, str]
) -> ExitCode:
    """Train with the other hosts that have this command."""
    from lab.launch.together import arguments_of, train_together

    if flags.workers != 1:
        raise LabError(f"--workers {flags.workers}: --together trains one run at a time")
    names = {run.name for run in runs}
    every = load_sweep(flags.sweep, overrides)
    pairs = zip(every, overrides_of(flags.sweep, overrides), strict=True)
    chosen = [(run, arguments_of(run, given)) for run, given in pairs if run.name in names]
    return train_together(chosen, place_flags(flags))


def place_flags(flags: argparse.Namespace) -> list[str]:
    """The flags of lab/launch/place.py as they were given."""
    names = ("coordinator", "processes", "process", "hang_timeout_s")
    given = {name: getattr(flags, name) for name in names}
    return [
        f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None
    ]


def train(runs: Sequence[AnyRun], argv: Sequence[str], flags: argparse.Namespace) -> bool:
    """Train what is not finished on worker processes; True where a signal stopped it."""
    from lab.launch.pool import run_pool

    return run_pool(
        runs,
        argv,
        workers=min(flags.workers, len(runs)),
        title=flags.sweep,
        progress_on_stderr=flags.json,
    )


def _print(flags: argparse.Namespace, runs: Sequence[AnyRun]) -> None:
    from rich.console import Console

    from lab.launch.status import StatusReader
    from lab.launch.status_table import show, watch

    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    reader = StatusReader(runs, title=flags.sweep)
    if flags.watch:
        watch(console, reader)
        return
    status = reader.read()
    if flags.json:
        print(json.dumps(status.as_json(), indent=1))
        return
    show(console, status)
    if all(each.entry.state is RunState.FINISHED for each in status.runs):
        print(after_study(runs))


if __name__ == "__main__":
    leave(main)
