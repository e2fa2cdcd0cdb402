"""Live progress of one run on a terminal; plain lines where there is none."""

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lab.train.loop import Progress as RunProgress


class RunBar:
    """A bar with step, loss and time left."""

    def __init__(self, console: Console, *, name: str) -> None:
        self.console = console
        self.name = name
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(escape(name), total=1, loss="")
        self.last_line_s = time.monotonic()

    def __enter__(self) -> "RunBar":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, doing: str) -> None:
        """Name what is prepared before the first step."""
        self.bar.update(self.task, loss=f"preparing {doing}")

    def show(self, progress: RunProgress) -> None:
        """Move the bar; without a terminal, a line every ten seconds and at evaluations."""
        what = "validation loss" if progress.evaluated else "loss"
        loss = f"{what} {progress.loss_nats_per_token:.4f} nats/token"
        self.bar.update(
            self.task, completed=progress.step, total=max(1, progress.total_steps), loss=loss
        )
        now_s = time.monotonic()
        if not self.console.is_terminal and (progress.evaluated or now_s - self.last_line_s > 10):
            self.last_line_s = now_s
            self.console.print(
                f"{escape(self.name)}: step {progress.step}/{progress.total_steps} {loss}",
                soft_wrap=True,
            )
