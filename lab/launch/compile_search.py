"""Which layout, remat and accumulation fit a slice, and which of them is fastest by estimate."""

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from configs.layouts import LAYOUTS
from lab.core.errors import LabError
from lab.core.fields import nearest
from lab.launch.compile_job import compiled
from lab.launch.compile_plan import Plan, command_of, make_job
from lab.launch.compile_report import StepReport, report, state_bytes

# From what keeps most to what keeps least, so that the first that fits computes the least anew.
REMATS = ("none", "projections", "attention_out", "full")
ACCUMULATIONS = (1, 2, 4, 8)
STATE = ("parameters", "moments", "average")  # uses of memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to run a step."""

    layout: str
    batch: int
    remat: str
    accumulation: int

    @property
    def words(self) -> str:
        """For the line that tells what is compiled."""
        return (
            f"{self.layout}, batch {self.batch:,}, remat {self.remat}, accumulation "
            f"{self.accumulation}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What came of a choice: a report, or the reason that there is none."""

    choice: Choice
    report: StepReport | None
    reason: str = ""
    hopeless: bool = False  # no remat and no more accumulation helps this layout and batch

    @property
    def fits(self) -> bool:
        """Whether it can be run."""
        return self.report is not None and self.report.memory.fits

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        found = self.report.as_json() if self.report else None
        return {
            **dataclasses.asdict(self.choice),
            "fits": self.fits,
            "reason": self.reason,
            "train": found,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """What is tried."""

    layouts: tuple[str, ...]
    batches: tuple[int, ...]
    remats: tuple[str, ...] = REMATS
    accumulations: tuple[int, ...] = ACCUMULATIONS
    exhaustive: bool = False


def choices(flags: argparse.Namespace, plan: Plan) -> Choices:
    """From flags. Raises LabError naming the value and what is allowed."""
    layouts = tuple(flags.layouts.split(",")) if flags.layouts else tuple(LAYOUTS)
    for name in layouts:
        if name not in LAYOUTS:
            raise LabError(f"--layouts {name}: {nearest(name, LAYOUTS)}")
    texts = flags.batches.split(",") if flags.batches else [str(plan.run.train.batch_size)]
    for text in texts:
        if not text.isdecimal() or int(text) < 1:
            raise LabError(f"--batches {text}: numbers of images are expected, like 256,512")
    return Choices(
        layouts=layouts,
        batches=tuple(map(int, texts)),
        exhaustive=flags.exhaustive,
    )


def search(plan: Plan, tried: Choices, tell: Callable[[str], None]) -> list[Row]:
    """Compile the training step of one choice after another; those that fit first, fastest first.

    Of a layout and a batch, remats are tried without accumulation until one fits, from the one that
    keeps most. Remat costs up to a third more FLOPs and accumulation next to none, so that the
    remats that keep more than the best so far are then tried with more of it: sixteen programs at
    most. What would be too large even if all but the state shrank with the parts, a state that
    alone is too large for the chip, and a mesh or batch that does not divide, are not compiled.
    """
    rows: list[Row] = []
    for layout in tried.layouts:
        for batch in tried.batches:
            rows += _of_layout(plan, tried, layout, batch, tell)
    return sorted(rows, key=_rank)


def _of_layout(
    plan: Plan, tried: Choices, layout: str, batch: int, tell: Callable[[str], None]
) -> Iterator[Row]:
    def row_of(remat: str, accumulation: int) -> Row:
        choice = Choice(layout=layout, batch=batch, remat=remat, accumulation=accumulation)
        tell(choice.words)
        return _tried(plan, choice)

    walk = _every(tried, row_of) if tried.exhaustive else _downwards(tried, row_of)
    for row in walk:
        yield row
        if row.hopeless:
            return


def _every(tried: Choices, row_of: Callable[[str, int], Row]) -> Iterator[Row]:
    for accumulation in tried.accumulations:
        for remat in tried.remats:
            yield row_of(remat, accumulation)


def _downwards(tried: Choices, row_of: Callable[[str, int], Row]) -> Iterator[Row]:
    """At each accumulation from what keeps most to the first that fits, or to the best before."""
    candidates = tried.remats
    last: dict[str, Row] = {}
    for accumulation in tried.accumulations:
        for number, remat in enumerate(candidates):
            if remat in last and not _may_fit(last[remat], accumulation):
                continue
            last[remat] = row = row_of(remat, accumulation)
            yield row
            if row.fits:
                candidates = candidates[:number]
                break


def _may_fit(row: Row, accumulation: int) -> bool:
    """Whether it would in so many parts if all but the state shrank with them."""
    if row.report is None:
        return True
    memory = row.report.memory
    held = sum(memory.by_use.get(name, 0.0) for name in STATE)
    rest = (memory.needed - held) * row.choice.accumulation / accumulation
    return held + rest <= memory.capacity


def _tried(plan: Plan, choice: Choice) -> Row:
    try:
        job = make_job(with_choice(plan, choice))
    except LabError as error:
        return Row(choice=choice, report=None, reason=str(error), hopeless=True)
    held, capacity = state_bytes(job), plan.slices.chip.usable_hbm_bytes
    if held > capacity:
        reason = f"the state alone takes {held / 2**30:,.1f} GiB of {capacity / 2**30:,.1f}"
        return Row(choice=choice, report=None, reason=reason, hopeless=True)
    try:
        found = report(job, plan.slices, "train", compiled(job, "train"))
    except LabError as error:  # of this program: the next one may compile
        return Row(choice=choice, report=None, reason=str(error))
    return Row(choice=choice, report=found)


def with_choice(plan: Plan, choice: Choice) -> Plan:
    """The plan run in this way."""
    run = plan.run
    execution = dataclasses.replace(
        run.execution,
        layout=choice.layout,
        remat=choice.remat,
        accumulation=choice.accumulation,
    )
    train = dataclasses.replace(run.train, batch_size=choice.batch)
    return dataclasses.replace(plan, run=dataclasses.replace(run, execution=execution, train=train))


def _rank(row: Row) -> tuple[float, float]:
    if row.report is None:
        return 2, 0.0
    if not row.fits or row.report.seconds is None:
        return 1, row.report.memory.needed
    return 0, row.report.seconds.high / row.report.images


def show_ranking(plan: Plan, rows: Sequence[Row]) -> None:
    """Print the table and the command of the best."""
    from rich.markup import escape
    from rich.table import Table

    from lab.launch.compile_table import console

    out = console()
    table = Table(
        title=f"{plan.config} on {plan.slices.name}: the training step; fastest first by the time "
        "if nothing hides"
    )
    for name in ("layout", "batch", "remat", "accumulation", "HBM GiB", "ms", "MFU, %", ""):
        table.add_column(name, justify="left" if name in ("layout", "remat", "") else "right")
    for row in rows:
        table.add_row(*map(escape, _cells(row)))
    out.print(table)
    best = rows[0] if rows and rows[0].fits else None
    if best is None:
        out.print("nothing fits: a larger slice, or a smaller batch with --batches")
        return
    out.print(f"next: {command_of(plan, _flags_of(best.choice))}", markup=False, soft_wrap=True)


def _flags_of(choice: Choice) -> dict[str, Any]:
    """The choice as flags."""
    return {
        "--layout": choice.layout,
        "--config.train.batch_size": choice.batch,
        "--config.execution.remat": choice.remat,
        "--config.execution.accumulation": choice.accumulation,
    }


def _cells(row: Row) -> list[str]:
    c, found = row.choice, row.report
    named = [c.layout, f"{c.batch:,}", c.remat, str(c.accumulation)]
    if found is None:
        return [*named, "", "", "", row.reason]
    memory = f"{found.memory.needed / 2**30:,.2f}"
    if not found.memory.fits or found.seconds is None or found.mfu is None:
        over = (found.memory.needed - found.memory.capacity) / 2**30
        return [*named, memory, "", "", f"{over:,.2f} GiB over"]
    ms = f"{found.seconds.low * 1e3:,.0f} .. {found.seconds.high * 1e3:,.0f}"
    mfu = f"{found.mfu[0] * 100:.0f} .. {found.mfu[1] * 100:.0f}"
    return [*named, memory, ms, mfu, "fits"]
