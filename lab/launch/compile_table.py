"""The reports of a plan, for people."""

from typing import Any

from lab.launch.compile_plan import Planned, command_of
from lab.launch.compile_report import StepReport, Whole

GIB = 2**30
WIDTH = 150  # where the output is no terminal
SEARCHED = (  # what a search chooses itself
    "--layout",
    "--config.execution.layout",
    "--config.execution.remat",
    "--config.execution.accumulation",
)


def console() -> Any:
    """A console as wide as the tables where there is no terminal."""
    from rich.console import Console

    made = Console()
    return made if made.is_terminal else Console(width=WIDTH)


def show(planned: Planned, *, host_peak_bytes: int) -> None:
    """Print all tables and the run as a whole."""
    out, run = console(), planned.plan.run
    slices = planned.plan.slices
    n = planned.params
    out.print(
        f"[bold]{planned.plan.config}[/] on {slices.name} ({slices.chips:,} chips), layout "
        f"{run.execution.layout}, batch {run.train.batch_size:,} images, remat "
        f"{run.execution.remat}, accumulation {run.execution.accumulation}"
    )
    out.print(
        f"{n['total'] / 1e6:,.1f}M parameters (embedding {n['embedding'] / 1e6:,.1f}, blocks "
        f"{n['blocks'] / 1e6:,.1f}, head {n['head'] / 1e6:,.1f}); "
        f"{planned.plan.world.spec.tokens_per_image:,} tokens an image"
    )
    out.print(_memory(planned))
    out.print(_work(planned))
    for step in planned.steps:
        if step.collectives:
            out.print(_traffic(step))
    for note in _notes(planned):
        out.print(note)
    if planned.whole:
        out.print(_whole(planned.whole))
    compiled_s = sum(step.lower_s + step.compile_s for step in planned.steps)
    out.print(f"compiled in {compiled_s:,.0f} s; this process held {_gib(host_peak_bytes)} GiB")
    out.print(f"next: {_next(planned)}", markup=False, soft_wrap=True)


def _notes(planned: Planned) -> list[str]:
    """What the numbers leave out."""
    notes = []
    for step in planned.steps:
        if step.untold_loops:
            notes.append(
                f"{step.step}: {step.untold_loops} loops end by what they compute; they are "
                "counted once, and work and times are too low"
            )
        if step.kernels:
            notes.append(
                f"{step.step}: products inside kernels are not in the program's FLOPs; the time is "
                "that of the model's FLOPs at least"
            )
    return notes


def _gib(value: float) -> str:
    return f"{value / GIB:,.2f}"


def _memory(planned: Planned) -> Any:
    from rich.table import Table

    table = Table(title="HBM of one device, GiB")
    table.add_column("use")
    for step in planned.steps:
        table.add_column(step.step, justify="right")
    uses = list(dict.fromkeys(use for step in planned.steps for use in step.memory.by_use))
    for use in uses:
        cells = (step.memory.by_use.get(use) for step in planned.steps)
        table.add_row(use, *("" if value is None else _gib(value) for value in cells))
    table.add_section()
    table.add_row("needed", *(_gib(step.memory.needed) for step in planned.steps))
    table.add_row("there is", *(_gib(step.memory.capacity) for step in planned.steps))
    table.add_row("", *map(_verdict, planned.steps))
    return table


def _verdict(step: StepReport) -> str:
    left = step.memory.capacity - step.memory.needed
    if step.memory.fits:
        return f"[green]fits[/], {_gib(left)} left"
    return f"[red]does not fit[/], {_gib(-left)} over"


def _work(planned: Planned) -> Any:
    from rich.table import Table

    table = Table(
        title="Work of one call; times are estimates (all hides behind the slowest part .. "
        "nothing hides)"
    )
    table.add_column("step")
    heads = ("images", "model FLOPs", "program FLOPs", "HBM GB/device", "FLOP/byte", "time, ms")
    for name in (*heads, "MFU, %", "images/s"):
        table.add_column(name, justify="right")
    for step in planned.steps:
        table.add_row(step.step, f"{step.images:,}", *_work_cells(planned, step))
    return table


def _work_cells(planned: Planned, step: StepReport) -> list[str]:
    model = "" if step.model_flops is None else f"{step.model_flops:.3e}"
    if step.seconds is None or step.program_flops is None or step.hbm_bytes is None:
        return [model, *[""] * 6]
    each = step.program_flops / planned.plan.slices.devices
    return [
        model,
        f"{step.program_flops:.3e}",
        f"{step.hbm_bytes / 1e9:,.2f}",
        f"{each / step.hbm_bytes:,.0f}" if step.hbm_bytes else "",
        _range(step.seconds.low * 1e3, step.seconds.high * 1e3),
        _range(*(100 * value for value in step.mfu)) if step.mfu else "",
        _range(*step.images_per_s) if step.images_per_s else "",
    ]


def _range(low: float, high: float) -> str:
    return f"{_number(low)} .. {_number(high)}"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _traffic(step: StepReport) -> Any:
    from rich.table import Table

    table = Table(title=f"Collectives of {step.step}, as one device sees them")
    for name in ("kind", "axes of the mesh"):
        table.add_column(name)
    for name in ("devices", "times", "MB sent"):
        table.add_column(name, justify="right")
    for each in step.collectives:
        sent = f"{each.wire_bytes / 1e6:,.3f}"
        axes = f"{each.axes} (between slices)" if each.between_slices else each.axes
        table.add_row(each.kind, axes, f"{each.devices:,}", f"{each.times:,.0f}", sent)
    return table


def _whole(whole: Whole) -> str:
    days = _range(*whole.days)
    hours = _range(*whole.chip_hours)
    tokens = _range(*(value / 1e9 for value in whole.tokens_per_day))
    return (
        f"the whole run, estimated: {whole.steps:,} steps, {days} days, {hours} chip-hours "
        f"({tokens} billion tokens a day)"
    )


def _next(planned: Planned) -> str:
    plan = planned.plan
    if planned.fits:
        return "python -m lab.launch.render --help"
    return command_of(plan, {"--search": True}, without=SEARCHED)
