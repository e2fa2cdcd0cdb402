"""Compile a run's steps for a TPU slice, without a TPU: does it fit, what does it do, how long?

python -m lab.launch.compile --config configs/llamagen.py:7B --topology v5p:4x4x8 --layout fsdp_tp
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from configs.layouts import LAYOUTS
from lab.core.chips import CHIPS, parse_slices
from lab.core.errors import ExitCode, LabError
from lab.core.fields import nearest
from lab.launch.compile_job import STEPS, tpu_environment
from lab.launch.door import Parser, leave, parse

EPILOG = """examples:
  python -m lab.launch.compile --config configs/llamagen.py:7B --topology v5p:4x4x8 \\
      --layout fsdp_tp --config.train.batch_size 512 --config.execution.remat full
  python -m lab.launch.compile --config configs/elm.py:XXXL --topology v5e:16x16 --search
  python -m lab.launch.compile --config configs/bigr.py:s9 --topology v6e:4x4 --grid 8x8 \\
      --vocabulary 2 --subcodes 16 --classes 10 --examples 21459

The compiler is the TPU's own (libtpu), the steps are those that a pod would run; nothing is
allocated. Memory, FLOPs of the program, bytes and collectives are read from the compiled program;
times are estimates from published peaks, from "everything hides behind the slowest part" to
"nothing hides". Of published sizes tokens, classes and images are known (ImageNet, f16); of others
they are flags. Exit codes: 0 all fits, 1 something does not fit, 2 bad input.

--search compiles the training step under each layout and batch: without accumulation, with remat
none, projections, attention_out, full, until one fits; then in 2, 4 and 8 parts, with the remats
that keep more than the best so far, again until one fits. Remat costs up to a third more FLOPs,
accumulation next to none. Left out is what would be too large even if all but the state shrank
with the parts. That is one program where the first fits; --exhaustive compiles all sixteen.
next: python -m lab.launch.render --help"""


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.compile",
        description="Compile the steps of a run for a TPU slice, without a TPU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--config", required=True, metavar="FILE:ARG", help="a config, like configs/elm.py:XL")
    add("--topology", required=True, metavar="GEN:AxB", help=f"a slice of {', '.join(CHIPS)}")
    add("--slices", type=int, default=1, metavar="N", help="slices of that shape (1)")
    add("--layout", metavar="NAME", help=f"of {', '.join(LAYOUTS)} (as the config says)")
    add("--steps", default=",".join(STEPS), metavar="A,B", help=f"of {', '.join(STEPS)} (all)")
    add("--grid", metavar="RxC", help="positions of an image, like 16x16")
    add("--vocabulary", type=int, metavar="V", help="codes of a sub-code")
    add("--subcodes", type=int, metavar="S", help="sub-codes, or bits, at a position")
    add("--channels", type=int, metavar="C", help="of continuous latents")
    add("--classes", type=int, metavar="K", help="classes of the data")
    add("--examples", type=int, metavar="N", help="training images")
    add("--search", action="store_true", help="try layouts, remat and accumulation; rank")
    add("--layouts", metavar="A,B", help="those that --search tries (all)")
    add("--batches", metavar="N,M", help="global batches that --search tries (the config's)")
    add("--exhaustive", action="store_true", help="--search tries every remat and accumulation")
    add("--json", action="store_true", help="print JSON")
    add("--out", type=pathlib.Path, metavar="FILE", help="write the JSON there too")
    add("--config.PATH", dest="unused", metavar="VALUE", help="any field, by its path")
    return made


def main(argv: Sequence[str]) -> ExitCode:
    """Compile, show, and say whether it fits."""
    flags, overrides = parse(parser(), argv)
    parse_slices(flags.topology, count=flags.slices)  # before libtpu is asked for
    steps = _steps(flags)
    from lab.launch.compile_plan import carry_out, check_counts, make_plan

    check_counts(flags)
    tpu_environment()
    plan = make_plan(flags, overrides)
    if flags.search:
        return _search(plan, flags)
    with _status(flags) as status:
        planned = carry_out(plan, steps, lambda line: status.update(f"compiling {line}"))
    document = planned.as_json() | {"host_peak_bytes": _host_peak_bytes()}
    _write(flags, document)
    if flags.json:
        print(json.dumps(document, indent=1))
    else:
        from lab.launch.compile_table import show

        show(planned, host_peak_bytes=document["host_peak_bytes"])
    return ExitCode.DONE if planned.fits else ExitCode.FAILURE


def _steps(flags: argparse.Namespace) -> list[str]:
    wanted = flags.steps.split(",")
    for name in wanted:
        if name not in STEPS:
            raise LabError(f"--steps {name}: {nearest(name, STEPS)}")
    return wanted


def _search(plan: Any, flags: argparse.Namespace) -> ExitCode:
    from lab.launch.compile_search import choices, search, show_ranking

    tried = choices(flags, plan)
    with _status(flags) as status:
        rows = search(plan, tried, lambda line: status.update(f"compiling {line}"))
    document = {"schema": "lab.compile.search/1", "rows": [row.as_json() for row in rows]}
    _write(flags, document)
    if flags.json:
        print(json.dumps(document, indent=1))
    else:
        show_ranking(plan, rows)
    return ExitCode.DONE if any(row.fits for row in rows) else ExitCode.FAILURE


def _status(flags: argparse.Namespace) -> Any:
    from rich.console import Console

    return Console(stderr=True, quiet=flags.json and not sys.stderr.isatty()).status("lowering")


def _write(flags: argparse.Namespace, document: dict[str, Any]) -> None:
    if flags.out:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        flags.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _host_peak_bytes() -> int:
    """The most memory that this process has held."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    leave(main)
