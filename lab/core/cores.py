"""The cores of this machine that a process may use."""

import os


def usable_cores() -> list[int]:
    """By number, in order; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def core_count() -> int:
    """How many; those of the machine where the system does not say."""
    return len(usable_cores()) or os.cpu_count() or 1
