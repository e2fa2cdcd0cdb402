"""Quantiles against those of scipy.stats, which the commands do not wait for."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from analysis.quantiles import chi_squared, student


@pytest.mark.parametrize("freedom", [1, 2, 4, 7.5, 300])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 0.975])
def test_quantiles_are_those_of_scipy(share, freedom):
    assert student(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), abs=1e-12)
    found = chi_squared(np.array([share]), freedom)
    np.testing.assert_allclose(found, stats.chi2.ppf([share], freedom), rtol=1e-12)


def test_fit_compare_and_next_load_no_statistics_and_no_optimizer():
    code = (
        "import analysis.compare, analysis.design, analysis.fit, sys; "
        "print(sorted({'scipy.stats', 'scipy.optimize', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
