"""Live progress of an evaluation on a terminal; plain lines where there is none."""

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_LINE_EVERY_S = 10.0


class EvaluateBar:
    """A bar of tasks and, below it, one of what is being done of the present task."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.tasks = self.bar.add_task("preparing", total=None)
        self.part = self.bar.add_task("", total=None)
        self.doing = ""
        self.title = ""
        self.last_line_s = time.monotonic()

    def __enter__(self) -> "EvaluateBar":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, total: int) -> None:
        """So many tasks are to be done."""
        self.bar.update(self.tasks, description="tasks", completed=0, total=total)

    def task(self, title: str) -> None:
        """The next task begins."""
        self.title = title

    def done(self) -> None:
        """The present task is finished."""
        self.bar.advance(self.tasks)

    def show(self, what: str, done: int, total: int | None) -> None:
        """What is being done, and how much of how much."""
        said = f"{self.title}: {what}" if self.title else what
        if said != self.doing:
            self.doing = said
            self.bar.reset(self.part, description=escape(said), total=total, completed=done)
        else:
            self.bar.update(self.part, completed=done, total=total)
        now_s = time.monotonic()
        if not self.console.is_terminal and now_s - self.last_line_s > PLAIN_LINE_EVERY_S:
            self.last_line_s = now_s
            count = f" {done}/{total}" if total else ""
            self.say(f"{said}{count}")

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(escape(line), soft_wrap=True)

    def warn(self, line: str) -> None:
        """A warning that stays."""
        self.console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True)
