"""Kernel distance: by the letter, unbiased and covered where the truth can be enumerated.

The table of coverage: pytest tests/metrics/test_kernel_distance.py -m slow -s
"""

import numpy as np
import pytest

from lab.core.errors import LabError
from lab.metrics import kernel_distance as module
from lab.metrics.kernel_distance import (
    cubic_kernel,
    kernel_curve,
    kernel_distance,
    kernel_set,
)


def by_the_letter(x, y):
    """Binkowski et al. 2018, eq. 4, pair by pair."""

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    first = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    second = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return first + second - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def judged(x, y, level=0.9):
    return kernel_distance(kernel_set(x), kernel_set(y), level=level)


@pytest.mark.parametrize(("n", "m"), [(3, 5), (11, 7), (8, 8)])
def test_by_the_letter(n, m, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 4)), rng.normal(size=(m, 4)) + 0.5
    want = by_the_letter(x.tolist(), y.tolist())
    assert judged(x, y).value == pytest.approx(want, rel=1e-12)
    monkeypatch.setattr(module, "CHUNK", 3)
    assert judged(x, y).value == pytest.approx(want, rel=1e-12)
    assert judged(y, x).value == pytest.approx(want, rel=1e-12)


def test_error_is_the_jackknife_over_both_sets():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, 3)), rng.normal(size=(6, 3)) + 1
    without_x = [by_the_letter(np.delete(x, i, 0), y) for i in range(9)]
    without_y = [by_the_letter(x, np.delete(y, i, 0)) for i in range(6)]
    se = np.sqrt(8 * np.var(without_x) + 5 * np.var(without_y))
    found = judged(x, y)
    assert found.high - found.value == pytest.approx(1.6448536 * se, rel=1e-6)
    assert found.value - found.low == pytest.approx(1.6448536 * se, rel=1e-6)


def sets_of(x, count, seed):
    """As many disjoint sets of the curve's order as there are."""
    x = x[np.random.default_rng(seed).permutation(len(x))]
    return [x[start : start + count] for start in range(0, len(x) - count + 1, count)]


