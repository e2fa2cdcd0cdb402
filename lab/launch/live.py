"""The live table of a sweep: which run, step, loss, time left."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lab.core.config import AnyRun, ClassifierRunConfig, TokenizerRunConfig, run_directory
from lab.core.errors import LabError
from lab.core.record import finished, read_rows

PLAIN_LINE_EVERY_S = 15.0


@dataclasses.dataclass
class _Row:
    """What is known of one run."""

    weight: float  # relative cost, for the estimate of the time left
    done_before: float  # the share done when this process began
    share: float
    doing: str = "waiting"
    step: int = 0
    total_steps: int = 0
    images: int = 0  # made or encoded of those in all, while data are prepared
    total_images: int | None = None
    loss: str = ""


def _weight(run: AnyRun) -> float:
    """Relative cost of a step: a matrix product's, with an overhead that small widths feel."""
    if isinstance(run, TokenizerRunConfig):
        return run.autoencoder.width * (run.autoencoder.width + 256)
    if isinstance(run, ClassifierRunConfig):
        return run.classifier.depth * run.classifier.width * (run.classifier.width + 256)
    return run.model.depth * run.model.width * (run.model.width + 256)


class SweepView:
    """Shows messages of workers; on a terminal as a live table, elsewhere as plain lines."""

    def __init__(self, console: Console, runs: Sequence[AnyRun], *, title: str) -> None:
        self.console = console
        self.title = title
        self.rows = {run.name: _first_row(run) for run in runs}
        self.began_s = time.monotonic()
        self.last_line_s = self.began_s
        self.live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "SweepView":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(line, soft_wrap=True)

    def hear(self, message: dict[str, Any]) -> None:
        """Take in one message of a worker."""
        row = self.rows[message["run"]]
        if "warning" in message:
            self.say(f"[yellow]warning:[/] {escape(message['warning'])}")
        if "doing" in message:
            changed, row.doing = row.doing != message["doing"], message["doing"]
            row.images, row.total_images = message.get("done", 0), message.get("total")
            if changed and not self.console.is_terminal:
                self.say(f"{escape(message['run'])}: {row.doing}{self._loss(row)}")
        if "step" in message:
            row.doing, row.images, row.total_images = "training", 0, None
            row.step, row.total_steps = message["step"], message["total_steps"]
            row.loss = f"{message['loss']:.4f} {message['loss_unit'].split(' ')[0]}"
            row.share = row.step / max(1, row.total_steps)
        if row.doing == "finished":
            row.share = 1.0
        self.refresh()

    def refresh(self) -> None:
        """Draw again."""
        now_s = time.monotonic()
        if self.console.is_terminal:
            self.live.update(Group(self._table(), Text(self._summary())))
        elif now_s - self.last_line_s > PLAIN_LINE_EVERY_S:
            self.last_line_s = now_s
            active = [
                f"{escape(name)} {_how_far(row)}{self._loss(row)}"
                for name, row in self.rows.items()
                if row.doing == "training" or row.images
            ]
            self.say(f"{self._summary()} {'; '.join(active)}")

    def _table(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for heading in ("run", "", "step", "loss"):
            table.add_column(heading)
        for name, row in self.rows.items():
            share = _bar_share(row)
            shown = row.doing if share is None else ProgressBar(1.0, share, width=24)
            table.add_row(escape(name), shown, _how_far(row), self._loss(row).strip())
        return table

    def _loss(self, row: _Row) -> str:
        return f" {row.loss}" if row.loss else ""

    def _summary(self) -> str:
        rows = self.rows.values()
        done = sum(row.share >= 1 for row in rows)
        left = sum(row.weight * (1 - row.share) for row in rows)
        gained = sum(row.weight * (row.share - row.done_before) for row in rows)
        elapsed_s = time.monotonic() - self.began_s
        line = f"{done} of {len(self.rows)} done, {_minutes(elapsed_s)} so far"
        if gained > 0:
            line += f", about {_minutes(elapsed_s * left / gained)} left"
        return line


def _bar_share(row: _Row) -> float | None:
    """The part that is done of what the run is doing; None where that is not known."""
    if row.doing == "training":
        return row.share
    return row.images / row.total_images if row.total_images else None


def _how_far(row: _Row) -> str:
    """Images while data are prepared, steps after that."""
    if row.images or row.total_images:
        of = f"/{row.total_images}" if row.total_images else ""
        return f"{row.doing.removeprefix('preparing ')} {row.images}{of}"
    return f"{row.step}/{row.total_steps}" if row.total_steps else ""


def _first_row(run: AnyRun) -> _Row:
    try:
        rows = read_rows(run_directory(run) / "record.jsonl")
    except LabError:
        rows = []  # its worker reports it
    if finished(rows):
        return _Row(weight=_weight(run), done_before=1.0, share=1.0, doing=rows[-1]["status"])
    share = rows[-1].get("step", 0) / max(1, rows[0]["steps"]) if rows else 0.0
    return _Row(weight=_weight(run), done_before=share, share=share)


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
