"""Take the weights of a published tokenizer: a run directory that encode and generators open.

python -m lab.launch.adopt --config configs/tokenizers/vqgan.py:llamagen-f16 \\
    --weights vq.safetensors --names llamagen
"""

import argparse
import contextlib
import pathlib
import typing
from collections.abc import Callable, Sequence
from typing import Any

from lab.core.config import TokenizerRunConfig, run_directory
from lab.core.errors import ExitCode, LabError
from lab.launch.door import Parser, leave, load_config, load_function, parse

if typing.TYPE_CHECKING:
    from lab.launch.evaluate_bar import EvaluateBar

EPILOG = """example:
  python -m lab.launch.adopt --config configs/tokenizers/vqgan.py:llamagen-f16 \\
      --weights vq_ds16_c2i.safetensors --names llamagen --config.data.name imagenet2012

Every leaf must be in the file under its published name, with its shape; what is missing, left over
or of another shape is named. The weights are judged on the validation split of config.data. Only
safetensors is read. The run's identity holds the digest of the file."""

FAMILIES = ("llamagen", "taming_vq", "taming_kl", "diffusers_kl", "binary")


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.adopt",
        description="Take the weights of a published tokenizer.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--config", required=True, metavar="FILE:SIZE", help="the tokenizer's config")
    add("--weights", required=True, metavar="FILE", help="a safetensors file")
    add("--names", required=True, choices=FAMILIES, help="whose names the file uses")
    add("--config.PATH", dest="unused", metavar="VALUE", help="any field, by its path")
    return made


def main(argv: Sequence[str]) -> ExitCode:
    """Make the run directory; print where it is and how good."""
    flags, overrides = parse(parser(), argv)
    without_losses = {  # nothing is trained, and the raw weights are all there are
        "losses.perceptual": "0",
        "losses.adversarial": "0",
        "optimizer.ema_decay": "0",
    }
    overrides = {**without_losses, **overrides}
    check_kind(flags.config)
    load_config(flags.config, overrides)  # refuse before jax is imported
    from rich.console import Console

    from lab.launch.evaluate_bar import EvaluateBar

    with EvaluateBar(Console(stderr=True)) as bar:
        run, row = adopt(flags, overrides, bar)
    from lab.launch.next_command import after_run

    judged = f"PSNR {row['psnr_db']:.2f} dB on {row['examples']} images"
    print(f"adopted: {run_directory(run)}: {judged}")
    print(after_run(run))
    return ExitCode.DONE


def check_kind(spec: str) -> None:
    """Raise LabError for the config of a generator, which has none of the fields set here."""
    with contextlib.suppress(ValueError):  # a size that is not there: load_config says it
        if "autoencoder" not in load_function(spec, "get_config")():
            raise LabError(f"--config {spec}: that of a tokenizer is expected")


def adopt(
    flags: argparse.Namespace, overrides: dict[str, str], bar: "EvaluateBar"
) -> tuple[TokenizerRunConfig, dict[str, Any]]:
    """Read, check, judge and write, and show how far it is; the run and its evaluation's row."""
    from lab.core.weights import read_weights

    path = pathlib.Path(flags.weights)
    bar.begin(2)
    bar.show(f"reading {path.name}{_size(path)}", 0, None)
    file = read_weights(path)
    bar.done()
    run = load_config(flags.config, {**overrides, "weights": file.sha256})
    assert isinstance(run, TokenizerRunConfig)  # check_kind has looked
    from lab.launch.devices import set_up_jax

    set_up_jax(run.execution.devices)
    from lab.launch.adoption import adopt_run

    row = adopt_run(run, file, names_of(flags.names), bar.show)
    bar.done()
    return run, row


def _size(path: pathlib.Path) -> str:
    return f", {path.stat().st_size / 1e6:,.0f} MB" if path.is_file() else ""


def names_of(family: str) -> Callable:
    """The function from a network's shape to the published names of its weights."""
    from lab.tokenizers import names

    return getattr(names, f"{family}_names")


if __name__ == "__main__":
    leave(main)
