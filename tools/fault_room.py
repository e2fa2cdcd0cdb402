"""Places that refuse to be written: a disk that is full, a folder that is read-only."""

import os
import pathlib
import subprocess
from typing import Self

# As large a file as this cannot be written: to Orbax the same as a full disk.
SMALL_FILES = """
import resource, signal
from lab.core import store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
real = store.Store._write
def full(self, step, *given):
    if step >= 12:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, resource.RLIM_INFINITY))
    return real(self, step, *given)
store.Store._write = full
"""
WHOLE_DISK = 2**26  # bytes


def _run(*command: str | pathlib.Path) -> str:
    """Run a system's command; "" where it went well, else what it said."""
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"{command[0]} failed"


class FilledDisk:
    """A file system of so many bytes in a folder; where mounting is refused, a limit on files.

    `patch` is what a process must run for the second way.
    """

    def __init__(self, folder: pathlib.Path, room_bytes: int) -> None:
        self._folder, self._room_bytes = folder, room_bytes
        self.patch = ""
        self.how = "tmpfs"

    def __enter__(self) -> Self:
        size = f"size={self._room_bytes}"
        if _run("mount", "-t", "tmpfs", "-o", size, "tmpfs", self._folder):
            self.patch, self.how = SMALL_FILES, "RLIMIT_FSIZE"
        return self

    def make_room(self) -> None:
        """End the want of room."""
        if not self.patch:
            _run("mount", "-o", f"remount,size={WHOLE_DISK}", self._folder)

    def __exit__(self, *_: object) -> None:
        if not self.patch:
            _run("umount", self._folder)


class ReadOnly:
    """A folder in which nothing can be made: by its mode, or to root by its attribute.

    `refused` says why that cannot be done here.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self.refused = ""

    def __enter__(self) -> Self:
        if os.geteuid():
            self._folder.chmod(0o555)
        else:
            self.refused = _run("chattr", "+i", self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        if os.geteuid():
            self._folder.chmod(0o755)
        else:
            _run("chattr", "-i", self._folder)
