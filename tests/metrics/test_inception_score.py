"""Inception score: by the letter, at its ends, and its bias where the truth is known."""

import math

import numpy as np
import pytest
from scipy.special import log_softmax

from lab.core.errors import LabError
from lab.metrics.inception_score import inception_score, information_nats, log_score


def by_the_letter(log_probabilities):
    p = np.exp(log_probabilities)
    marginal = p.mean(0)
    terms = [sum(a * math.log(a / b) for a, b in zip(row, marginal, strict=True)) for row in p]
    return math.exp(np.mean(terms))


def drawn(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    return log_softmax(2 * rng.normal(size=(count, classes)), axis=1)


def test_by_the_letter():
    logs = drawn(60, 7)
    found = inception_score(logs.astype(np.float32), level=0.9, seed=0)
    assert found.value == pytest.approx(by_the_letter(logs), rel=1e-5)
    assert found.low < found.value < found.high


def test_splits_are_scored_apart():
    logs = drawn(63, 5)
    found = inception_score(logs, level=0.9, seed=3, splits=4)
    mixed = logs[np.random.default_rng(3).permutation(63)]
    want = np.mean([by_the_letter(part) for part in np.array_split(mixed, 4)])
    assert found.value == pytest.approx(want, rel=1e-12)


def test_error_by_the_letter():
    logs = drawn(50, 4)
    found = inception_score(logs, level=0.9, seed=1)
    mixed = logs[np.random.default_rng(1).permutation(50)]
    left_out = [math.log(by_the_letter(mixed[np.arange(50) % 20 != g])) for g in range(20)]
    half = 1.7291 * np.sqrt(19 * np.var(left_out))  # t of 19 degrees
    assert math.log(found.high / found.value) == pytest.approx(half, rel=1e-4)
    assert math.log(found.value / found.low) == pytest.approx(half, rel=1e-4)
    assert found.quantile == pytest.approx(1.7291, rel=1e-4)


def test_ends():
    """One class each, evenly: as many. The same of every image: 1. A probability may be 0."""
    with np.errstate(divide="ignore"):
        certain = np.log(np.eye(12)[np.arange(50) % 10])  # two classes are never named
    assert log_score(certain) == pytest.approx(math.log(10))
    same = np.tile(drawn(1, 6), (50, 1))
    assert inception_score(same, level=0.9, seed=0).value == pytest.approx(1.0)


def test_refusals():
    with pytest.raises(LabError, match="image 3 sum to 2, and not to 1"):
        logs = drawn(50, 4)
        logs[3] += math.log(2)
        inception_score(logs, level=0.9, seed=0)
    with pytest.raises(LabError, match="image 0 sum to nan"):
        inception_score(np.full((50, 4), np.nan), level=0.9, seed=0)
    with pytest.raises(LabError, match="of 39 images in 1 splits: at least 40"):
        inception_score(drawn(39, 4), level=0.9, seed=0)


def test_bias_is_what_is_said_and_its_mean_is_covered():
    """Images of 6 kinds, known classes: the exponent is low by sum_k Var p_k / (2 N p_k) nats."""
    rng = np.random.default_rng(0)
    kinds = log_softmax(3 * rng.normal(size=(6, 8)), axis=1)
    weight = rng.dirichlet(np.full(6, 3.0))
    p = np.exp(kinds)
    marginal = weight @ p
    truth = float(weight @ (p * (kinds - np.log(marginal))).sum(1))
    count, times = 50, 1000
    draws = rng.choice(6, (times, count), p=weight)
    nats = np.array([information_nats(kinds[draw]) for draw in draws])
    said = float(((weight @ p**2 - marginal**2) / (2 * count * marginal)).sum())
    assert truth - nats.mean() == pytest.approx(said, abs=3 * nats.std() / math.sqrt(times))
    assert said > 4 * nats.std() / math.sqrt(times)
    found = [inception_score(kinds[draw], level=0.9, seed=0) for draw in draws[:300]]
    shown = math.exp(nats.mean())
    assert 0.85 <= np.mean([f.low <= shown <= f.high for f in found]) <= 0.95
