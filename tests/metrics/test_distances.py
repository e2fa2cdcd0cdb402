"""All metrics together: each is that of its own file, and what does not fit is refused."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax

from lab.core.errors import LabError
from lab.metrics.distances import BETTER, UNIT, Reference, judge
from lab.metrics.frechet import frechet_distance, frechet_infinity
from lab.metrics.inception_score import inception_score
from lab.metrics.kernel_distance import kernel_curve, kernel_set
from lab.metrics.moments import moments_of
from lab.metrics.precision_recall import manifold, precision, recall


@pytest.fixture(scope="module")
def world():
    """Generated and real images as a float32 extractor gives them, a little apart."""
    rng = np.random.default_rng(0)
    head = rng.normal(size=(6, 4))
    made, real = rng.normal(size=(160, 6)) * 0.8 + 0.2, rng.normal(size=(200, 6))
    return tuple(
        (x.astype(np.float32), log_softmax(x @ head, axis=1).astype(np.float32))
        for x in (made, real)
    )


def judged(world, **changes):
    (x, logs), (y, reference_logs) = world
    settings: dict[str, Any] = {"level": 0.9, "seed": 0, "counts": [20, 40, 80, 160]} | changes
    return judge(x, logs, Reference.of(y, reference_logs), **settings)


def test_each_is_that_of_its_file(world):
    (x, logs), (y, _) = world
    values = judged(world)
    for metric in ("fd", "kid"):
        assert [v.samples for v in values if v.metric == metric] == [20, 40, 80, 160]
    shown = {v.metric: v for v in values}
    moments, balls, real = moments_of(y), manifold(x), manifold(y)
    want = {
        "fd_infinity": frechet_infinity(x, moments, level=0.9, seed=0),
        "kid": kernel_curve(x, kernel_set(y), [160], level=0.9, seed=0)[0].distance,
        "inception_score": inception_score(logs, level=0.9, seed=0),
        "precision": precision(balls, real, level=0.9),
        "recall": recall(balls, real, level=0.9, seed=0),
    }
    assert set(shown) == {"fd", *want} == set(BETTER) == set(UNIT)
    for metric, interval in want.items():
        found = {k: getattr(shown[metric], k) for k in dataclasses.asdict(interval)}
        assert found == dataclasses.asdict(interval)
        assert shown[metric].samples == 160
    distance = frechet_distance(moments_of(x), moments)
    assert shown["fd"].value == pytest.approx(distance, rel=1e-9)
    for value in values:
        assert value.low < value.value < value.high
        assert value.level == 0.9


def test_worse_images_are_worse_by_every_metric(world):
    """What `better` says, against images that are further off and all of one kind."""
    (x, logs), real = world
    good = {v.metric: v for v in judged(world, counts=[])}
    one_kind = np.tile(logs[:1], (len(logs), 1))
    bad = judge(0.1 * x + 3, one_kind, Reference.of(*real), level=0.9, seed=0, counts=[])
    for value in bad:
        sign = 1 if value.better == "lower" else -1
        assert sign * (value.value - good[value.metric].value) > 0, value.metric


def test_the_level_sets_the_width_and_the_seed_little_else(world):
    narrow, wide, other = judged(world, level=0.5), judged(world, level=0.95), judged(world, seed=1)
    for a, b, c in zip(narrow, wide, other, strict=True):
        assert a.value == b.value
        assert b.low < a.low < a.high < b.high
        assert abs(c.value - a.value) < (b.high - b.low) / 2
    assert judged(world) == judged(world)


def test_counts_are_sorted_and_end_with_all(world):
    shown = [v.samples for v in judged(world, counts=[80, 20, 80]) if v.metric == "fd"]
    assert shown == [20, 80, 160]


def test_the_limit_is_left_out_where_it_cannot_be_had(world):
    (x, logs), (y, reference_logs) = world
    x, y = np.tile(x, 20), np.tile(y, 20)  # 120 features of 160 images
    values = judge(x, logs, Reference.of(y, reference_logs), level=0.9, seed=0, counts=[])
    assert [v.metric for v in values] == ["fd", "kid", "inception_score", "precision", "recall"]


def test_refusals(world):
    (x, logs), (y, reference_logs) = world
    with pytest.raises(LabError, match="level 1.0: allowed is between 0 and 1"):
        judged(world, level=1.0)
    with pytest.raises(LabError, match="of 200 samples: allowed is 4 to 160"):
        judged(world, counts=[200])
    with pytest.raises(LabError, match="not of one extractor"):
        judge(x[:, :5], logs, Reference.of(y, reference_logs), level=0.9, seed=0, counts=[])
    with pytest.raises(LabError, match="not of one extractor"):
        judge(x, logs[:, :3], Reference.of(y, reference_logs), level=0.9, seed=0, counts=[])
