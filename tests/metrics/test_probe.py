"""Probes against scikit-learn, closed forms and NumPy; what their intervals cover."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from lab.core.errors import LabError
from lab.metrics import lars, probe
from lab.metrics.interval import wilson
from lab.metrics.logistic import LogisticProblem
from lab.metrics.probe import PENALTIES, Probe, paired_difference, ridge_probe, sgd_probe

HOW = {"level": 0.9, "seed": 0}


def clouds(images, *, classes=3, features=12, apart=1.0, seed=0):
    """Features of several scales and correlations around a centre of each class; uneven classes."""
    rng = np.random.default_rng(seed)
    label_N = np.minimum(rng.geometric(0.4, images) - 1, classes - 1)
    mixing_FF = rng.standard_normal((features, features)) * 0.7 ** np.arange(features)[:, None]
    centre_KF = apart * rng.standard_normal((classes, features))
    return (centre_KF[label_N] + rng.standard_normal((images, features))) @ mixing_FF, label_N


def standardised(x_NF):
    return (x_NF - x_NF.mean(0)) / x_NF.std(0)


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4, 1e-6, PENALTIES[-1]])
def test_the_solution_is_that_of_scikit_learn(penalty):
    """Its objective, C sum of nats + |W|^2 / 2, is ours over lambda where C = 1 / (N lambda)."""
    x_NF, label_N = clouds(300)
    x_NF = standardised(x_NF)
    tolerance = min(1e-7, 1e-2 * penalty)  # weights are off by at most the gradient over lambda
    ours = LogisticProblem(x_NF, label_N).solve(penalty, tolerance=tolerance)
    theirs = LogisticRegression(
        C=1 / (300 * penalty), tol=1e-12, max_iter=1000, solver="newton-cholesky"
    )
    theirs.fit(x_NF, label_N)
    near = {"rtol": 1e-3, "atol": 1e-4 * max(1.0, np.abs(theirs.coef_).max())}
    np.testing.assert_allclose(ours.weight_FK, theirs.coef_.T, **near)
    offset_K = theirs.intercept_ - theirs.intercept_.mean()
    np.testing.assert_allclose(ours.offset_K - ours.offset_K.mean(), offset_K, **near)
    assert ours.gradient_norm <= tolerance and np.ptp(ours.offset_K) > 0.3
    np.testing.assert_array_equal(ours.predicted(x_NF), theirs.predict(x_NF))


def test_two_points_by_hand():
    """x = -1 and 1 of two classes: lambda a = 1 / (1 + exp(2 a)) with weights -a and a."""
    x_NF, label_N = np.array([[-1.0], [1.0]] * 5), np.array([0, 1] * 5)
    solved = LogisticProblem(x_NF, label_N).solve(0.03, tolerance=1e-8)
    a = brentq(lambda a: 0.03 * a - 1 / (1 + math.exp(2 * a)), 0, 10)
    np.testing.assert_allclose(solved.weight_FK, [[-a, a]], rtol=1e-6)
    assert solved.nats(x_NF, label_N) == pytest.approx(math.log(1 + math.exp(-2 * a)))


def test_another_start_leads_to_the_same_minimum():
    x_NF, label_N = clouds(200)
    problem = LogisticProblem(standardised(x_NF), label_N)
    zero = problem.solve(1e-3, tolerance=1e-8)
    warm = problem.solve(1e-3, tolerance=1e-8, start=problem.solve(1.0, tolerance=1e-8))
    np.testing.assert_allclose(warm.weight_FK, zero.weight_FK, atol=1e-5)
    again = problem.solve(1e-3, tolerance=1e-7, start=zero)
    assert again.iterations <= 1  # it starts where it left


def test_a_gradient_that_stays_is_an_error(monkeypatch):
    monkeypatch.setattr("lab.metrics.logistic.MOST_ITERATIONS", 3)
    x_NF, label_N = clouds(200)
    with pytest.raises(LabError, match=r"gradient norm .* after 3 iterations at lambda = 1.0e-04"):
        LogisticProblem(standardised(x_NF), label_N).solve(1e-4, tolerance=1e-6)


def test_ridge_is_scikit_learn_at_the_penalty_that_the_held_out_fifth_prefers():
    x_NF, label_N = clouds(400, apart=0.3)
    train, rest = slice(0, 250), slice(250, None)
    found = ridge_probe(x_NF[train], label_N[train], x_NF[rest], label_N[rest], classes=3, **HOW)
    held_N = probe._held_out(label_N[train], 0)
    counts = np.bincount(label_N[train])
    assert np.bincount(label_N[train][held_N]).tolist() == (counts // 5).tolist()

    def fitted(x, label, penalty):
        strength = 1 / (len(x) * penalty)
        return LogisticRegression(C=strength, solver="newton-cholesky").fit(x, label)

    mean, std = x_NF[train][~held_N].mean(0), x_NF[train][~held_N].std(0)
    scaled, label = (x_NF[train] - mean) / std, label_N[train]
    nats = []
    for penalty in PENALTIES:
        log_p = fitted(scaled[~held_N], label[~held_N], penalty).predict_log_proba(scaled[held_N])
        nats.append(-log_p[np.arange(held_N.sum()), label[held_N]].mean())
    assert found.penalty == PENALTIES[int(np.argmin(nats))] and not found.penalty_at_edge
    mean, std = x_NF[train].mean(0), x_NF[train].std(0)
    theirs = fitted((x_NF[train] - mean) / std, label, found.penalty)
    correct_M = theirs.predict((x_NF[rest] - mean) / std) == label_N[rest]
    np.testing.assert_array_equal(found.correct_M, correct_M)
    assert found.top1 == wilson(int(correct_M.sum()), 150, 0.9)
    assert found.gradient_norm <= 1e-6 and found.method == "ridge" and found.iterations > 0


@pytest.mark.parametrize(
    ("apart", "least", "most", "edge"),
    [(1.0, 5e-7, 2e-6, False), (0.0, 10.0, 10.0, True), (5.0, 1e-7, 1e-7, True)],
)
def test_a_penalty_below_those_of_a_rough_fit_is_found_and_an_edge_is_said(
    apart, least, most, edge
):
    """Nearly separable classes prefer 1e-6 (scikit-learn: .1800 nats, .1821 at 3e-6 and 3e-7)."""
    x_NF, label_N = clouds(1000, apart=apart)
    found = ridge_probe(x_NF, label_N, x_NF, label_N, classes=3, **HOW)
    assert found.penalty is not None and least <= found.penalty <= most
    assert found.penalty_at_edge == edge
    assert found.gradient_norm is not None and found.gradient_norm <= 1e-6


def test_penalties_are_compared_within_a_hundred_thousandth_of_a_nat():
    """From the largest on, each from the last; a gradient of 1e-4 alone ends 1e-5 too high."""
    x_NF, label_N = clouds(300)
    x_NF = standardised(x_NF)
    problem = LogisticProblem(x_NF, label_N)

    def above(penalty, found):
        exact = problem.solve(penalty, tolerance=min(1e-8, 1e-2 * penalty))
        nats, least = (each.nats(x_NF, label_N) for each in (found, exact))
        squares = np.sum(found.weight_FK**2) - np.sum(exact.weight_FK**2)
        return nats - least + penalty / 2 * squares

    solved = None
    for penalty in PENALTIES:
        solved = problem.solve(penalty, tolerance=probe.rough_tolerance(penalty), start=solved)
        assert -1e-12 < above(penalty, solved) < probe.ROUGH_NATS
    start = problem.solve(PENALTIES[-2], tolerance=1e-9)
    careless = problem.solve(PENALTIES[-1], tolerance=probe.ROUGH_TOLERANCE, start=start)
    assert above(PENALTIES[-1], careless) > probe.ROUGH_NATS


PROBES = [ridge_probe, sgd_probe]


@pytest.mark.parametrize("run", PROBES)
def test_two_gaussians_reach_the_accuracy_of_the_best_rule(run):
    """Phi(d / 2) at centres d apart, d = 2: .841; whatever the scale and place of features."""
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 6000)
    x = rng.standard_normal((6000, 8))
    x[:, 0] += 2 * label
    x = np.concatenate([x @ np.linalg.qr(rng.standard_normal((8, 8)))[0], np.full((6000, 1), 7)], 1)
    found = []
    for scale, place in ((1, 0), (30, 1e4)):
        y = scale * x + place
        found.append(run(y[:2000], label[:2000], y[2000:], label[2000:], classes=2, **HOW))
    best = norm.cdf(1)
    error = math.sqrt(best * (1 - best) / 4000)
    assert all(abs(each.top1.value - best) < 3 * error + 0.006 for each in found)
    assert np.mean(found[0].correct_M == found[1].correct_M) > 0.995


@pytest.mark.parametrize("run", PROBES)
def test_features_that_say_nothing(run):
    rng = np.random.default_rng(4)
    x, label = rng.standard_normal((3000, 5)), rng.integers(0, 4, 3000)
    found = run(x[:1000], label[:1000], x[1000:], label[1000:], classes=4, **HOW)
    assert abs(found.top1.value - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 2000)


def test_a_class_without_training_images_is_never_predicted():
    x, label = clouds(200)
    kept = label != 1
    for run in PROBES:
        found = run(x[kept], label[kept], x, label, classes=5, **HOW)
        assert not np.any(found.correct_M[label == 1]) and found.top1.value > 0.4


def test_sgd_has_its_seed():
    x, label = clouds(500, apart=0.4)
    parts = x[:300], label[:300], x[300:], label[300:]
    first, same, other = (
        sgd_probe(*parts, classes=3, level=0.9, seed=seed).correct_M for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.mean(first == other) > 0.9
    assert sgd_probe(*parts, classes=3, **HOW).iterations == 90 * (300 // 4)


def test_steps_of_lars_against_numpy():
    """Three steps as torch has them: running variance unbiased, momentum before the rate."""
    rng = np.random.default_rng(5)
    state, update = lars.initial(jax.random.key(0), features=4, classes=3), jax.jit(lars.update)
    w, b = np.asarray(state.weight_FK, np.float64), np.zeros(3)
    m_w, m_b, mean, variance = np.zeros((4, 3)), np.zeros(3), np.zeros(4), np.ones(4)
    for rate in (0.5, 6.4, 2.0):
        x, label = 2 + 3 * rng.standard_normal((6, 4)), rng.integers(0, 3, 6)
        state = update(state, jnp.asarray(x, jnp.float32), jnp.asarray(label), rate)
        n = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
        p = np.exp(n @ w + b)
        d = (p / p.sum(1, keepdims=True) - np.eye(3)[label]) / 6
        d_w, d_b = n.T @ d, d.sum(0)
        m_w = 0.9 * m_w + 0.001 * np.sqrt((w**2).sum() / (d_w**2).sum()) * d_w
        m_b = 0.9 * m_b + d_b
        w, b = w - rate * m_w, b - rate * m_b
        mean = 0.9 * mean + 0.1 * x.mean(0)
        variance = 0.9 * variance + 0.1 * x.var(0, ddof=1)
    np.testing.assert_allclose(state.weight_FK, w, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.bias_K, b, rtol=1e-4, atol=1e-6)
    want = (x - mean) / np.sqrt(variance + 1e-6) @ w + b
    np.testing.assert_allclose(
        state.scores(jnp.asarray(x, jnp.float32)), want, rtol=1e-3, atol=1e-4
    )


def test_the_recipe_is_the_published_one_on_imagenet():
    recipe = lars.Recipe.of(1_281_167)
    assert (recipe.batch, recipe.steps_per_epoch, recipe.steps) == (16_384, 78, 90 * 78)
    rates = [float(recipe.rate(jnp.asarray(78 * epoch))) for epoch in (0, 5, 10, 50, 90)]
    np.testing.assert_allclose(rates, [0, 3.2, 6.4, 3.2, 0], atol=1e-5)


def judged(correct_M):
    return Probe(
        method="ridge", top1=wilson(1, 2, 0.9), correct_M=np.array(correct_M), iterations=1
    )


def test_paired_differences():
    """3 won, 1 lost of 10: (3 - 1) / 12 +- 1.6449 sqrt((5 / 12 - (2 / 12)^2) / 12)."""
    first = judged([True] * 8 + [False] * 2)
    second = judged([True] * 5 + [False] * 3 + [True] + [False])
    found = paired_difference(first, second, level=0.9)
    half = 1.644854 * math.sqrt((5 / 12 - (2 / 12) ** 2) / 12)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((2 / 12 - half, 2 / 12 + half), rel=1e-5)
    with pytest.raises(LabError, match="10 and 2"):
        paired_difference(first, judged([True, False]), level=0.9)


def test_paired_intervals_cover_and_are_narrower_than_unpaired_ones():
    """Accuracies .7 and .66 that agree on 90 % of 400 images; 90 % of 3000 intervals."""
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(3000):
        cell_M = rng.choice(4, 400, p=[0.63, 0.07, 0.03, 0.27])  # both, first, second, none
        pair = judged(cell_M < 2), judged((cell_M == 0) | (cell_M == 2))
        found = paired_difference(*pair, level=0.9)
        covered += found.low <= 0.04 <= found.high
    assert abs(covered / 3000 - 0.9) < 0.02
    widths = [i.high - i.low for i in (wilson(280, 400, 0.9), wilson(264, 400, 0.9))]
    assert found.high - found.low < 0.6 * math.hypot(*widths)


X, Y = clouds(40)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((X, Y[:-1], X, Y), r"shapes \(40, 12\), \(39,\)"),
        ((X, Y, X[:, :3], Y), r"\(40, 3\)"),
        ((X, Y, X[:0], Y[:0]), r"\(0, 12\)"),
        ((X, Y, X, Y + 1), "test labels 1 to 3: allowed are 0 to 2"),
        ((X, 0 * Y, X, Y), "one class only"),
        ((np.where(X == X.max(), np.nan, X), Y, X, Y), "training features: 1 are not finite"),
    ],
)
@pytest.mark.parametrize("run", PROBES)
def test_what_does_not_fit_is_refused(run, given, message):
    with pytest.raises(LabError, match=message):
        run(*given, classes=3, **HOW)


def test_a_penalty_needs_five_images_of_a_class():
    with pytest.raises(LabError, match="6 training images, fewer than 5 of every class"):
        ridge_probe(X[:6], np.array([0, 1, 2, 0, 1, 2]), X, Y, classes=3, **HOW)
