"""Judge trained generators: their images, features, attention and likelihood.

python -m lab.launch.evaluate runs/elm/4be1... --what fd --extractor runs/classifiers/77aa...
"""

import argparse
import itertools
import json
import pathlib
import shlex
import sys
import time
import typing
from collections.abc import Callable, Sequence
from typing import Any

from lab.core.errors import ExitCode, Stopped
from lab.launch.door import leave, parse
from lab.launch.evaluate_flags import JUDGED, check_flags, parser
from lab.launch.signals import StopSignal

if typing.TYPE_CHECKING:
    from lab.launch.evaluate_bar import EvaluateBar
    from lab.launch.evaluate_plan import LeftOut
    from lab.launch.evaluate_task import Task, Tools

Opener = Callable[[str], Any]  # open_extractor of lab/extractors/trained.py
Measure = Callable[["Task"], list[dict[str, Any]]]


def main(argv: Sequence[str], open_extractor: Opener | None = None) -> ExitCode:
    """Do the tasks; `open_extractor` stands in for that of lab/extractors/trained.py."""
    flags, overrides = parse(parser(), argv)
    check_flags(flags, overrides)
    with StopSignal() as signals:  # before jax, whose import takes a second
        from lab.launch.memory import keep_freed_memory

        keep_freed_memory()
        return evaluate(flags, signals, open_extractor)


def evaluate(flags: argparse.Namespace, signals: StopSignal, opener: Opener | None) -> ExitCode:
    """Plan, do what is not done, and print what there is."""
    from rich.console import Console

    from lab.launch.devices import set_up_jax
    from lab.launch.evaluate_bar import EvaluateBar

    if signals.came:
        return interrupted()
    set_up_jax(0)
    from lab.launch.evaluate_task import Tools

    with EvaluateBar(Console(stderr=True)) as bar:
        tools = Tools(flags.batch, bar.show, lambda: signals.came, bar.warn)
        try:
            tasks, left_out = plan(flags, tools, opener)
            for each in left_out:
                bar.warn(f"left out: {each.reason}")
            held = [] if flags.list else work(tasks, tools, bar)
        except Stopped:
            return interrupted()
    for directory in held:
        line = f"warning: {directory}: left out: another process is evaluating this run"
        print(line, file=sys.stderr)
    show(flags, tasks)
    return ExitCode.INTERRUPTED if held else ExitCode.DONE


def interrupted() -> ExitCode:
    """Say that the finished tasks are written."""
    print("interrupted: the same command goes on from there", file=sys.stderr)
    return ExitCode.INTERRUPTED


def plan(
    flags: argparse.Namespace, tools: "Tools", opener: Opener | None
) -> "tuple[list[Task], list[LeftOut]]":
    """All tasks that the flags ask for; LabError for what is wrong, before anything is done."""
    from lab.launch.evaluate_data import Sources
    from lab.launch.evaluate_plan import Planner, find_runs

    directories, left_out = find_runs(flags.runs)
    extractors = []
    if set(flags.what) & set(JUDGED):
        if opener is None:
            from lab.extractors.trained import open_extractor as opener
        extractors = [opener(text) for text in dict.fromkeys(flags.extractor)]
    sources = Sources(
        data_dir=flags.data_dir, manual_dir=flags.manual_dir, progress=tools.told("images")
    )
    return Planner(flags, sources, extractors).tasks(directories), left_out


def work(tasks: "Sequence[Task]", tools: "Tools", bar: "EvaluateBar") -> list[pathlib.Path]:
    """Do what is not done, a run at a time; the runs that another process holds.

    Raises Stopped between batches where a signal has come: what is finished is written.
    """
    from lab.launch.claim import claimed

    measures = measures_of([task.what for task in tasks], tools)
    bar.begin(len(tasks))
    held = []
    for directory, group in itertools.groupby(tasks, key=lambda task: task.directory):
        with claimed(directory) as ours:
            if ours:
                work_on(list(group), measures, tools, bar)
            else:
                held.append(directory)
    return held


def work_on(
    tasks: "Sequence[Task]", measures: dict[str, Measure], tools: "Tools", bar: "EvaluateBar"
) -> None:
    """Do what is not done of one run, and write each task when it is finished."""
    from lab.core.quality import append_quality, read_quality
    from lab.launch.evaluate_draws import forget_draws

    directory = tasks[0].directory
    done = {row["key"] for row in read_quality(directory)}
    for task in tasks:
        if task.key not in done:
            tools.between()
            began_s = time.monotonic()
            bar.task(task.title)
            values = measures[task.what](task)
            elapsed_s = round(time.monotonic() - began_s, 3)
            append_quality(
                directory, {**task.row, "values": values, "clock": {"elapsed_s": elapsed_s}}
            )
            if not bar.console.is_terminal:
                bar.say(f"{task.title}: step {task.trained.step} done in {elapsed_s:.1f} s")
        bar.done()
    forget_draws(directory)


def measures_of(names: Sequence[str], tools: "Tools") -> dict[str, Measure]:
    """What is done for each name of --what; what only others need is not loaded."""
    found: dict[str, Measure] = {}
    if set(names) & set(JUDGED):
        from lab.launch.evaluate_samples import Judge

        found |= dict.fromkeys(JUDGED, Judge(tools))
    if "probe" in names:
        from lab.launch.evaluate_probe import probe

        found["probe"] = lambda task: probe(task, tools)
    if "attention" in names:
        from lab.launch.evaluate_attention import attention

        found["attention"] = lambda task: attention(task, tools)
    if "likelihood" in names:
        from lab.launch.evaluate_likelihood import likelihood

        found["likelihood"] = lambda task: likelihood(task, tools)
    return found


def show(flags: argparse.Namespace, tasks: "Sequence[Task]") -> None:
    """Print the tasks with what is known of them, and what to type next."""
    from rich.console import Console

    from lab.core.quality import read_quality
    from lab.launch.evaluate_table import WIDTH, as_json, list_table, values_table

    rows = {
        directory: {row["key"]: row for row in read_quality(directory)}
        for directory in dict.fromkeys(task.directory for task in tasks)
    }
    found = [(task, rows[task.directory].get(task.key)) for task in tasks]
    if flags.json:
        print(json.dumps([as_json(task, row) for task, row in found], indent=1))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(list_table(found) if flags.list else values_table(found))
    if not flags.list and any(row for _, row in found):
        print(f"next: {shlex.join(['python', '-m', 'analysis', 'quality', *flags.runs])}")


if __name__ == "__main__":
    leave(main)
