"""A number with its two-sided interval, and Wilson's interval of a share."""

from __future__ import annotations

import dataclasses
import math
import statistics

from lab.core.errors import LabError


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value, its interval of this level (0.9 is 90 %), and how it was made.

    The value need not be the middle, and is outside where a bound of the metric cuts the interval.
    `quantile` is half of the interval in standard errors: of a normal or Student's t. It is None
    where the interval is not made of one standard error, and none is to be read from it.
    """

    value: float
    low: float
    high: float
    level: float
    method: str
    quantile: float | None = None


def wilson(successes: int, count: int, level: float) -> Interval:
    """Wilson's score interval of a share of independent trials (Wilson 1927).

    Raises LabError unless 0 <= successes <= count, count >= 1 and 0 < level < 1.
    """
    if not 0 < level < 1:
        raise LabError(f"level {level}: allowed is between 0 and 1")
    if count < 1 or not 0 <= successes <= count:
        raise LabError(f"{successes} of {count}: allowed is 0 to count, and count of at least 1")
    z = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / count
    scale = 1 + z**2 / count
    middle = (share + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Interval(
        value=share,
        low=0.0 if successes == 0 else middle - half,
        high=1.0 if successes == count else middle + half,
        level=level,
        method="wilson",
        quantile=z,
    )
