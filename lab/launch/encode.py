"""Encode images by a trained tokenizer into folders of codes, one a split.

python -m lab.launch.encode --tokenizer runs/tokenizers/4be1... --data eurosat --out codes/bae16
"""

import argparse
import json
import pathlib
import shlex
import sys
import time
import typing
from collections.abc import Callable, Sequence
from typing import Any

from lab.core.errors import ExitCode, LabError, Stopped
from lab.launch.door import Parser, leave, parse
from lab.launch.signals import StopSignal

if typing.TYPE_CHECKING:
    from rich.console import Console

    from lab.launch.encode_bar import EncodeBar
    from lab.launch.encode_job import EncodeJob, Hooks, ImageTokenizer, Outcome, Share

EPILOG = """examples:
  python -m lab.launch.encode --tokenizer runs/tokenizers/4be1c0de --data eurosat --out codes/bae16
  python -m lab.launch.encode --tokenizer runs/tokenizers/4be1c0de --data eurosat --split train \\
      --views flip --host 0 --hosts 4 --out codes/bae16

Writes OUT/train and OUT/validation: shards of codes and, last, a manifest. The same command goes
on where a stopped job was, and ends with the same bytes; on a finished folder it verifies every
byte and makes again what is damaged. The bytes do not depend on hosts or devices. Exit codes:
0 finished, 2 bad input, 75 interrupted (start me again)."""

SPLITS = "train,validation"
WHICH = ("tokenizer", "data", "data-dir", "manual-dir", "out", "views", "examples", "shards")
Opener = Callable[..., Any]  # open_tokenizer of lab/tokenizers/trained.py


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.encode",
        description="Encode images by a trained tokenizer into folders of codes, one a split.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--tokenizer", required=True, metavar="RUN", help="the run directory of a tokenizer")
    add("--data", required=True, metavar="NAME", help="a data set, like eurosat")
    add("--out", required=True, metavar="DIR", help="where the folders of codes go")
    add("--split", default=SPLITS, metavar="NAMES", help=f"splits, by commas ({SPLITS})")
    add("--views", default="none", help="none, flip or ten_crop: views of each image (none)")
    add("--examples", type=int, metavar="N", help="the first N images of each split (all)")
    add("--shards", type=int, metavar="S", help="files of each split (2048 images a file)")
    add("--host", type=int, help="which of the hosts this is (jax.distributed's, or 0)")
    add("--hosts", type=int, help="how many hosts share the work (jax.distributed's, or 1)")
    add("--devices", type=int, metavar="N", help="devices of this host to use (all)")
    add("--data-dir", metavar="DIR", help="where data sets are prepared (TFDS_DATA_DIR)")
    add("--manual-dir", metavar="DIR", help="files of data sets by hand (TFDS_MANUAL_DIR)")
    add("--json", action="store_true", help="print the outcome as JSON")
    return made


def main(argv: Sequence[str], open_tokenizer: Opener | None = None) -> ExitCode:
    """Encode the splits; `open_tokenizer` stands in for that of lab/tokenizers/trained.py."""
    flags, overrides = parse(parser(), argv)
    check_flags(flags, overrides)
    with StopSignal() as signals:  # before jax, whose import takes a second
        from lab.launch.memory import keep_freed_memory

        keep_freed_memory()
        return encode(flags, signals, open_tokenizer)


