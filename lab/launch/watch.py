"""Live progress of one run on a terminal; plain lines where there is none."""

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lab.launch.jobs import Preparing
from lab.train.loop import Progress as RunProgress

PLAIN_LINE_EVERY_S = 10.0


class RunBar:
    """A bar with step, loss and time left."""

    def __init__(self, console: Console, *, name: str) -> None:
        self.console = console
        self.name = name
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[doing]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(escape(name), total=1, count="", doing="")
        self.last_line_s = time.monotonic()

    def __enter__(self) -> "RunBar":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def prepare(self, preparing: Preparing) -> None:
        """Show what is prepared before the first step, and how far that is."""
        done, total, doing = preparing.done, preparing.total, f"preparing {preparing.what}"
        count = f"{done}/{total}" if total else f"{done}" if done else ""
        self.bar.update(
            self.task, completed=done if total else 0, total=total or 1, count=count, doing=doing
        )
        self._line(f"{doing} {count}".rstrip(), now=False)

    def show(self, progress: RunProgress) -> None:
        """Move the bar; without a terminal, a line every ten seconds and at evaluations."""
        what = "validation loss" if progress.evaluated else "loss"
        loss = f"{what} {progress.loss:.4f} {progress.loss_unit}"
        count = f"step {progress.step}/{progress.total_steps}"
        total = max(1, progress.total_steps)
        self.bar.update(self.task, completed=progress.step, total=total, count=count, doing=loss)
        self._line(f"{count} {loss}", now=progress.evaluated)

    def _line(self, text: str, *, now: bool) -> None:
        if self.console.is_terminal:
            return
        now_s = time.monotonic()
        if now or now_s - self.last_line_s > PLAIN_LINE_EVERY_S:
            self.last_line_s = now_s
            self.console.print(f"{escape(self.name)}: {escape(text)}", soft_wrap=True)
