"""Quantiles of Student's t and of chi-squared, without SciPy's statistics: those load for a second.

The same functions that scipy.stats calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def student(share: float, freedom: float) -> float:
    """The value that Student's t of so many degrees stays below in this share of cases."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def chi_squared(share: float | np.ndarray, freedom: float) -> np.ndarray:
    """The value that chi-squared stays below in this share of cases, as an array."""
    import numpy as np
    from scipy.special import gammaincinv

    return 2.0 * gammaincinv(freedom / 2.0, np.asarray(share, dtype=float))