def check_flags(flags: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Refuse what can be refused at once."""
    from lab.data.views import views_of

    if overrides:
        raise LabError(f"--config.{next(iter(overrides))}: this command takes no config")
    if not pathlib.Path(flags.tokenizer).is_dir():
        raise LabError(f"--tokenizer {flags.tokenizer}: no such run directory")
    for name in ("examples", "shards", "hosts", "devices"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise LabError(f"--{name} {value}: at least 1")
    flags.split = [name for name in flags.split.split(",") if name]
    for name in flags.split:
        if name not in ("train", "validation", "test"):
            raise LabError(f"--split {name}: allowed: train, validation, test")
    if not flags.split or len(set(flags.split)) < len(flags.split):
        raise LabError(f"--split {','.join(flags.split)}: each split once, and at least one")
    if (flags.host is None) != (flags.hosts is None):
        raise LabError("--host and --hosts: give both or neither")
    if flags.hosts and not 0 <= flags.host < flags.hosts:
        raise LabError(f"--host {flags.host}: allowed: 0 to {flags.hosts - 1}")
    views_of(flags.views)


def encode(flags: argparse.Namespace, signals: StopSignal, opener: Opener | None) -> ExitCode:
    """Encode each split and print how it went."""
    from rich.console import Console

    console = Console(stderr=flags.json)
    found: list[dict[str, Any]] = []
    try:
        if signals.came:
            raise Stopped
        devices = devices_of(flags.devices)
        if opener is None:
            from lab.tokenizers.trained import open_tokenizer as opener
        tokenizer = opener(pathlib.Path(flags.tokenizer), devices=devices)
        for split in flags.split:
            found.append(encode_split(flags, signals, tokenizer, split, len(devices), console))
    except Stopped:
        print("interrupted: the same command goes on from there", file=sys.stderr)
        return ExitCode.INTERRUPTED
    if flags.json:
        print(json.dumps(found, indent=1))
    elif found[0]["shards_there"] < found[0]["shards"]:
        print("next: the other hosts' shares; whoever comes last writes the manifest")
    else:
        print(f"next: python -m lab.launch.tokens {found[0]['directory']}")
    return ExitCode.DONE


def devices_of(wanted: int | None) -> Sequence[Any]:
    """This host's devices, as many as are wanted."""
    import jax

    from lab.launch.devices import set_up_jax

    set_up_jax(wanted or 0)
    devices = jax.local_devices()
    if wanted and wanted > len(devices):
        raise LabError(f"--devices {wanted}: {len(devices)} are here")
    return devices[:wanted]


def share_of(flags: argparse.Namespace) -> "Share":
    """The flags', or those of a distributed job that is set up, or all."""
    import jax

    from lab.launch.encode_job import Share

    if flags.hosts:
        return Share(flags.host, flags.hosts)
    if jax.distributed.is_initialized():
        return Share(jax.process_index(), jax.process_count())
    return Share()


def encode_split(
    flags: argparse.Namespace,
    signals: StopSignal,
    tokenizer: "ImageTokenizer",
    split: str,
    devices: int,
    console: "Console",
) -> dict[str, Any]:
    """Encode one split; what is said of it in JSON. Raises Stopped on a signal."""
    from rich.markup import escape

    from lab.launch.encode_bar import EncodeBar
    from lab.launch.encode_job import Hooks

    with EncodeBar(console, name=split) as bar:
        hooks = Hooks(
            should_stop=lambda: signals.came,
            progress=bar.show,
            warn=lambda line: console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True),
        )
        job = make_job(flags, hooks, bar, tokenizer, split, devices)
        bar.prepare("the program")
        job.warm_up()
        bar.begin()
        began_s = time.monotonic()
        outcome = job.run()
        elapsed_s = time.monotonic() - began_s
    said = as_json(outcome, elapsed_s)
    if not flags.json:
        print(as_line(said))
    return said


def make_job(
    flags: argparse.Namespace,
    hooks: "Hooks",
    bar: "EncodeBar",
    tokenizer: "ImageTokenizer",
    split: str,
    devices: int,
) -> "EncodeJob":
    """Open the images of a split, preparing them where that has not been done."""
    from lab.data.sources import open_source
    from lab.launch.encode_job import EncodeJob, plan_of

    def watch(done: int, total: int | None) -> None:
        if hooks.should_stop():
            raise Stopped
        bar.prepare("images", done, total)

    source = open_source(
        flags.data,
        split=split,
        data_dir=flags.data_dir,
        manual_dir=flags.manual_dir,
        examples=flags.examples,
        progress=watch,
    )
    plan = plan_of(
        source, tokenizer, views=flags.views, shards=flags.shards, command=command_of(flags)
    )
    return EncodeJob(
        source,
        tokenizer,
        plan,
        pathlib.Path(flags.out) / split,
        share=share_of(flags),
        devices=devices,
        hooks=hooks,
    )


def command_of(flags: argparse.Namespace) -> str:
    """The command that finishes the folders on one host."""
    words = ["python", "-m", "lab.launch.encode"]
    for name in WHICH:
        value = getattr(flags, name.replace("-", "_"))
        words += [f"--{name}", str(value)] if value is not None else []
    return shlex.join([*words, "--split", ",".join(flags.split)])


def as_json(outcome: "Outcome", elapsed_s: float) -> dict[str, Any]:
    """What is said of a split."""
    rows, columns = outcome.plan.what.grid
    per_s = outcome.images / elapsed_s if outcome.images else None
    return {
        "directory": str(outcome.directory),
        "status": str(outcome.status),
        "examples": outcome.plan.what.data.examples,
        "views": outcome.plan.what.view_count,
        "alphabet": str(outcome.plan.what.alphabet),
        "shards": outcome.plan.shards,
        "shards_there": outcome.shards_there,
        "images_encoded": outcome.images,
        "mb_written": outcome.bytes / 1e6,
        "elapsed_s": elapsed_s,
        "images_per_s": per_s,
        "tokens_per_s": per_s and per_s * rows * columns,
    }


def as_line(said: dict[str, Any]) -> str:
    """The same for people."""
    line = f"{said['status']}: {said['directory']} ({said['examples']} images"
    line += f" in {said['views']} views" if said["views"] > 1 else ""
    line += f", {said['shards_there']} of {said['shards']} shards, {said['alphabet']} a position)"
    if said["images_per_s"]:
        line += (
            f"; {said['images_encoded']} encoded in {said['elapsed_s']:.1f} s: "
            f"{said['images_per_s']:.0f} images/s, {said['tokens_per_s']:.0f} tokens/s, "
            f"{said['mb_written']:.1f} MB written"
        )
    return line


if __name__ == "__main__":
    leave(main)
