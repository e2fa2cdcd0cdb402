"""Draw images from a trained generator of any family.

python -m lab.launch.sample runs/elm/4be1... --classes 0 1 2 --guidance 2 --out samples/elm
"""

import argparse
import json
import pathlib
import shlex
import sys
import typing
from collections.abc import Sequence
from typing import Any

from lab.core.errors import ExitCode, LabError, Stopped
from lab.launch.door import Parser, leave, parse
from lab.launch.sample_settings import add_flags, settings_of
from lab.launch.signals import StopSignal

if typing.TYPE_CHECKING:
    from lab.core.config import ModelConfig
    from lab.launch.sample_job import Samples, Wanted
    from lab.train.trained_generator import Trained

EPILOG = """examples:
  python -m lab.launch.sample runs/elm/4be1c0de --classes 0 1 2 --per-class 8 --out samples/elm
  python -m lab.launch.sample runs/elm/4be1c0de --guidance 4 --schedule linear --top-k 100 \\
      --out samples/elm
  python -m lab.launch.sample runs/bigr/77aa --keep left:0.5 --of validation --images 0 1 2 \\
      --out samples/kept

Writes OUT/samples.png, a row a class, and OUT/samples.npz with images, tokens, classes, numbers and
settings. Image n of class c is the same whatever else is drawn: its randomness is from the seed and
its number. With --keep a row holds the image, what is kept of it, and its completions: a masked
model keeps any side, an autoregressive one the side where its scan begins (the top, of rows; in
any order any), one that denoises whole images any side, and there the rest is not quite conditional
on it. Exit codes: 0 finished, 2 bad input, 75 interrupted (nothing is written)."""

SIDES = ("top", "bottom", "left", "right")


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.sample",
        description="Draw images from a trained generator of any family.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("run", metavar="RUN", help="the run directory of a finished generator")
    add("--out", required=True, metavar="DIR", help="where samples.png and samples.npz go")
    add("--classes", nargs="+", type=int, metavar="C", help="classes by number (the first ten)")
    add("--per-class", type=int, default=4, metavar="N", help="images of each (4)")
    add("--seed", type=int, default=0, help="of all that is random (0)")
    add("--batch", type=int, default=64, metavar="B", help="images drawn at once (64)")
    add("--weights", choices=("raw", "ema"), help="of the average where one was kept (ema)")
    add_flags(add)
    add("--keep", metavar="SIDE:SHARE", help="of the images of --of: like top:0.5")
    add("--of", metavar="SPLIT", help="train, validation or test")
    add("--images", nargs="+", type=int, metavar="I", help="which of them, by number")
    add("--json", action="store_true", help="print the outcome as JSON")
    return made


def main(argv: Sequence[str]) -> ExitCode:
    """Draw the images and write them."""
    flags, overrides = parse(parser(), argv)
    check_flags(flags, overrides)
    with StopSignal() as signals:  # before jax, whose import takes a second
        return run(flags, signals)


