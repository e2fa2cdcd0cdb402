"""Tasks and their values as tables and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from lab.launch.evaluate_task import Task

WIDTH = 150  # where the output is no terminal
Found = Sequence[tuple[Task, dict[str, Any] | None]]


def as_json(task: Task, row: dict[str, Any] | None) -> dict[str, Any]:
    """A task with its run and, where it is done, the row of quality.jsonl."""
    state = {"run": str(task.directory), "name": task.trained.run.name, "done": row is not None}
    return {**state, **(row or {"key": task.key, **task.row})}


def list_table(found: Found) -> Table:
    """A row a task: done or waiting."""
    table = Table(title="tasks", title_justify="left")
    for heading in ("run", "step", "weights", "what", "by", "settings", "key", "state"):
        table.add_column(heading, overflow="fold")
    for task, row in found:
        by = "" if task.extractor is None else task.extractor.name
        table.add_row(
            *(escape(name_of(task)), str(task.trained.step), task.trained.weights, task.what),
            *(escape(by), escape(", ".join(settings_line(task)))),
            task.key,
            "[green]done[/]" if row else "[dim]waiting[/]",
        )
    return table


def name_of(task: Task) -> str:
    """A run's label, and its identity, for labels may repeat."""
    identity = task.directory.name[:6]
    return f"{task.trained.run.name} {identity}" if task.trained.run.name else identity


def settings_line(task: Task) -> Iterator[str]:
    """The settings in which tasks of one table may differ, in short."""
    settings = task.settings
    for name in ("samples", "draws", "probe", "train_images"):
        if name in settings:
            yield f"{name} {settings[name]}"
    yield f"of {len(task.reference)} {task.reference.source.info.split} images"
    if "sampler" in settings:
        yield from drawn_line(settings["sampler"])


def drawn_line(sampler: dict[str, Any]) -> Iterator[str]:
    """How images are drawn, in short: what is not as usual."""
    guidance, drawing = sampler["guidance"], sampler["drawing"]
    usual = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    if guidance["scale"] != 1:
        yield f"guidance {guidance['scale']:g} {guidance['schedule']}"
    for name, value in drawing.items():
        if value != usual.get(name):
            yield f"{name} {value:g}"
    for name, value in sampler.get("unmasking", {}).items():
        if name in ("rounds", "ranking"):
            yield f"{name} {value}"
    if "method" in sampler:
        yield sampler["method"]


def values_table(found: Found) -> Table:
    """A row a value; of a distance against samples only that at all samples."""
    level = found[0][0].settings["level"]  # one flag: that of all tasks
    table = Table(title="quality", title_justify="left")
    for heading, least in (("run", 0), ("step", 0), ("what", len("likelihood")), ("metric", 0)):
        table.add_column(heading, min_width=least, no_wrap=heading != "what")
    for heading in ("layer", "value", f"{level:.0%} interval", "samples"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit")
    for task, row in found:
        names = [name_of(task), str(task.trained.step), what_of(task)]
        for value in shown(row) if row else []:
            table.add_row(*map(escape, names), *cells(value))
            names = ["", "", ""]
        table.add_section()
    return table


def shown(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The values of a row without those of fewer samples than another of the same metric."""
    most: dict[tuple[str, Any], int] = {}
    for value in row["values"]:
        at = value["metric"], value["layer"]
        most[at] = max(most.get(at, 0), value["samples"])
    for value in row["values"]:
        if value["samples"] == most[value["metric"], value["layer"]]:
            yield value


def what_of(task: Task) -> str:
    """What is measured, and at which point of a grid."""
    drawn = drawn_line(task.settings["sampler"]) if task.what == "randomness" else ()
    return ", ".join([task.what, *drawn])


def cells(value: dict[str, Any]) -> tuple[str, ...]:
    """One value as text."""
    number, low, high = (float(value[name]) for name in ("value", "low", "high"))
    return (
        escape(value["metric"]),
        "" if value["layer"] is None else str(value["layer"]),
        f"{number:.4g}",
        escape(f"[{low:.4g}, {high:.4g}]"),
        f"{value['samples']:,}",
        escape(value["unit"]),
    )
