"""Which layout, remat and accumulation fit a slice, and which of them is fastest by estimate."""

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from configs.layouts import LAYOUTS
from lab.core.errors import LabError
from lab.core.fields import nearest
from lab.launch.compile_job import compiled
from lab.launch.compile_plan import Plan, make_job
from lab.launch.compile_report import StepReport, report, state_bytes

# From what keeps most to what keeps least, so that the first that fits computes the least anew.
REMATS = ("none", "projections", "attention_out", "full")
ACCUMULATIONS = (1, 2, 4, 8)


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

    Of a layout and a batch, remat that keeps less and more accumulation are tried only while
    nothing fits, for they add work (unless the search is exhaustive). A state that alone is too
    large for the chip, or a mesh or batch that does not divide, is not compiled.
    """
    rows: list[Row] = []
    for layout in tried.layouts:
        for batch in tried.batches:
            rows += _of_layout(plan, tried, layout, batch, tell)
    return sorted(rows, key=_rank)


def _of_layout(
    plan: Plan, tried: Choices, layout: str, batch: int, tell: Callable[[str], None]
) -> Iterator[Row]:
    for accumulation in tried.accumulations:
        for remat in tried.remats:
            choice = Choice(layout=layout, batch=batch, remat=remat, accumulation=accumulation)
            tell(choice.words)
            row = _tried(plan, choice)
            yield row
            if row.report is None or (row.fits and not tried.exhaustive):
                return  # nothing that is left to try would help


def _tried(plan: Plan, choice: Choice) -> Row:
    try:
        job = make_job(with_choice(plan, choice))
    except LabError as error:
        return Row(choice=choice, report=None, reason=str(error))
    held, capacity = state_bytes(job), plan.slices.chip.usable_hbm_bytes
    if held > capacity:
        reason = f"the state alone takes {held / 2**30:,.1f} GiB of {capacity / 2**30:,.1f}"
        return Row(choice=choice, report=None, reason=reason)
    found = report(job, plan.slices, "train", compiled(job, "train"))
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
        table.add_row(*_cells(row))
    out.print(table)
    best = rows[0] if rows and rows[0].fits else None
    if best is None:
        out.print("nothing fits: a larger slice, or a smaller batch with --batches")
        return
    c = best.choice
    out.print(
        f"next: python -m lab.launch.compile --config {plan.config} --topology "
        f"{plan.slices.topology} --layout {c.layout} "
        f"--config.train.batch_size {c.batch} --config.execution.remat {c.remat} "
        f"--config.execution.accumulation {c.accumulation}"
    )


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
