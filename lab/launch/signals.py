"""SIGTERM and Ctrl-C: the first asks to stop where that is safe, the second leaves at once."""

import os
import signal
from collections.abc import Callable
from types import FrameType


class StopSignal:
    """Whether a signal has come; installed by entering it, in the main thread.

    `at_second` is called before a second signal takes the process down. Without it the second one
    is the system's own, which does not wait for a long call into compiled code.
    """

    def __init__(self, at_second: Callable[[], None] | None = None) -> None:
        self.came = False
        self._at_second = at_second
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._first)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyrefly: ignore[bad-argument-type]

    def _first(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        for each in self._before:
            signal.signal(each, self._second if self._at_second else signal.SIG_DFL)

    def _second(self, number: int, frame: FrameType | None) -> None:
        if self._at_second:
            self._at_second()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def stop(self) -> None:
        """Ask to stop, as a first signal does."""
        self.came = True
