"""One process a run directory: a lock that dies with its holder."""

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator
from typing import TextIO

from lab.core.errors import LabError

LOCK = "claim.lock"


class HeldElsewhere(LabError):
    """Another process holds the run directory."""


@contextlib.contextmanager
def claimed(directory: pathlib.Path) -> Iterator[bool]:
    """Hold the directory's lock for the block; yields False where another process holds it."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / LOCK, "a+", encoding="utf-8") as file:
        if not _lock(file):
            yield False
            return
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _lock(file: TextIO) -> bool:
    """Try for a moment: a look at the lock by another process holds it for an instant."""
    for _ in range(5):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def is_claimed(directory: pathlib.Path) -> bool:
    """Whether a living process holds the directory."""
    if not (directory / LOCK).exists():
        return False
    with open(directory / LOCK, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
