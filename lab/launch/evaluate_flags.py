"""The flags of lab.launch.evaluate: what they are, and what can be refused before jax is loaded."""

import argparse
import pathlib
from typing import Any

from lab.core.errors import LabError
from lab.core.fields import nearest
from lab.launch.door import Parser
from lab.launch.sample_settings import add_flags

WHAT = ("fd", "reconstruction", "probe", "attention", "likelihood", "randomness")
JUDGED = ("fd", "reconstruction", "randomness")  # what needs features
SPLITS = ("train", "validation", "test")
LEAST_IMAGES = 40  # of a set that is judged: two in each group of a jackknife
RENAMED = {"--steps": "--diffusion-steps"}  # --steps are checkpoints here

EPILOG = """examples:
  python -m lab.launch.evaluate runs/elm/4be1c0de --what fd --extractor runs/classifiers/77aa
  python -m lab.launch.evaluate runs/families --what probe,attention,likelihood --steps all
  python -m lab.launch.evaluate runs/families --what fd --extractor inception:weights.safetensors \\
      --samples 10000 --guidance 1.5
  python -m lab.launch.evaluate runs/elm/4be1c0de --what randomness \\
      --extractor runs/classifiers/77aa --grid "temperature=0.7,1.0;guidance=1,2"
  python -m lab.launch.evaluate runs/families --what attention,likelihood --list

Adds a line to RUN/quality.jsonl for each task: a checkpoint, what is measured of it, by which
extractor, under which settings. A task that is there is not done again. Of a study all finished
generators are evaluated, the others named. Features of reference images are kept in
WORKDIR/references. docs/quality.md says what each number is. Exit codes: 0 finished, 2 bad input,
75 interrupted, or a run is held by another process (start me again)."""


def parser() -> argparse.ArgumentParser:
    """The flags of this command."""
    made = Parser(
        prog="python -m lab.launch.evaluate",
        description="Judge trained generators: their images, features, attention and likelihood.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run directory, or a folder of them: a study")
    add("--what", metavar="NAMES", help=f"by commas: {', '.join(WHAT)} (all that flags allow)")
    add("--steps", default="last", metavar="N,N", help="checkpoints: last, all or steps (last)")
    add("--weights", choices=("raw", "ema"), help="of the average where one was kept (ema)")
    add("--seed", type=int, default=0, help="of all that is random (0)")
    add("--level", type=float, default=0.9, metavar="P", help="of the intervals (0.9)")
    add("--batch", type=int, default=64, metavar="B", help="images at once (64)")
    add("--list", action="store_true", help="print the tasks, done or waiting, and leave")
    add("--json", action="store_true", help="print as JSON")
    add("--data-dir", metavar="DIR", help="where data sets are prepared (as the run's)")
    add("--manual-dir", metavar="DIR", help="files of data sets by hand (as the run's)")
    _add_judged(made.add_argument_group("fd, reconstruction and randomness").add_argument)
    _add_inside(made.add_argument_group("probe, attention and likelihood").add_argument)
    _add_sampling(made.add_argument_group("how images are drawn").add_argument)
    return made


def _add_judged(add: Any) -> None:
    add(
        "--extractor",
        action="append",
        default=[],
        metavar="RUN",
        help="whose features are compared: a classifier's run, or inception:FILE; may be repeated",
    )
    add("--samples", type=int, metavar="N", help="images drawn (fd 1024, randomness 512)")
    add("--labels", choices=("data", "balanced"), default="data", help="their classes (data)")
    add("--reference", choices=SPLITS, default="train", help="real images to judge by (train)")
    add("--reference-images", type=int, metavar="N", help="the first N of them (all)")
    add("--grid", metavar="POINTS", help='of randomness: "temperature=0.7,1;guidance=1,2"')


def _add_inside(add: Any) -> None:
    add("--split", choices=SPLITS, default="validation", help="images looked at (validation)")
    usual = "attention 256, probe 4096, likelihood as the run"
    add("--images", type=int, metavar="N", help=f"the first N of them ({usual})")
    add("--probe", choices=("ridge", "sgd"), default="ridge", help="how it is trained (ridge)")
    add("--probe-images", type=int, metavar="N", help="training images of a probe (4096)")
    add("--time", type=int, default=0, metavar="T", help="of a model that denoises images (0)")
    add("--draws", type=int, metavar="N", help="of a likelihood that is a bound (as the run)")


def _add_sampling(add: Any) -> None:
    def renamed(flag: str, **more: Any) -> None:
        add(RENAMED.get(flag, flag), **more)

    add_flags(renamed)


