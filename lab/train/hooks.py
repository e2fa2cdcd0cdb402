"""What the loop and its launcher say to each other."""

import dataclasses
import enum
from collections.abc import Callable


class Status(enum.StrEnum):
    """How a call of `train` ended."""

    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    DIVERGED = "diverged"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended, at which step, and in words."""

    status: Status
    step: int
    message: str


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a watcher is told after a row: the step reached, the last loss, what was evaluated."""

    step: int
    total_steps: int
    loss: float
    loss_unit: str
    evaluated: bool = False


class Doing(enum.StrEnum):
    """What a process is at; told to a watchdog."""

    PREPARING = "preparing the data"
    RESTORING = "restoring"
    EVALUATING = "evaluating"
    SAVING = "saving"
    READING = "reading a batch"
    COMPILING = "compiling"
    UPDATING = "updating"


def _tell_nobody(doing: Doing, step: int) -> None:
    pass


def _nobody_claims() -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the launcher lends the loop: a clock, the wish to stop, a watcher, a place for words.

    `beat` is told what this process is at whenever that changes, and between the batches of an
    evaluation. `check_claim` raises where the run's directory is another's by now: nothing more may
    be written there.
    """

    clock: Callable[[], float]
    should_stop: Callable[[], bool]
    progress: Callable[[Progress], None]
    warn: Callable[[str], None]
    beat: Callable[[Doing, int], None] = _tell_nobody
    check_claim: Callable[[], None] = _nobody_claims
