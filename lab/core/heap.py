"""Memory that a step on CPU frees stays with the process, for the next one.

XLA takes the temporary memory of a program from malloc at each run and gives it back at its end.
glibc maps what is larger than 32 MiB anew each time, and gives a heap that has become free back to
the system, so that every step pays for the faults of its pages again: a third of a step of a small
model.
"""

from __future__ import annotations

import ctypes
import sys

# mallopt's names in glibc's malloc.h, and what they are set to.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
SETTINGS = {
    MMAP_MAX: 0,  # nothing is mapped by itself: all comes from the heap
    TRIM_THRESHOLD: 2**31 - 1,  # bytes free at the heap's end before any go back
    TOP_PAD: 2**26,  # bytes that the heap grows by at least
    ARENA_MAX: 1,  # the arenas of threads give back what is free whatever the threshold says
}


def keep_freed_memory() -> bool:
    """Ask malloc to keep what is freed; before the first program runs. Whether it does.

    Only glibc is asked. The process keeps the memory of its largest moment.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all([mallopt(*each) == 1 for each in SETTINGS.items()])
