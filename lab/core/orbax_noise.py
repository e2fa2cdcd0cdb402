"""What Orbax and TensorStore write to the terminal beside the error that they raise."""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

_LATE_S = 0.1


def not_of_orbax(record: logging.LogRecord) -> bool:
    """A filter of logs: false for what Orbax says of an error that it raises too."""
    error = record.exc_info[1] if record.exc_info else None
    return "/orbax/checkpoint/" not in record.pathname and "in OCDBT database" not in str(error)


@contextlib.contextmanager
def without_late_tracebacks() -> Iterator[None]:
    """After a failed load or save, drop what its other parts print when their loop is closed.

    Orbax closes its event loop at the first error; TensorStore's reads and writes that are still
    under way then each write a traceback ("Exception ignored in: None") to the terminal: a dozen
    of them where a disk is full.
    """
    before = sys.unraisablehook

    def hook(late: Any) -> None:
        if str(late.exc_value) != "Event loop is closed":
            before(late)

    sys.unraisablehook = hook
    loaded = False
    try:
        yield
        loaded = True
    finally:
        if not loaded:
            threading.Event().wait(_LATE_S)
        sys.unraisablehook = before