@pytest.mark.parametrize("count", [4, 6, 13])
def test_a_point_of_the_curve_is_the_mean_over_disjoint_sets(count):
    """Value and jackknife by the letter, with 1, 1 and 0 of 13 images in no set."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(13, 3)), rng.normal(size=(7, 3)) + 1
    (point,) = kernel_curve(x, kernel_set(y), [count], level=0.9, seed=5)
    sets = sets_of(x, count, 5)

    def mean(sets, y):
        return np.mean([by_the_letter(each, y) for each in sets])

    assert point.samples == count
    assert point.distance.value == pytest.approx(mean(sets, y), rel=1e-12)
    without_x = [[by_the_letter(np.delete(each, i, 0), y) for i in range(count)] for each in sets]
    variance = (count - 1) * np.sum(np.var(without_x, axis=1)) / len(sets) ** 2
    variance += 6 * np.var([mean(sets, np.delete(y, j, 0)) for j in range(7)])
    half = point.distance.high - point.distance.value
    assert half == pytest.approx(1.6448536 * np.sqrt(variance), rel=1e-6)
    assert half / point.distance.quantile == pytest.approx(np.sqrt(variance), rel=1e-6)


def test_the_curve_ends_at_the_distance_of_all():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(20, 3)), kernel_set(rng.normal(size=(30, 3)) + 0.3)
    last = kernel_curve(x, y, [5, 20], level=0.8, seed=1)[-1].distance
    assert last.value == pytest.approx(judged(x, y.features_NF).value, rel=1e-10)
    assert last.high == pytest.approx(judged(x, y.features_NF, level=0.8).high, rel=1e-10)


def test_refusals():
    x = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(LabError, match="between 3 and 2 features"):
        judged(x, x[:, :2])
    with pytest.raises(LabError, match="between 2 and 5 images"):
        judged(x[:2], x)
    for count in (2, 6):
        with pytest.raises(LabError, match=f"of {count} samples: allowed is 3 to 5"):
            kernel_curve(x, kernel_set(x), [count], level=0.9, seed=0)


# --- bias and coverage ---------------------------------------------------------------------------


class Points:
    """Two distributions over the same few points: their squared MMD is a finite sum."""

    def __init__(self, *, apart, size=6, points=40):
        rng = np.random.default_rng(0)
        self.points = rng.normal(size=(points, size)) * 1.5
        self.p = rng.dirichlet(np.full(points, 2.0))
        self.q = (1 - apart) * self.p + apart * rng.dirichlet(np.full(points, 2.0))
        difference = self.p - self.q
        self.truth = float(difference @ cubic_kernel(self.points, self.points) @ difference)

    def draw(self, n, m, rng):
        x = self.points[rng.choice(len(self.p), n, p=self.p)]
        return x, self.points[rng.choice(len(self.q), m, p=self.q)]


def simulated(world, n, m, *, times, seed=0):
    rng = np.random.default_rng(seed)
    found = [judged(*world.draw(n, m, rng)) for _ in range(times)]
    values = np.array([interval.value for interval in found])
    covered = np.mean([interval.low <= world.truth <= interval.high for interval in found])
    return values, float(covered)


@pytest.mark.parametrize("apart", [0.0, 0.3, 1.0])
def test_unbiased_and_covered(apart):
    world = Points(apart=apart)
    values, covered = simulated(world, 60, 90, times=400)
    assert abs(values.mean() - world.truth) < 3 * values.std() / np.sqrt(400)
    assert (world.truth == 0) == (apart == 0)
    # Equal distributions are covered too often: the interval is at least that of their skewed law.
    assert 0.86 <= covered <= (0.94 if apart > 0.5 else 1.0)


COUNTS = (6, 15, 30, 60)


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_the_curve_is_flat_and_covered(apart):
    """A kernel of an image with itself would add twenty errors of this mean at 6 samples."""
    world, rng = Points(apart=apart), np.random.default_rng(1)
    found = []
    for _ in range(300):
        x, y = world.draw(60, 90, rng)
        curve = kernel_curve(x, kernel_set(y), COUNTS, level=0.9, seed=0)
        found.append([point.distance for point in curve])
    values = np.array([[each.value for each in curve] for curve in found])
    error = values.std(axis=0) / np.sqrt(300)
    assert np.all(np.abs(values.mean(axis=0) - world.truth) < 3 * error)
    kernels = cubic_kernel(world.points, world.points)
    itself = float(world.p @ np.diag(kernels) - world.p @ kernels @ world.p)
    assert itself / COUNTS[0] > 20 * error[0]
    covered = np.mean(
        [[each.low <= world.truth <= each.high for each in curve] for curve in found], axis=0
    )
    assert np.all(covered >= 0.85) and (apart == 0 or np.all(covered <= 0.97))


def one_large_direction(n, rng):
    return rng.normal(size=(n, 32)) * np.array([1.0] + [0.05] * 31)


def test_equal_sets_of_one_large_direction_are_covered():
    """There the jackknife alone covers 0 in 81 % of 300 draws: it is small where the value is."""
    rng = np.random.default_rng(0)
    found = [
        judged(one_large_direction(100, rng), one_large_direction(100, rng)) for _ in range(150)
    ]
    assert np.mean([interval.low <= 0 <= interval.high for interval in found]) >= 0.9


def test_the_least_error_is_that_of_equal_sets():
    rng = np.random.default_rng(0)
    pairs = [(one_large_direction(40, rng), one_large_direction(70, rng)) for _ in range(300)]
    values = [judged(*pair).value for pair in pairs]
    said = [module._variance_if_equal([kernel_set(x)], kernel_set(y)) for x, y in pairs]
    assert np.mean(said) == pytest.approx(np.var(values), rel=0.3)
    x = rng.normal(size=(7, 3))
    kernels = cubic_kernel(x, x)
    np.fill_diagonal(kernels, 0)
    mean = kernels.sum(axis=0) / 6
    rest = kernels - mean[:, None] - mean[None] + mean.mean()
    np.fill_diagonal(rest, 0)
    assert kernel_set(x).spread == pytest.approx(np.square(rest).sum() / 42, rel=1e-9)


@pytest.mark.slow
def test_table_of_coverage():
    for apart in (0.0, 0.05, 0.1, 0.3, 1.0):
        for n, m in ((30, 30), (100, 100), (100, 1000), (500, 500)):
            world = Points(apart=apart)
            values, covered = simulated(world, n, m, times=500)
            print(
                f"\napart {apart} N {n} M {m}: truth {world.truth:.4f}, mean {values.mean():.4f}, "
                f"sd {values.std():.4f}, coverage {covered:.3f}",
                end="",
            )
            assert abs(values.mean() - world.truth) < 4 * values.std() / np.sqrt(500)
            assert covered >= 0.82
