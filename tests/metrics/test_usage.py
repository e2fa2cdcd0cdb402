"""Code usage against brute force and draws."""

import collections
import fractions
import math

import numpy as np
import pytest

from lab.core.codes import Alphabet, CodeKind
from lab.core.errors import LabError
from lab.metrics.usage import MOST_COUNTED, expected_distinct, usage


def ids(size):
    return Alphabet(CodeKind.IDS, size)


def bits(size):
    return Alphabet(CodeKind.BITS, size)


def brute_force(positions):
    """Distinct values and entropy of a list of hashable codes."""
    counts = collections.Counter(positions)
    shares = [c / len(positions) for c in counts.values()]
    return len(counts), -sum(p * math.log(p) for p in shares)


@pytest.mark.parametrize("size", [7, 300, 2 * MOST_COUNTED])
def test_ids_against_brute_force(size):
    rng = np.random.default_rng(0)
    codes = np.minimum(rng.zipf(1.5, (6, 8, 8)) - 1, size - 1).astype(np.int32)
    distinct, entropy = brute_force(codes.ravel().tolist())
    got = usage(codes, ids(size))
    assert (got.draws, got.alphabet, got.distinct) == (384, size, distinct)
    assert got.bit_means is None
    np.testing.assert_allclose(got.entropy_nats, entropy, rtol=1e-12)
    np.testing.assert_allclose(got.perplexity, math.exp(entropy), rtol=1e-12)
    np.testing.assert_allclose(got.alphabet_share, distinct / size, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 16, 40, 63])
def test_bits_against_brute_force(size):
    """Few patterns, repeated, that differ in the first and last bits too."""
    rng = np.random.default_rng(size)
    patterns = rng.integers(0, 2, (9, size))
    patterns[0], patterns[1] = 0, 1
    patterns[2] = [1] + [0] * (size - 1)
    codes = patterns[rng.integers(0, 9, (4, 5, 5))].astype(np.uint8)
    rows = [tuple(row) for row in codes.reshape(-1, size).tolist()]
    distinct, entropy = brute_force(rows)
    got = usage(codes, bits(size))
    assert (got.draws, got.alphabet, got.distinct) == (100, 2**size, distinct)
    np.testing.assert_allclose(got.entropy_nats, entropy, rtol=1e-12)
    want = [sum(row[j] for row in rows) / 100 for j in range(size)]
    assert got.bit_means == pytest.approx(want, rel=1e-12)


def test_known_values():
    every = usage(np.arange(256, dtype=np.uint8), ids(256))
    assert every.alphabet_share == 1 and every.perplexity == pytest.approx(256)
    assert every.uniform_share == pytest.approx(1 / (1 - (255 / 256) ** 256))
    one = usage(np.zeros((3, 4), np.uint8), ids(256))
    assert (one.distinct, one.perplexity, one.entropy_nats) == (1, 1.0, 0.0)
    assert usage(np.zeros(5, np.uint8), ids(1)).uniform_share == 1


@pytest.mark.parametrize("values, draws", [(2, 1), (2, 5), (17, 40), (1024, 3), (50, 5000)])
def test_expected_distinct_is_exact(values, draws):
    want = values * (1 - (1 - fractions.Fraction(1, values)) ** draws)
    assert expected_distinct(values, draws) == pytest.approx(float(want), rel=1e-12)


def test_expected_distinct_of_vast_alphabets():
    """1 - 1/V rounds to 1 there: the naive form gives 0. To first order it is n - n(n-1) / 2V."""
    assert expected_distinct(2**63, 10**6) == pytest.approx(1e6, rel=1e-9)
    assert expected_distinct(2**40, 10**6) == pytest.approx(1e6 - 1e6 * 999_999 / 2**41, rel=1e-9)


@pytest.mark.parametrize("alphabet", [ids(1000), bits(10)])
def test_uniform_draws_use_their_share(alphabet):
    """The mean over 200 draws of 700 codes, within 4 standard errors of 1."""
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(200):
        if alphabet.kind is CodeKind.IDS:
            codes = rng.integers(0, 1000, 700).astype(np.uint16)
        else:
            codes = rng.integers(0, 2, (700, 10), dtype=np.uint8)
        shares.append(usage(codes, alphabet).uniform_share)
    error = np.std(shares, ddof=1) / np.sqrt(len(shares))
    assert error < 0.002
    assert abs(np.mean(shares) - 1) < 4 * error


@pytest.mark.parametrize(
    "codes, alphabet, message",
    [
        (np.array([0, 5]), ids(5), "from 0 to 5; allowed is 0 to 4"),
        (np.array([-1, 2]), ids(5), "from -1 to 2"),
        (np.array([[0, 2]]), bits(2), "allowed is 0 to 1"),
        (np.zeros((2, 3), np.uint8), bits(4), "hold 3 bits"),
        (np.zeros((2, 64), np.uint8), bits(64), "at most 63 bits"),
        (np.zeros((0,), np.uint8), ids(4), "no codes"),
        (np.zeros((2,), np.float32), ids(4), "not float32"),
        (np.zeros((2, 4), np.float32), Alphabet(CodeKind.GAUSSIAN, 2), "only ids and bits"),
    ],
)
def test_foreign_codes(codes, alphabet, message):
    with pytest.raises(LabError, match=message):
        usage(codes, alphabet)
