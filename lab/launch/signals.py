"""SIGTERM and Ctrl-C: the first asks to stop at the next step, the second leaves at once."""

import signal
from types import FrameType


class StopSignal:
    """Whether a signal has come; installed by entering it, in the main thread."""

    def __init__(self) -> None:
        self.came = False
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
            signal.signal(each, signal.SIG_DFL)

    def stop(self) -> None:
        """Ask to stop, as a first signal does."""
        self.came = True
