"""Estimators of entropy: against their definitions, and their bias on distributions that are known.

The table of biases: pytest tests/metrics/test_entropy.py -m slow -s
"""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, special

from lab.core.errors import LabError
from lab.metrics.draws import draws_of, paired, standard_error, t_quantile
from lab.metrics.entropy import (
    HEADLINE,
    CountsOfCounts,
    Estimator,
    counts_of_counts,
    entropy_nats,
)
from lab.metrics.estimate import estimate
from lab.metrics.nsb import nsb_nats

COUNTS = ([3, 1, 1, 2, 7], [1, 1, 1, 2], [5, 5, 5], [1] * 12 + [2] * 3 + [40], [9])


def true_nats(p):
    return float(-sum(x * math.log(x) for x in p if x > 0))


def known(size, seed=0):
    """Distributions over `size` symbols by name."""
    rank = np.arange(1, size + 1)
    rng = np.random.default_rng(seed)
    shapes = {
        "uniform": np.ones(size),
        "zipf": 1 / rank,
        "zipf 1.5": rank**-1.5,
        "geometric": (1 - 20 / size) ** rank,
        "dirichlet 0.1": rng.dirichlet(np.full(size, 0.1)),
        "dirichlet 1": rng.dirichlet(np.ones(size)),
    }
    return {name: p / p.sum() for name, p in shapes.items()}


def biases(p, draws, *, times, seed=0):
    """Mean error of each estimator over `times` samples of `draws`."""
    rng = np.random.default_rng(seed)
    samples = [counts_of_counts(rng.multinomial(draws, p)) for _ in range(times)]
    return {
        by: np.mean([entropy_nats(c, alphabet=len(p), by=by) for c in samples]) - true_nats(p)
        for by in Estimator
    }


# --- definitions ---------------------------------------------------------------------------------


def by_the_letter(counts, by):
    """The formulas with a loop over symbols, from the papers."""
    n, f = sum(counts), [sum(c == r for c in counts) for r in range(3)]
    plug_in = -sum(c / n * math.log(c / n) for c in counts)
    if by is Estimator.PLUG_IN:
        return plug_in
    if by is Estimator.MILLER_MADOW:
        return plug_in + (len(counts) - 1) / (2 * n)
    if by is Estimator.CHAO_SHEN:
        coverage = 1 - min(f[1], n - 1) / n
        p = [coverage * c / n for c in counts]
        return sum(-x * math.log(x) / (1 - (1 - x) ** n) for x in p)
    first = sum(c / n * sum(1 / k for k in range(c, n)) for c in counts)
    if f[2]:
        a = 2 * f[2] / ((n - 1) * f[1] + 2 * f[2])
    else:
        a = 2 / ((n - 1) * (f[1] - 1) + 2) if f[1] else 1.0
    if a == 1:
        return first
    rest = -math.log(a) - sum((1 - a) ** r / r for r in range(1, n))
    return first + f[1] / n * (1 - a) ** (1 - n) * rest


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("by", [by for by in Estimator if by is not Estimator.NSB])
def test_estimators_equal_their_formulas(counts, by):
    found = entropy_nats(counts_of_counts(np.array(counts)), alphabet=99, by=by)
    assert found == pytest.approx(by_the_letter(counts, by), abs=1e-7)


@pytest.mark.parametrize("alphabet", [9, 1000])
@pytest.mark.parametrize("counts", [c for c in COUNTS if len(c) < 9], ids=str)
def test_nsb_equals_quadrature(counts, alphabet):
    n, seen = sum(counts), len(counts)

    def weight(log_beta):
        b = math.exp(log_beta)
        evidence = sum(special.gammaln(c + b) - special.gammaln(b) for c in counts)
        evidence += special.gammaln(alphabet * b) - special.gammaln(alphabet * b + n)
        slope = alphabet * special.polygamma(1, alphabet * b + 1) - special.polygamma(1, b + 1)
        return math.exp(evidence + n * math.log(n)) * slope * b

    def mean(log_beta):
        b = math.exp(log_beta)
        a = n + alphabet * b
        parts = [*counts, *[0] * (alphabet - seen)]
        return special.digamma(a + 1) - sum((c + b) / a * special.digamma(c + b + 1) for c in parts)

    def integral(function):
        cuts = np.linspace(math.log(1e-4 / alphabet), math.log(1e8), 25)
        return sum(
            integrate.quad(function, low, high, epsrel=1e-9)[0]
            for low, high in itertools.pairwise(cuts)
        )

    expected = integral(lambda x: weight(x) * mean(x)) / integral(weight)
    times, symbols = np.unique(counts, return_counts=True)
    assert nsb_nats(times, symbols, alphabet=alphabet) == pytest.approx(expected, rel=1e-3)


