"""How long updates take, evaluations, saves and the first compilation left out."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@dataclasses.dataclass(frozen=True)
class Speed:
    """Means of the updates up to `until`, since the last row that told them."""

    until: int
    step_s: float
    data_wait_s: float


class Stopwatch:
    """Seconds by a clock that only goes forward."""

    def __init__(self, clock: Callable[[], float], *, step: int) -> None:
        self._clock = clock
        self._began_s = clock()
        self.saved(step)

    def restart(self, step: int) -> None:
        """Leave what came before this step out of the next speed."""
        self._since_s, self._since_step = self._clock(), step
        self._waited_s = 0.0

    def saved(self, step: int) -> None:
        """Leave a save out of the next speed, and count the time since."""
        self._saved_s = self._clock()
        self.restart(step)

    @property
    def since_save_s(self) -> float:
        """Since the last save by this process, or since it began to train."""
        return self._clock() - self._saved_s

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """What happens inside counts as waiting for data."""
        asked_s = self._clock()
        yield
        self._waited_s += self._clock() - asked_s

    def speed(self, step: int) -> Speed:
        """Of the updates up to this one."""
        steps = max(1, step - self._since_step)
        spent_s = self._clock() - self._since_s
        return Speed(until=step, step_s=spent_s / steps, data_wait_s=self._waited_s / steps)

    @property
    def elapsed_s(self) -> float:
        """Since this process began to train."""
        return self._clock() - self._began_s
