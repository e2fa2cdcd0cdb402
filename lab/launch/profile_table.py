"""A profile for people, and as JSON."""

import json
import os
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from lab.core.fields import plain
from lab.core.hlo_parts import COPIES, OTHER
from lab.core.scopes import FEED_FORWARD, LAYERS, Direction
from lab.launch.calibration import processor
from lab.launch.profile import HOST, Profile

SCHEMA = "lab.profile/1"
FILE = "profile.json"
MOST_OTHER = 0.15  # of the devices' time; more, and the table says what it cannot tell
MANY = 0.15  # of an update's time: worth a field of the config
NO_GRAPHS = "--xla_gpu_enable_command_buffer="  # in XLA_FLAGS: a GPU runs no graphs of kernels


def as_json(job: Any, found: Profile, command: Sequence[str]) -> dict[str, Any]:
    """Plain values, units in the names; times are of one update."""
    import jax

    run, flops_per_s = job.run, found.flops / found.bare_update_s
    return {
        "schema": SCHEMA,
        "command": shlex.join(command),
        "identity": job.identity,
        "name": run.name,
        "execution": plain(run.execution),
        "device": processor() if _platform() == "cpu" else jax.devices()[0].device_kind,
        "devices": job.layout.mesh.size,
        "process": jax.process_index(),
        "processes": jax.process_count(),
        "jax": jax.__version__,
        "updates": found.updates,
        "update_ms": 1e3 * found.update_s,
        "update_without_profiler_ms": 1e3 * found.bare_update_s,
        "flops": found.flops,
        "flops_per_s": flops_per_s,
        "mfu": job.mfu(flops_per_s),
        "trace": str(found.trace),
        "rows": [
            {
                "part": row.part,
                "direction": row.direction,
                "update_ms": 1e3 * row.update_s,
                "share": row.update_s / found.update_s,
            }
            for row in found.rows
        ],
    }


def write(folder: pathlib.Path, document: dict[str, Any]) -> None:
    """Write profile.json."""
    text = json.dumps(document, indent=1) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def show(document: dict[str, Any], folder: pathlib.Path) -> None:
    """Print the table, how fast that is, how to open the trace and what to type next."""
    from lab.launch.compile_table import console

    out = console()
    out.print(_table(document))
    for line in (_speed(document), *_notes(document), *_opening(document, folder)):
        out.print(line, markup=False, soft_wrap=True)
    out.print(f"next: {_next(document)}", markup=False, soft_wrap=True)


def by_part(document: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Milliseconds of each part by direction: the longest first, what no operation took last."""
    found: dict[str, dict[str, float]] = {}
    for row in document["rows"]:
        found.setdefault(row["part"], {})[row["direction"]] = row["update_ms"]
    return dict(sorted(found.items(), key=lambda each: (each[0] == HOST, -sum(each[1].values()))))


def _table(document: dict[str, Any]) -> Any:
    from rich.table import Table

    parts, whole = by_part(document), document["update_ms"]
    directions = [d for d in Direction if any(row["direction"] == d for row in document["rows"])]
    table = Table(title=f"{document['name']}: where an update's {whole:,.2f} ms go")
    table.add_column("part")
    for name in ("ms", "share, %", *(f"{each}, ms" for each in directions)):
        table.add_column(name, justify="right")
    for part, spent in parts.items():
        if part == HOST:
            table.add_section()
        total = sum(spent.values())
        cells = (spent.get(each) for each in directions)
        told = ("" if cell is None else f"{cell:,.2f}" for cell in cells)
        table.add_row(part, f"{total:,.2f}", f"{100 * total / whole:.1f}", *told)
    return table


def _speed(document: dict[str, Any]) -> str:
    peak = "" if document["mfu"] is None else f", {100 * document['mfu']:.1f} % of the peak"
    count, kind = document["devices"], document["device"]
    return (
        f"{document['updates']} updates on {count} x {kind}, jax {document['jax']}; without the "
        f"profiler {document['update_without_profiler_ms']:,.2f} ms an update: "
        f"{document['flops']:.3e} FLOPs of the model, {document['flops_per_s']:.3e} a second{peak}"
    )


def _notes(document: dict[str, Any]) -> list[str]:
    """What the table cannot tell."""
    share = _other(document)
    if share <= MOST_OTHER:
        return []
    note = f'"{OTHER}" is {100 * share:.0f} % of the devices\' time: its scopes are not told'
    graphs = "; kernels in graphs of a GPU have none, and without graphs it is slower"
    return [note + (graphs if _hidden_in_graphs(document) else "")]


def _other(document: dict[str, Any]) -> float:
    """The share of the devices' time that no scope names."""
    parts = by_part(document)
    busy = sum(sum(spent.values()) for part, spent in parts.items() if part != HOST)
    return sum(parts.get(OTHER, {}).values()) / busy if busy else 0.0


def _hidden_in_graphs(document: dict[str, Any]) -> bool:
    """Whether a GPU would tell more without its graphs."""
    without = NO_GRAPHS in os.environ.get("XLA_FLAGS", "")
    return "gpu" in _platform() and not without and _other(document) > MOST_OTHER


def _platform() -> str:
    import jax

    return jax.devices()[0].platform


def _opening(document: dict[str, Any], folder: pathlib.Path) -> list[str]:
    trace = pathlib.Path(document["trace"])
    return [
        f"rows: {folder / FILE}",
        f"trace: pip install xprof; xprof --logdir {shlex.quote(str(folder))}",
        f"   or: open {trace.parent / 'perfetto_trace.json.gz'} at https://ui.perfetto.dev",
    ]


def _next(document: dict[str, Any]) -> str:
    """A field that may make it faster, where the table says so; else the training itself.

    Of a GPU whose graphs hide what runs, first the profile without them.

    `unroll_layers` is of transformer blocks, which have a feed-forward layer: a scan over them
    copies what it keeps. Convolutional networks have a layer stack too, and nothing to unroll.
    """
    words, execution = shlex.split(document["command"]), document["execution"]
    kept = without_flag(without_flag(words, "--profile"), "--profile-updates")
    parts, whole = by_part(document), document["update_ms"]
    on_cpu, anew = _platform() == "cpu", ["--profile", "NEW_FOLDER"]
    if _hidden_in_graphs(document):
        return f'XLA_FLAGS="$XLA_FLAGS {NO_GRAPHS}" {shlex.join([*kept, *anew])}'

    def share(*names: str) -> float:
        return sum(sum(parts.get(name, {}).values()) for name in names) / whole

    more = []
    if not on_cpu and share(HOST) > MANY and execution["steps_per_dispatch"] == 1:
        more = ["--config.execution.steps_per_dispatch", "8"]
    elif on_cpu and FEED_FORWARD in parts and not execution["unroll_layers"]:
        if share(LAYERS, COPIES) > MANY:
            more = ["--config.execution.unroll_layers", "True"]
    return shlex.join([*kept, *more, *(anew if more else [])])


def without_flag(words: Sequence[str], flag: str) -> list[str]:
    """A command's words without a flag and its value."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == flag:
            skip = True
        elif not word.startswith(f"{flag}="):
            kept.append(word)
    return kept
