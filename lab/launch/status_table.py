"""The status of a sweep for people: a table, what is left, where time went; once or again."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lab.launch.board import RunState
from lab.launch.status import RunStatus, StatusReader, SweepStatus

REFRESH_S = 5.0
_COLOURS = {
    RunState.FINISHED: "green",
    RunState.RUNNING: "cyan",
    RunState.FAILED: "red",
    RunState.DIVERGED: "red",
    RunState.WAITING: "dim",
}
_NOTE = 60  # characters


def show(console: Console, status: SweepStatus) -> None:
    """Print it once."""
    console.print(status_table(status))
    for line in summary(status):
        console.print(line, soft_wrap=True, highlight=False)


def watch(console: Console, reader: StatusReader, *, refresh_s: float = REFRESH_S) -> None:
    """Show it again and again, until all has ended or Ctrl-C; the last one stays."""
    status = reader.read()
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not status.is_over:
                if console.is_terminal:
                    shown = [Text(line) for line in summary(status)]
                    live.update(Group(status_table(status), *shown), refresh=True)
                else:
                    console.print(summary(status)[0], soft_wrap=True, highlight=False)
                time.sleep(refresh_s)
                status = reader.read()
    except KeyboardInterrupt:
        pass
    show(console, status)


def status_table(status: SweepStatus) -> Table:
    """A row a run."""
    table = Table(title=status.title, title_justify="left")
    unit = next((each.entry.loss_unit for each in status.runs if each.entry.loss_unit), "")
    left = ("run", "state", "note")
    loss = f"loss, {unit}" if unit else "loss"
    for heading in ("run", "state", "N", "step", loss, "time left", "productive", "note"):
        table.add_column(heading, justify="left" if heading in left else "right")
    for each in status.runs:
        entry = each.entry
        table.add_row(
            escape(entry.name),
            f"[{_COLOURS[entry.state]}]{entry.state}[/]",
            "" if entry.params is None else f"{entry.params:,}",
            f"{entry.step}/{entry.total_steps}" if entry.total_steps else "",
            _loss(each),
            _time_left(each),
            _productive(each),
            escape(_note(each)[:_NOTE]),
        )
    return table


def summary(status: SweepStatus) -> list[str]:
    """How many runs are in which state and what they need yet; where their time went."""
    counts = status.counts
    states = ", ".join(
        f"{counts[state]} {'done' if state is RunState.FINISHED else state}"
        for state in (
            RunState.FINISHED,
            RunState.RUNNING,
            RunState.WAITING,
            RunState.FAILED,
            RunState.DIVERGED,
        )
    )
    running, unknown = status.left(RunState.RUNNING)
    lines = [states]
    if running or unknown:
        lines[0] += f"; running: {_known(max(running, default=None), unknown, 'left')}"
    waiting, unknown = status.left(RunState.WAITING)
    if waiting or unknown:
        lines[0] += f"; waiting: {_known(sum(waiting) if waiting else None, unknown, 'of work')}"
    shares = status.goodput.shares()
    if shares:
        parts = ", ".join(f"{share:.1%} {kind}" for kind, share in shares.items())
        lines.append(f"goodput: {parts} of {clock_time(status.goodput.total_s)}")
    return lines


def _known(seconds: float | None, unknown: int, what: str) -> str:
    if seconds is None:
        return f"unknown time {what}"
    return f"{clock_time(seconds)} {what}" + (f" (unknown for {unknown})" if unknown else "")


def clock_time(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _loss(each: RunStatus) -> str:
    entry = each.entry
    if entry.loss is None:
        return ""
    loss = f"{float(entry.loss):.4f}"
    return loss if entry.loss_se is None else f"{loss} ± {float(entry.loss_se):.4f}"


def _time_left(each: RunStatus) -> str:
    if each.time_left_s is not None:
        return clock_time(each.time_left_s)
    return "unknown" if each.entry.state in (RunState.RUNNING, RunState.WAITING) else ""


def _productive(each: RunStatus) -> str:
    shares = each.goodput.shares() if each.goodput else {}
    return f"{shares['productive']:.0%}" if shares else ""


def _note(each: RunStatus) -> str:
    if each.entry.reason or each.entry.state is not RunState.RUNNING:
        return each.entry.reason
    return ", ".join(word for word in (each.doing, f"on {each.host}" if each.host else "") if word)
