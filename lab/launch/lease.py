"""A lease: a file whose holder changes it every few seconds, so that any machine can see it live.

A file lock dies with its holder, which is all that one machine needs, but not every shared file
system carries locks from one machine to another. A lease needs little of it: creation that fails
where the file exists, and a rename. Who wants it watches the file, and takes it over when it has
seen no change for `expiry_s` by its own clock: clocks of two machines are never compared.

To take over, the stale file is renamed to a name that nobody else uses (one rename succeeds), what
was renamed is compared with what was watched (a rival may have been faster: its lease is put back),
and a new file is created. A holder writes through the descriptor of the file that it created, so
that one that stood still for long changes what was renamed and never the file of its successor; it
sees another owner under the name, and has lost the lease.
"""

import contextlib
import errno
import functools
import json
import os
import pathlib
import platform
import threading
import time
import uuid
from collections.abc import Callable

from lab.core.errors import NotSaved
from lab.core.writing import writing

RENEW_S = 5.0
FULL = (errno.ENOSPC, errno.EDQUOT)  # errors of a disk without room
EXPIRY_S = 60.0  # twelve renewals: a file system may hang for some of them
GONE_S = 1.0  # a rival that renamed too much puts it back at once
WIDTH = 256  # bytes: every renewal writes over all of the one before


@functools.cache
def machine() -> str:
    """Where file locks tell the truth: one kernel, and one container on it."""
    found = platform.node()
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            text = os.readlink(path) if path.endswith("pid") else pathlib.Path(path).read_text()
            found += f" {text.strip()}"
    return found


def read_lease(path: pathlib.Path) -> bytes | None:
    """What stands in it; None where nobody has it. One that is just created may be empty."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def field(content: bytes | None, name: str) -> str:
    """The `owner` or the `machine` of a lease; "" where it does not say so."""
    try:
        return str(json.loads(content or b"{}")[name])
    except (ValueError, KeyError, TypeError):
        return ""


class Watch:
    """When each lease was last seen to change, by this process's clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[pathlib.Path, tuple[bytes, float]] = {}

    def unchanged_s(self, path: pathlib.Path, content: bytes) -> float:
        """For how long this has been all that was seen there; 0 at the first look."""
        now_s = self._clock()
        before = self._seen.get(path)
        if before is None or before[0] != content:
            self._seen[path] = (content, now_s)
            return 0.0
        return now_s - before[1]

    def forget(self, path: pathlib.Path) -> None:
        """Begin anew at the next look."""
        self._seen.pop(path, None)


def remove(path: pathlib.Path, *, expected: Callable[[bytes], bool]) -> bool:
    """Remove a lease if it is the expected one; of several processes one succeeds."""
    content = read_lease(path)
    if content is None or not expected(content):
        return False
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    ours = expected(aside.read_bytes())
    if not ours:  # a rival was faster, and this is its lease; it ends where it can not be put back
        with contextlib.suppress(OSError):
            os.link(aside, path)
    os.unlink(aside)
    return ours


class Lease:
    """A lease that this process holds, renewed by a thread until it is released or lost."""

    def __init__(self, path: pathlib.Path, *, renew_s: float = RENEW_S) -> None:
        """Created by `take`, which says whether it was there to take."""
        self.path = path
        self.owner = uuid.uuid4().hex
        self._renew_s = renew_s
        self._beat = 0
        self._file = -1
        self._renewed_s = 0.0
        self._lost = False
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew_often, daemon=True)

    def take(self) -> bool:
        """Create the file; False where another has it, or had it at once after.

        Raises NotSaved where the disk is full, and leaves no file then.
        """
        try:
            with writing(self.path, only=FULL):
                self._file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with writing(self.path, only=FULL):
                self._write()
        except NotSaved:
            self._close()
            ours = ("", self.owner)  # half of what was to be written says no owner
            remove(self.path, expected=lambda content: field(content, "owner") in ours)
            raise
        except OSError:  # on an object store the second of two creators learns it here
            self._close()
            return False
        if field(read_lease(self.path), "owner") != self.owner:
            self._close()
            return False
        self._thread.start()
        return True

    def held(self) -> bool:
        """Whether it is still ours; looks at the file where the last look is too old."""
        if time.monotonic() - self._renewed_s > 2 * self._renew_s:
            self._renew()
        return not self._lost

    def release(self) -> None:
        """Stop renewing and remove the file, unless it is another's by now."""
        self._done.set()
        self._thread.join()
        with self._lock:
            if not self._lost:
                remove(self.path, expected=lambda content: field(content, "owner") == self.owner)
            self._close()

    def _renew_often(self) -> None:
        while not self._done.wait(self._renew_s):
            self._renew()
            if self._lost:
                return

    def _renew(self) -> None:
        with self._lock:
            if self._lost or self._done.is_set():
                return
            with contextlib.suppress(OSError):  # a full disk is no loss: others see the same file
                self._write()
            if self._is_anothers():
                self._lost = True

    def _write(self) -> None:
        self._beat += 1
        says = {"owner": self.owner, "beat": self._beat, "pid": os.getpid(), "machine": machine()}
        line = json.dumps(says).ljust(WIDTH) + "\n"
        os.pwrite(self._file, line.encode(), 0)
        os.fsync(self._file)

    def _is_anothers(self) -> bool:
        """Whether the file is another's, or stays away."""
        until_s = time.monotonic() + GONE_S
        while True:
            try:
                content = read_lease(self.path)
            except OSError:
                return False  # unreachable, and so for others; the next renewal looks again
            if content is not None:
                self._renewed_s = time.monotonic()
                return field(content, "owner") != self.owner
            if time.monotonic() > until_s:
                return True
            time.sleep(0.05)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