def test_expected_plug_in_is_below_and_miller_madow_near_by_all_samples():
    """The expectation by enumeration of every sample of six draws, not by chance."""
    p = [0.5, 0.3, 0.2]
    expected = dict.fromkeys((Estimator.PLUG_IN, Estimator.MILLER_MADOW), 0.0)
    for sample in itertools.product(range(3), repeat=6):
        chance = math.prod(p[x] for x in sample)
        counts = counts_of_counts(np.bincount(sample))
        for by in expected:
            expected[by] += chance * entropy_nats(counts, alphabet=3, by=by)
    low = true_nats(p) - expected[Estimator.PLUG_IN]
    assert 0.5 * 2 / 12 < low < 2 * 2 / 12  # (K - 1) / 2n and terms of higher order
    assert abs(expected[Estimator.MILLER_MADOW] - true_nats(p)) < low / 3


def test_counts_of_counts_both_ways():
    rng = np.random.default_rng(1)
    for counts in (rng.integers(0, 9, 500), np.array([0, 1, 10**6, 3, 10**6, 0])):
        found = counts_of_counts(counts)
        times, symbols = np.unique(counts[counts > 0], return_counts=True)
        np.testing.assert_array_equal(found.times, times)
        np.testing.assert_array_equal(found.symbols, symbols)
        assert found.draws == counts.sum() and found.distinct == (counts > 0).sum()
    with pytest.raises(LabError, match="nothing was drawn"):
        counts_of_counts(np.zeros(3, np.int64))


@pytest.mark.parametrize("alphabet", [2.0**32, 2.0**126])
def test_alphabets_that_fit_no_table(alphabet):
    """A hundred symbols drawn a hundred times each: nobody doubts ln 100."""
    counts = CountsOfCounts(np.array([100]), np.array([100]))
    for by in Estimator:
        found = entropy_nats(counts, alphabet=alphabet, by=by)
        assert found == pytest.approx(math.log(100), abs=0.03), by
    nothing_twice = CountsOfCounts(np.array([1]), np.array([100]))
    for by in Estimator:
        assert math.isfinite(entropy_nats(nothing_twice, alphabet=alphabet, by=by)), by


# --- bias ----------------------------------------------------------------------------------------

WORST_BIAS = {  # of any of the distributions below, by draws a symbol; measured, with some room
    1: {Estimator.CHAO_WANG_JOST: 0.085, Estimator.NSB: 0.085, Estimator.CHAO_SHEN: 0.12},
    10: {Estimator.CHAO_WANG_JOST: 0.015, Estimator.NSB: 0.035, Estimator.CHAO_SHEN: 0.075},
    100: {Estimator.CHAO_WANG_JOST: 0.005, Estimator.NSB: 0.01, Estimator.CHAO_SHEN: 0.01},
}


@pytest.mark.parametrize("draws_a_symbol", WORST_BIAS)
def test_bias_on_known_distributions(draws_a_symbol):
    worst = dict.fromkeys(Estimator, 0.0)
    for p in known(500).values():
        found = biases(p, 500 * draws_a_symbol, times=8)
        assert found[Estimator.PLUG_IN] < 0
        worst = {by: max(worst[by], abs(found[by])) for by in Estimator}
    for by, bound in WORST_BIAS[draws_a_symbol].items():
        assert worst[by] < bound, (by, worst[by])
    assert worst[HEADLINE] < worst[Estimator.MILLER_MADOW] + 0.001  # the noise of eight samples
    assert worst[Estimator.MILLER_MADOW] < worst[Estimator.PLUG_IN]


@pytest.mark.slow
def test_table_of_biases():
    """Printed with -s; the headline is best in the worst case from one draw a symbol on."""
    print(f"\n{'':14s}{'n/K':>6s}" + "".join(f"{by.value:>16s}" for by in Estimator))
    worst = {}
    for size in (256, 4096):
        for name, p in known(size).items():
            for ratio in (0.1, 0.3, 1, 3, 10, 100):
                found = biases(p, int(size * ratio), times=20)
                row = "".join(f"{found[by]:16.4f}" for by in Estimator)
                print(f"{name:14s}{ratio:6.1f}{row}   K = {size}")
                for by in Estimator:
                    at = worst.setdefault(ratio, dict.fromkeys(Estimator, 0.0))
                    at[by] = max(at[by], abs(found[by]))
    for ratio, at in worst.items():
        print(f"{'worst':14s}{ratio:6.1f}" + "".join(f"{at[by]:16.4f}" for by in Estimator))
        if ratio >= 3:
            rivals = [at[by] for by in Estimator if by is not HEADLINE]
            assert at[HEADLINE] <= min(rivals) + 0.005, (ratio, at)


# --- errors and verdicts over dependent units ----------------------------------------------------


def themed(rng, units, tokens, size=20):
    """Units that each hold one of two themes, so that their tokens are alike; and the entropy."""
    themes = np.stack([np.linspace(1, 5, size), np.linspace(5, 0.2, size) ** 2])
    themes /= themes.sum(axis=1, keepdims=True)
    p = themes.mean(axis=0)
    theme = rng.integers(0, 2, units)
    ids = [rng.choice(size, tokens, p=themes[t]) for t in theme]
    return np.array(ids), true_nats(p)


