"""One process a run directory: a lock that dies with its holder, and a lease that others see.

The lock is at once and right on one machine. The lease (lab/launch/lease.py) is for folders that
several machines share: where the holder was on another machine, its lease must be seen not to
change for a while before it is taken over. A directory is held by who has both.
"""

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from lab.core.errors import LabError
from lab.core.writing import writing
from lab.launch.lease import (
    EXPIRY_S,
    FULL,
    RENEW_S,
    Lease,
    Watch,
    field,
    machine,
    read_lease,
    remove,
)

LOCK = "claim.lock"
LEASE = "claim.lease"
_LOOK_S = 0.5
_watch = Watch()


class HeldElsewhere(LabError):
    """Another process holds the run directory."""


class ClaimLost(HeldElsewhere):
    """Another process took the directory over while this one stood still."""


@contextlib.contextmanager
def claimed(
    directory: pathlib.Path, *, on_claim: Callable[[Callable[[], None]], None] = lambda check: None
) -> Iterator[bool]:
    """Hold the directory for the block; yields False where another process holds it.

    The lease of a holder on another machine that may be dead is watched first, for EXPIRY_S at
    most. `on_claim` is given a function that raises ClaimLost where the directory is another's by
    now; who writes into it for long calls that function before it writes, and must then leave
    without writing. It is cheap: the file is read by it only when it was not for two renewals.
    Raises NotSaved where the disk has no room for the claim.
    """
    with writing(directory / LOCK, only=FULL):
        directory.mkdir(parents=True, exist_ok=True)
        file = open(directory / LOCK, "a+b", buffering=0)
    with file:
        if not _lock(file):
            yield False
            return
        try:
            with writing(directory / LOCK, only=FULL):
                file.truncate(0)
                file.write(f"{os.getpid()}\n".encode())
            lease = _take(directory / LEASE)
            if lease is None:
                yield False
                return
            try:
                on_claim(lambda: _check(lease, directory))
                yield True
            finally:
                lease.release()
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _check(lease: Lease, directory: pathlib.Path) -> None:
    if not lease.held():
        raise ClaimLost(f"{directory}: another process took this run over; nothing more is written")


def _take(path: pathlib.Path) -> Lease | None:
    """A lease that nobody renews any more; None where somebody does."""
    first = read_lease(path)
    while (content := read_lease(path)) is not None and not _is_stale(path, content):
        if field(content, "owner") != field(first, "owner") or content != first:
            return None  # it changes
        time.sleep(_LOOK_S)
    if content is not None and not remove(path, expected=lambda found: found == content):
        return None
    _watch.forget(path)
    lease = Lease(path, renew_s=RENEW_S)
    return lease if lease.take() else None


def _is_stale(path: pathlib.Path, content: bytes) -> bool:
    """Whether its holder is dead: at once where the lock says so, else when it was long silent."""
    if field(content, "machine") == machine():
        return True  # we hold the lock, or saw that nobody does
    return _watch.unchanged_s(path, content) >= EXPIRY_S


def _lock(file: BinaryIO) -> bool:
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
    """Whether a process holds the directory, or may hold it on another machine.

    Asked again and again, it says so of a dead one there for EXPIRY_S, and then no more.
    """
    if not (directory / LOCK).exists():
        return False
    with open(directory / LOCK, encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    content = read_lease(directory / LEASE)
    return content is not None and not _is_stale(directory / LEASE, content)
