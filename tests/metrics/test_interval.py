"""Wilson's interval against SciPy and the equation that defines it."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from lab.core.errors import LabError
from lab.metrics.interval import wilson


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(("successes", "count"), [(0, 7), (7, 7), (1, 2), (3, 11), (940, 1000)])
def test_wilson_against_scipy(successes, count, level):
    found = wilson(successes, count, level)
    want = binomtest(successes, count).proportion_ci(level, method="wilson")
    assert found.value == successes / count
    np.testing.assert_allclose([found.low, found.high], [want.low, want.high], atol=1e-14)
    assert found.low <= found.value <= found.high
    assert (found.level, found.method) == (level, "wilson")


def test_ends_are_z_standard_errors_away():
    found, z = wilson(3, 11, 0.9), norm.ppf(0.95)
    for end in (found.low, found.high):
        assert abs(3 / 11 - end) == pytest.approx(z * math.sqrt(end * (1 - end) / 11))
    assert found.quantile == pytest.approx(z)


@pytest.mark.parametrize(
    ("successes", "count", "level"), [(-1, 5, 0.9), (6, 5, 0.9), (0, 0, 0.9), (1, 5, 1.0)]
)
def test_what_is_no_share_is_refused(successes, count, level):
    with pytest.raises(LabError, match="allowed"):
        wilson(successes, count, level)
