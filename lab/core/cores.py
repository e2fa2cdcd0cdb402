"""The cores of this machine that a process may use."""

import contextlib
import os
from collections.abc import Iterator, Sequence


def usable_cores() -> list[int]:
    """By number, in order; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


_GIVEN = usable_cores()  # before this process keeps to a part of them


def core_count() -> int:
    """How many; those of the machine where the system does not say."""
    return len(usable_cores()) or os.cpu_count() or 1


def given_core_count() -> int:
    """How many this process was started with, whether it keeps to them or to a part of them."""
    return len(_GIVEN) or os.cpu_count() or 1


def keep_to(cores: Sequence[int]) -> None:
    """Use these only, from here on; all where none is named, or where the system has no say."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def on_given_cores() -> Iterator[None]:
    """Processes that this thread starts meanwhile may use all that this process was given."""
    kept = usable_cores()
    keep_to(_GIVEN)
    try:
        yield
    finally:
        keep_to(kept)
