"""How much memory there is, and keeping what is freed, so that no step asks for it anew."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # glibc, malloc.h


def machine_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory() -> None:
    """Make glibc serve large blocks from a heap that it does not give back.

    XLA on CPU allocates a program's temporary buffer at each call. Beyond glibc's threshold of
    32 MiB that is a fresh mapping whose every page faults at first use, which doubled to tripled
    the steps of small models (LOG.md, 2026-11-24). Call it before the first allocation of jax.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # musl
        return
    libc.mallopt(_M_ARENA_MAX, 1)  # other arenas hold at most 64 MiB and map what is larger
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TOP_PAD, 2**26)
