"""Train one run, or go on with it.

python -m lab.launch.train --config configs/elm.py:s3 --config.train.duration "2e6 tokens"
"""

import argparse
import functools
import pathlib
import sys
import time
import typing
from collections.abc import Callable, Sequence
from typing import Any

from lab.core.config import AnyRun, run_directory
from lab.core.errors import ExitCode, Stopped
from lab.launch.door import Parser, leave, load_config, parse
from lab.launch.next_command import after_run
from lab.launch.place import add_flags, asked_place
from lab.launch.profile import check_flags, profile
from lab.launch.signals import StopSignal

if typing.TYPE_CHECKING:
    from lab.launch.hosts import Beat
    from lab.train.loop import Outcome, Progress

EPILOG = """example:
  python -m lab.launch.train --config configs/elm.py:s3 --config.train.duration "2e6 tokens"

Several processes, on one machine or many that share the run's folder, train one run: on Cloud TPU,
GKE and Slurm the same command everywhere, elsewhere also which process each one is:
  python -m lab.launch.train --config configs/elm.py:s3 \\
      --coordinator 10.0.0.1:1234 --processes 2 --process 0

--profile FOLDER trains nothing that is kept: it compiles, warms up, runs some updates under jax's
profiler and says where their time went (docs/sweeps.md). Of several processes each writes its own
FOLDER/process_I, and process 0 prints its own.

The same command goes on where a stopped run was. Exit codes: 0 finished, 1 a defect, 2 bad input,
3 diverged, 4 a checkpoint could not be written; of several processes 5 one hangs, 6 one died
(134 where that was process 0); 75 interrupted and saved. After 5, 6, 75 and 134 the same command
goes on (docs/reliability.md)."""


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.train",
        description="Train one run, or go on with it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--config", required=True, metavar="FILE:ARG", help="a config, like configs/elm.py:s3"
    )
    made.add_argument(
        "--parameters", action="store_true", help="print the table of parameters and leave"
    )
    made.add_argument(
        "--profile",
        type=pathlib.Path,
        metavar="FOLDER",
        help="where the time of an update goes: profile some, keep nothing but this folder",
    )
    made.add_argument(
        "--profile-updates", type=int, metavar="N", help="updates that --profile traces (10)"
    )
    add_flags(made)
    made.add_argument(
        "--config.PATH", dest="unused", metavar="VALUE", help="any field, by its path"
    )
    return made


def main(argv: Sequence[str]) -> ExitCode:
    """Train and say how it ended."""
    began_s = time.monotonic()
    flags, overrides = parse(parser(), argv)
    place = asked_place(flags)
    run = load_config(flags.config, overrides)
    check_flags(flags)
    with StopSignal() as signals:  # before jax, whose import takes a second
        from lab.launch.devices import set_up_jax
        from lab.launch.hosts import alone_or_together, join
        from lab.launch.memory import keep_freed_memory

        keep_freed_memory()
        set_up_jax(run.execution.devices, processes=place.processes if place else 1)
        if flags.parameters:
            return show_parameters(run, signals)
        if signals.came:
            print("interrupted: before the first step; the same command begins it")
            return ExitCode.INTERRUPTED
        join(place)
        work, folder = functools.partial(train, run, signals, began_s), run_directory(run)
        if flags.profile:
            command = ["python", "-m", "lab.launch.train", *argv]
            work, folder = functools.partial(profile, run, signals, flags, command), flags.profile
        return alone_or_together(work, folder, hang_timeout_s=flags.hang_timeout_s)


def train(run: AnyRun, signals: StopSignal, began_s: float, beat: "Beat") -> ExitCode:
    """Train the run, show it, and say how it ended; of several processes the first one speaks."""
    from rich.console import Console
    from rich.markup import escape

    from lab.core.peers import Peers
    from lab.launch.runner import train_run
    from lab.launch.tensorboard import event_writer
    from lab.launch.timesheet import Startup
    from lab.launch.watch import RunBar
    from lab.train.loop import Hooks, Status

    speaks = Peers.of_jax().leads
    console = Console(quiet=not speaks)
    writes_events = run.execution.tensorboard and speaks
    watchers = [event_writer(run_directory(run))] if writes_events else []
    with RunBar(console, name=run.name) as bar:
        hooks = Hooks(
            clock=time.monotonic,
            should_stop=lambda: signals.came,
            progress=to_all(bar.show, *watchers),
            warn=lambda line: console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True),
            beat=beat,
        )
        startup = Startup(time.monotonic() - began_s)
        outcome = train_run(run, hooks, bar.prepare, startup=startup)
    if speaks:
        say(run, outcome)
    return {
        Status.DIVERGED: ExitCode.DIVERGED,
        Status.INTERRUPTED: ExitCode.INTERRUPTED,
        Status.FINISHED: ExitCode.DONE,
    }[outcome.status]


def say(run: AnyRun, outcome: "Outcome") -> None:
    """How the run ended, and what to do next."""
    directory = run_directory(run)
    if outcome.status == "diverged":
        print(f"error: {directory}: {outcome.message}", file=sys.stderr)
    elif outcome.status == "interrupted":
        print(f"interrupted: {outcome.message}; the same command goes on from there")
    else:
        print(f"{outcome.status}: {directory} ({outcome.message})")
        print(after_run(run))


def to_all(*watchers: "Callable[[Progress], None]") -> "Callable[[Progress], None]":
    """One watcher that tells each of these."""

    def tell(progress: "Progress") -> None:
        for watcher in watchers:
            watcher(progress)

    return tell


def show_parameters(run: AnyRun, signals: StopSignal) -> ExitCode:
    """Print each parameter's shape and size, of the abstract state: nothing is allocated."""
    from clu import parameter_overview

    from lab.launch.jobs import Preparing
    from lab.launch.runner import make_job

    def watch(preparing: Preparing) -> None:
        if signals.came:
            raise Stopped

    params = make_job(run, watch).abstract_state["params"]
    print(parameter_overview.get_parameter_overview(as_dicts(params), include_stats=False))
    return ExitCode.DONE


def as_dicts(params: Any) -> dict[str, Any]:
    """Leaves by their path, as clu's table expects them."""
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


if __name__ == "__main__":
    leave(main)
