"""The weighted line with a lack of fit, against scipy and numpy."""

import numpy as np
import pytest
from scipy import stats

from analysis.line import line

X = np.array([0.0, 1.0, 2.5, 3.0, 4.0, 6.0])
Y = 2.0 + 0.7 * X + np.array([0.1, -0.3, 0.2, 0.05, -0.1, 0.15])


def test_without_known_errors_it_is_ordinary_least_squares_with_t():
    found, truth = line(X, Y, np.zeros(6)), stats.linregress(X, Y)
    value = found.slope_at(0.9)
    half = stats.t.ppf(0.95, 4) * truth.stderr
    np.testing.assert_allclose(
        [value.value, value.low, value.high],
        [truth.slope, truth.slope - half, truth.slope + half],
    )
    at = found.at(10.0, 0.9)
    assert at.value == pytest.approx(truth.intercept + 10 * truth.slope)
    spread = np.sqrt(np.sum((Y - truth.intercept - truth.slope * X) ** 2) / 4)
    lever = np.sqrt(1 / 6 + (10 - X.mean()) ** 2 / np.sum((X - X.mean()) ** 2))
    assert at.high - at.value == pytest.approx(stats.t.ppf(0.95, 4) * spread * lever)


def test_errors_that_explain_the_scatter_are_the_weights():
    se = np.array([0.5, 2.0, 1.0, 4.0, 0.7, 1.5])
    found = line(X, Y, se)
    assert found.lack_of_fit == 0.0
    assert found.slope == pytest.approx(np.polyfit(X, Y, 1, w=1 / se)[0])


def test_the_lack_of_fit_brings_the_squares_to_their_degrees_of_freedom():
    se = np.array([0.01, 0.02, 0.01, 0.04, 0.01, 0.02])
    found = line(X, Y, se)
    variance = se**2 + found.lack_of_fit**2
    coefficients = np.polyfit(X, Y, 1, w=1 / np.sqrt(variance))
    squares = np.sum((Y - np.polyval(coefficients, X)) ** 2 / variance)
    assert found.lack_of_fit > 0.1 and squares == pytest.approx(4.0, rel=1e-6)
    assert found.slope == pytest.approx(coefficients[0])
