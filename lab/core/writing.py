"""Writing a run directory's files: what the system refuses is said with the file's name."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lab.core.errors import NotSaved
from lab.core.step_folders import one_line


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises NotSaved for an OSError inside: a full disk is no bad input, one may start again."""
    try:
        yield
    except OSError as error:
        raise NotSaved(f"{path}: cannot be written: {one_line(error)}") from error
