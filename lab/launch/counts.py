"""Parameters of every published size by role, beside the authors' number.

python -m lab.launch.counts --family bigr mar
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from lab.core.errors import ExitCode, LabError
from lab.core.fields import nearest
from lab.launch.door import Parser, leave, load_config, parse
from lab.models.families import FAMILIES
from lab.models.published import PUBLISHED, Published

EPILOG = """example:
  python -m lab.launch.counts --family bigr mar

Models are built abstractly: nothing is allocated. FLOPs are those of one training step (forward
and backward) for one image, attention included; 6 N D counts otherwise. Exit code 1 where a count
does not round to what its authors say."""
WIDTH = 150  # where the output is no terminal


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.counts",
        description="Parameters of every published size by role, beside the authors' number.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--family", nargs="+", default=[], metavar="NAME", help="these only")
    made.add_argument("--json", action="store_true", help="print the rows as JSON")
    return made


def main(argv: Sequence[str]) -> ExitCode:
    """Count, print, and say whether every published number is met."""
    flags, overrides = parse(parser(), argv)
    if overrides:
        raise LabError(f"--config.{next(iter(overrides))}: no such flag here")
    known = {of.family for of in PUBLISHED}
    for name in flags.family:
        if name not in known:
            raise LabError(f"--family {name}: {nearest(name, known)}")
    rows = [counted(of) for of in PUBLISHED if not flags.family or of.family in flags.family]
    if flags.json:
        print(json.dumps(rows, indent=1))
    else:
        _show(rows)
    return ExitCode.DONE if all(row["met"] for row in rows) else ExitCode.FAILURE


def counted(of: Published) -> dict[str, Any]:
    """One size: parameters by role, training FLOPs of an image, and what was said."""
    import jax

    from lab.core.config import RunConfig
    from lab.core.counts import TRAINING
    from lab.models import families

    run = load_config(of.config, {"model.subcodes": of.subcodes})
    assert isinstance(run, RunConfig)
    codes = families.Codes(
        vocabulary=of.vocabulary, grid=of.grid, classes=1000, channels=of.channels
    )
    make = families.builder(run.model, codes, families.Running(compute_dtype="bfloat16"))
    model = jax.eval_shape(make, jax.random.key(0))
    n = model.parameters()
    return {
        "family": of.family,
        "size": of.size,
        "tokens": _tokens(of),
        "params": {"embedding": n.embedding, "blocks": n.blocks, "head": n.head},
        "params_total": n.total,
        "unused_params": of.unused,
        "training_flops_per_image": dataclasses.asdict(
            model.forward_flops_per_image().scaled(TRAINING)
        ),
        "published": of.said,
        "met": of.met(n.total),
        "note": of.note,
    }


def _tokens(of: Published) -> str:
    rows, columns, _ = of.grid
    if of.channels:
        what = f"{of.channels} channels"
    elif of.vocabulary == 2:
        what = f"{of.subcodes} bits"
    else:
        what = f"{of.subcodes} of {of.vocabulary:,} codes"
    return f"{rows} x {columns}, {what}"


def _show(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    table = Table(title="Parameters, millions; training FLOPs of one image")
    for name in ("family", "size", "tokens"):
        table.add_column(name)
    for name in ("embedding", "blocks", "head", "N", "FLOPs", "published", "met"):
        table.add_column(name, justify="right")
    table.add_column("note", overflow="fold")
    for row in rows:
        roles = [f"{row['params'][role] / 1e6:,.1f}" for role in ("embedding", "blocks", "head")]
        unused = f" + {row['unused_params'] / 1e6:,.1f} unused" if row["unused_params"] else ""
        total = f"{row['params_total'] / 1e6:,.1f}{unused}"
        flops = f"{sum(row['training_flops_per_image'].values()):.2e}"
        met = "yes" if row["met"] else "[red]no[/]"
        names = (row["family"], row["size"], row["tokens"])
        table.add_row(*names, *roles, total, flops, row["published"], met, row["note"])
    console.print(table)
    others = sorted(set(FAMILIES) - {row["family"] for row in rows})
    if others:
        console.print(f"not in this table: {', '.join(others)}")
    console.print("next: python -m lab.launch.train --config configs/bigr.py:s3 --parameters")


if __name__ == "__main__":
    leave(main)
