"""Take the weights of a published tokenizer: a run directory that encode and generators open.

python -m lab.launch.adopt --config configs/tokenizers/vqgan.py:llamagen-f16 \\
    --weights vq.safetensors --names llamagen
"""

import argparse
import pathlib
from collections.abc import Callable, Sequence

from lab.core.errors import ExitCode, LabError
from lab.launch.door import Parser, leave, load_config, parse

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
    """Read, check, judge, and write the run directory."""
    flags, overrides = parse(parser(), argv)
    path = pathlib.Path(flags.weights)
    without_losses = {  # nothing is trained, and the raw weights are all there are
        "losses.perceptual": "0",
        "losses.adversarial": "0",
        "optimizer.ema_decay": "0",
    }
    load_config(flags.config, {**without_losses, **overrides})  # refuse before jax is imported
    from lab.core.weights import read_weights

    file = read_weights(path)
    given = {**without_losses, **overrides, "weights": file.sha256}
    run = load_config(flags.config, given)
    from lab.core.config import TokenizerRunConfig, run_directory
    from lab.launch.devices import set_up_jax

    if not isinstance(run, TokenizerRunConfig):
        raise LabError(f"--config {flags.config}: that of a tokenizer is expected")
    set_up_jax(run.execution.devices)
    from lab.launch.adoption import adopt_run
    from lab.launch.jobs import Preparing
    from lab.launch.next_command import after_run

    def watch(preparing: Preparing) -> None:
        if preparing.done in (0, preparing.total):
            print(f"preparing {preparing.what} {preparing.done}/{preparing.total or ''}")

    row = adopt_run(run, file, names_of(flags.names), watch)
    judged = f"PSNR {row['psnr_db']:.2f} dB on {row['examples']} images"
    print(f"adopted: {run_directory(run)}: {judged}")
    print(after_run(run))
    return ExitCode.DONE


def names_of(family: str) -> Callable:
    """The function from a network's shape to the published names of its weights."""
    from lab.tokenizers import names

    return getattr(names, f"{family}_names")


if __name__ == "__main__":
    leave(main)
