"""Live progress of an encode job on a terminal; plain lines where there is none."""

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_LINE_EVERY_S = 10.0


class EncodeBar:
    """A bar with images, images/s and time left; the rate is that of this process since it began
    to encode."""

    def __init__(self, console: Console, *, name: str) -> None:
        self.console = console
        self.name = name
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task(escape(name), total=1, text="")
        self.last_line_s = self.began_s = time.monotonic()
        self.first: tuple[int, float] | None = None  # images done and time at the first batch

    def __enter__(self) -> "EncodeBar":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def prepare(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Show what is done before the first image is encoded."""
        count = f" {done}/{total}" if total else f" {done}" if done else ""
        self._show(f"preparing {what}{count}", done, total)

    def begin(self) -> None:
        """Start the clock of the rate."""
        self.began_s = time.monotonic()

    def show(self, done: int, total: int, encoded: int) -> None:
        """Images done of this process's share, and images encoded since `begin`, views counted."""
        text, now_s = f"{done}/{total} images", time.monotonic()
        if encoded and now_s > self.began_s:
            text += f", {encoded / (now_s - self.began_s):.0f} encoded/s"
            self.first = self.first or (done, now_s)  # what was there before does not count
            if done > self.first[0] and now_s > self.first[1]:
                left_s = (total - done) * (now_s - self.first[1]) / (done - self.first[0])
                text += f", about {left_s:.0f} s left"
        self._show(text, done, total)

    def _show(self, text: str, done: int, total: int | None) -> None:
        self.bar.update(self.task, completed=done if total else 0, total=total or 1, text=text)
        now_s = time.monotonic()
        if not self.console.is_terminal and now_s - self.last_line_s > PLAIN_LINE_EVERY_S:
            self.last_line_s = now_s
            self.console.print(f"{escape(self.name)}: {escape(text)}", soft_wrap=True)
