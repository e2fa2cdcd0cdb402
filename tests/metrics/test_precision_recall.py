"""Precision and recall: against brute force, and what their intervals cover."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lab.core.errors import LabError
from lab.metrics import precision_recall as module
from lab.metrics.precision_recall import manifold, precision, recall, within


def by_the_letter(query, images, neighbours):
    """Kynkaanniemi et al. 2019, eq. 1 and 2: in some ball that reaches to the k-th neighbour."""
    inside = []
    for point in query:
        found = False
        for i, centre in enumerate(images):
            others = np.delete(images, i, 0)
            radius = sorted(np.linalg.norm(others - centre, axis=1))[neighbours - 1]
            found |= np.linalg.norm(point - centre) <= radius
        inside.append(found)
    return np.array(inside)


@pytest.mark.parametrize("neighbours", [1, 3])
@pytest.mark.parametrize("far", [0.0, 1e7])
def test_against_brute_force(neighbours, far, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(37, 3)) + far, 1.5 * rng.normal(size=(41, 3)) + far
    monkeypatch.setattr(module, "CHUNK", 10)
    balls = manifold(y, neighbours=neighbours)
    radius = np.sort(cdist(y, y), axis=1)[:, neighbours]
    np.testing.assert_allclose(np.sqrt(balls.squared_radius_M), radius, rtol=1e-6)
    want = by_the_letter(x, y, neighbours)
    assert 0 < want.sum() < 37
    np.testing.assert_array_equal(within(x, balls), want)


def test_radii_among_many():
    x = np.random.default_rng(5).normal(size=(700, 5))
    radius = np.sort(cdist(x, x), axis=1)[:, 3]
    np.testing.assert_allclose(np.sqrt(manifold(x).squared_radius_M), radius, rtol=1e-9)


def test_precision_and_recall_are_not_exchanged():
    """Generated images cover one of two clusters: all are good, half of the others are missed."""
    rng = np.random.default_rng(1)
    cluster = rng.normal(size=(200, 2))
    real = np.concatenate([cluster, rng.normal(size=(200, 2)) + 50])
    made = rng.normal(size=(80, 2)) * 0.5
    generated, reference = manifold(made), manifold(real)
    found = precision(generated, reference, level=0.9)
    assert found.value == 1.0 == found.high
    assert 0.95 < found.low < 1.0
    missed = recall(generated, reference, level=0.9, seed=0)
    assert missed.value == within(real, manifold(made)).mean() < 0.5
    assert missed.low < missed.value < missed.high
    assert missed.quantile is None and found.quantile == pytest.approx(1.6448536)


def test_equal_and_disjoint_sets():
    x = np.random.default_rng(2).normal(size=(60, 4))
    balls, others = manifold(x), manifold(x + 100)
    assert precision(balls, balls, level=0.9).value == 1.0
    assert recall(balls, balls, level=0.9, seed=0).value == 1.0
    assert precision(balls, others, level=0.9).value == 0.0
    none = recall(balls, others, level=0.9, seed=0)
    assert none.value == none.low == 0.0 < none.high


def test_refusals():
    x = np.random.default_rng(3).normal(size=(39, 4))
    with pytest.raises(LabError, match="3 neighbours among 3 images"):
        manifold(x[:3])
    with pytest.raises(LabError, match="between 2 and 4 features"):
        within(x[:, :2], manifold(x))
    with pytest.raises(LabError, match="of 39 generated images: at least 40"):
        recall(manifold(x), manifold(x), level=0.9, seed=0)


def simulated(n, m, *, size, times, seed=0):
    """(times, 3) of precision and of recall; both sets are drawn anew each time."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(times):
        generated = manifold(0.85 * rng.normal(size=(n, size)) + 0.2)
        reference = manifold(rng.normal(size=(m, size)))
        both = (
            precision(generated, reference, level=0.9),
            recall(generated, reference, level=0.9, seed=0),
        )
        found.append([(f.value, f.low, f.high) for f in both])
    return np.array(found).transpose(1, 0, 2)


def coverage(intervals, truth):
    return float(np.mean((intervals[:, 1] <= truth) & (truth <= intervals[:, 2])))


def test_recall_covers_other_generated_images():
    """With 300 of the reference Wilson's interval alone has a coverage of 0.6 here."""
    _, recalls = simulated(80, 300, size=8, times=100)
    truth = recalls[:, 0].mean()
    assert 0.83 <= coverage(recalls, truth) <= 1.0
    alone = 1.645 * np.sqrt(truth * (1 - truth) / 300)
    assert np.mean(np.abs(recalls[:, 0] - truth) < alone) < 0.75


def test_precision_covers_other_generated_images():
    """The reference stands: its images are in no interval of precision."""
    rng = np.random.default_rng(4)
    reference = manifold(rng.normal(size=(150, 8)))
    sets = [manifold(0.85 * rng.normal(size=(100, 8)) + 0.2) for _ in range(200)]
    found = [precision(generated, reference, level=0.9) for generated in sets]
    truth = np.mean([f.value for f in found])
    assert 0.85 <= np.mean([f.low <= truth <= f.high for f in found]) <= 0.96


@pytest.mark.slow
def test_table_of_coverage():
    for n, m, size in ((200, 200, 4), (300, 300, 16), (300, 1500, 16), (1000, 1000, 32)):
        for name, found in zip(
            ("precision", "recall"), simulated(n, m, size=size, times=200), strict=True
        ):
            truth = found[:, 0].mean()
            print(
                f"\n{name} N {n} M {m} F {size}: mean {truth:.3f}, sd {found[:, 0].std():.4f}, "
                f"coverage where both sets are drawn anew {coverage(found, truth):.3f}",
                end="",
            )
            assert coverage(found, truth) >= (0.7 if name == "precision" else 0.85)