def coverage(simulations, *, units, tokens, seed=0):
    """Shares of 90 % intervals that hold the truth: jackknife alone, with bias, of iid tokens."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(3)
    for _ in range(simulations):
        ids, truth = themed(rng, units, tokens)
        found = estimate(draws_of(ids, alphabet=20))
        error = abs(found.nats - truth)
        p = np.bincount(ids.ravel()) / ids.size
        p = p[p > 0]
        naive = math.sqrt((p @ np.log(p) ** 2 - (p @ np.log(p)) ** 2) / ids.size)
        t = t_quantile(len(found.left_out_nats), level=0.9)
        hits += [error < t * found.se_nats, error < found.half_width_nats, error < 1.645 * naive]
    return hits / simulations


def test_intervals_cover_where_tokens_of_a_unit_are_alike():
    alone, widened, naive = coverage(120, units=64, tokens=32)
    assert 0.82 <= alone <= 0.97
    assert alone <= widened
    assert naive < 0.75, "the themes do not matter: this test shows nothing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("units", "tokens", "least"), [(16, 64, 0.8), (64, 32, 0.86), (400, 16, 0.87)]
)
def test_coverage_at_length(units, tokens, least):
    alone, widened, naive = coverage(1000, units=units, tokens=tokens, seed=1)
    print(f"\n{units} units of {tokens}: {alone:.3f}, with bias {widened:.3f}, iid {naive:.3f}")
    assert least <= alone <= 0.935
    assert alone <= widened <= 0.995


@pytest.mark.parametrize("name", known(4))
def test_a_verdict_of_convergence_is_right(name):
    """Whatever the sample: converged means near the truth, else the truth is within the bounds."""
    p = known(1000)[name]
    rng = np.random.default_rng(3)
    verdicts = []
    for draws in (128, 512, 2048, 8192, 32768, 131072):
        found = estimate(draws_of(rng.choice(1000, (64, draws // 64), p=p), alphabet=1000))
        verdicts.append(found.converged)
        if found.converged:
            assert abs(found.nats - true_nats(p)) < found.tolerance_nats
        assert found.least_nats <= true_nats(p) <= found.most_nats + 3 * found.se_nats
    assert verdicts[-1] and not verdicts[0]


@pytest.mark.slow
def test_intervals_of_what_is_called_converged_hold_the_truth():
    """Over sources and sizes of samples, those included where the verdict is only just given."""
    held = []
    for seed, size in itertools.product(range(12), (300, 3000)):
        rng = np.random.default_rng(seed)
        for p, ratio in itertools.product(known(size, seed).values(), (0.3, 1, 2, 4, 8, 16, 64)):
            ids = rng.choice(size, (64, max(1, int(size * ratio) // 64)), p=p)
            found = estimate(draws_of(ids, alphabet=size))
            assert found.least_nats <= true_nats(p) <= found.most_nats + 3 * found.se_nats
            if found.converged:
                held.append(abs(found.nats - true_nats(p)) < found.half_width_nats)
    print(f"\n{len(held)} converged, {np.mean(held):.1%} of their intervals hold the truth")
    assert len(held) > 400 and np.mean(held) >= 0.9


def test_estimates_do_not_depend_on_names_and_curves_are_nested():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 50, (40, 30))
    names = rng.integers(0, 2**62, 50)
    one, two = (estimate(draws_of(x, alphabet=2.0**62)) for x in (ids, names[ids]))
    assert one.by_estimator_nats == pytest.approx(two.by_estimator_nats, rel=1e-12)
    assert one.se_nats == pytest.approx(two.se_nats, rel=1e-9)
    assert [point.units for point in one.curve] == [1, 2, 5, 10, 20, 40]
    for point in one.curve:
        first = counts_of_counts(np.bincount(ids[: point.units].ravel()))
        for by in Estimator:
            expected = entropy_nats(first, alphabet=2.0**62, by=by)
            assert point.entropy_nats[by] == pytest.approx(expected, rel=1e-12)


def test_jackknife_equals_leaving_groups_out_by_hand():
    ids = np.random.default_rng(0).integers(0, 9, (11, 6))
    found = estimate(draws_of(ids, alphabet=9))
    bounds = [11 * group // 8 for group in range(9)]
    left_out = []
    for start, stop in itertools.pairwise(bounds):
        kept = np.concatenate([ids[:start], ids[stop:]])
        counts = counts_of_counts(np.bincount(kept.ravel()))
        left_out.append(entropy_nats(counts, alphabet=9, by=HEADLINE))
    np.testing.assert_allclose(found.left_out_nats, left_out, rtol=1e-12)
    mean = sum(left_out) / 8
    expected = math.sqrt(7 / 8 * sum((x - mean) ** 2 for x in left_out))
    assert standard_error(np.array(left_out)) == pytest.approx(expected)


def test_pairs_and_too_few_units():
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 5, (2, 9, 4))
    found = paired(draws_of(left, alphabet=5), draws_of(right, alphabet=5))
    assert found.alphabet == 25
    expected = np.unique(left * 5 + right, return_counts=True)[1]
    np.testing.assert_array_equal(found.counts, expected)
    with pytest.raises(LabError, match="7 images or blocks: an error needs at least 8"):
        estimate(draws_of(left[:7], alphabet=5))
