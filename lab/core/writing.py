"""Writing a run directory's files: what the system refuses is said with the file's name."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from lab.core.errors import NotSaved
from lab.core.step_folders import one_line


@contextlib.contextmanager
def writing(path: Path, *, only: Collection[int] | None = None) -> Iterator[None]:
    """Raises NotSaved for an OSError inside: a full disk is no bad input, one may start again.

    Where `only` names numbers of errors, others pass as they are.
    """
    try:
        yield
    except OSError as error:
        if only is not None and error.errno not in only:
            raise
        raise NotSaved(f"{path}: cannot be written: {one_line(error)}") from error
