"""Train one run, or go on with it.

python -m lab.launch.train --config configs/elm.py:s3 --config.train.duration "2e6 tokens"
"""

import argparse
import sys
import time
import typing
from collections.abc import Callable, Sequence
from typing import Any

from lab.core.config import AnyRun
from lab.core.errors import ExitCode, Stopped
from lab.launch.door import Parser, leave, load_config, parse
from lab.launch.next_command import after_run
from lab.launch.signals import StopSignal

if typing.TYPE_CHECKING:
    from lab.train.loop import Progress

EPILOG = """example:
  python -m lab.launch.train --config configs/elm.py:s3 --config.train.duration "2e6 tokens"

The same command goes on where a stopped run was. Exit codes: 0 finished, 2 bad input,
3 diverged, 75 interrupted and saved (start me again)."""


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
        "--config.PATH", dest="unused", metavar="VALUE", help="any field, by its path"
    )
    return made


def main(argv: Sequence[str]) -> ExitCode:
    """Train and say how it ended."""
    flags, overrides = parse(parser(), argv)
    run = load_config(flags.config, overrides)
    with StopSignal() as signals:  # before jax, whose import takes a second
        from lab.launch.devices import set_up_jax
        from lab.launch.memory import keep_freed_memory

        keep_freed_memory()
        set_up_jax(run.execution.devices)
        if flags.parameters:
            return show_parameters(run, signals)
        return train(run, signals)


def train(run: AnyRun, signals: StopSignal) -> ExitCode:
    """Train the run, show it, and say how it ended."""
    from rich.console import Console
    from rich.markup import escape

    from lab.core.config import run_directory
    from lab.launch.runner import train_run
    from lab.launch.tensorboard import event_writer
    from lab.launch.watch import RunBar
    from lab.train.loop import Hooks, Status

    console = Console()
    watchers = [event_writer(run_directory(run))] if run.execution.tensorboard else []
    if signals.came:
        print("interrupted: before the first step; the same command begins it")
        return ExitCode.INTERRUPTED
    with RunBar(console, name=run.name) as bar:
        hooks = Hooks(
            clock=time.monotonic,
            should_stop=lambda: signals.came,
            progress=to_all(bar.show, *watchers),
            warn=lambda line: console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True),
        )
        outcome = train_run(run, hooks, bar.prepare)
    directory = run_directory(run)
    if outcome.status is Status.DIVERGED:
        print(f"error: {directory}: {outcome.message}", file=sys.stderr)
        return ExitCode.DIVERGED
    if outcome.status is Status.INTERRUPTED:
        print(f"interrupted: {outcome.message}; the same command goes on from there")
        return ExitCode.INTERRUPTED
    print(f"{outcome.status}: {directory} ({outcome.message})")
    print(after_run(run))
    return ExitCode.DONE


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
