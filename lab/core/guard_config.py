"""What a run does about updates that would do harm: the section `train.guard` of a config."""

import dataclasses

from lab.core.errors import LabError
from lab.core.fields import allow, count

STOP, SKIP, ROLLBACK = "stop", "skip", "rollback"
LEAST_WINDOW = 8  # a median and its spread of fewer numbers say little


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """Which updates are suspicious, and what follows; docs/reliability.md says it in words."""

    policy: str = allow(choices=(STOP, SKIP, ROLLBACK))
    window: int = count(LEAST_WINDOW)  # updates
    threshold: float = allow(above=0.0)  # robust standard errors above the median
    most_skips: int = count()
    rollback_steps: int = count()


OFF = GuardConfig(policy=STOP, window=128, threshold=10.0, most_skips=8, rollback_steps=100)
_USED = {
    STOP: (),
    SKIP: ("window", "threshold", "most_skips"),
    ROLLBACK: ("window", "threshold", "most_skips", "rollback_steps"),
}


def check_guard(guard: GuardConfig) -> None:
    """Refuse a value that the policy does not use: it would name another run of the same numbers.

    Raises LabError.
    """
    for field in dataclasses.fields(guard):
        value, usual = getattr(guard, field.name), getattr(OFF, field.name)
        if field.name != "policy" and field.name not in _USED[guard.policy] and value != usual:
            raise LabError(
                f"config.train.guard.{field.name} = {value}: of no use where "
                f'config.train.guard.policy = "{guard.policy}"; {usual} is expected'
            )