def check_flags(flags: argparse.Namespace, overrides: dict[str, str]) -> None:
    """Refuse what can be refused at once; lists become lists."""
    if overrides:
        raise LabError(f"--config.{next(iter(overrides))}: this command takes no config")
    for path in flags.runs:
        if not pathlib.Path(path).is_dir():
            raise LabError(f"{path}: no such directory")
    flags.what = _names(flags.what) if flags.what is not None else _possible(flags)
    least = {"seed": 0, "time": 0, "batch": 1, "samples": LEAST_IMAGES}
    least |= {"reference_images": LEAST_IMAGES, "images": 2, "probe_images": 2, "draws": 1}
    for name, bound in least.items():
        value = getattr(flags, name)
        if value is not None and value < bound:
            raise LabError(f"--{name.replace('_', '-')} {value}: allowed is >= {bound}")
    if flags.seed >= 2**31:
        raise LabError(f"--seed {flags.seed}: allowed is < {2**31}")
    if not 0 < flags.level < 1:
        raise LabError(f"--level {flags.level}: allowed is > 0 and < 1")
    _check_steps(flags.steps)
    judged = [name for name in flags.what if name in JUDGED]
    if judged and not flags.extractor:
        raise LabError(
            f"--extractor: needed for --what {judged[0]}; the run directory of a classifier "
            "(python -m lab.launch.train --config configs/classifiers/conv.py:small), or "
            "inception:FILE"
        )
    if ("randomness" in flags.what) != bool(flags.grid):
        raise LabError(
            f"--grid {flags.grid}: given, but --what has no randomness"
            if flags.grid
            else '--grid: needed for --what randomness, like "temperature=0.7,1.0;guidance=1,2"'
        )
    flags.grid = grid_points(flags.grid) if flags.grid else []


def _possible(flags: argparse.Namespace) -> list[str]:
    """What needs nothing that is not given."""
    given = {name: flags.extractor for name in JUDGED}
    given["randomness"] = flags.extractor and flags.grid
    return [name for name in WHAT if given.get(name, True)]


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in WHAT:
            raise LabError(f"--what {name}: {nearest(name, WHAT)}")
    if not names or len(set(names)) < len(names):
        raise LabError(f"--what {text}: each once, and at least one of {', '.join(WHAT)}")
    return names


def _check_steps(text: str) -> None:
    if text in ("last", "all"):
        return
    parts = text.split(",")
    if not all(part.isascii() and part.isdecimal() for part in parts) or len(set(parts)) < len(
        parts
    ):
        raise LabError(f"--steps {text}: allowed are last, all, or steps by commas, each once")


def _sampling_parser() -> argparse.ArgumentParser:
    made = Parser(prog="python -m lab.launch.evaluate", allow_abbrev=False, add_help=False)
    _add_sampling(made.add_argument)
    return made


def grid_points(text: str) -> list[dict[str, Any]]:
    """Every point of a grid like "temperature=0.7,1.0;guidance=1,2", by the names of flags.

    Raises LabError for an axis that is no flag of a draw and for a value that it does not take.
    """
    points: list[dict[str, Any]] = [{}]
    for axis in filter(None, text.split(";")):
        name, _, values = axis.partition("=")
        name = name.strip().replace("-", "_")
        taken = _axis(axis, name, [value.strip() for value in values.split(",")])
        if name in points[0]:
            raise LabError(f"--grid {text}: {name} is given twice")
        points = [{**point, name: value} for point in points for value in taken]
    if not points[0]:
        raise LabError(f'--grid "{text}": expected is like "temperature=0.7,1.0;guidance=1,2"')
    return points


def _axis(axis: str, name: str, values: list[str]) -> list[Any]:
    made = _sampling_parser()
    allowed = {action.dest for action in made._actions if action.nargs != 0}
    if name not in allowed:
        raise LabError(f"--grid {axis}: {nearest(name, allowed)}")
    found = []
    for value in values:
        try:
            given = made.parse_args([f"--{name.replace('_', '-')}={value}"])
        except LabError:
            raise LabError(f"--grid {axis}: {value!r} is no value of {name}") from None
        found.append(getattr(given, name))
    if len(set(found)) < len(found):
        raise LabError(f"--grid {axis}: a value is given twice")
    return found


def sampling_flags(flags: argparse.Namespace, point: dict[str, Any]) -> argparse.Namespace:
    """The flags of a draw as lab.launch.sample has them, those of a point of a grid laid over."""
    names = [action.dest for action in _sampling_parser()._actions]
    given = {**{name: getattr(flags, name) for name in names}, **point}
    given["steps"] = given.pop("diffusion_steps")
    return argparse.Namespace(**given)
