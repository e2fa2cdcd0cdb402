"""The folder of a run's checkpoints as files: which steps there are, what a kill left behind."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from lab.core.errors import LabError

# What a killed process may leave behind. The dot keeps them out of every listing of steps.
SAVING, REPLACED, DELETING = ".saving-", ".replaced-", ".deleting-"
DAMAGED = ".damaged-"  # a step that a run passed over: it goes when a newer one is saved


def numbered(directory: Path) -> Iterator[int]:
    """The plain numbers that name a folder, committed or not."""
    for path in directory.iterdir():
        name = path.name
        if name.isascii() and name.isdecimal() and str(int(name)) == name and path.is_dir():
            yield int(name)


def make_writable(directory: Path) -> None:
    """Make it; raises LabError where that cannot be, or nothing can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{directory}: cannot be made: {error.strerror}") from error
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise LabError(f"{directory}: cannot be written to, no checkpoint can be saved there")


def remove_leftovers(directory: Path, *, step: int | None = None) -> None:
    """Remove what a save or a deletion that was cut off left; bring back a step half replaced.

    All that is there, or what is of one step: another process may be saving another.
    """

    def left(prefix: str) -> Iterator[Path]:
        for path in directory.glob(f"{prefix}*"):
            # Orbax writes into a folder beside: the number, a dot and more.
            if step is None or path.name.removeprefix(prefix).partition(".")[0] == str(step):
                yield path

    for replaced in left(REPLACED):
        folder = directory / replaced.name.removeprefix(REPLACED)
        try:
            if not folder.exists():
                replaced.rename(folder)
        except OSError as error:
            raise LabError(f"{replaced}: cannot be brought back: {one_line(error)}") from error
    for prefix in (SAVING, REPLACED, DELETING):
        for path in left(prefix):
            shutil.rmtree(path, ignore_errors=True)


def set_aside(directory: Path, step: int) -> None:
    """Give a step a name under which nothing finds it; in place of one set aside before."""
    aside = directory / f"{DAMAGED}{step}"
    shutil.rmtree(aside, ignore_errors=True)
    (directory / str(step)).rename(aside)


def remove_set_aside(directory: Path, *, up_to: int) -> None:
    """Remove the steps set aside that are no newer than this one."""
    for path in directory.glob(f"{DAMAGED}*"):
        if int(path.name.removeprefix(DAMAGED)) <= up_to:
            shutil.rmtree(path)


def sync(directory: Path) -> None:
    """Force the names in a folder to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def one_line(error: BaseException) -> str:
    """The reason, where the system gave one (TensorStore hides it at the end); else the text."""
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