def check_flags(flags: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Refuse what can be refused at once."""
    if overrides:
        raise LabError(f"--config.{next(iter(overrides))}: this command takes no config")
    if not pathlib.Path(flags.run).is_dir():
        raise LabError(f"{flags.run}: no such run directory")
    for name, least, below in (("per_class", 1, 2**31), ("batch", 1, 2**31), ("seed", 0, 2**31)):
        value = getattr(flags, name)
        if not least <= value < below:
            flag = name.replace("_", "-")
            raise LabError(f"--{flag} {value}: allowed are {least} to {below - 1}")
    together = {"--keep": flags.keep, "--of": flags.of, "--images": flags.images}
    missing = [name for name, value in together.items() if value is None]
    if 0 < len(missing) < len(together):
        raise LabError(f"--keep, --of and --images go together: {', '.join(missing)} not given")
    if flags.keep and flags.classes:
        raise LabError("--classes with --keep: the classes are those of the images")
    for name in ("classes", "images"):
        values = getattr(flags, name) or []
        for value in values:
            if values.count(value) > 1:
                raise LabError(f"--{name} {value}: given twice")


def run(flags: argparse.Namespace, signals: StopSignal) -> ExitCode:
    """Open the run, draw, write and say what was drawn."""
    try:
        if signals.came:
            raise Stopped
        trained, grid, samples, about = sampled(flags, signals)
    except Stopped:
        print("interrupted: nothing is written", file=sys.stderr)
        return ExitCode.INTERRUPTED
    if flags.json:
        print(json.dumps(about, indent=1))
        return ExitCode.DONE
    from rich.console import Console

    Console().print(table_of(samples))
    print(summary(about))
    print(f"wrote {pathlib.Path(flags.out) / 'samples.png'} and samples.npz")
    print(next_command(flags, trained, grid))
    return ExitCode.DONE


def sampled(
    flags: argparse.Namespace, signals: StopSignal
) -> "tuple[Trained, tuple[int, int, int], Samples, dict[str, Any]]":
    """Draw and write the images; the run, its grid, what was drawn and what is said of it.

    Raises Stopped on a signal.
    """
    from lab.launch import sample_files, sample_job
    from lab.launch.devices import set_up_jax
    from lab.launch.jobs import make_tokenizer
    from lab.launch.sample_bar import DrawBar
    from lab.train.trained_generator import find_trained

    set_up_jax(0)
    trained = find_trained(pathlib.Path(flags.run), weights=flags.weights or "")
    tokenizer = make_tokenizer(trained.run)
    settings = settings_of(flags, trained.run.model, tokenizer.spec.tokens_per_image)
    wanted = wanted_of(flags, trained, tokenizer)
    with DrawBar(len(wanted.class_N)) as bar:
        samples = sample_job.draw(
            trained,
            tokenizer,
            wanted,
            settings,
            seed=flags.seed,
            batch=flags.batch,
            progress=bar.show,
            should_stop=lambda: signals.came,
        )
    about = sample_job.described(
        trained,
        settings,
        seed=flags.seed,
        images=len(samples.images),
        keep=flags.keep,
        of=flags.of,
        first_batch_s=round(samples.first_batch_s, 3),
        images_per_s=samples.images_per_s and round(samples.images_per_s, 2),
    )
    shown = hidden_pixels(flags, samples, tokenizer.spec.grid)
    sample_files.write(pathlib.Path(flags.out), samples, about, shown)
    return trained, tokenizer.spec.grid, samples, about


def wanted_of(flags: argparse.Namespace, trained: "Trained", tokenizer: Any) -> "Wanted":
    """Which images; LabError for a class or an image that does not exist."""
    from lab.launch import sample_job

    if flags.keep:
        model, grid = trained.run.model, tokenizer.spec.grid
        sample_job.hidden_part(flags.keep, grid)  # a side and a share that there are
        side, _, share = flags.keep.partition(":")
        if side not in sides_kept(model, grid, share):
            allowed = ", ".join(sides_kept(model, grid, share)) or "no side"
            raise LabError(
                f'--keep {flags.keep}: this model draws along the scan "{model.scan}", which '
                f"begins with {allowed} of so much"
            )
        return sample_job.painted_in(
            trained,
            tokenizer,
            split=flags.of,
            images=flags.images,
            each=flags.per_class,
            keep=flags.keep,
        )
    classes = flags.classes or range(min(10, trained.classes))
    for each in classes:
        if not 0 <= each < trained.classes:
            raise LabError(f"--classes {each}: this run has the classes 0 to {trained.classes - 1}")
    return sample_job.by_class(classes, flags.per_class, trained.classes)


def sides_kept(
    model: "ModelConfig", grid: tuple[int, int, int], share: str = "0.5"
) -> tuple[str, ...]:
    """The sides of an image that a model can keep: of raster order those that begin its scan."""
    from lab.launch.sample_job import hidden_part
    from lab.models.scans import known_begins, scan

    if model.order != "raster" or model.scan == "any":
        return SIDES
    rows, columns, slots = grid
    cells = scan(model.scan, rows, columns)

    def begins(side: str) -> bool:
        try:
            return known_begins(hidden_part(f"{side}:{share}", grid)[::slots][cells])
        except LabError:
            return False  # so small a share of this side is nothing

    return tuple(filter(begins, SIDES))


def hidden_pixels(flags: argparse.Namespace, samples: "Samples", grid: tuple[int, int, int]) -> Any:
    """Which pixels (H, W) of an image are drawn; None where nothing is kept."""
    import numpy as np

    from lab.launch.sample_job import hidden_part

    if not flags.keep:
        return None
    cells = hidden_part(flags.keep, grid).reshape(grid)[..., 0]
    height, width = samples.images.shape[1:3]
    return np.repeat(np.repeat(cells, height // grid[0], axis=0), width // grid[1], axis=1)


def summary(about: dict[str, Any]) -> str:
    """What was drawn from, and how fast."""
    rate = about["images_per_s"]
    speed = f", then {rate:.1f} images/s" if rate else ""
    return (
        f"{about['name']} ({about['family']} {about['size']}), {about['weights']} weights of step "
        f"{about['step']}, seed {about['seed']}; first batch after {about['first_batch_s']:.1f} s"
        f"{speed}"
    )


def table_of(samples: "Samples") -> Any:
    """A row a class: images, how many differ, and their mean level and contrast."""
    import numpy as np
    from rich.table import Table

    table = Table("class", "images", "distinct", "mean level", "contrast")
    class_N = samples.wanted.class_N
    for each in dict.fromkeys(class_N.tolist()):
        images = samples.images[class_N == each]
        distinct = len(np.unique(images.reshape(len(images), -1), axis=0))
        contrast = images.reshape(len(images), -1).std(axis=1).mean()
        table.add_row(
            *(str(each), str(len(images)), str(distinct)),
            *(f"{images.mean():.1f}", f"{contrast:.1f}"),
        )
    return table


def next_command(flags: argparse.Namespace, trained: "Trained", grid: tuple[int, int, int]) -> str:
    """Completions after samples where a side can be kept, else other samples."""
    words = ["python", "-m", "lab.launch.sample", flags.run]
    sides = sides_kept(trained.run.model, grid)
    if flags.keep or not sides:
        words += ["--seed", str(flags.seed + 1), "--out", f"{flags.out}-{flags.seed + 1}"]
    else:
        words += ["--keep", f"{sides[0]}:0.5", "--of", "validation", "--images", "0", "1", "2"]
        words += ["--out", f"{flags.out}-kept"]
    return f"next: {shlex.join(words)}"


if __name__ == "__main__":
    leave(main)
